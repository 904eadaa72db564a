use super::*;

fn full() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

/// A ballast that is whole; `None` where none can be.
fn whole(path: &Path) -> Option<Ballast> {
    let ballast = Ballast::at(path);
    ballast.keep();
    let is_whole = ballast.held.lock().bytes > 0;
    if !is_whole {
        println!("SKIPPED: the disk has no room to set aside, or its filesystem cannot");
    }
    is_whole.then_some(ballast)
}

/// Writes to a disk that takes something after so many pieces were given up.
fn write(ballast: &Ballast, pieces: u64) -> io::Result<()> {
    let mut left = pieces;
    ballast.write(|| match left {
        0 => Ok(()),
        _ => {
            left -= 1;
            Err(full())
        }
    })
}

#[test]
fn one_piece_after_the_other_is_given_up_until_none_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ballast");
    let Some(ballast) = whole(&path) else { return };
    let bytes = ballast.held.lock().bytes;
    assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);
    write(&ballast, 2).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes - 2 * BALLAST_STEP_BYTES);
    write(&ballast, bytes / BALLAST_STEP_BYTES - 2).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    assert!(write(&ballast, 1).unwrap_err().is_full());
    let other: Result<(), io::Error> = ballast.write(|| Err(io::Error::from_raw_os_error(libc::EIO)));
    assert!(other.is_err(), "only for want of room");
}

#[test]
fn while_it_is_broken_only_deletions_are_admitted_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ballast");
    let Some(ballast) = whole(&path) else { return };
    ballast.admit().unwrap();
    write(&ballast, 1).unwrap();
    assert!(ballast.broken.load(Ordering::Relaxed));
    // Nobody keeps it here, as where there is no room.
    let again = Ballast::at(&path);
    assert!(again.admit().unwrap_err().is_full());
    again.keep();
    again.admit().unwrap();
    let bytes = again.held.lock().bytes;
    assert_eq!(allocated(&File::open(&path).unwrap()), bytes, "it was made again");
}

#[test]
fn without_one_everything_is_admitted_and_nothing_is_made_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ballast");
    let ballast = Ballast::at(&path);
    ballast.make();
    ballast.make_room();
    ballast.admit().unwrap();
    assert!(write(&ballast, 1).unwrap_err().is_full());
    assert!(!path.exists());
}

#[test]
fn a_copy_that_is_all_hole_is_no_ballast() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ballast");
    if whole(&path).is_none() {
        return;
    }
    File::create(&path).unwrap().set_len(BALLAST_BYTES_MAX).unwrap();
    let copied = Ballast::at(&path);
    assert_eq!(copied.held.lock().bytes, 0);
    copied.keep();
    assert!(copied.held.lock().bytes > 0);
}
