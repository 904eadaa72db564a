//! Commands that are wrong, by a word or by a file: the code they end with, and what they say is right.

use anyhow::{Context, Result};
use cessfs_tests::process::{command, fail, output, succeed};
use cessfs_tests::{InitOptions, Network, Volume};
use std::path::Path;

/// A volume that a key file opens.
fn scene() -> Result<(tempfile::TempDir, Network, Volume)> {
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    Ok((dir, network, volume))
}

/// What is asked, the code it ends with, and what the message and its hint have to say.
#[test]
fn wrong_commands_end_with_their_codes_and_say_what_is_right() -> Result<()> {
    let (dir, _network, volume) = scene()?;
    let (at, passphrase) = (dir.path().join("mnt"), dir.path().join("passphrase"));
    std::fs::create_dir(&at)?;
    std::fs::write(&passphrase, "pw")?;
    let (at, file, secret) = (
        at.display(),
        format!("--passphrase-file={}", passphrase.display()),
        format!("passphrase-file={}", passphrase.display()),
    );
    let new = dir.path().join("new").display().to_string();
    let name = &volume.name;
    let wants_key = &["key file", "hint: give `--key-file file`"][..];
    let wants_this = &["no passphrase opens", "hint: give its key file: `--key-file file`"][..];
    let wants_either = &[
        "no terminal",
        "hint: give `--passphrase-file file` or `--key-file file`",
    ][..];
    let cases: &[(String, i32, &[&str])] = &[
        (
            format!("mount {name} {at} -o {secret}"),
            5,
            &["no passphrase opens", "`-o key-file=file`"],
        ),
        (
            format!("mount {name} {at}"),
            5,
            &["key file", "hint: give `-o key-file=file`"],
        ),
        (format!("fsck {name} {file}"), 5, wants_this),
        (format!("fsck {name}"), 5, wants_key),
        (format!("territory show {name} {file}"), 5, wants_this),
        (format!("territory show {name}"), 5, wants_key),
        (
            format!("init w --rpc ws://127.0.0.1:9 --new-phrase-file {new}"),
            5,
            wants_either,
        ),
        (
            format!("init w --rpc ws://bad%20host --new-phrase-file {new}"),
            6,
            &["no", "hint: it starts with ws://"],
        ),
        (format!("unmount {at}"), 9, &["no cessfs volume is mounted", "findmnt"]),
        (
            format!("umonut {at}"),
            3,
            &[
                "`umonut` is neither a verb nor a volume",
                "hint: did you mean `cessfs umount`?",
            ],
        ),
        (
            format!("photographs {at}"),
            3,
            &["neither a verb nor a volume", "`cessfs --help`"],
        ),
        (format!("cess://photos {at}"), 3, &["there is no volume `photos`"]),
    ];
    for (line, code, words) in cases {
        // A blank in an address cannot be written with blanks between words.
        let words_of_line = line.split(' ').map(|word| word.replace("%20", " "));
        let mut cessfs = command("cessfs")?;
        cessfs.env("CESSFS_HOME", volume.home()).args(words_of_line);
        let (ended, said) = fail(&mut cessfs)?;
        assert_eq!(ended, *code, "{line}: {said}");
        let said = said.to_lowercase();
        for word in *words {
            assert!(said.contains(word), "{line}: no {word:?} in: {said}");
        }
        assert!(!said.contains("cessfs init"), "{line}: advice that costs money: {said}");
    }
    Ok(())
}

/// A secret that does not open the volume keeps nothing else from being told.
#[test]
fn a_doctor_without_the_passphrase_tells_the_rest() -> Result<()> {
    let (dir, _network, volume) = scene()?;
    let wrong = dir.path().join("wrong");
    std::fs::write(&wrong, "not the passphrase")?;
    for file in [Path::new("/nope"), &wrong] {
        let mut doctor = volume.cessfs()?;
        doctor.args(["doctor", &volume.name, "--passphrase-file"]).arg(file);
        let said = output(&mut doctor)?;
        let rows = String::from_utf8(said.stdout)?;
        assert_eq!(said.status.code(), Some(16), "{rows}");
        for row in ["ok   kernel", "FAIL secret", "ok   config", "ok   chain", "ok   miners"] {
            assert!(rows.contains(row), "no {row:?} in: {rows}");
        }
        let said = output(doctor.arg("--json"))?;
        assert_eq!(said.status.code(), Some(16));
        let findings: serde_json::Value = serde_json::from_slice(&said.stdout)?;
        let findings = findings.as_array().context("an array")?;
        let verdict = |check: &str| findings.iter().find(|f| f["check"] == check).map(|f| &f["verdict"]);
        assert_eq!(verdict("secret").context("a finding")?, "fail");
        assert_eq!(verdict("kernel").context("a finding")?, "ok");
    }
    Ok(())
}

/// What cannot be printed is a failure with a code of its own, and not a panic; where messages go does not matter.
#[test]
fn a_full_disk_behind_the_output_is_told() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let full = || std::fs::File::options().write(true).open("/dev/full");
    let home = dir.path().join("home");
    let verb = |arguments: &[&str]| -> Result<std::process::Command> {
        let mut verb = command("cessfs")?;
        verb.arg("--home").arg(&home).args(arguments);
        Ok(verb)
    };
    for arguments in [&["volumes", "--json"][..], &["completions", "bash"]] {
        let (code, stderr) = fail(verb(arguments)?.stdout(full()?))?;
        assert!(
            code == 15 && stderr.contains("standard output") && stderr.contains("hint:"),
            "{code}: {stderr}"
        );
        succeed(verb(arguments)?.stderr(full()?))?;
    }
    let ended = verb(&["status", "nosuch"])?.stdout(full()?).stderr(full()?).status()?;
    assert_eq!(ended.code(), Some(3), "nobody can be told but by the code");
    Ok(())
}

/// What is signed counts on the network that the node names: another one than the volume's is refused, and nothing is bought there.
#[test]
fn a_volume_stays_on_the_network_that_it_was_made_on() -> Result<()> {
    let (_dir, _network, volume) = scene()?;
    let file = volume.home().join("volumes").join(&volume.name).join("chain.json");
    let made = std::fs::read(&file).context("init says which network it is")?;
    std::fs::write(&file, format!(r#"{{"genesis":"{}"}}"#, "ab".repeat(32)))?;
    let mut expand = volume.cessfs()?;
    expand.args(["territory", "expand", &volume.name, "--gib", "1"]);
    volume.add_secret(&mut expand);
    let (code, said) = fail(&mut expand)?;
    assert!(
        code == 13 && said.contains("another network") && said.contains("chain.json"),
        "{code}: {said}"
    );
    // A volume of before there was the file: what is met first becomes its network.
    std::fs::remove_file(&file)?;
    volume.territory(&["expand", "--gib", "1"])?;
    assert_eq!(std::fs::read(&file)?, made);
    Ok(())
}
