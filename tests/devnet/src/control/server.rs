//! The devnet's side of the door.

use super::{MinerVerb, Reply, Request};
use crate::{limits::CONTROL_REQUEST_BYTES_MAX, network::Network};
use anyhow::{Context, Result, bail, ensure};
use cessfs_devnet_runtime::{AccountId, cess::TerrName};
use serde_json::{Value, json};
use sp_core::crypto::Ss58Codec;
use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

/// Longest path that a Unix socket's address can hold.
const SOCKET_PATH_MAX: usize = 107;

/// Opens the door at `path` until the task is aborted.
///
/// # Errors
/// If the socket can't be made there.
pub fn serve(network: Arc<Network>, path: &Path) -> Result<JoinHandle<()>> {
    let length = path.as_os_str().len();
    ensure!(
        length <= SOCKET_PATH_MAX,
        "{} is too long for a socket; take a shorter directory",
        path.display()
    );
    if path.exists() {
        std::fs::remove_file(path).context("cannot remove the control socket of an earlier run")?;
    }
    let listener = UnixListener::bind(path).with_context(|| format!("cannot make {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(converse(network.clone(), stream))),
                Err(e) => tracing::error!(%e, "control socket"),
            }
        }
    }))
}

async fn converse(network: Arc<Network>, stream: UnixStream) {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader.take(CONTROL_REQUEST_BYTES_MAX)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let reply = match answer(&network, &line).await {
            Ok(value) => Reply::Ok(value),
            Err(e) => Reply::Error(format!("{e:#}")),
        };
        let mut reply = serde_json::to_string(&reply).expect("a value and a text serialise");
        reply.push('\n');
        if writer.write_all(reply.as_bytes()).await.is_err() {
            return; // the asker is gone
        }
    }
}

async fn answer(network: &Arc<Network>, line: &str) -> Result<Value> {
    let node = network.node();
    match serde_json::from_str(line).context("not a request")? {
        Request::Status => return Ok(network.status()),
        Request::Stop => {
            network.stop();
            return Ok(json!({ "pid": std::process::id() }));
        }
        Request::Miner { indexes, verb } => return miners(network, &indexes, &verb).await,
        Request::Fund { address, planck } => {
            let block = node.fund(account(&address)?, planck.parse().context("planck")?).await?;
            return Ok(json!({ "block": block }));
        }
        Request::Drain { address, planck } => {
            let _block = node
                .drain(account(&address)?, planck.parse().context("planck")?)
                .await?;
        }
        Request::ChainRename { name, told } => node.rename(&name, &told)?,
        Request::ChainPause { pause } => node.pause(pause),
        Request::ChainLag { blocks } => node.set_lag(blocks),
        Request::ChainPrice { planck } => drop(node.set_price(planck.parse().context("planck")?).await?),
        Request::CallPause { pallet, call, pause } => drop(node.pause_call(&pallet, &call, pause).await?),
        Request::Territory {
            account: owner,
            name,
            expire,
        } => {
            let name: TerrName = name.into_bytes().try_into().ok().context("the name is too long")?;
            match expire {
                true => node.expire_territory(account(&owner)?, name).await?,
                false => node.freeze_territory(account(&owner)?, name).await?,
            }
        }
    }
    Ok(Value::Null)
}

/// Does it to each miner; answers with the fragments damaged or deleted, per miner.
async fn miners(network: &Arc<Network>, indexes: &[usize], verb: &MinerVerb) -> Result<Value> {
    let fleet = network.fleet();
    if let Some(index) = indexes.iter().find(|index| **index >= fleet.len()) {
        bail!(
            "there is no miner {index}; they are 0 to {}",
            fleet.len().saturating_sub(1)
        );
    }
    let mut fragments = Vec::new();
    for &index in indexes {
        match verb {
            MinerVerb::Stop => fleet.stop(index).await,
            MinerVerb::Start => fleet.resume(index).await?,
            MinerVerb::Slow(ms) => fleet.slow(index, *ms),
            MinerVerb::Corrupt | MinerVerb::Forget => {
                let (fleet, corrupt) = (fleet.clone(), *verb == MinerVerb::Corrupt);
                let damage = move || {
                    if corrupt {
                        fleet.corrupt(index)
                    } else {
                        fleet.forget(index)
                    }
                };
                fragments.push(tokio::task::spawn_blocking(damage).await?);
            }
            MinerVerb::State(state) => {
                let account = network.miner_account(index).context("a miner without an account")?;
                network.node().set_miner_state(account.clone(), state).await?;
            }
        }
    }
    Ok(json!({ "fragments": fragments }))
}

fn account(text: &str) -> Result<AccountId> {
    match AccountId::from_ss58check_with_version(text) {
        Ok((account, _)) => Ok(account),
        Err(e) => bail!("{text} is no account: {e:?}"),
    }
}
