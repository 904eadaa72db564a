//! JSON-RPC over WebSocket, as a CESS node speaks it to subxt and polkadot.js.
//!
//! The legacy method set only: both clients fall back to it where `chainHead_v1` is missing. Error codes are those of
//! Substrate's author and state methods. One method is not CESS's: `cessfs_faucet`.

mod author;
mod chain;
mod faucet;
mod state;
mod system;

use crate::{
    limits::{RPC_CONNECTIONS_MAX, RPC_REQUEST_BYTES_MAX, RPC_RESPONSE_BYTES_MAX},
    node::Node,
};
use anyhow::Context as _;
use jsonrpsee::{
    RpcModule, SubscriptionMessage, SubscriptionSink,
    server::{RandomStringIdProvider, Server, ServerConfig, ServerHandle},
    types::ErrorObjectOwned,
};
use serde::Serialize;
use serde_json::json;
use sp_core::{bytes, crypto::Ss58Codec};
use std::{net::Ipv4Addr, sync::Arc};

/// What a method can answer.
type Answer<T> = Result<T, ErrorObjectOwned>;

/// What a devnet's chain calls itself, by which a client knows that there is a faucet.
pub const DEVNET: &str = "cess-devnet-local";

const INVALID_PARAMS: i32 = -32602;
/// Substrate's code for a failed state or chain query.
const QUERY_FAILED: i32 = 4003;
const ID_LENGTH: usize = 16;

/// Serves the node at 127.0.0.1 until the handle is stopped. The chain calls itself `chain`.
///
/// # Errors
/// If the port is taken.
pub async fn serve(node: Arc<Node>, port: u16, chain: &str) -> anyhow::Result<ServerHandle> {
    let config = ServerConfig::builder()
        .max_request_body_size(RPC_REQUEST_BYTES_MAX)
        .max_response_body_size(RPC_RESPONSE_BYTES_MAX)
        .max_connections(RPC_CONNECTIONS_MAX)
        .set_id_provider(RandomStringIdProvider::new(ID_LENGTH))
        .build();
    let server = Server::builder()
        .set_config(config)
        .build((Ipv4Addr::LOCALHOST, port))
        .await
        .with_context(|| format!("cannot serve JSON-RPC at 127.0.0.1:{port}"))?;
    Ok(server.start(methods(node, chain)?))
}

fn methods(node: Arc<Node>, chain: &str) -> anyhow::Result<RpcModule<Arc<Node>>> {
    let mut module = RpcModule::new(node);
    system::register(&mut module, chain)?;
    chain::register(&mut module)?;
    state::register(&mut module)?;
    author::register(&mut module)?;
    if chain == DEVNET {
        faucet::register(&mut module)?;
    }
    let mut names: Vec<String> = module.method_names().chain(["rpc_methods"]).map(String::from).collect();
    names.sort();
    module.register_method("rpc_methods", move |_, _, _| json!({ "methods": names }))?;
    Ok(module)
}

fn invalid(reason: impl ToString) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(INVALID_PARAMS, reason.to_string(), None::<()>)
}

fn failed(reason: impl ToString) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(QUERY_FAILED, reason.to_string(), None::<()>)
}

fn to_hex(data: &[u8]) -> String {
    bytes::to_hex(data, false)
}

fn from_hex(text: &str) -> Answer<Vec<u8>> {
    bytes::from_hex(text).map_err(invalid)
}

/// An account's text, with any network's prefix.
fn account(text: &str) -> Answer<cessfs_devnet_runtime::AccountId> {
    cessfs_devnet_runtime::AccountId::from_ss58check_with_version(text)
        .map(|(account, _)| account)
        .map_err(|e| invalid(format!("{text} is no account: {e:?}")))
}

/// Sends to a subscriber; false once it is gone.
async fn send(sink: &SubscriptionSink, value: &impl Serialize) -> bool {
    match serde_json::value::to_raw_value(value) {
        Ok(raw) => sink.send(SubscriptionMessage::from(raw)).await.is_ok(),
        Err(e) => {
            tracing::error!(%e, "a notification does not serialise");
            false
        }
    }
}
