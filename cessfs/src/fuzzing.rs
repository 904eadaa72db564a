//! What hostile bytes must not do to the configuration, to mount options, and to the control socket.
//!
//! Each function takes any input and panics where a promise is broken. They run over `fuzz/corpus` in the tests below, and
//! under cargo-fuzz.

use crate::config::VolumeConfig;
use crate::control::{Answer, PROTOCOL, Request, decode, decode_request, encode};
use crate::home::VolumeName;
use crate::limits::CONTROL_LINE_MAX;
use crate::options::MountOptions;
use crate::{moment, units};

/// `volume.toml`: refused with a reason, or the same configuration when it is written and read again.
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match VolumeConfig::parse(text) {
        Ok(config) => {
            let written = config.to_toml();
            let again =
                VolumeConfig::parse(&written).unwrap_or_else(|e| panic!("what was written is refused: {e}\n{written}"));
            assert_eq!(again, config);
        }
        Err(failure) => assert!(!failure.what.is_empty()),
    }
}

/// What stands on the command line and in fstab: mount options, a volume's name, a size, a time span, a point in time.
pub fn options(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match MountOptions::parse(&[text.to_owned()]) {
        Ok(options) => assert_eq!(
            MountOptions::parse(&[text.to_owned()]).ok(),
            Some(options),
            "the same again"
        ),
        Err(failure) => assert!(!failure.what.is_empty()),
    }
    if let Ok(name) = text.parse::<VolumeName>() {
        assert_eq!(name.as_str().parse::<VolumeName>().as_ref(), Ok(&name));
        assert!(
            !name.as_str().contains(['/', '.', '\0']),
            "a name is one part of a path"
        );
    }
    if let Ok(bytes) = units::parse_bytes(text) {
        assert_eq!(units::parse_bytes(&bytes.to_string()), Ok(bytes));
    }
    let _ = units::parse_duration(text);
    if let Some(seconds) = moment::parse(text) {
        assert_eq!(moment::parse(&moment::format(seconds)), Some(seconds));
    }
}

/// A line on the control socket, from a client and from a daemon: refused, or the same when it is sent again.
pub fn control(input: &[u8]) {
    assert!(input.len() <= CONTROL_LINE_MAX || decode_request(input).is_err());
    if let Ok(op) = decode_request(input) {
        let line = encode(&Request {
            v: PROTOCOL,
            op: op.clone(),
        });
        let again = decode_request(&line[..line.len() - 1]).unwrap_or_else(|e| panic!("what was sent is refused: {e}"));
        assert_eq!(again, op);
    }
    if let Ok(answer) = decode::<Answer>(input) {
        let line = encode(&answer);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
        assert_eq!(decode::<Answer>(&line).ok(), Some(answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Event, Op, Progress, QuotaChange, Reply, Status};
    use crate::exit::{Exit, Failure};
    use cessfs_fuzz::{Bound, Counting, replay, seeds};

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    /// A parsed document takes a few words for each byte of the text; a message of the TOML parser shows the line again.
    const BOUND: Bound = Bound {
        fixed: 128 << 10,
        per_byte: 256,
    };

    /// The parser keeps every error of a document until its end.
    const CONFIG_BOUND: Bound = Bound {
        per_byte: 1024,
        ..BOUND
    };

    #[test]
    fn configurations() {
        let whole = "version = 1\nrpc = \"ws://127.0.0.1:9944\"\nterritory = \"photos\"\naccount = \"cXabc\"\nat_rest = \"sealed\"\n\
                     created = 1790000000\ncache_size = \"3GiB\"\nwriteback_delay = \"1500ms\"\nkernel_cache = \"writeback\"\n\
                     log_level = \"info\"\n[store]\nbackend = \"redb\"\n[trash]\nkeep = \"1d\"\nmin_age = \"90s\"\n";
        assert!(VolumeConfig::parse(whole).is_ok());
        let least =
            "version = 1\nrpc = \"wss://a\"\nterritory = \"t\"\naccount = \"c\"\nat_rest = \"plain\"\ncreated = 0\n";
        assert!(VolumeConfig::parse(least).is_ok());
        let seed = |text: &str| text.as_bytes().to_vec();
        seeds(
            "config",
            &[
                ("whole", seed(whole)),
                ("least", seed(least)),
                ("unknown", seed("cache_sise = 1\n")),
            ],
        );
        replay("config", config, CONFIG_BOUND);
    }

    #[test]
    fn command_lines() {
        let seed = |text: &str| text.as_bytes().to_vec();
        seeds(
            "options",
            &[
                (
                    "fstab",
                    seed("rw,_netdev,noauto,x-systemd.automount,passphrase-file=/a\\,b,cache-size=2GiB"),
                ),
                (
                    "mount",
                    seed("key_file=/k,ro,writeback-delay=250ms,kernel-cache=none,home=/srv"),
                ),
                ("name", seed("cess://photos_2-b")),
                ("size", seed("1.5TiB")),
                ("span", seed("10m")),
                ("moment", seed("2026-11-22T19:30:15Z")),
            ],
        );
        replay("options", options, BOUND);
    }

    #[test]
    fn control_lines() {
        let request = |op| encode(&Request { v: PROTOCOL, op });
        let quota = Op::Quota {
            path_hex: Some("2f61".into()),
            change: QuotaChange::Set {
                bytes: Some(1 << 40),
                inodes: None,
            },
        };
        let status = Status {
            name: "v".into(),
            balance: Some(u128::MAX.to_string()),
            packs: [("confirmed".to_owned(), 3)].into(),
            ..Status::default()
        };
        seeds(
            "control",
            &[
                ("sync", request(Op::Sync { wait: true })),
                ("quota", request(quota)),
                ("trash", request(Op::TrashEmpty { ids: vec![7, u64::MAX] })),
                ("newer", br#"{"v":2,"op":{"teleport":{}}}"#.to_vec()),
                ("progress", encode(&Answer::Event(Event::Progress(Progress::default())))),
                ("status", encode(&Answer::Done(Reply::Status(Box::new(status))))),
                (
                    "failed",
                    encode(&Answer::Failed(Failure::new(Exit::Timeout, "x").hint("y"))),
                ),
            ],
        );
        replay("control", control, BOUND);
    }
}
