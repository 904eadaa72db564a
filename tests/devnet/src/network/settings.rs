//! What a devnet is from its first start on: `network.json`.

use crate::limits::{MINERS_MAX, PORTS};
use crate::rpc::DEVNET;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    path::Path,
};

const VERSION: u32 = 1;

/// What the caller of `up` asked for. `None` leaves it as it is, or at its default for a new devnet.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Miners; fixed at the first start. Default 16.
    pub miners: Option<usize>,
    /// Idle space of each, GiB; fixed at the first start. Default 64.
    pub miner_space_gib: Option<u32>,
    /// Milliseconds from block to block. Default 500.
    pub block_ms: Option<u64>,
    /// Milliseconds between a miner's looks for files to report. Default 500.
    pub report_ms: Option<u64>,
    /// What the chain calls itself. Default [`DEVNET`]; under any other name there is no faucet.
    pub chain: Option<String>,
}

/// `network.json`.
#[derive(Serialize, Deserialize)]
pub(super) struct Settings {
    version: u32,
    /// What the miners' keys come from, hex.
    seed: String,
    pub(super) ws_port: u16,
    pub(super) miner_ports: Vec<u16>,
    pub(super) miner_space_gib: u32,
    pub(super) block_ms: u64,
    pub(super) report_ms: u64,
    #[serde(default = "devnet")]
    pub(super) chain: String,
}

fn devnet() -> String {
    DEVNET.to_owned()
}

impl Settings {
    /// Reads the settings, or makes them as wished. New ones come with their ports held, to be dropped right before somebody
    /// listens there: a network that is made at the same moment must not find them free.
    ///
    /// # Errors
    /// If they are unreadable, or the wish is for another network than the one that is there.
    pub(super) fn open(dir: &Path, wish: &Wish) -> Result<(Self, Vec<TcpListener>)> {
        let path = dir.join("network.json");
        let (mut settings, held) = match std::fs::read(&path) {
            Ok(text) => {
                let settings =
                    serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
                (settings, Vec::new())
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Self::new(wish)?,
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        settings.grant(wish)?;
        settings.write(dir)?;
        Ok((settings, held))
    }

    /// What the miners' keys come from.
    ///
    /// # Errors
    /// If the file was tampered with.
    pub(super) fn seed(&self) -> Result<[u8; 32]> {
        let mut seed = [0; 32];
        hex::decode_to_slice(&self.seed, &mut seed).context("the seed in network.json is damaged")?;
        Ok(seed)
    }

    fn new(wish: &Wish) -> Result<(Self, Vec<TcpListener>)> {
        let mut seed = [0; 32];
        File::open("/dev/urandom")
            .and_then(|mut random| random.read_exact(&mut seed))
            .context("no randomness")?;
        let miners = wish.miners.unwrap_or(16);
        ensure!(
            (1..=MINERS_MAX).contains(&miners),
            "a devnet has 1 to {MINERS_MAX} miners"
        );
        let held = free_ports(miners + 1, &seed)?;
        let ports = held.iter().map(|listener| Ok(listener.local_addr()?.port()));
        let mut ports: Vec<u16> = ports.collect::<Result<_>>()?;
        let ws_port = ports.remove(0);
        let settings = Self {
            version: VERSION,
            seed: hex::encode(seed),
            ws_port,
            miner_ports: ports,
            miner_space_gib: wish.miner_space_gib.unwrap_or(64),
            block_ms: 500,
            report_ms: 500,
            chain: devnet(),
        };
        Ok((settings, held))
    }

    fn grant(&mut self, wish: &Wish) -> Result<()> {
        ensure!(
            self.version == VERSION,
            "this devnet is of version {}, not {VERSION}",
            self.version
        );
        let miners = self.miner_ports.len();
        ensure!(
            wish.miners.is_none_or(|wished| wished == miners),
            "this devnet has {miners} miners for good; take another directory for another number"
        );
        let space = self.miner_space_gib;
        ensure!(
            wish.miner_space_gib.is_none_or(|wished| wished == space),
            "this devnet's miners have {space} GiB for good; take another directory for another size"
        );
        self.block_ms = wish.block_ms.unwrap_or(self.block_ms);
        self.report_ms = wish.report_ms.unwrap_or(self.report_ms);
        if let Some(chain) = &wish.chain {
            self.chain.clone_from(chain);
        }
        ensure!(
            self.block_ms > 0 && self.report_ms > 0,
            "a pace is at least one millisecond"
        );
        Ok(())
    }

    /// Whole or not at all, and on disk.
    fn write(&self, dir: &Path) -> Result<()> {
        let fresh = dir.join("network.json.new");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&fresh)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&fresh, dir.join("network.json"))?;
            File::open(dir)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", fresh.display()))
    }
}

/// Ports that nobody listened on, held. The search starts at a random place, so that devnets made at the same time get
/// different ones.
fn free_ports(count: usize, seed: &[u8; 32]) -> Result<Vec<TcpListener>> {
    let span = PORTS.end - PORTS.start;
    let start = u16::from_le_bytes([seed[0], seed[1]]) % span;
    let port = |step: u16| PORTS.start + (start + step) % span;
    let held: Vec<TcpListener> = (0..span)
        .filter_map(|step| TcpListener::bind((Ipv4Addr::LOCALHOST, port(step))).ok())
        .take(count)
        .collect();
    ensure!(
        held.len() == count,
        "no {count} free ports between {} and {}",
        PORTS.start,
        PORTS.end
    );
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_stays_what_it_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let wish = Wish {
            miners: Some(3),
            block_ms: Some(50),
            ..Wish::default()
        };
        let (made, _) = Settings::open(dir.path(), &wish).unwrap();
        let (again, _) = Settings::open(
            dir.path(),
            &Wish {
                report_ms: Some(7),
                ..Wish::default()
            },
        )
        .unwrap();
        assert_eq!(
            (&again.seed, again.ws_port, &again.miner_ports),
            (&made.seed, made.ws_port, &made.miner_ports)
        );
        assert_eq!((again.block_ms, again.report_ms), (50, 7));
        assert!(
            Settings::open(
                dir.path(),
                &Wish {
                    miners: Some(4),
                    ..Wish::default()
                }
            )
            .is_err()
        );
    }

    #[test]
    fn networks_made_at_the_same_moment_share_no_port() {
        let ports = |held: &[TcpListener]| -> std::collections::BTreeSet<u16> {
            held.iter().map(|held| held.local_addr().unwrap().port()).collect()
        };
        let one = free_ports(40, &[7; 32]).unwrap();
        let other = free_ports(40, &[7; 32]).unwrap();
        assert_eq!(ports(&one).len(), 40);
        assert!(ports(&one).is_disjoint(&ports(&other)));
        assert!(ports(&one).iter().all(|port| PORTS.contains(port)));
    }

    #[test]
    fn a_new_network_holds_its_ports() {
        let dir = tempfile::tempdir().unwrap();
        let wish = Wish {
            miners: Some(2),
            ..Wish::default()
        };
        let (made, held) = Settings::open(dir.path(), &wish).unwrap();
        for port in made.miner_ports.iter().chain([&made.ws_port]) {
            assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_err());
        }
        drop(held);
        let (again, held) = Settings::open(dir.path(), &wish).unwrap();
        assert!(held.is_empty());
        assert_eq!(again.ws_port, made.ws_port);
    }
}
