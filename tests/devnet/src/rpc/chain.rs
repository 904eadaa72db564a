//! `chain_*`: blocks and heads.

use super::{Answer, failed, invalid, send, to_hex};
use crate::node::Node;
use cessfs_devnet_runtime::Header;
use jsonrpsee::{PendingSubscriptionSink, RpcModule, core::RegisterMethodError, types::Params};
use serde_json::{Value, json};
use sp_core::H256;
use std::sync::Arc;
use tokio::sync::broadcast::{Receiver, error::RecvError};

pub(super) fn register(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    for name in ["chain_getBlockHash", "chain_getHead"] {
        module.register_method(name, |params, node, _| block_hash(&params, node))?;
    }
    for name in ["chain_getFinalizedHead", "chain_getFinalisedHead"] {
        module.register_method(name, |_, node, _| json!(node.read().finalized_hash()))?;
    }
    module.register_method("chain_getHeader", |params, node, _| -> Answer<Option<Header>> {
        let at: Option<H256> = params.sequence().optional_next()?;
        Ok(node.read().chain().block(at).ok().map(|block| block.header.clone()))
    })?;
    module.register_method("chain_getBlock", |params, node, _| -> Answer<Value> {
        let at: Option<H256> = params.sequence().optional_next()?;
        let state = node.read();
        let Ok(block) = state.chain().block(at) else {
            return Ok(Value::Null);
        };
        let extrinsics: Vec<String> = block.body.iter().map(|extrinsic| to_hex(extrinsic)).collect();
        Ok(json!({ "block": { "header": block.header, "extrinsics": extrinsics }, "justifications": null }))
    })?;
    let new_heads = [
        ("chain_subscribeNewHeads", "chain_newHead", "chain_unsubscribeNewHeads"),
        ("chain_subscribeNewHead", "chain_newHead", "chain_unsubscribeNewHead"),
        ("chain_subscribeAllHeads", "chain_allHead", "chain_unsubscribeAllHeads"),
    ];
    for (subscribe, notification, unsubscribe) in new_heads {
        module.register_subscription(subscribe, notification, unsubscribe, |_, pending, node, _| async move {
            let heads = node.heads();
            let first = node.read().chain().best().header.clone();
            follow(pending, first, heads).await;
        })?;
    }
    let final_heads = [
        (
            "chain_subscribeFinalizedHeads",
            "chain_finalizedHead",
            "chain_unsubscribeFinalizedHeads",
        ),
        (
            "chain_subscribeFinalisedHeads",
            "chain_finalisedHead",
            "chain_unsubscribeFinalisedHeads",
        ),
    ];
    for (subscribe, notification, unsubscribe) in final_heads {
        module.register_subscription(subscribe, notification, unsubscribe, |_, pending, node, _| async move {
            let heads = node.finalized_heads();
            let first = {
                let state = node.read();
                state
                    .chain()
                    .at_height(state.finalized())
                    .map(|block| block.header.clone())
            };
            if let Some(first) = first {
                follow(pending, first, heads).await;
            }
        })?;
    }
    Ok(())
}

/// Sends a head and all that come after it. A subscriber too slow misses some, as on a real node.
async fn follow(pending: PendingSubscriptionSink, first: Header, mut heads: Receiver<Header>) {
    let Ok(sink) = pending.accept().await else { return };
    if !send(&sink, &first).await {
        return;
    }
    let mut last = first.number;
    loop {
        tokio::select! {
            () = sink.closed() => return,
            head = heads.recv() => match head {
                Ok(head) if head.number <= last => {} // made between subscribing and reading the first
                Ok(head) => {
                    last = head.number;
                    if !send(&sink, &head).await {
                        return;
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// The hash at a height, or at each of a list of heights; the best block's without any.
fn block_hash(params: &Params<'_>, node: &Node) -> Answer<Value> {
    let number: Option<Value> = params.sequence().optional_next()?;
    let state = node.read();
    let at = |number: &Value| -> Answer<Value> {
        let number = match number {
            Value::Number(n) => n.as_u64().ok_or_else(|| invalid("a height is not negative"))?,
            Value::String(s) => u64::from_str_radix(s.trim_start_matches("0x"), 16).map_err(invalid)?,
            _ => return Err(invalid("a height is a number or its hex text")),
        };
        let number = u32::try_from(number).map_err(|_| failed("heights have 32 bits"))?;
        Ok(json!(state.chain().at_height(number).map(|block| block.hash)))
    };
    match number {
        None | Some(Value::Null) => Ok(json!(state.chain().best().hash)),
        Some(Value::Array(numbers)) => numbers.iter().map(at).collect::<Answer<Vec<_>>>().map(Value::Array),
        Some(number) => at(&number),
    }
}
