//! Both layouts against bytes in memory; the sealed one against tampering and power cuts.

use super::*;
use crate::fakes::bench::scratch;
use crate::fakes::{FakeEntropy, volume_keys};
use crate::limits::{BACKING_PART_CHUNKS, BLOCK_BYTES, TAG_TABLES_MAX};
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

const BLOCK: usize = BLOCK_BYTES as usize;
const STRIDE: usize = sealed::STRIDE_BYTES as usize;
const BOTH: [AtRest; 2] = [AtRest::Plain, AtRest::Sealed];

fn backing(dir: &Path, at_rest: AtRest, seed: u64) -> Arc<dyn Backing> {
    let entropy = Arc::new(Mutex::new(FakeEntropy::new(seed)));
    open(dir, at_rest, volume_keys().at_rest(), entropy).unwrap()
}

fn at(ino: u64, chunk: u64, block: usize) -> BlockAt {
    BlockAt { ino, chunk, block }
}

fn fill(byte: u8, blocks: usize) -> Vec<u8> {
    (0..blocks * BLOCK)
        .map(|index| byte.wrapping_add((index / BLOCK) as u8))
        .collect()
}

fn read(backing: &dyn Backing, at: BlockAt, blocks: usize) -> Result<Vec<u8>, BackingError> {
    let mut out = vec![0xEE; blocks * BLOCK];
    backing.read(at, &mut out).map(|()| out)
}

fn file_of(dir: &Path, ino: u64) -> PathBuf {
    dir.join(format!("{:02x}/{ino:016x}", ino % 256))
}

fn written(blocks: Range<usize>) -> BlockMap {
    let mut map = BlockMap::default();
    map.insert_range(blocks);
    map
}

#[test]
fn blocks_read_back_also_after_reopening_and_far_out() {
    for at_rest in BOTH {
        let dir = scratch();
        let last_chunk = (i64::MAX as u64) >> 20;
        let places = [
            at(5, 0, 0),
            at(5, 0, 200),
            at(5, BACKING_PART_CHUNKS - 1, 250),
            at(5, BACKING_PART_CHUNKS, 0),
            at(5, last_chunk, 250),
        ];
        let backing_1 = backing(dir.path(), at_rest, 1);
        for (index, place) in places.iter().enumerate() {
            backing_1.write(*place, &fill(index as u8 * 40, 6)).unwrap();
        }
        backing_1.sync(5).unwrap();
        drop(backing_1);
        let backing_2 = backing(dir.path(), at_rest, 2);
        for (index, place) in places.iter().enumerate() {
            assert_eq!(
                read(&*backing_2, *place, 6).unwrap(),
                fill(index as u8 * 40, 6),
                "{at_rest:?} {place:?}"
            );
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file_of(dir.path(), 5)), 0o600);
        assert_eq!(mode(file_of(dir.path(), 5).parent().unwrap()), 0o700);
    }
}

#[test]
fn what_the_disk_holds_is_found_in_every_part() {
    for at_rest in BOTH {
        let dir = scratch();
        let backing = backing(dir.path(), at_rest, 1);
        let far = (i64::MAX as u64) >> 20;
        let places = [(3, 2..7), (BACKING_PART_CHUNKS + 1, 0..1), (far, 250..256)];
        for (chunk, blocks) in &places {
            let data = fill(1, blocks.len());
            backing.write(at(5, *chunk, blocks.start), &data).unwrap();
        }
        let mut from = 0;
        for (chunk, blocks) in places {
            assert_eq!(
                backing.next_held(5, from).unwrap(),
                Some((chunk, written(blocks))),
                "{at_rest:?}"
            );
            from = chunk + 1;
        }
        assert_eq!(backing.next_held(5, from).unwrap(), None);
        assert_eq!(backing.next_held(6, 0).unwrap(), None, "there is no such file");
    }
}

/// The places of `docs/FORMAT-cache.md`'s worked example: a promise to whoever reads a cache without us.
#[test]
fn the_worked_example_of_the_format_document() {
    let dir = scratch();
    let backing = backing(dir.path(), AtRest::Sealed, 1);
    let mut content = vec![7; 2 * BLOCK];
    content[6000..].fill(0);
    backing.write(at(5, 0, 0), &content).unwrap();
    backing.sync(5).unwrap();
    let synced = fs::read(dir.path().join("05/0000000000000005")).unwrap();
    content[5000] = 8;
    backing.write(at(5, 0, 1), &content[BLOCK..]).unwrap();
    let file = fs::read(dir.path().join("05/0000000000000005")).unwrap();

    let version = |entry: usize| u32::from_le_bytes(file[entry + 28..entry + 32].try_into().unwrap());
    assert_eq!([0x0000, 0x0020, 0x2000, 0x2020].map(version), [1, 1, 0, 2]);
    // What was synced stays; the new version is in the other slot, whose first block was never written.
    assert_eq!(file[0x4000..0x6000], synced[0x4000..0x6000]);
    assert!(file[0x4000..0x5000].iter().any(|byte| *byte != 0));
    assert!(file[0x104000..0x105000].iter().all(|byte| *byte == 0));
    assert!(file[0x105000..0x106000].iter().any(|byte| *byte != 0));
    assert_eq!(read(&*backing, at(5, 0, 0), 2).unwrap(), content);
}

#[test]
fn space_is_counted_given_back_and_gone_with_the_file() {
    for at_rest in BOTH {
        let dir = scratch();
        let backing = backing(dir.path(), at_rest, 1);
        backing.write(at(9, 0, 0), &fill(1, 256)).unwrap();
        backing.write(at(9, BACKING_PART_CHUNKS + 3, 0), &fill(1, 256)).unwrap();
        let full = backing.used_bytes();
        assert!(full >= 2 << 20, "{at_rest:?}: {full}");
        backing.sync(9).unwrap();
        backing.punch(9, 0, 0..256).unwrap();
        assert!(
            backing.used_bytes() <= full - (1 << 20) + 65536,
            "{at_rest:?}: {}",
            backing.used_bytes()
        );
        let mut seen = Vec::new();
        backing.recount(&mut |file| seen.push((file.ino, file.bytes))).unwrap();
        assert_eq!(seen, vec![(9, backing.used_bytes())]);
        backing.remove(9).unwrap();
        backing.remove(9).unwrap();
        assert_eq!(backing.used_bytes(), 0);
        backing.recount(&mut |file| panic!("{file:?} is still there")).unwrap();
    }
}

#[test]
fn sealed_files_hold_no_plaintext_and_sequential_writes_stay_in_order() {
    let dir = scratch();
    let backing = backing(dir.path(), AtRest::Sealed, 1);
    backing.write(at(3, 0, 0), &vec![b'A'; 128 * BLOCK]).unwrap();
    backing.write(at(3, 0, 128), &vec![b'A'; 128 * BLOCK]).unwrap();
    let raw = fs::read(file_of(dir.path(), 3)).unwrap();
    assert!(!raw.windows(16).any(|window| window == [b'A'; 16]));
    assert_eq!(raw.len(), tags::TABLE_BYTES + (1 << 20), "everything is in slot A");
}

#[test]
fn any_flipped_byte_is_damage_never_other_data() {
    let dir = scratch();
    let backing_1 = backing(dir.path(), AtRest::Sealed, 1);
    backing_1.write(at(3, 0, 0), &fill(1, 2)).unwrap();
    backing_1.sync(3).unwrap();
    backing_1.write(at(3, 0, 0), &fill(7, 2)).unwrap();
    backing_1.sync(3).unwrap();
    drop(backing_1);
    let path = file_of(dir.path(), 3);
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    let slot_b = tags::TABLE_BYTES + (1 << 20);
    // Every byte of block 0's current entry, and a sample of its data.
    let entry_b = 256 * tags::ENTRY_BYTES;
    let places = (entry_b..entry_b + tags::ENTRY_BYTES).chain((slot_b..slot_b + BLOCK).step_by(61));
    for place in places {
        let mut byte = [0];
        file.read_exact_at(&mut byte, place as u64).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], place as u64).unwrap();
        let backing_2 = backing(dir.path(), AtRest::Sealed, 2);
        match read(&*backing_2, at(3, 0, 0), 1) {
            Err(BackingError::Damaged(found)) => assert_eq!(found, at(3, 0, 0)),
            other => panic!("byte {place}: {:?}", other.map(|data| data[0])),
        }
        assert_eq!(
            read(&*backing_2, at(3, 0, 1), 1).unwrap(),
            fill(8, 1),
            "its neighbour is untouched"
        );
        file.write_all_at(&byte, place as u64).unwrap();
    }
    assert_eq!(
        read(&*backing(dir.path(), AtRest::Sealed, 3), at(3, 0, 0), 2).unwrap(),
        fill(7, 2)
    );
}

#[test]
fn a_block_moved_elsewhere_does_not_open() {
    let dir = scratch();
    let backing_1 = backing(dir.path(), AtRest::Sealed, 1);
    backing_1.write(at(3, 0, 0), &fill(1, 1)).unwrap();
    backing_1.write(at(3, 1, 0), &fill(2, 1)).unwrap();
    drop(backing_1);
    // The first chunk's whole stride over the second's.
    let path = file_of(dir.path(), 3);
    let raw = fs::read(&path).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&raw[..tags::TABLE_BYTES + BLOCK], STRIDE as u64)
        .unwrap();
    let backing_2 = backing(dir.path(), AtRest::Sealed, 2);
    assert!(matches!(
        read(&*backing_2, at(3, 1, 0), 1),
        Err(BackingError::Damaged(_))
    ));
    assert_eq!(read(&*backing_2, at(3, 0, 0), 1).unwrap(), fill(1, 1));
}

/// The file as a power cut could leave it: of the sectors that differ between `durable` and `newest`, those the mask picks.
fn torn(durable: &[u8], newest: &[u8], mask: u64) -> Vec<u8> {
    let mut image = durable.to_vec();
    image.resize(newest.len().max(durable.len()), 0);
    let mut changed = 0;
    for start in (0..newest.len()).step_by(512) {
        let end = (start + 512).min(newest.len());
        if image[start..end] != newest[start..end] {
            if mask >> (changed % 64) & 1 == 1 {
                image[start..end].copy_from_slice(&newest[start..end]);
            }
            changed += 1;
        }
    }
    image
}

/// The kernel tells of a failure once: a later sync would succeed, and say so of what is not there.
#[test]
fn a_sync_that_failed_never_succeeds_later() {
    for at_rest in BOTH {
        let dir = scratch();
        let backing = backing(dir.path(), at_rest, 1);
        for ino in [5, 6] {
            backing.write(at(ino, 0, 0), &fill(1, 2)).unwrap();
        }
        // Its name cannot be made durable.
        let (home, away) = (dir.path().join("05"), dir.path().join("away"));
        fs::rename(&home, &away).unwrap();
        backing.sync(5).unwrap_err();
        fs::rename(&away, &home).unwrap();
        backing.sync(5).unwrap_err();
        backing.write(at(5, 0, 1), &fill(2, 1)).unwrap();
        backing.sync(5).unwrap_err();
        backing.sync_all().unwrap_err();
        backing.sync_disk().unwrap_err();
        backing.sync(6).unwrap();
        // What is new under the number is another file.
        backing.remove(5).unwrap();
        backing.write(at(5, 0, 0), &fill(3, 1)).unwrap();
        backing.sync(5).unwrap();
        backing.sync_all().unwrap();
    }
}

#[test]
fn whatever_a_power_cut_leaves_the_durable_version_survives() {
    // Rewritten once or several times after the sync, in either slot, with any subset of sectors on the disk.
    for (syncs, rewrites) in [(1, 1), (1, 3), (2, 1), (2, 2)] {
        let dir = scratch();
        let path = file_of(dir.path(), 3);
        let writer = backing(dir.path(), AtRest::Sealed, 1);
        for round in 0..syncs {
            writer.write(at(3, 0, 10), &fill(round * 50, 2)).unwrap();
            writer.sync(3).unwrap();
        }
        let durable = fs::read(&path).unwrap();
        for round in 0..rewrites {
            writer
                .write(at(3, 0, 10), &fill(101_u8.wrapping_add(round), 2))
                .unwrap();
        }
        let newest = fs::read(&path).unwrap();
        drop(writer);
        let old = fill((syncs - 1) * 50, 2);
        let new = fill(100_u8.wrapping_add(rewrites), 2);
        for mask in [
            0,
            u64::MAX,
            1,
            2,
            0xAAAA_AAAA_AAAA_AAAA,
            0x00FF_00FF_00FF_00FF,
            0xFFFF_FFFE,
            0x1_0000,
        ] {
            fs::write(&path, torn(&durable, &newest, mask)).unwrap();
            let after = backing(dir.path(), AtRest::Sealed, mask.wrapping_add(2));
            let lost = after.repair(3, 0, &written(10..12)).unwrap();
            assert!(
                lost.is_empty(),
                "{syncs} syncs, {rewrites} rewrites, mask {mask:x}: blocks were lost"
            );
            let found = read(&*after, at(3, 0, 10), 2).unwrap();
            for block in 0..2 {
                let block = block * BLOCK..(block + 1) * BLOCK;
                let found = &found[block.clone()];
                assert!(
                    found == &old[block.clone()] || found == &new[block],
                    "mask {mask:x}: neither old nor new"
                );
            }
            if mask == u64::MAX {
                assert_eq!(found, new);
            }
            // What was repaired is an ordinary block again, also for the next mount.
            after.write(at(3, 0, 10), &fill(200, 2)).unwrap();
            drop(after);
            assert_eq!(
                read(&*backing(dir.path(), AtRest::Sealed, 99), at(3, 0, 10), 2).unwrap(),
                fill(200, 2)
            );
        }
    }
}

#[test]
fn without_repair_an_older_version_is_never_returned() {
    let dir = scratch();
    let path = file_of(dir.path(), 3);
    let writer = backing(dir.path(), AtRest::Sealed, 1);
    writer.write(at(3, 0, 0), &fill(1, 1)).unwrap();
    writer.sync(3).unwrap();
    let before = fs::read(&path).unwrap();
    writer.write(at(3, 0, 0), &fill(2, 1)).unwrap();
    drop(writer);
    // The new tag reached the disk, the new data did not.
    let mut image = fs::read(&path).unwrap();
    image.truncate(before.len());
    image[tags::TABLE_BYTES..].copy_from_slice(&before[tags::TABLE_BYTES..]);
    fs::write(&path, image).unwrap();
    let after = backing(dir.path(), AtRest::Sealed, 2);
    assert!(matches!(read(&*after, at(3, 0, 0), 1), Err(BackingError::Damaged(_))));
    assert!(after.repair(3, 0, &written(0..1)).unwrap().is_empty());
    assert_eq!(read(&*after, at(3, 0, 0), 1).unwrap(), fill(1, 1));
}

#[test]
fn blocks_that_never_reached_the_disk_are_told() {
    let dir = scratch();
    let writer = backing(dir.path(), AtRest::Sealed, 1);
    writer.write(at(3, 0, 0), &fill(1, 1)).unwrap();
    let lost = writer.repair(3, 0, &written(0..3)).unwrap();
    assert_eq!(lost, written(1..3));
    assert_eq!(read(&*writer, at(3, 0, 0), 1).unwrap(), fill(1, 1));
}

#[test]
fn tidying_gives_back_older_versions_only() {
    let dir = scratch();
    let backing_1 = backing(dir.path(), AtRest::Sealed, 1);
    for byte in [1, 2] {
        backing_1.write(at(3, 0, 0), &fill(byte, 256)).unwrap();
        backing_1.sync(3).unwrap();
    }
    let both = backing_1.used_bytes();
    backing_1.write(at(3, 0, 0), &fill(3, 100)).unwrap();
    backing_1.tidy(3, 0).unwrap();
    assert!(
        backing_1.used_bytes() <= both - (1 << 20) + 65536,
        "{} of {both}",
        backing_1.used_bytes()
    );
    let expected = [fill(3, 100), fill(2, 256)[100 * BLOCK..].to_vec()].concat();
    assert_eq!(read(&*backing_1, at(3, 0, 0), 256).unwrap(), expected);
    drop(backing_1);
    assert_eq!(
        read(&*backing(dir.path(), AtRest::Sealed, 2), at(3, 0, 0), 256).unwrap(),
        expected
    );
}

#[test]
fn more_chunks_than_tables_fit_memory_lose_nothing() {
    let dir = scratch();
    let backing = backing(dir.path(), AtRest::Sealed, 1);
    let chunks = TAG_TABLES_MAX as u64 + 20;
    for round in 0..2_u8 {
        for chunk in 0..chunks {
            backing.write(at(1, chunk, 0), &fill(chunk as u8 ^ round, 1)).unwrap();
        }
    }
    for chunk in 0..chunks {
        assert_eq!(read(&*backing, at(1, chunk, 0), 1).unwrap(), fill(chunk as u8 ^ 1, 1));
    }
}

#[test]
fn who_wants_room_for_a_table_hears_nothing_of_another_files_failure() {
    let dir = scratch();
    let backing = backing(dir.path(), AtRest::Sealed, 1);
    backing.write(at(5, 0, 0), &fill(1, 1)).unwrap();
    // Its name cannot be made durable.
    let (home, away) = (dir.path().join("05"), dir.path().join("away"));
    fs::rename(&home, &away).unwrap();
    for chunk in 0..TAG_TABLES_MAX as u64 + 20 {
        backing.write(at(6, chunk, 0), &fill(2, 1)).unwrap();
    }
    fs::rename(&away, &home).unwrap();
    backing.sync(5).expect_err("whose failure it is");
    backing.sync(6).unwrap();
    assert_eq!(read(&*backing, at(5, 0, 0), 1).unwrap(), fill(1, 1));
}

#[test]
fn many_at_once_see_what_is_there() {
    for at_rest in BOTH {
        let dir = scratch();
        let first = backing(dir.path(), at_rest, 1);
        let places: Vec<BlockAt> = (1..5)
            .flat_map(|ino| (0..4).map(move |chunk| at(ino, chunk, 7)))
            .collect();
        for (index, place) in places.iter().enumerate() {
            first.write(*place, &fill(index as u8, 6)).unwrap();
        }
        first.sync_all().unwrap();
        drop(first);
        for round in 0..20 {
            // Nothing of it is in memory: all begin to open and to read the same things.
            let again = backing(dir.path(), at_rest, 2 + round);
            std::thread::scope(|scope| {
                for thread in 0..6 {
                    let (again, places) = (&again, &places);
                    scope.spawn(move || {
                        for step in 0..places.len() {
                            let index = (step + thread / 2) % places.len();
                            assert_eq!(read(&**again, places[index], 6).unwrap(), fill(index as u8, 6));
                        }
                    });
                }
            });
        }
    }
}

#[test]
fn what_cannot_be_read_is_read_once_it_can() {
    for at_rest in BOTH {
        let dir = scratch();
        let first = backing(dir.path(), at_rest, 1);
        first.write(at(5, 0, 0), &fill(3, 4)).unwrap();
        first.sync(5).unwrap();
        drop(first);
        let (file, aside) = (file_of(dir.path(), 5), dir.path().join("aside"));
        fs::rename(&file, &aside).unwrap();
        fs::create_dir(&file).unwrap();
        let again = backing(dir.path(), at_rest, 2);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert!(matches!(read(&*again, at(5, 0, 0), 4), Err(BackingError::Io(_)))));
            }
        });
        fs::remove_dir(&file).unwrap();
        fs::rename(&aside, &file).unwrap();
        assert_eq!(read(&*again, at(5, 0, 0), 4).unwrap(), fill(3, 4));
    }
}

#[test]
fn what_was_prepared_is_written_only_where_it_still_belongs() {
    const SLOT_A: u64 = 16 << 10;
    let dir = scratch();
    let backing_1 = backing(dir.path(), AtRest::Sealed, 1);
    let place = at(5, 0, 3);
    let ready = backing_1.prepare(place, &fill(1, 8)).unwrap();
    backing_1.write_prepared(place, &fill(1, 8), ready).unwrap();
    assert_eq!(read(&*backing_1, place, 8).unwrap(), fill(1, 8));

    // A write came between: a version of what was sealed is taken.
    let late = backing_1.prepare(place, &fill(2, 8)).unwrap();
    backing_1.write(at(5, 0, 5), &fill(9, 1)).unwrap();
    backing_1.write_prepared(place, &fill(2, 8), late).unwrap();
    assert_eq!(read(&*backing_1, place, 8).unwrap(), fill(2, 8));

    // A sync came between: what was sealed for slot A must leave it alone now.
    let late = backing_1.prepare(place, &fill(3, 8)).unwrap();
    backing_1.sync(5).unwrap();
    let slot_a = || {
        let mut bytes = vec![0; 8 * BLOCK];
        let file = fs::File::open(file_of(dir.path(), 5)).unwrap();
        file.read_exact_at(&mut bytes, SLOT_A + 3 * BLOCK as u64).unwrap();
        bytes
    };
    let durable = slot_a();
    backing_1.write_prepared(place, &fill(3, 8), late).unwrap();
    assert_eq!(slot_a(), durable);
    drop(backing_1);
    let backing_2 = backing(dir.path(), AtRest::Sealed, 2);
    assert_eq!(read(&*backing_2, place, 8).unwrap(), fill(3, 8));
}

/// Bytes that a disk still takes: of data, and of entries.
type Room = Arc<Mutex<(usize, usize)>>;

/// A disk of which the room ends at a moment that the test chooses: of data, of entries, or never.
fn narrow_disk(dir: &Path) -> (Arc<dyn Backing>, Room) {
    let room = Arc::new(Mutex::new((usize::MAX, usize::MAX)));
    let left = room.clone();
    let takes = move |offset: u64, len: usize| {
        let mut left = left.lock();
        let of_entries = offset % sealed::STRIDE_BYTES < tags::TABLE_BYTES as u64;
        let left = if of_entries { &mut left.1 } else { &mut left.0 };
        let taken = len.min(*left);
        *left -= taken;
        taken
    };
    let entropy = Arc::new(Mutex::new(FakeEntropy::new(1)));
    let backing = open_sealed_on(dir, volume_keys().at_rest(), entropy, Arc::new(takes)).unwrap();
    (backing, room)
}

/// Old and new share a run in the slot where neither is durable. What got through is new, and the rest is as it was.
#[test]
fn a_write_that_the_disk_has_no_room_for_destroys_nothing() {
    for durable in [false, true] {
        let dir = scratch();
        let (backing, room) = narrow_disk(dir.path());
        backing.write(at(5, 0, 0), &fill(1, 128)).unwrap();
        if durable {
            backing.sync(5).unwrap();
        }
        *room.lock() = (100_000, usize::MAX);
        assert!(matches!(
            backing.write(at(5, 0, 127), &fill(200, 64)),
            Err(BackingError::Io(_))
        ));
        let there = 100_000 / BLOCK;
        let block = read(&*backing, at(5, 0, 127), 1).unwrap();
        assert!(block == fill(200, 1) || block == fill(128, 1), "durable: {durable}");
        assert_eq!(read(&*backing, at(5, 0, 126), 1).unwrap(), fill(127, 1));
        *room.lock() = (usize::MAX, usize::MAX);
        backing.sync(5).unwrap();
        // It goes on from there, and the disk has what memory says.
        backing.write(at(5, 0, 127 + there), &fill(9, 2)).unwrap();
        backing.sync(5).unwrap();
        let again = self::backing(dir.path(), AtRest::Sealed, 2);
        assert_eq!(read(&*again, at(5, 0, 127), 1).unwrap(), block);
        assert_eq!(read(&*again, at(5, 0, 127 + there), 2).unwrap(), fill(9, 2));
    }
}

/// Of a block that is torn in its slot, or of which the entry is missing, somebody may have a copy: he must not hear that the
/// backing file is safe.
#[test]
fn a_block_that_is_torn_where_it_was_not_durable_is_never_called_safe() {
    for (data, entries, torn) in [
        (BLOCK / 2, usize::MAX, true),
        (2 * BLOCK + 100, usize::MAX, true),
        (usize::MAX, 0, true),
        (usize::MAX, tags::ENTRY_BYTES + 7, true),
        (0, usize::MAX, false),
        (BLOCK, usize::MAX, false),
        (2 * BLOCK, usize::MAX, false),
    ] {
        let dir = scratch();
        let (backing, room) = narrow_disk(dir.path());
        backing.write(at(5, 0, 10), &fill(1, 3)).unwrap();
        backing.write(at(6, 0, 10), &fill(1, 3)).unwrap();
        *room.lock() = (data, entries);
        backing.write(at(5, 0, 10), &fill(50, 3)).unwrap_err();
        *room.lock() = (usize::MAX, usize::MAX);
        assert_eq!(backing.sync(5).is_err(), torn, "{data} bytes, {entries} of entries");
        assert_eq!(backing.sync_all().is_err(), torn);
        assert_eq!(read(&*backing, at(5, 0, 10), 3).is_err(), torn);
        backing.sync(6).unwrap();
        backing.remove(5).unwrap();
        backing.write(at(5, 0, 10), &fill(1, 3)).unwrap();
        backing.sync(5).unwrap();
    }
}
