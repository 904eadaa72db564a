//! Sources in their order, and secrets on their way.

use super::*;

fn name() -> VolumeName {
    "v".parse().unwrap()
}

fn bytes(secret: Secret) -> (u8, Vec<u8>) {
    match secret {
        Secret::Passphrase(b) => (b'p', b.to_vec()),
        Secret::KeyFile(b) => (b'k', b.to_vec()),
    }
}

#[test]
fn order_of_sources() {
    let tmp = tempfile::tempdir().unwrap();
    let put = |file: &str, text: &str| {
        let path = tmp.path().join(file);
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut sources = Sources {
        key_file: Some(put("key", "k\n")),
        passphrase_file: Some(put("pw", "option\n")),
        environment: Some(put("env", "environment\r\n")),
        credentials: Some(tmp.path().to_owned()),
        ..Sources::default()
    };
    put("cessfs-passphrase", "general");
    put("cessfs-v", "own");
    let mut next = |drop: fn(&mut Sources)| {
        let found = bytes(sources.in_files(&name()).unwrap().unwrap());
        drop(&mut sources);
        found
    };
    assert_eq!(next(|s| s.key_file = None), (b'k', b"k\n".to_vec()));
    assert_eq!(next(|s| s.passphrase_file = None), (b'p', b"option".to_vec()));
    assert_eq!(next(|s| s.environment = None), (b'p', b"environment".to_vec()));
    assert_eq!(next(|_| ()), (b'p', b"own".to_vec()));
    std::fs::remove_file(tmp.path().join("cessfs-v")).unwrap();
    assert_eq!(
        bytes(sources.in_files(&name()).unwrap().unwrap()).1,
        b"general".to_vec()
    );
    sources.credentials = None;
    assert!(sources.in_files(&name()).unwrap().is_none());
}

#[test]
fn empty_and_oversized_files_are_refused() {
    let tmp = tempfile::tempdir().unwrap();
    for content in [
        String::new(),
        "\n".to_owned(),
        "x".repeat(limits::PASSPHRASE_BYTES_MAX + 1),
    ] {
        let path = tmp.path().join("pw");
        std::fs::write(&path, &content).unwrap();
        let sources = Sources {
            passphrase_file: Some(path),
            ..Sources::default()
        };
        assert_eq!(
            sources.in_files(&name()).err().unwrap().exit,
            Exit::Secret,
            "{} bytes",
            content.len()
        );
    }
}

#[test]
fn a_secret_survives_the_pipe() {
    let mut pipe = Vec::new();
    Secret::Passphrase(Zeroizing::new(b"pw".to_vec()))
        .send(&mut pipe)
        .unwrap();
    assert_eq!(
        bytes(Secret::receive(&mut pipe.as_slice()).unwrap()),
        (b'p', b"pw".to_vec())
    );
    assert!(Secret::receive(&mut [].as_slice()).is_err());
    assert!(Secret::receive(&mut b"zz".as_slice()).is_err());
}

#[test]
fn a_phrase_is_read_as_editors_write_it() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("phrase");
    let words = Phrase::generate(&mut OsEntropy).words().to_string();
    for text in [
        words.clone(),
        format!("{words}\n"),
        format!("\u{feff}{words}"),
        words.replace(' ', "\r\n"),
        words.to_uppercase(),
    ] {
        std::fs::write(&path, &text).unwrap();
        assert_eq!(read_phrase(&path).unwrap().words().to_string(), words);
    }
}
