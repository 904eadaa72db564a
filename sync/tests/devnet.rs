//! The real chain client against the devnet: what a network does that a metadata file cannot show.
//!
//! Runs where `cessfs-devnet` has been built (beside the test, or named by `$CESSFS_DEVNET`), else says that it did not.

#![allow(clippy::disallowed_methods, reason = "this test waits for real time")]

use cessfs_crypto::{AccountKey, Entropy};
use cessfs_sync::chain::{Chain, ChainError, Declaration, Head, Pin, SegmentHashes, SubxtChain};
use cessfs_sync::fragment_store::{Fid, Sha256Hash};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

struct Counting(u8);
impl Entropy for Counting {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self.0.wrapping_add(37);
            *byte = self.0;
        }
    }
}

fn binary() -> Option<PathBuf> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.parent()?.join("cessfs-devnet"));
    let path = std::env::var_os("CESSFS_DEVNET").map(PathBuf::from).or_else(beside)?;
    if !path.exists() {
        eprintln!("SKIPPED: no {}", path.display());
        return None;
    }
    Some(path)
}

/// A devnet in a directory of its own; stopped when dropped.
struct Devnet {
    binary: PathBuf,
    dir: TempDir,
}

impl Devnet {
    fn new() -> Option<Devnet> {
        Some(Devnet {
            binary: binary()?,
            dir: TempDir::new().unwrap(),
        })
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new(&self.binary)
            .args(arguments)
            .env("CESSFS_DEVNET_DIR", self.dir.path())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "cessfs-devnet {arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts it, or starts it again, and returns its address.
    fn up(&self) -> String {
        self.run(&["up", "--miners", "12", "--daemon"])
            .lines()
            .last()
            .unwrap()
            .to_owned()
    }

    fn down(&self) {
        self.run(&["down"]);
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        let down = Command::new(&self.binary)
            .arg("down")
            .env("CESSFS_DEVNET_DIR", self.dir())
            .output();
        drop(down);
    }
}

fn client(url: &str, seed: u8) -> SubxtChain {
    SubxtChain::new(
        url,
        AccountKey::from_seed(&[seed; 32]),
        Box::new(Counting(seed)),
        Pin::first_met(),
    )
    .unwrap()
}

fn declaration(segments: u8, first: u8) -> Declaration {
    let hash = |segment: u8, i: u8| Sha256Hash(std::array::from_fn(|at| if at == 0 { segment } else { first ^ i }));
    Declaration {
        fid: Fid([first; 32]),
        segments: (0..segments)
            .map(|segment| SegmentHashes {
                segment: hash(segment, 0),
                fragments: std::array::from_fn(|i| hash(segment, i as u8 + 1)),
            })
            .collect(),
        label: "a label of a pack".into(),
        territory: "home".into(),
        size: u128::from(segments) << 25,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_their_kinds() {
    let Some(devnet) = Devnet::new() else { return };
    let chain = client(&devnet.up(), 41);
    assert!(matches!(
        chain.mint_territory("home", 1, 30).await,
        Err(ChainError::NoFunds(_))
    ));
    chain.faucet().await.unwrap();
    assert!(matches!(
        chain.declare(declaration(1, 7)).await,
        Err(ChainError::NoTerritory(_))
    ));
    assert!(matches!(
        chain.mint_territory("home", u32::MAX, 30).await,
        Err(ChainError::Refused(_))
    ));
    chain.mint_territory("home", 1, 30).await.unwrap();
    // A GiB holds 10 segments with their parity; eleven are too many.
    assert!(matches!(
        chain.declare(declaration(11, 7)).await,
        Err(ChainError::TerritoryFull(_))
    ));
    devnet.run(&["call", "pause", "FileBank", "upload_declaration"]);
    assert!(matches!(
        chain.declare(declaration(1, 7)).await,
        Err(ChainError::Paused(_))
    ));
    devnet.run(&["call", "resume", "FileBank", "upload_declaration"]);
    let declared = declaration(2, 7);
    chain.declare(declared.clone()).await.unwrap();
    let deal = chain
        .deal(declared.fid, Head::Finalized)
        .await
        .unwrap()
        .expect("declared at a finalized block");
    assert_eq!((deal.owner, deal.segments), (chain.account(), declared.segments));
    let territory = chain.territory("home").await.unwrap().expect("minted");
    assert_eq!(territory.locked_bytes, (2 * 96) << 20);
    assert_eq!(
        territory.remaining_bytes,
        territory.total_bytes - territory.locked_bytes
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_one_account_at_the_same_time_all_count() {
    let Some(devnet) = Devnet::new() else { return };
    let chain = client(&devnet.up(), 42);
    chain.faucet().await.unwrap();
    let names = ["one", "two", "three", "four"];
    let minted = futures::future::join_all(names.map(|name| chain.mint_territory(name, 1, 30))).await;
    for (name, minted) in names.iter().zip(minted) {
        minted.unwrap();
        assert!(chain.territory(name).await.unwrap().is_some(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_outlives_its_node() {
    let Some(devnet) = Devnet::new() else { return };
    let url = devnet.up();
    let chain = client(&url, 43);
    chain.faucet().await.unwrap();
    let height = chain.height(Head::Finalized).await.unwrap();
    devnet.down();
    assert!(matches!(chain.height(Head::Best).await, Err(ChainError::Away(_))));
    assert_eq!(devnet.up(), url, "a devnet keeps its address");
    tokio::time::sleep(cessfs_sync::limits::CHAIN_RECONNECT_PAUSE).await;
    assert!(chain.height(Head::Best).await.unwrap() >= height);
    assert_eq!(chain.miners().await.unwrap().len(), 12);
}

/// Behind an address may be several nodes; here one that was set back plays the one that lags. What it does not have is not "no more".
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lags_is_away_until_it_has_caught_up() {
    let Some(devnet) = Devnet::new() else { return };
    let chain = client(&devnet.up(), 45);
    devnet.down();
    let old = TempDir::new().unwrap();
    let copy = |from: &Path, to: &Path| {
        let contents = from.join(".");
        let status = Command::new("cp").arg("-a").args([&contents, to]).status();
        assert!(status.unwrap().success());
    };
    copy(devnet.dir(), old.path());
    devnet.up();
    let reached = chain.height(Head::Finalized).await.unwrap() + 8;
    while chain.height(Head::Finalized).await.unwrap() < reached {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    devnet.down();
    copy(old.path(), devnet.dir());
    devnet.up();
    devnet.run(&["chain", "pause"]);
    tokio::time::sleep(cessfs_sync::limits::CHAIN_RECONNECT_PAUSE).await;
    match chain.file(Fid([1; 32]), Head::Finalized).await {
        Err(ChainError::Away(text)) => assert!(text.contains("lags behind"), "{text}"),
        other => panic!("an old node answered: {other:?}"),
    }
    devnet.run(&["chain", "resume"]);
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    while chain.height(Head::Finalized).await.is_err() {
        assert!(tokio::time::Instant::now() < patience, "it caught up");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(chain.height(Head::Finalized).await.unwrap() >= reached);
}

/// I2 rests on this: when a transaction's fate was unknown and `Away` came, what a finalized block shows is final.
#[tokio::test(flavor = "multi_thread")]
async fn after_away_a_finalized_block_tells_the_truth() {
    let Some(devnet) = Devnet::new() else { return };
    let chain = client(&devnet.up(), 44);
    chain.faucet().await.unwrap();
    devnet.run(&["chain", "pause"]);
    let minting = tokio::spawn(chain.mint_territory("home", 1, 30));
    // Sent and waiting for a block that does not come; then the node goes, and its pool with it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    devnet.down();
    devnet.up();
    let outcome = minting.await.unwrap();
    let there = chain.territory("home").await.unwrap().is_some();
    match outcome {
        Ok(()) => assert!(there),
        Err(ChainError::Away(text)) if text.ends_with("it is in a finalized block") => assert!(there),
        Err(ChainError::Away(text)) => {
            assert!(text.ends_with("it has expired"), "{text}");
            assert!(!there);
        }
        Err(error) => panic!("{error}"),
    }
    // The account is not stuck behind the lost nonce.
    chain.mint_territory("other", 1, 30).await.unwrap();
}
