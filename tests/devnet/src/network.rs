//! A devnet in its directory.
//!
//! ```text
//!  D/network.json   seed, ports, sizes: written once, before anything else
//!  D/chain.log      the chain
//!  D/miners/N/      what miner N holds, and its faults
//!  D/control.sock   the owner's door, while it runs
//!  D/lock           held while it runs
//!  D/log            what a detached process says
//! ```
//! It can be killed at any time; started again, everything is where it was, on the same ports.

mod settings;

pub use settings::Wish;

use crate::{
    chain::Chain,
    control,
    limits::{MINER_TCESS, MINERS_MAX},
    miner::MinerFleet,
    node::{MinerKeys, Node},
    rpc,
    seam::MinerSpec,
};
use anyhow::{Context, Result, ensure};
use cessfs_devnet_runtime::{
    AccountId, BalancesConfig, Runtime, RuntimeGenesisConfig, SS58_PREFIX, SminerConfig,
    cess::{GIB, TCESS},
    sminer,
};
use jsonrpsee::server::ServerHandle;
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};
use settings::Settings;
use sp_core::crypto::{Ss58AddressFormat, Ss58Codec};
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, task::JoinHandle};

/// A running devnet.
pub struct Network {
    dir: PathBuf,
    settings: Settings,
    accounts: Vec<AccountId>,
    node: Arc<Node>,
    fleet: Arc<MinerFleet>,
    stop: Notify,
}

/// What ends with a network.
struct Running {
    rpc: ServerHandle,
    author: JoinHandle<()>,
    door: JoinHandle<()>,
}

/// Path of the owner's door.
pub fn socket(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// Path of what a detached process says.
pub fn log(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// Takes the directory for this process, or `None` if another has it.
///
/// # Errors
/// If the directory can't be written.
pub fn lock(dir: &Path) -> Result<Option<Flock<File>>> {
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, e)) => Err(e).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Text of an account with CESS's prefix.
pub fn account_text(account: &AccountId) -> String {
    account.to_ss58check_with_version(Ss58AddressFormat::custom(SS58_PREFIX))
}

/// Runs the devnet in `dir`, whose [`lock`] the caller holds until the process ends: whoever stops it waits for the lock.
/// Makes it as wished if there is none. `ready` is called with the RPC's URL once everything answers. Returns when it was
/// stopped at its door or by SIGINT or SIGTERM.
///
/// # Errors
/// If the directory is unusable, a port is taken, or the wish contradicts what is there.
pub async fn run(dir: &Path, wish: &Wish, _lock: &Flock<File>, ready: impl FnOnce(&str)) -> Result<()> {
    ensure!(
        wish.miners.is_none_or(|n| n <= MINERS_MAX),
        "a devnet has at most {MINERS_MAX} miners"
    );
    let (network, running) = Network::start(dir, wish).await?;
    ready(&network.ws());
    network.wait_for_end().await?;
    network.end(running).await
}

impl Network {
    async fn start(dir: &Path, wish: &Wish) -> Result<(Arc<Self>, Running)> {
        let (settings, held) = Settings::open(dir, wish)?;
        let keys = MinerKeys::derive(&settings.seed()?, settings.miner_ports.len());
        let accounts: Vec<AccountId> = keys.accounts().collect();
        let genesis = || genesis(&settings, &accounts);
        let chain = Chain::open(&dir.join("chain.log"), genesis).context("cannot open the chain")?;
        let node = Node::new(chain);
        let specs = specs(dir, &settings, &accounts);
        let report_every = Duration::from_millis(settings.report_ms);
        // The first is the RPC's.
        let mut held = held.into_iter();
        let rpc_held = held.next();
        drop(held);
        let fleet = MinerFleet::start(specs, node.clone().view(keys), report_every).await?;
        drop(rpc_held);
        let rpc = rpc::serve(node.clone(), settings.ws_port, &settings.chain).await?;
        let author = tokio::spawn(node.clone().author(Duration::from_millis(settings.block_ms)));
        let network = Arc::new(Self {
            dir: dir.to_path_buf(),
            settings,
            accounts,
            node,
            fleet,
            stop: Notify::new(),
        });
        let door = control::serve(network.clone(), &socket(dir))?;
        Ok((network, Running { rpc, author, door }))
    }

    async fn wait_for_end(&self) -> Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            () = self.stop.notified() => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    }

    /// Everything that matters is on disk already; this only closes doors. Miners end with the process, so that those
    /// that run are not taken for stopped ones.
    async fn end(&self, running: Running) -> Result<()> {
        running.author.abort();
        running.door.abort();
        std::fs::remove_file(socket(&self.dir)).context("cannot remove the control socket")?;
        running.rpc.stop().context("the RPC server was gone already")?;
        Ok(())
    }

    /// URL of the RPC.
    pub fn ws(&self) -> String {
        format!("ws://127.0.0.1:{}", self.settings.ws_port)
    }

    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The miners.
    pub fn fleet(&self) -> &Arc<MinerFleet> {
        &self.fleet
    }

    /// Account of a miner.
    pub fn miner_account(&self, index: usize) -> Option<&AccountId> {
        self.accounts.get(index)
    }

    /// Makes [`run`] return.
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    /// Everything about it, for `status`.
    pub fn status(&self) -> Value {
        let state = self.node.read();
        let chain_state = |account: &AccountId| {
            let info = state
                .chain()
                .query(None, || sminer::MinerItems::<Runtime>::get(account))
                .ok()
                .flatten();
            info.map(|info| String::from_utf8_lossy(&info.state).into_owned())
        };
        let miner = |(index, account): (usize, &AccountId)| {
            let status = self.fleet.status(index);
            json!({
                "index": index,
                "account": account_text(account),
                "endpoint": endpoint(self.settings.miner_ports[index]),
                "state": status.state,
                "chain_state": chain_state(account),
                "slow_ms": status.slow_ms,
                "fragments": status.fragments,
            })
        };
        let miners: Vec<Value> = self.accounts.iter().enumerate().map(miner).collect();
        let events: serde_json::Map<String, Value> = state
            .chain()
            .events()
            .iter()
            .map(|(name, count)| (name.to_owned(), count.into()))
            .collect();
        json!({
            "ws": self.ws(),
            "pid": std::process::id(),
            "height": state.chain().height(),
            "finalized": state.finalized(),
            "paused": state.paused(),
            "miners": miners,
            "events": events,
        })
    }
}

fn endpoint(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn genesis(settings: &Settings, accounts: &[AccountId]) -> RuntimeGenesisConfig {
    let space = u128::from(settings.miner_space_gib) * GIB;
    let miners = accounts.iter().zip(&settings.miner_ports);
    RuntimeGenesisConfig {
        balances: BalancesConfig {
            balances: accounts
                .iter()
                .map(|account| (account.clone(), MINER_TCESS * TCESS))
                .collect(),
            ..Default::default()
        },
        sminer: SminerConfig {
            miners: miners
                .map(|(account, port)| (account.clone(), endpoint(*port), space))
                .collect(),
            ..Default::default()
        },
        ..Default::default()
    }
}

fn specs(dir: &Path, settings: &Settings, accounts: &[AccountId]) -> Vec<MinerSpec> {
    let spec = |(index, (account, port)): (usize, (&AccountId, &u16))| MinerSpec {
        index,
        account_ss58: account_text(account),
        endpoint_port: *port,
        dir: dir.join("miners").join(index.to_string()),
    };
    accounts
        .iter()
        .zip(&settings.miner_ports)
        .enumerate()
        .map(spec)
        .collect()
}
