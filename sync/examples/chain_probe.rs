//! Sends one segment to a network and reads it back: chain, miners and erasure code, without packs or pipeline.
//!
//! `cargo run -p cessfs-sync --example chain_probe -- ws://127.0.0.1:9944` against a development network (it asks the
//! faucet for money and mints a territory). A tool to look at a network with; tests/ holds the checks.

use cessfs_crypto::{AccountKey, Entropy};
use cessfs_sync::chain::{Chain, Declaration, Head, Miner, SubxtChain};
use cessfs_sync::erasure::{SegmentPool, decode, file_id, sha256};
use cessfs_sync::fragment_store::{FragmentStore, HttpFragments};
use cessfs_sync::limits::{COLUMNS, FRAGMENT_BYTES, SEGMENT_BYTES};
use std::error::Error;
use std::io::Read;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

struct Urandom(std::fs::File);

impl Entropy for Urandom {
    fn fill(&mut self, out: &mut [u8]) {
        self.0.read_exact(out).expect("/dev/urandom gives any number of bytes");
    }
}

fn urandom() -> Result<Urandom, std::io::Error> {
    Ok(Urandom(std::fs::File::open("/dev/urandom")?))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "ws://127.0.0.1:9944".to_owned());
    let mut entropy = urandom()?;
    let mut seed = [0; 32];
    entropy.fill(&mut seed);
    let chain = SubxtChain::new(&url, AccountKey::from_seed(&seed), Box::new(urandom()?))?;
    let miners = HttpFragments::new(&mut entropy)?;

    println!("{:#?}", chain.info().await?);
    println!(
        "best {} finalized {}",
        chain.height(Head::Best).await?,
        chain.height(Head::Finalized).await?
    );
    println!(
        "minting without money: {}",
        told(chain.mint_territory("probe", 1, 30).await)
    );
    chain.faucet().await?;
    println!("balance {}", chain.balance(chain.account()).await?);
    println!("no territory yet: {:?}", chain.territory("probe").await?);
    timed("mint", chain.mint_territory("probe", 1, 30)).await?;
    println!("minting again: {}", told(chain.mint_territory("probe", 1, 30).await));
    timed("expand", chain.expand_territory("probe", 1)).await?;
    timed("renew", chain.renew_territory("probe", 1)).await?;
    println!("{:?}", chain.territory("probe").await?);

    let holders: Vec<Miner> = chain
        .miners()
        .await?
        .into_iter()
        .filter(|miner| miner.positive)
        .collect();
    println!("{} positive miners", holders.len());
    for miner in holders.iter().take(COLUMNS) {
        println!("  {} {:?}", miner.endpoint, miners.probe(&miner.endpoint).await?);
    }
    send_and_read(&chain, &miners, &mut entropy).await?;
    Ok(())
}

async fn send_and_read(
    chain: &SubxtChain,
    miners: &HttpFragments,
    entropy: &mut dyn Entropy,
) -> Result<(), Box<dyn Error>> {
    let holders: Vec<Miner> = chain
        .miners()
        .await?
        .into_iter()
        .filter(|miner| miner.positive)
        .collect();
    let two = NonZeroUsize::new(2).expect("two is not zero");
    let mut segment = SegmentPool::new(two, two).take().await;
    entropy.fill(segment.data_mut());
    let start = Instant::now();
    let encoded = segment.encode();
    println!("encoded and hashed in {:?}", start.elapsed());
    let hashes = encoded.hashes().clone();
    let fid = file_id(&[hashes.segment]);
    let declaration = Declaration {
        fid,
        segments: vec![hashes.clone()],
        label: "probe label".into(),
        territory: "probe".into(),
        size: SEGMENT_BYTES as u128,
    };
    let full = Declaration {
        territory: "none".into(),
        ..declaration.clone()
    };
    println!("declaring into no territory: {}", told(chain.declare(full).await));
    timed("declare", chain.declare(declaration)).await?;
    println!(
        "deal: {:?}",
        chain
            .deal(fid, Head::Finalized)
            .await?
            .map(|deal| (deal.label, deal.reported))
    );
    for (column, miner) in (0u8..).zip(holders.iter().take(COLUMNS)) {
        let start = Instant::now();
        let hash = hashes.fragments[usize::from(column)];
        miners.put(&miner.endpoint, fid, hash, encoded.fragment(column)).await?;
        println!("column {column} put in {:?}", start.elapsed());
    }
    let start = Instant::now();
    let file = loop {
        match chain.file(fid, Head::Finalized).await? {
            Some(file) => break file,
            None => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    };
    println!(
        "stored after {:?}: {} owners, {} bytes",
        start.elapsed(),
        file.owners.len(),
        file.size
    );
    assert_eq!(file.segments[0].0, hashes);
    assert!(chain.files().await?.contains(&fid));

    let mut fetched = Vec::new();
    for column in [1u8, 4, 7, 11] {
        let account = file.segments[0].1[usize::from(column)];
        let holder = holders
            .iter()
            .find(|miner| miner.account == account)
            .ok_or("an unknown holder")?;
        let hash = hashes.fragments[usize::from(column)];
        let bytes = miners
            .get(&holder.endpoint, fid, hash, 0..FRAGMENT_BYTES as u32)
            .await?;
        assert_eq!(sha256(&bytes), hash);
        let part = miners.get(&holder.endpoint, fid, hash, 1000..70_000).await?;
        assert_eq!(part, bytes[1000..70_000]);
        fetched.push((column, bytes));
    }
    let columns = std::array::from_fn(|i| (fetched[i].0, &fetched[i].1[..]));
    let mut out = vec![0; SEGMENT_BYTES];
    decode(columns, &mut out)?;
    assert!(out == encoded.data());
    println!("the segment came back from columns 1, 4, 7 and 11");
    timed("delete", chain.delete(fid)).await?;
    println!(
        "gone: {:?}, {:?}",
        chain.file(fid, Head::Finalized).await?.is_none(),
        chain.files().await?
    );
    Ok(())
}

fn told<T, E: std::fmt::Display>(result: Result<T, E>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "succeeded".to_owned())
}

async fn timed<T, E>(what: &str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let start = Instant::now();
    let result = work.await;
    println!("{what} took {:?}", start.elapsed());
    result
}
