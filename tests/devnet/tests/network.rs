//! The whole network from outside: the binary as a script drives it, the chain as an unmodified subxt sees it, the miners
//! over HTTP.

use anyhow::{Context, Result, ensure};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use sp_core::{Pair, crypto::Ss58Codec};
use std::{
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};
use subxt::{
    OnlineClient, PolkadotConfig,
    config::DefaultExtrinsicParamsBuilder,
    dynamic::{self, Value},
    rpcs::{RpcClient, rpc_params},
};
use subxt_signer::sr25519::Keypair;

const FRAGMENT_BYTES: usize = 8 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// A devnet of the test's own; taken down when dropped.
struct Devnet {
    dir: tempfile::TempDir,
    ws: String,
}

impl Devnet {
    fn up() -> Self {
        let mut devnet = Self {
            dir: tempfile::tempdir().unwrap(),
            ws: String::new(),
        };
        devnet.ws = devnet.start();
        devnet
    }

    fn start(&self) -> String {
        let arguments = [
            "up",
            "--miners",
            "13",
            "--block-ms",
            "100",
            "--report-ms",
            "100",
            "--daemon",
        ];
        self.run(&arguments).lines().last().unwrap().to_owned()
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cessfs-devnet"));
        command
            .args(arguments)
            .arg("--dir")
            .arg(self.dir.path())
            .output()
            .unwrap()
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn status(&self) -> Json {
        serde_json::from_str(&self.run(&["status", "--json"])).unwrap()
    }

    /// Ends the process as a power cut would.
    fn kill(&self) {
        let pid = self.status()["pid"].as_i64().unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid as i32),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        eventually(|| !Path::new(&format!("/proc/{pid}/fd/0")).exists());
    }

    async fn client(&self) -> OnlineClient<PolkadotConfig> {
        OnlineClient::from_url(&self.ws).await.unwrap()
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        let output = self.output(&["down"]);
        if !output.status.success() {
            eprintln!("the devnet did not stop: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

fn eventually(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn user(n: u8) -> Keypair {
    Keypair::from_secret_key([n; 32]).unwrap()
}

fn account(key: &Keypair) -> Value {
    Value::from_bytes(key.public_key().0)
}

/// Signs and submits, and waits until it is final; the error is the chain's.
async fn submit(
    api: &OnlineClient<PolkadotConfig>,
    key: &Keypair,
    call: (&str, &str),
    fields: Vec<Value>,
) -> Result<()> {
    let call = dynamic::transaction(call.0, call.1, fields);
    let at = api.at_current_block().await?;
    let progress = at.transactions().sign_and_submit_then_watch_default(&call, key).await?;
    progress.wait_for_finalized_success().await?;
    Ok(())
}

/// Gets money and a territory of 1 GiB called `home`.
async fn settle(devnet: &Devnet, api: &OnlineClient<PolkadotConfig>, key: &Keypair) {
    let address = sp_core::sr25519::Public::from_raw(key.public_key().0).to_ss58check();
    let rpc = RpcClient::from_url(&devnet.ws).await.unwrap();
    let block: String = rpc.request("cessfs_faucet", rpc_params![address]).await.unwrap();
    assert_eq!(block.len(), 66);
    let mint = vec![Value::u128(1), Value::from_bytes("home"), Value::u128(30)];
    submit(api, key, ("StorageHandler", "mint_territory"), mint)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn subxt_meets_a_real_chain() {
    let devnet = Devnet::up();
    let api = devnet.client().await;
    let key = user(1);
    settle(&devnet, &api, &key).await;

    // A failed dispatch has its name.
    let short = vec![Value::u128(1), Value::from_bytes("short"), Value::u128(29)];
    let error = submit(&api, &key, ("StorageHandler", "mint_territory"), short)
        .await
        .unwrap_err();
    assert!(format!("{error:?} {error}").contains("BoundariesNotMet"), "{error}");

    // So has a paused call.
    devnet.run(&["call", "pause", "System", "remark_with_event"]);
    let remark = || vec![Value::from_bytes("r")];
    let error = submit(&api, &key, ("System", "remark_with_event"), remark())
        .await
        .unwrap_err();
    assert!(format!("{error:?} {error}").contains("CallFiltered"), "{error}");
    devnet.run(&["call", "resume", "System", "remark_with_event"]);
    submit(&api, &key, ("System", "remark_with_event"), remark())
        .await
        .unwrap();

    // A used nonce is refused by the pool.
    let at = api.at_current_block().await.unwrap();
    let stale = DefaultExtrinsicParamsBuilder::<PolkadotConfig>::new().nonce(0).build();
    let call = dynamic::transaction("System", "remark", remark());
    let error = at
        .transactions()
        .sign_and_submit_then_watch(&call, &key, stale)
        .await
        .err()
        .unwrap();
    let error = format!("{error:?}");
    assert!(error.contains("1010") && error.contains("outdated"), "{error}");

    // Storage is there, also after a power cut.
    let price = dynamic::storage::<(), u128>("StorageHandler", "UnitPrice");
    let read = async |api: &OnlineClient<PolkadotConfig>| {
        let at = api.at_current_block().await.unwrap();
        at.storage().fetch(&price, ()).await.unwrap().decode().unwrap()
    };
    assert_eq!(read(&api).await, 30_000_000_000_000_000_000);
    devnet.run(&["chain", "price", "0.5"]);
    let height = devnet.status()["height"].as_u64().unwrap();
    devnet.kill();
    assert_eq!(devnet.start(), devnet.ws, "the port is kept");
    assert!(devnet.status()["height"].as_u64().unwrap() >= height);
    eventually(|| devnet.status()["finalized"].as_u64().unwrap() > height);
    let api = devnet.client().await;
    assert_eq!(read(&api).await, 500_000_000_000_000_000);
    submit(&api, &key, ("System", "remark"), remark()).await.unwrap();
}

/// One segment's worth of fragments that differ, and their hashes.
fn fragments() -> Vec<(String, Vec<u8>)> {
    let fragment = |n: u8| {
        let bytes: Vec<u8> = (0..FRAGMENT_BYTES)
            .map(|i| (i as u8).wrapping_mul(31).wrapping_add(n))
            .collect();
        (hex::encode(Sha256::digest(&bytes)), bytes)
    };
    (1..=12).map(fragment).collect()
}

fn signed(request: reqwest::RequestBuilder, fid: &str, fragment: &str) -> reqwest::RequestBuilder {
    let key = sp_core::sr25519::Pair::from_seed(&[9; 32]);
    let signature = hex::encode(key.sign(b"hello").0);
    let headers = [
        ("Fid", fid),
        ("Fragment", fragment),
        ("Message", "hello"),
        ("Signature", &signature),
    ];
    let request = headers
        .into_iter()
        .fold(request, |request, (name, value)| request.header(name, value));
    request.header("Account", key.public().to_ss58check())
}

/// A client of miners. reqwest has no provider of TLS of its own here.
fn client() -> reqwest::Client {
    let _another_was_first = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

async fn put(endpoint: &str, fid: &str, (hash, bytes): &(String, Vec<u8>)) -> Result<()> {
    let form = reqwest::multipart::Form::new().part("file", reqwest::multipart::Part::bytes(bytes.clone()));
    let request = client().put(format!("{endpoint}/fragment")).multipart(form);
    let answer: Json = signed(request, fid, hash).send().await?.json().await?;
    ensure!(answer["code"] == 200, "{answer}");
    Ok(())
}

async fn get(endpoint: &str, fid: &str, hash: &str) -> Result<Vec<u8>> {
    let request = client().get(format!("{endpoint}/fragment"));
    Ok(signed(request, fid, hash).send().await?.bytes().await?.to_vec())
}

fn declaration(owner: &Keypair, fid: &str, fragments: &[(String, Vec<u8>)]) -> Vec<Value> {
    let hashes = fragments.iter().map(|(hash, _)| Value::from_bytes(hash));
    let segment = Value::named_composite([
        ("hash", Value::from_bytes("0".repeat(64))),
        ("fragment_list", Value::unnamed_composite(hashes)),
    ]);
    let brief = Value::named_composite([
        ("user", account(owner)),
        ("file_name", Value::from_bytes("sealed label")),
        ("territory_name", Value::from_bytes("home")),
    ]);
    vec![
        Value::from_bytes(fid),
        Value::unnamed_composite([segment]),
        brief,
        Value::u128(32 << 20),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_miners_store_a_file_and_faults_outlive_a_power_cut() {
    let devnet = Devnet::up();
    let api = devnet.client().await;
    let key = user(2);
    settle(&devnet, &api, &key).await;
    let (fid, fragments) = ("ab".repeat(32), fragments());
    let status = devnet.status();
    let endpoints: Vec<String> = status["miners"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["endpoint"].as_str().unwrap().to_owned())
        .collect();

    assert!(put(&endpoints[0], &fid, &fragments[0]).await.is_err(), "no deal yet");
    submit(
        &api,
        &key,
        ("FileBank", "upload_declaration"),
        declaration(&key, &fid, &fragments),
    )
    .await
    .unwrap();
    for (endpoint, fragment) in endpoints.iter().zip(&fragments) {
        put(endpoint, &fid, fragment).await.context(endpoint.clone()).unwrap();
    }
    let stored = |devnet: &Devnet| devnet.status()["events"]["StorageCompleted"] == 1;
    eventually(|| stored(&devnet));
    let status = devnet.status();
    assert_eq!(
        (
            &status["events"]["UploadDeclaration"],
            &status["events"]["TransferReport"]
        ),
        (&1.into(), &12.into())
    );
    let held: Vec<u64> = status["miners"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["fragments"].as_u64().unwrap())
        .collect();
    assert_eq!(held, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0]);
    assert!(get(&endpoints[3], &fid, &fragments[3].0).await.unwrap() == fragments[3].1);

    devnet.run(&["miner", "stop", "0"]);
    devnet.run(&["miner", "corrupt", "1"]);
    devnet.run(&["miner", "forget", "2"]);
    devnet.run(&["miner", "state", "exit", "3"]);
    devnet.kill();
    devnet.start();
    assert!(stored(&devnet), "events are counted over the whole chain");
    assert!(get(&endpoints[0], &fid, &fragments[0].0).await.is_err());
    assert!(get(&endpoints[1], &fid, &fragments[1].0).await.unwrap() != fragments[1].1);
    assert!(get(&endpoints[2], &fid, &fragments[2].0).await.unwrap() != fragments[2].1);
    assert!(get(&endpoints[4], &fid, &fragments[4].0).await.unwrap() == fragments[4].1);
    assert_eq!(devnet.status()["miners"][3]["chain_state"], "exit");
    devnet.run(&["miner", "start", "0"]);
    assert!(get(&endpoints[0], &fid, &fragments[0].0).await.unwrap() == fragments[0].1);

    let api = devnet.client().await;
    let address = sp_core::sr25519::Public::from_raw(key.public_key().0).to_ss58check();
    devnet.run(&["territory", "freeze", &address, "home"]);
    let other = declaration(&key, &"cd".repeat(32), &fragments);
    let error = submit(&api, &key, ("FileBank", "upload_declaration"), other)
        .await
        .unwrap_err();
    assert!(format!("{error:?} {error}").contains("NotActive"), "{error}");
    devnet.run(&["territory", "expire", &address, "home"]);
    let delete = vec![account(&key), Value::from_bytes(&fid)];
    let error = submit(&api, &key, ("FileBank", "delete_file"), delete)
        .await
        .unwrap_err();
    assert!(
        format!("{error:?} {error}").contains("NonExistent"),
        "the file was purged: {error}"
    );
}

#[test]
fn commands_say_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cessfs-devnet"));
        let output = command.args(arguments).arg("--dir").arg(dir.path()).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (ok, error) = run(&["status"]);
    assert!(!ok && error.contains("no devnet runs in"), "{error}");
    assert!(run(&["down"]).0, "down is done when nothing runs");
    let (ok, error) = run(&["up", "--miners", "0", "--daemon"]);
    assert!(!ok && error.contains("1 to 256 miners"), "{error}");
    assert!(!run(&["fund", "cX", "1.0000000000000000001"]).0);
}

#[test]
fn a_second_up_joins_the_first() {
    let devnet = Devnet::up();
    assert_eq!(devnet.start(), devnet.ws);
    let other = devnet.output(&["up", "--miners", "5", "--daemon"]);
    assert!(other.status.success(), "it runs, whatever was wished");
    devnet.run(&["chain", "pause"]);
    let stuck = devnet.output(&["fund", "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", "1"]);
    assert!(!stuck.status.success() && String::from_utf8_lossy(&stuck.stderr).contains("paused"));
    devnet.run(&["chain", "resume"]);
    devnet.run(&["fund", "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", "1.5"]);
    devnet.run(&["down"]);
    let fewer = devnet.output(&["up", "--miners", "5", "--daemon"]);
    assert!(!fewer.status.success() && String::from_utf8_lossy(&fewer.stderr).contains("13 miners for good"));
}
