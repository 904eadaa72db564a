//! A devnet of its own for each test.

use crate::process::{command, succeed};
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Milliseconds from block to block, and from look to look of the miners.
const BLOCK_MS: &str = "200";

/// A running devnet; taken down when dropped.
pub struct Network {
    dir: PathBuf,
    /// URL of its RPC.
    pub ws: String,
}

impl Network {
    /// Starts a devnet with `miners` miners in `dir`. It makes blocks faster than a network does; everything waits for blocks.
    pub fn up(dir: &Path, miners: usize) -> Result<Network> {
        Network::up_with(dir, miners, &[])
    }

    /// Starts a devnet with further options of `up`.
    pub fn up_with(dir: &Path, miners: usize, options: &[&str]) -> Result<Network> {
        let mut network = Network {
            dir: dir.to_path_buf(),
            ws: String::new(),
        };
        network.ws = network.start_with(miners, options)?;
        Ok(network)
    }

    /// Starts it (again) and returns its URL.
    pub fn start(&self, miners: usize) -> Result<String> {
        self.start_with(miners, &[])
    }

    fn start_with(&self, miners: usize, options: &[&str]) -> Result<String> {
        let mut up = command("cessfs-devnet")?;
        up.arg("up")
            .arg("--dir")
            .arg(&self.dir)
            .args(["--miners", &miners.to_string(), "--daemon"])
            .args(["--block-ms", BLOCK_MS, "--report-ms", BLOCK_MS])
            .args(options);
        let said = succeed(&mut up)?;
        said.lines()
            .last()
            .map(String::from)
            .context("`cessfs-devnet up` printed nothing")
    }

    /// Stops everything; what it holds stays on disk.
    pub fn stop(&self) -> Result<()> {
        self.run(&["down"]).map(drop)
    }

    /// Runs a subcommand on this devnet.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = command("cessfs-devnet")?;
        command.args(arguments).arg("--dir").arg(&self.dir);
        succeed(&mut command)
    }

    /// `miner VERB INDEX…`
    pub fn miner(&self, verb: &str, indexes: &[usize]) -> Result<()> {
        let mut command = command("cessfs-devnet")?;
        command
            .args(["miner", verb])
            .args(indexes.iter().map(usize::to_string))
            .arg("--dir")
            .arg(&self.dir);
        succeed(&mut command).map(drop)
    }

    /// `status --json`.
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.run(&["status", "--json"])?)?)
    }

    /// How often the chain recorded an event since its first block.
    pub fn events(&self, name: &str) -> Result<u64> {
        Ok(self.status()?["events"][name].as_u64().unwrap_or(0))
    }

    /// Indexes of the miners with these accounts.
    pub fn indexes(&self, accounts: &[String]) -> Result<Vec<usize>> {
        let status = self.status()?;
        let miners = status["miners"].as_array().context("status has no miners")?;
        let index = |account: &String| {
            let miner = miners.iter().find(|miner| miner["account"] == account.as_str());
            miner
                .and_then(|miner| miner["index"].as_u64())
                .map(|index| index as usize)
        };
        accounts
            .iter()
            .map(|account| index(account).with_context(|| format!("no miner has account {account}")))
            .collect()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Without its directory nobody could stop it any more, and `down` would say that none runs.
        assert!(
            self.dir.is_dir() || std::thread::panicking(),
            "the devnet outlives its directory {}",
            self.dir.display()
        );
        if let Err(e) = self.stop() {
            eprintln!("devnet in {} did not stop: {e:#}", self.dir.display());
        }
    }
}

/// Asks until it is true; an error after `patience` that says what was waited for.
pub fn eventually(what: &str, patience: Duration, mut check: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        if check()? {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "waited {patience:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
