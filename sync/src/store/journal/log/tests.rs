use super::*;
use crate::limits::JOURNAL_SEGMENT_BYTES;

const SETTINGS: LogSettings = LogSettings {
    segment_bytes: 4096,
    synced: true,
};
const EPOCH: u64 = 0x0102_0304_0506_0708;

struct Counter(u8);

impl cessfs_crypto::Entropy for Counter {
    fn fill(&mut self, out: &mut [u8]) {
        self.0 = self.0.wrapping_add(1);
        out.fill(self.0);
    }
}

fn sealer() -> Sealer {
    let keys = cessfs_crypto::Phrase::generate(&mut Counter(0))
        .secret()
        .volume_keys(cessfs_crypto::VolumeId([7; 16]))
        .at_rest();
    Sealer::new(keys, Box::new(Counter(9)))
}

fn change(number: u64) -> Changes {
    let value = (!number.is_multiple_of(3)).then(|| vec![number as u8; number as usize * 7].into());
    Changes::from([(format!("key {}", number % 5).into_bytes().into(), value)])
}

fn open(dir: &Path, epoch: u64) -> Log {
    Log::open(dir, SETTINGS, epoch).unwrap().unwrap()
}

/// Appends so many records to a log that is new in `dir`; tells where each ends.
fn fill(dir: &Path, records: u64, sealer: Option<&Sealer>) -> Vec<u64> {
    let mut log = open(dir, EPOCH);
    let ends = (1..=records).map(|number| {
        assert_eq!(log.append(&change(number), sealer).unwrap(), Append::Done);
        log.offset
    });
    let ends = ends.collect();
    log.begin_sync().expect("something was appended").sync().unwrap();
    assert!(log.begin_sync().is_none());
    ends
}

fn state(applied: u64) -> LogState {
    LogState {
        in_use: true,
        epoch: EPOCH,
        applied,
        segment_bytes: SETTINGS.segment_bytes,
    }
}

/// What the records from `first` to `last` come to.
fn sum(first: u64, last: u64) -> Changes {
    (first..=last).flat_map(change).collect()
}

fn check(dir: &Path, applied: u64, last: u64, sealer: Option<&Sealer>) {
    let replay = read(dir, &state(applied), sealer).unwrap();
    assert_eq!(replay.last, last);
    assert_eq!(replay.changes, sum(applied + 1, last));
}

#[test]
fn what_was_appended_is_read_back_from_where_the_database_is() {
    for sealer in [None, Some(sealer())] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), 10, sealer.as_ref());
        for applied in 0..=10 {
            check(dir.path(), applied, 10, sealer.as_ref());
        }
        let before = read(dir.path(), &state(u64::MAX - 1), sealer.as_ref()).unwrap();
        assert!(before.changes.is_empty(), "a database that is further than its log");
    }
}

#[test]
fn a_record_that_is_torn_anywhere_is_not_there_and_neither_is_any_after_it() {
    for sealer in [None, Some(sealer())] {
        let dir = tempfile::tempdir().unwrap();
        let ends = fill(dir.path(), 6, sealer.as_ref());
        let path = dir.path().join(Log::FILE);
        let good = std::fs::read(&path).unwrap();
        for (number, window) in ends.windows(2).enumerate() {
            let (start, end) = (window[0] as usize, window[1] as usize);
            let before = number as u64 + 1;
            for at in start..end {
                let mut torn = good.clone();
                torn[at] ^= 0x41;
                std::fs::write(&path, &torn).unwrap();
                check(dir.path(), 0, before, sealer.as_ref());
                // The rest of it never reached the disk, and what lay there before was of another time.
                let mut cut = good.clone();
                cut[at..end].fill(0xEE);
                std::fs::write(&path, &cut).unwrap();
                check(dir.path(), 0, before, sealer.as_ref());
            }
        }
    }
}

#[test]
fn segments_take_turns_and_only_what_the_database_has_is_written_over() {
    for sealer in [None, Some(sealer())] {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path(), EPOCH);
        let (mut applied, mut turns) = (0, 0);
        for number in 1..400 {
            if log.append(&change(number % 60), sealer.as_ref()).unwrap() == Append::Full {
                assert_eq!(log.may_turn(applied), turns == 0 || applied > 0);
                if !log.may_turn(applied) {
                    applied = log.last();
                }
                log.turn(applied);
                turns += 1;
                assert_eq!(log.append(&change(number % 60), sealer.as_ref()).unwrap(), Append::Done);
                applied = number - 1;
            }
            let replay = read(dir.path(), &state(applied), sealer.as_ref()).unwrap();
            assert_eq!(
                replay.last, number,
                "what the database lacks is there, over the turn too"
            );
        }
        assert!(turns > 5);
    }
}

#[test]
fn nothing_of_another_epoch_is_taken_for_what_comes_next() {
    for sealer in [None, Some(sealer())] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), 9, sealer.as_ref());
        let mut log = open(dir.path(), EPOCH + 1);
        let next = log.state(true, 0);
        assert_eq!(read(dir.path(), &next, sealer.as_ref()).unwrap().last, 0);
        for number in 1..4 {
            log.append(&change(number), sealer.as_ref()).unwrap();
            assert_eq!(read(dir.path(), &next, sealer.as_ref()).unwrap().last, number);
        }
    }
}

#[test]
fn a_sealed_record_opens_only_in_its_place_and_tells_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let sealer = sealer();
    let ends = fill(dir.path(), 3, Some(&sealer));
    let path = dir.path().join(Log::FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    assert!(!bytes.windows(4).any(|part| part == b"key "));
    // The second record under the third's number.
    let (second, third) = (ends[0] as usize, ends[1] as usize);
    let copy = bytes[second..third].to_vec();
    bytes[third..third + copy.len()].copy_from_slice(&copy);
    bytes[third + 16] = 3;
    std::fs::write(&path, bytes).unwrap();
    check(dir.path(), 0, 2, Some(&sealer));
}

#[test]
fn a_log_in_use_that_is_gone_or_cut_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 3, None);
    let path = dir.path().join(Log::FILE);
    File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
    assert!(matches!(read(dir.path(), &state(0), None), Err(StoreError::Corrupt(why)) if why.contains("length")));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(read(dir.path(), &state(0), None), Err(StoreError::Corrupt(why)) if why.contains("not there")));
}

#[test]
fn a_record_larger_than_a_segment_is_refused_and_a_disk_without_room_gets_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), EPOCH);
    let large = Changes::from([(b"k"[..].into(), Some(vec![1; 4096].into()))]);
    assert_eq!(log.append(&large, None).unwrap(), Append::TooLarge);
    assert_eq!(log.append(&change(1), None).unwrap(), Append::Done);
    let vast = LogSettings {
        segment_bytes: 1 << 60,
        synced: true,
    };
    let elsewhere = tempfile::tempdir().unwrap();
    assert!(Log::open(elsewhere.path(), vast, EPOCH).unwrap().is_none());
    assert_eq!(
        std::fs::read_dir(elsewhere.path()).unwrap().count(),
        0,
        "nothing was left behind"
    );
}

#[test]
fn the_state_reads_back_and_anything_else_is_refused() {
    let state = state(77);
    let bytes = state.encode();
    assert_eq!(LogState::decode(&bytes), Some(state));
    assert_eq!(LogState::decode(&bytes[..25]), None);
    assert_eq!(LogState::decode(&[&[2], &bytes[1..]].concat()), None);
    assert_eq!(LogState::decode(&[&[1, 2], &bytes[2..]].concat()), None);
}

#[test]
fn the_documented_example() {
    let changes = Changes::from([(b"ab"[..].into(), Some(b"cde"[..].into())), (b"x"[..].into(), None)]);
    let text = |bytes: &[u8]| {
        let spaced: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        spaced.join(" ")
    };
    let page = include_str!("../../../../../docs/FORMAT-log.md").replace('\n', " ");
    let record = text(&frame(EPOCH, 2, &encode(&changes), None));
    assert!(page.contains(&record), "{record}");
    let state = LogState {
        segment_bytes: JOURNAL_SEGMENT_BYTES,
        ..state(77)
    };
    let said = text(&state.encode());
    assert!(page.contains(&said), "{said}");
}

#[test]
fn whoever_begins_a_page_writes_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let settings = LogSettings {
        segment_bytes: 4 * PAGE_BYTES,
        synced: true,
    };
    let mut log = Log::open(dir.path(), settings, EPOCH).unwrap().unwrap();
    let bytes = 2 * settings.segment_bytes;
    log.file.write_all_at(&vec![0xff; bytes as usize], 0).unwrap();
    let (mut pages, mut ends) = (0, Vec::new());
    while pages < 3 {
        assert_eq!(log.append(&change(log.last + 1), None).unwrap(), Append::Done);
        ends.push(log.offset);
        pages = log.offset.div_ceil(PAGE_BYTES);
        let mut there = vec![0; bytes as usize];
        log.file.read_exact_at(&mut there, 0).unwrap();
        let (written, beyond) = there.split_at((pages * PAGE_BYTES) as usize);
        assert!(written[log.offset as usize..].iter().all(|byte| *byte == 0), "{ends:?}");
        assert!(beyond.iter().all(|byte| *byte == 0xff), "{ends:?}");
    }
    assert!(ends.len() > 12, "some begin no page: {ends:?}");
}
