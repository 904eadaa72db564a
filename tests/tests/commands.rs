//! Commands that are wrong, by a word or by a file: the code they end with, and what they say is right.

use anyhow::{Context, Result};
use cessfs_tests::process::output;
use cessfs_tests::{InitOptions, Network, Volume};
use std::path::Path;

/// A volume that a key file opens.
fn scene() -> Result<(tempfile::TempDir, Network, Volume)> {
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    Ok((dir, network, volume))
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
