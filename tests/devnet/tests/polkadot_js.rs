//! An unmodified polkadot.js on a devnet: what a person with the usual wallet and explorer does. Needs Node.js and the npm
//! registry; says so and skips itself where there is none.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a command in `dir`; its output, or what it said.
fn run(dir: &Path, program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments:?}: {stderr}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The script's directory with its packages installed, kept from one run to the next.
fn installed() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/polkadot-js");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("polkadot-js");
    std::fs::create_dir_all(&dir)?;
    let lock = dir.join("package-lock.json");
    let current = std::fs::read(&lock).ok() == std::fs::read(source.join("package-lock.json")).ok();
    for name in ["package.json", "package-lock.json", "visit.mjs"] {
        std::fs::copy(source.join(name), dir.join(name))?;
    }
    if !current || !dir.join("node_modules/@polkadot/api").is_dir() {
        let ready = run(&dir, "npm", &["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
        if ready.is_err() {
            std::fs::remove_file(&lock)?; // so that the next run tries again
        }
        ready?;
    }
    Ok(dir)
}

#[test]
fn polkadot_js_connects_pays_signs_and_sees_finality() -> Result<()> {
    let script = match installed() {
        Ok(script) => script,
        Err(e) => {
            println!("SKIPPED: polkadot.js cannot be had here (Node.js and the npm registry): {e:#}");
            return Ok(());
        }
    };
    let dir = tempfile::tempdir()?;
    let home = dir.path().to_str().context("a path of text")?;
    let devnet = env!("CARGO_BIN_EXE_cessfs-devnet");
    let up = ["up", "--miners", "13", "--block-ms", "100", "--daemon", "--dir", home];
    let said = run(dir.path(), devnet, &up)?;
    let ws = said.lines().last().context("`up` prints the URL")?;
    let visited = run(&script, "node", &["visit.mjs", ws]);
    run(dir.path(), devnet, &["down", "--dir", home])?;
    let visit: Value = serde_json::from_str(visited?.trim())?;

    assert_eq!(visit["chain"], "cess-devnet-local", "{visit}");
    assert_eq!(visit["spec"], 137);
    assert!(
        visit["address"].as_str().is_some_and(|a| a.starts_with("cX")),
        "{visit}"
    );
    let minted = visit["minted"]["events"].as_array().context("the mint succeeded")?;
    assert!(minted.contains(&"storageHandler.MintTerritory".into()), "{visit}");
    assert!(minted.contains(&"system.ExtrinsicSuccess".into()), "{visit}");
    assert_eq!(visit["total"], 1u64 << 30, "1 GiB of territory: {visit}");
    assert!(
        visit["again"]["error"]
            .as_str()
            .is_some_and(|e| e.starts_with("storageHandler.")),
        "a second territory of the name is refused by name: {visit}"
    );
    assert_eq!(visit["miners"], 13);
    assert_eq!(visit["stale"], "1010", "a used nonce is refused by the pool: {visit}");
    Ok(())
}
