//! `system_*`: who this is.

use super::{Answer, account};
use crate::node::Node;
use cessfs_devnet_runtime::SS58_PREFIX;
use jsonrpsee::{RpcModule, core::RegisterMethodError};
use serde_json::json;
use std::sync::Arc;

pub(super) fn register(module: &mut RpcModule<Arc<Node>>, chain: &str) -> Result<(), RegisterMethodError> {
    let chain = chain.to_owned();
    module.register_method("system_chain", move |_, _, _| chain.clone())?;
    module.register_method("system_name", |_, _, _| env!("CARGO_PKG_NAME"))?;
    module.register_method("system_version", |_, _, _| env!("CARGO_PKG_VERSION"))?;
    module.register_method("system_chainType", |_, _, _| "Development")?;
    module.register_method(
        "system_properties",
        |_, _, _| json!({ "ss58Format": SS58_PREFIX, "tokenDecimals": 18, "tokenSymbol": "TCESS" }),
    )?;
    module.register_method(
        "system_health",
        |_, _, _| json!({ "peers": 0, "isSyncing": false, "shouldHavePeers": false }),
    )?;
    module.register_method("system_nodeRoles", |_, _, _| json!(["Authority"]))?;
    module.register_method("system_peers", |_, _, _| json!([]))?;
    module.register_method("system_localListenAddresses", |_, _, _| json!([]))?;
    module.register_method("system_syncState", |_, node, _| {
        let height = node.read().chain().height();
        json!({ "startingBlock": 0, "currentBlock": height, "highestBlock": height })
    })?;
    for name in ["system_accountNextIndex", "account_nextIndex"] {
        module.register_method(name, |params, node, _| -> Answer<u32> {
            let account = account(&params.one::<String>()?)?;
            Ok(node.read().next_nonce(&account))
        })?;
    }
    Ok(())
}
