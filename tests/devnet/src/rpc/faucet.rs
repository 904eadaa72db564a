//! `cessfs_faucet(address)`: money for nothing. Answers with the hash of the block that has it.

use super::{Answer, account, failed};
use crate::{limits::FAUCET_TCESS, node::Node};
use cessfs_devnet_runtime::cess::TCESS;
use jsonrpsee::{RpcModule, core::RegisterMethodError};
use sp_core::H256;
use std::sync::Arc;

pub(super) fn register(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    module.register_async_method("cessfs_faucet", |params, node, _| async move {
        let account = account(&params.one::<String>()?)?;
        let answer: Answer<H256> = node.fund(account, FAUCET_TCESS * TCESS).await.map_err(failed);
        answer
    })?;
    Ok(())
}
