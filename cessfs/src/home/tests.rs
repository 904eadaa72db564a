use super::*;

#[test]
fn names() {
    for good in ["a", "my-volume_2", "0", "cess://photos"] {
        assert!(good.parse::<VolumeName>().is_ok(), "{good}");
    }
    let long = "x".repeat(65);
    let cases = [
        ("", NameError::Empty),
        ("Photos", NameError::Character('P')),
        ("a/b", NameError::Character('/')),
        ("..", NameError::Character('.')),
        ("-o", NameError::Dash),
        (long.as_str(), NameError::TooLong(65)),
    ];
    for (text, error) in cases {
        assert_eq!(text.parse::<VolumeName>(), Err(error), "{text}");
    }
}

#[test]
fn home_by_user() {
    let (xdg, home) = (|| Some(PathBuf::from("/x")), || Some(PathBuf::from("/h")));
    assert_eq!(choose(Some(Path::new("/g")), true, xdg(), home()), Some("/g".into()));
    assert_eq!(
        choose(Some(Path::new("")), false, xdg(), home()),
        Some("/x/cessfs".into())
    );
    assert_eq!(choose(None, true, None, home()), Some("/var/lib/cessfs".into()));
    assert_eq!(choose(None, false, None, home()), Some("/h/.local/share/cessfs".into()));
    assert_eq!(choose(None, false, None, None), None);
}

#[test]
fn a_volume_is_made_once_and_locked_once() {
    let tmp = tempfile::tempdir().unwrap();
    let home = Home(tmp.path().to_owned());
    let name: VolumeName = "v".parse().unwrap();
    assert_eq!(home.existing(&name).unwrap_err().exit, Exit::NoVolume);
    let dir = home.volume(&name);
    dir.create().unwrap();
    assert_eq!(dir.create().unwrap_err().exit, Exit::Exists);
    let mode = std::fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);
    write_new(&dir.config(), b"x").unwrap();
    assert_eq!(write_new(&dir.config(), b"y").unwrap_err().exit, Exit::Exists);
    assert_eq!(
        std::fs::metadata(dir.config()).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(home.names().unwrap(), vec![name]);

    let held = dir.lock().unwrap();
    let refused = dir.lock().unwrap_err();
    assert_eq!(refused.exit, Exit::Busy);
    assert!(
        refused.what.contains(&std::process::id().to_string()),
        "{}",
        refused.what
    );
    assert!(dir.is_locked());
    drop(held);
    assert!(!dir.is_locked());
}

#[test]
fn nothing_is_written_through_a_link() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = Home(tmp.path().to_owned()).volume(&"v".parse().unwrap());
    dir.create().unwrap();
    let victim = tmp.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    for name in ["lock", "last-status.new"] {
        std::os::unix::fs::symlink(&victim, dir.path().join(name)).unwrap();
    }
    assert!(dir.lock().is_err() && !dir.is_locked());
    assert!(replace(&dir.last_status(), b"{}").is_err());
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
}

#[test]
fn who_replaces_a_file_at_once_with_others_replaces_it() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("keys.json");
    std::thread::scope(|scope| {
        for n in 1..=8 {
            let path = &path;
            scope.spawn(move || (0..20).for_each(|_| replace(path, "x".repeat(n * 100).as_bytes()).unwrap()));
        }
    });
    let whole = std::fs::read(&path).unwrap();
    assert!(!whole.is_empty() && whole.len().is_multiple_of(100), "{}", whole.len());
    assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 1);
}

#[test]
fn a_text_is_read_to_its_bound_and_no_further() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("text");
    std::fs::write(&path, "12345").unwrap();
    assert_eq!(read_text(&path, 5).unwrap().as_deref(), Some("12345"));
    assert_eq!(read_text(&path, 4).unwrap(), None);
    // It says that it is empty, and never ends.
    assert_eq!(read_text(Path::new("/dev/zero"), 1 << 16).unwrap(), None);
    std::fs::write(&path, b"\xff").unwrap();
    assert_eq!(read_text(&path, 4).unwrap_err().exit, Exit::Config);
}
