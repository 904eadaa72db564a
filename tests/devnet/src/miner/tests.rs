//! The fleet as a client sees it: over HTTP, with a chain that is a few maps.

use std::collections::{HashMap, HashSet};
use std::net::TcpListener;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::multipart::{Form, Part};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sp_core::crypto::{Ss58AddressFormat, Ss58Codec};
use sp_core::{Pair, sr25519};

use crate::seam::{ChainView, Deal, MinerSpec};

use super::limits::{CORRUPTION_STRIDE_BYTES, FRAGMENT_BYTES, ZERO_FRAGMENT};
use super::{MinerFleet, MinerStatus};

const FID: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
const SIZE: usize = FRAGMENT_BYTES as usize;
const TURN: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(30);

/// A chain of one deal after the other, that applies a report in the block after it.
#[derive(Default)]
struct FakeChain {
    deals: Mutex<HashMap<String, Deal>>,
    holders: Mutex<HashSet<(String, usize)>>,
    reports: Mutex<Vec<(usize, u8)>>,
    height: AtomicU32,
}

impl FakeChain {
    fn declare(&self, segments: Vec<[String; 12]>) {
        self.deals.lock().insert(
            FID.into(),
            Deal {
                segments,
                reported: Vec::new(),
            },
        );
        self.height.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends the deal; the miners that reported become holders where the file is `stored`.
    fn end_deal(&self, stored: bool) {
        let deal = self.deals.lock().remove(FID).expect("a deal to end");
        if stored {
            self.holders.lock().extend(
                deal.reported
                    .iter()
                    .filter_map(|(_, miner)| Some((FID.into(), (*miner)?))),
            );
        }
        self.height.fetch_add(1, Ordering::SeqCst);
    }
}

impl ChainView for FakeChain {
    fn deal(&self, fid: &str) -> Option<Deal> {
        self.deals.lock().get(fid).cloned()
    }

    fn report(&self, miner: usize, index: u8, fid: &str) -> Result<(), String> {
        self.reports.lock().push((miner, index));
        let mut deals = self.deals.lock();
        let deal = deals.get_mut(fid).ok_or("no deal")?;
        // Like the pallet: a report that comes second is included and fails.
        if deal
            .reported
            .iter()
            .all(|(taken, by)| *taken != index && *by != Some(miner))
        {
            deal.reported.push((index, Some(miner)));
        }
        self.height.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn stored(&self, fid: &str, miner: usize) -> bool {
        self.holders.lock().contains(&(fid.into(), miner))
    }

    fn height(&self) -> u32 {
        self.height.load(Ordering::SeqCst)
    }
}

/// A client of miners. reqwest has no provider of TLS of its own here.
fn client() -> Client {
    let _another_was_first = rustls::crypto::ring::default_provider().install_default();
    Client::new()
}

/// A fleet, its chain and a client.
struct Rig {
    chain: Arc<FakeChain>,
    specs: Vec<MinerSpec>,
    fleet: Arc<MinerFleet>,
    client: Client,
}

impl Rig {
    async fn start(dir: &Path, miners: usize) -> Rig {
        // All ports are held until the last is known, so that no two are the same.
        let ports: Vec<TcpListener> = (0..miners).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let specs: Vec<MinerSpec> = ports
            .iter()
            .enumerate()
            .map(|(index, port)| MinerSpec {
                index,
                account_ss58: format!("cXminer{index}"),
                endpoint_port: port.local_addr().unwrap().port(),
                dir: dir.join(index.to_string()),
            })
            .collect();
        drop(ports);
        let chain = Arc::new(FakeChain::default());
        let fleet = MinerFleet::start(specs.clone(), chain.clone(), TURN).await.unwrap();
        Rig {
            chain,
            specs,
            fleet,
            client: client(),
        }
    }

    /// What a new process on the same directories and ports sees.
    async fn restart(self) -> Rig {
        let Rig {
            chain, specs, fleet, ..
        } = self;
        drop(fleet);
        let deadline = Instant::now() + PATIENCE;
        let fleet = loop {
            match MinerFleet::start(specs.clone(), chain.clone(), TURN).await {
                Ok(fleet) => break fleet,
                Err(e) if Instant::now() > deadline => panic!("{e:#}"),
                Err(_) => tokio::time::sleep(TURN).await,
            }
        };
        Rig {
            chain,
            specs,
            fleet,
            client: client(),
        }
    }

    fn url(&self, miner: usize, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.specs[miner].endpoint_port)
    }

    fn signed(&self, request: RequestBuilder, fragment: &str) -> RequestBuilder {
        let pair = sr25519::Pair::from_seed(&[3; 32]);
        request
            .header("Fid", FID)
            .header("Fragment", fragment)
            .header(
                "Account",
                pair.public()
                    .to_ss58check_with_version(Ss58AddressFormat::custom(11330)),
            )
            .header("Message", "any text")
            .header(
                "Signature",
                format!("0x{}", hex::encode(pair.sign(b"<Bytes>any text</Bytes>").0)),
            )
    }

    async fn put(&self, miner: usize, fragment: &str, bytes: Vec<u8>) -> u64 {
        let form = Form::new().part("file", Part::bytes(bytes).file_name("fragment"));
        let request = self
            .signed(self.client.put(self.url(miner, "/fragment")), fragment)
            .multipart(form);
        code(request.send().await.unwrap()).await
    }

    async fn get(&self, miner: usize, fragment: &str, range: Option<&str>) -> Response {
        let request = self.signed(self.client.get(self.url(miner, "/fragment")), fragment);
        let request = if let Some(range) = range {
            request.header("Range", range)
        } else {
            request
        };
        request.send().await.unwrap()
    }

    async fn until(&self, what: &str, done: impl Fn(&Rig) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            tokio::time::sleep(TURN).await;
        }
    }
}

/// The code of a JSON answer, after a look at its HTTP side.
async fn code(response: Response) -> u64 {
    assert!(
        response.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("application/json")
    );
    let http = u64::from(response.status().as_u16());
    let body: Value = response.json().await.unwrap();
    assert!(body["msg"].is_string() && body.get("data").is_some(), "{body}");
    let code = body["code"].as_u64().unwrap();
    assert_eq!(http, if code == 403 { 403 } else { 200 }, "{body}");
    code
}

/// A fragment that is like no other, and its hash.
fn fragment(seed: u8) -> (Vec<u8>, String) {
    let bytes: Vec<u8> = (0..SIZE)
        .map(|at| (at as u8).wrapping_mul(seed).wrapping_add((at >> 8) as u8))
        .collect();
    let hash = hex::encode(Sha256::digest(&bytes));
    (bytes, hash)
}

/// A segment whose fragment `index` (1..=12) has this hash, and whose others exist nowhere.
fn segment(index: usize, hash: &str) -> [String; 12] {
    std::array::from_fn(|at| {
        if at + 1 == index {
            hash.to_owned()
        } else {
            hex::encode([at as u8; 32])
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fragment_goes_in_once_checked_and_comes_out_in_both_dialects() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path(), 1).await;
    let (bytes, hash) = fragment(7);
    assert_eq!(rig.put(0, &hash, bytes.clone()).await, 400, "no deal yet");
    rig.chain.declare(vec![segment(3, &hash)]);
    assert_eq!(
        rig.put(0, &"ab".repeat(32), bytes.clone()).await,
        400,
        "not in the deal"
    );
    assert_eq!(rig.put(0, "short", bytes.clone()).await, 400, "not a hash");
    assert_eq!(rig.put(0, &hash, bytes[1..].to_vec()).await, 400, "too short");
    assert_eq!(rig.put(0, &hash, [&bytes[..], b"x"].concat()).await, 400, "too long");
    assert_eq!(rig.put(0, &hash, fragment(8).0).await, 400, "other bytes");
    assert_eq!(code(rig.get(0, &hash, None).await).await, 404);
    assert_eq!(rig.put(0, &hash, bytes.clone()).await, 200);
    assert_eq!(rig.put(0, &hash, bytes.clone()).await, 200, "again");
    assert_eq!(
        rig.fleet.status(0),
        MinerStatus {
            state: "running",
            fragments: 1,
            slow_ms: 0
        }
    );

    let whole = rig.get(0, &hash, None).await;
    assert_eq!(
        (whole.status().as_u16(), &whole.headers()["content-type"]),
        (200, &"application/octet-stream".parse().unwrap())
    );
    assert!(whole.bytes().await.unwrap() == bytes);
    let cases: [(&str, Range<usize>); 3] = [
        ("bytes=0-1/8388608", 0..1),
        ("bytes 4096-8192/8388608", 4096..8192),
        ("bytes=8388000-8388608/8388608", SIZE - 608..SIZE),
    ];
    for (header, range) in cases {
        let part = rig.get(0, &hash, Some(header)).await;
        assert_eq!(part.status().as_u16(), 206, "{header}");
        assert!(part.headers().get("content-range").is_none());
        assert!(part.bytes().await.unwrap() == bytes[range], "{header}");
    }
    for standard in ["bytes=0-1", "bytes=0-", "bytes=0-8388609/8388608"] {
        assert_eq!(code(rig.get(0, &hash, Some(standard)).await).await, 416, "{standard}");
    }
    assert_eq!(code(rig.get(0, &"ab".repeat(32), Some("bytes=0-1")).await).await, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_without_the_file_and_a_bad_signature_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path(), 1).await;
    let (bytes, hash) = fragment(9);
    rig.chain.declare(vec![segment(1, &hash)]);
    let put = || rig.signed(rig.client.put(rig.url(0, "/fragment")), &hash);
    let other = Form::new().part("data", Part::bytes(bytes.clone()));
    assert_eq!(code(put().multipart(other).send().await.unwrap()).await, 400);
    assert_eq!(
        code(put().body(bytes.clone()).send().await.unwrap()).await,
        400,
        "no form at all"
    );

    let unsigned = rig
        .client
        .get(rig.url(0, "/fragment"))
        .header("Fid", FID)
        .header("Fragment", &hash);
    assert_eq!(code(unsigned.send().await.unwrap()).await, 403);
    let form = Form::new().part("file", Part::bytes(bytes));
    let forged = rig
        .client
        .put(rig.url(0, "/fragment"))
        .header("Fid", FID)
        .header("Fragment", &hash);
    let stranger = sr25519::Pair::from_seed(&[4; 32])
        .public()
        .to_ss58check_with_version(Ss58AddressFormat::custom(42));
    let forged = forged
        .header("Account", stranger)
        .header("Message", "m")
        .header("Signature", "00".repeat(64));
    assert_eq!(code(forged.multipart(form).send().await.unwrap()).await, 403);
    assert_eq!(rig.fleet.status(0).fragments, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_zero_fragment_needs_neither_body_nor_deal() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path(), 1).await;
    let request = rig.signed(rig.client.put(rig.url(0, "/fragment")), ZERO_FRAGMENT);
    assert_eq!(code(request.send().await.unwrap()).await, 200);
    let zeros = rig.get(0, ZERO_FRAGMENT, None).await.bytes().await.unwrap();
    assert!(zeros.len() == SIZE && zeros.iter().all(|byte| *byte == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_answers_without_a_signature() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path(), 2).await;
    let body: Value = rig
        .client
        .get(rig.url(1, "/status"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(body["code"], 200);
    assert_eq!(body["data"]["state"], "positive");
    assert_eq!(body["data"]["signature_acc"], "cXminer1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_miner_refuses_cuts_and_keeps_silent_until_it_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path(), 1).await;
    let (bytes, hash) = fragment(11);
    rig.fleet.slow(0, 60_000);
    let hanging = tokio::spawn(rig.client.get(rig.url(0, "/status")).send());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let stopping = Instant::now();
    rig.fleet.stop(0).await;
    assert!(hanging.await.unwrap().is_err(), "the open connection breaks");
    assert!(stopping.elapsed() < PATIENCE);
    let refused = rig.client.get(rig.url(0, "/status")).send().await.unwrap_err();
    assert!(refused.is_connect(), "{refused:?}");
    assert_eq!(
        rig.fleet.status(0),
        MinerStatus {
            state: "stopped",
            fragments: 0,
            slow_ms: 60_000
        }
    );

    let rig = rig.restart().await;
    assert_eq!(
        rig.fleet.status(0),
        MinerStatus {
            state: "stopped",
            fragments: 0,
            slow_ms: 60_000
        }
    );
    assert!(
        rig.client
            .get(rig.url(0, "/status"))
            .send()
            .await
            .unwrap_err()
            .is_connect()
    );
    rig.fleet.resume(0).await.unwrap();
    rig.fleet.resume(0).await.expect("a second time does nothing");
    rig.fleet.slow(0, 0);
    rig.chain.declare(vec![segment(5, &hash)]);
    assert_eq!(rig.put(0, &hash, bytes).await, 200);
    rig.until("the report of the resumed miner", |rig| {
        !rig.chain.reports.lock().is_empty()
    })
    .await;

    let rig = rig.restart().await;
    assert_eq!(
        rig.fleet.status(0),
        MinerStatus {
            state: "running",
            fragments: 1,
            slow_ms: 0
        }
    );
    rig.fleet.slow(0, 150);
    let asked = Instant::now();
    assert_eq!(
        code(rig.client.get(rig.url(0, "/status")).send().await.unwrap()).await,
        200
    );
    assert!(asked.elapsed() >= Duration::from_millis(150));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrupted_and_forgotten_fragments_stay_so() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path(), 1).await;
    let (bytes, hash) = fragment(13);
    rig.chain.declare(vec![segment(2, &hash)]);
    assert_eq!(rig.put(0, &hash, bytes.clone()).await, 200);
    assert_eq!(rig.fleet.corrupt(0), 1);
    let rig = rig.restart().await;
    let read = rig.get(0, &hash, None).await.bytes().await.unwrap();
    assert_eq!(read.len(), SIZE);
    let sound = read
        .chunks(CORRUPTION_STRIDE_BYTES)
        .zip(bytes.chunks(CORRUPTION_STRIDE_BYTES))
        .filter(|(a, b)| a == b);
    assert_eq!(sound.count(), 0, "no stretch is sound");
    assert_eq!(rig.fleet.forget(0), 1);
    assert_eq!(code(rig.get(0, &hash, None).await).await, 404);
    let rig = rig.restart().await;
    assert_eq!(rig.fleet.status(0).fragments, 0);
    assert_eq!(rig.put(0, &hash, bytes).await, 200, "it can be put again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_reports_one_whole_free_column_and_rivals_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path(), 2).await;
    let ((a, a_hash), (b, b_hash), (c, c_hash)) = (fragment(15), fragment(17), fragment(19));
    let mut second = segment(4, &b_hash);
    second[8] = c_hash.clone();
    let mut first = segment(4, &a_hash);
    first[8] = c_hash.clone();
    rig.chain.declare(vec![first, second]);

    assert_eq!(rig.put(0, &a_hash, a.clone()).await, 200);
    tokio::time::sleep(TURN * 10).await;
    assert!(
        rig.chain.reports.lock().is_empty(),
        "one segment of two is not a column"
    );
    assert_eq!(rig.put(0, &b_hash, b.clone()).await, 200);
    rig.until("the report of column 4", |rig| *rig.chain.reports.lock() == [(0, 4)])
        .await;

    assert_eq!(
        rig.put(0, &c_hash, c.clone()).await,
        200,
        "a second column, of the same miner"
    );
    for (hash, bytes) in [(&a_hash, a), (&b_hash, b)] {
        assert_eq!(rig.put(1, hash, bytes).await, 200, "a rival for a column that is taken");
    }
    tokio::time::sleep(TURN * 10).await;
    assert_eq!(*rig.chain.reports.lock(), [(0, 4)], "neither reports");
    assert_eq!(rig.put(1, &c_hash, c).await, 200);
    rig.until("the rival's report of what is free", |rig| {
        *rig.chain.reports.lock() == [(0, 4), (1, 9)]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_keep_a_stored_file_and_what_nobody_wants_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path(), 2).await;
    let (bytes, hash) = fragment(21);
    rig.chain.declare(vec![segment(6, &hash)]);
    assert_eq!(rig.put(0, &hash, bytes.clone()).await, 200);
    rig.until("the first report", |rig| !rig.chain.reports.lock().is_empty())
        .await;
    assert_eq!(rig.put(1, &hash, bytes.clone()).await, 200);
    rig.chain.end_deal(true);
    rig.until("the loser's clean-up", |rig| rig.fleet.status(1).fragments == 0)
        .await;
    assert_eq!(rig.fleet.status(0).fragments, 1, "the holder keeps it");

    rig.chain.holders.lock().clear();
    rig.until("the clean-up after the file's deletion", |rig| {
        rig.fleet.status(0).fragments == 0
    })
    .await;

    rig.chain.declare(vec![segment(6, &hash)]);
    assert_eq!(rig.put(0, &hash, bytes).await, 200);
    rig.until("a report for the file's second life", |rig| {
        rig.chain.reports.lock().len() == 2
    })
    .await;
    rig.chain.end_deal(false);
    rig.until("the clean-up after a deal that vanished", |rig| {
        rig.fleet.status(0).fragments == 0
    })
    .await;
}
