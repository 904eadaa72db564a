//! Lines of the protocol.

use super::*;

#[test]
fn requests_round_trip() {
    for op in [
        Op::Status,
        Op::Timings,
        Op::Evict,
        Op::Explain {
            path_hex: "2f61".into(),
        },
        Op::Shutdown { sends: Sends::After },
        Op::SnapshotDiff {
            old: "monday".into(),
            new: None,
        },
        Op::Unsent,
        Op::TrashList,
        Op::Scrub {
            full: true,
            rate: Some(1 << 20),
        },
        Op::Repair,
        Op::Collect { dry_run: true },
        Op::TrashEmpty { ids: vec![7, u64::MAX] },
        Op::Quota {
            path_hex: None,
            change: QuotaChange::Set {
                bytes: Some(1 << 40),
                inodes: None,
            },
        },
        Op::SetLogLevel { level: LogLevel::Debug },
    ] {
        let line = encode(&Request {
            v: PROTOCOL,
            op: op.clone(),
        });
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        assert_eq!(decode_request(&line[..line.len() - 1]).unwrap(), op);
    }
}

#[test]
fn other_versions_and_garbage_are_refused() {
    let newer = br#"{"v":2,"op":{"teleport":{}}}"#;
    assert!(decode_request(newer).unwrap_err().what.contains("control protocol 1"));
    for line in [&b""[..], b"{}", b"[1]", b"\xff", br#"{"v":1,"op":"teleport"}"#] {
        assert_eq!(decode_request(line).unwrap_err().exit, Exit::Failed);
    }
    let long = vec![b' '; CONTROL_LINE_MAX + 1];
    assert!(decode_request(&long).unwrap_err().what.contains("too long"));
}

#[test]
fn answers_round_trip() {
    let chunk = ChunkPlace {
        index: 7,
        len: 1 << 20,
        pack: Some(PackPlace {
            miners: vec![MinerPlace::default(); 12],
            ..PackPlace::default()
        }),
        ..ChunkPlace::default()
    };
    let status = Status {
        name: "v".into(),
        balance: Some(u128::MAX.to_string()),
        ..Status::default()
    };
    for answer in [
        Answer::Event(Event::Chunk(Box::new(chunk))),
        Answer::Done(Reply::Status(Box::new(status))),
        Answer::Failed(Failure::new(Exit::Timeout, "x").hint("y")),
    ] {
        let line = encode(&answer);
        assert_eq!(decode::<Answer>(&line).unwrap(), answer);
    }
}
