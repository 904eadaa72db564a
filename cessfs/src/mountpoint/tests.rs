//! Mounts as the kernel lists them, and directories as they are found.

use super::*;

const INFO: &[u8] = br"22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw
40 22 0:51 / /mnt/a\040b rw,nosuid shared:3 master:1 - fuse.cessfs cess://photos rw,user_id=0
41 22 0:52 / /mnt/auto rw - autofs systemd-1 rw
42 40 0:53 / /mnt/a\040b/inner rw - fuse.sshfs host: rw
43 22 0:51 /x/pro\040jects /mnt/pro\040jects rw,nosuid - fuse.cessfs /srv/cess\040fs/volumes/photos rw,user_id=0
malformed";

fn entries() -> Vec<MountEntry> {
    INFO.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

#[test]
fn mountinfo_is_read() {
    let mounts = entries();
    assert_eq!(mounts.len(), 5);
    let ours = mounted_at(&mounts, Path::new("/mnt/a b")).unwrap();
    assert_eq!(ours.volume().unwrap().as_str(), "photos");
    assert_eq!((ours.fs_type.as_str(), ours.minor), (FS_TYPE, 51));
    assert!(mounted_at(&mounts, Path::new("/mnt")).is_none());
    assert!(mounts[3].volume().is_none());
}

#[test]
fn a_path_belongs_to_the_deepest_mount() {
    let mounts = entries();
    let of = |p: &str| mount_of(&mounts, Path::new(p)).unwrap();
    assert_eq!(of("/mnt/a b/x/y").dir, PathBuf::from("/mnt/a b"));
    assert_eq!(of("/mnt/a b/inner/z").dir, PathBuf::from("/mnt/a b/inner"));
    assert_eq!(of("/etc").dir, PathBuf::from("/"));
    assert_eq!(path_within(&of("/mnt/a b/x/y"), Path::new("/mnt/a b/x/y")), b"/x/y");
    assert_eq!(path_within(&of("/mnt/a b"), Path::new("/mnt/a b")), b"/");
    let bound = "/mnt/pro jects";
    assert_eq!(of(bound).device(), of("/mnt/a b").device());
    assert_eq!(path_within(&of(bound), Path::new(bound)), b"/x/pro jects");
    let below = Path::new("/mnt/pro jects/scans");
    assert_eq!(path_within(&of(bound), below), b"/x/pro jects/scans");
}

#[test]
fn unusable_mount_points_are_told_apart() {
    let tmp = tempfile::tempdir().unwrap();
    let failure = |p: &Path| prepare(p).unwrap_err();
    assert!(failure(&tmp.path().join("none")).what.contains("does not exist"));
    let file = tmp.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(failure(&file).what.contains("not a directory"));
    assert!(failure(tmp.path()).what.contains("not empty"));
    let proc = failure(Path::new("/proc"));
    assert_eq!(proc.exit, Exit::Mountpoint);
    assert!(proc.what.contains("already a mount point"), "{}", proc.what);
    let empty = tmp.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let found = prepare(&empty).unwrap();
    assert_eq!(found.path, empty.canonicalize().unwrap());
    let Beneath::Directory(held) = found.beneath else {
        panic!("{:?}", found.beneath)
    };
    // What is put there later is not hidden either.
    std::fs::write(empty.join("late"), "x").unwrap();
    let late = Beneath::Directory(held).clear(&found.path).unwrap_err();
    assert!(late.what.contains("not empty"), "{late}");
    std::fs::remove_file(empty.join("late")).unwrap();
    assert!(prepare(&empty).unwrap().beneath.clear(&found.path).unwrap().is_some());
    let gone = Beneath::DeadMount.clear(&found.path).unwrap_err();
    assert!(gone.what.contains("not there any more"), "{gone}");
}

#[test]
fn a_mount_point_that_was_exchanged_is_noticed_and_the_first_one_is_held() {
    let tmp = tempfile::tempdir().unwrap();
    let tmp = tmp.path().canonicalize().unwrap();
    let (dir, aside, other) = (tmp.join("dir"), tmp.join("aside"), tmp.join("other"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::create_dir(&other).unwrap();
    // A link that the user gives is followed once.
    std::os::unix::fs::symlink(&dir, tmp.join("given")).unwrap();
    let found = prepare(&tmp.join("given")).unwrap();
    let Beneath::Directory(held) = found.beneath else {
        panic!("{:?}", found.beneath)
    };
    assert_eq!(found.path, dir);
    held.is_still(&dir).unwrap();

    std::fs::rename(&dir, &aside).unwrap();
    assert_eq!(held.is_still(&dir).unwrap_err().exit, Exit::Mountpoint);
    std::os::unix::fs::symlink(&aside, &dir).unwrap();
    assert!(held.is_still(&dir).is_err(), "a link to the same directory is none");
    assert!(prepare_resolved(dir.clone()).is_err());
    std::fs::remove_file(&dir).unwrap();
    std::fs::rename(&other, &dir).unwrap();
    assert!(held.is_still(&dir).is_err());
    assert_eq!(std::fs::read_link(held.path()).unwrap(), aside);
}
