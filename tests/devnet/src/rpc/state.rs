//! `state_*` and `payment_*`: the state after a block, the runtime's functions, prices.

use super::{Answer, failed, from_hex, invalid, send, to_hex};
use crate::{chain::Chain, limits::KEYS_PER_PAGE_MAX, node::Node};
use cessfs_devnet_runtime::{Balance, VERSION};
use codec::{Decode, Encode};
use jsonrpsee::{PendingSubscriptionSink, RpcModule, core::RegisterMethodError, types::Params};
use pallet_transaction_payment::{FeeDetails, RuntimeDispatchInfo};
use serde_json::{Value, json};
use sp_core::H256;
use std::{collections::HashMap, sync::Arc};
use tokio::sync::broadcast::error::RecvError;

pub(super) fn register(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    register_queries(module)?;
    register_subscriptions(module)?;
    module.register_method("payment_queryInfo", |params, node, _| -> Answer<Value> {
        let info: RuntimeDispatchInfo<Balance> = price(&params, node, "TransactionPaymentApi_query_info")?;
        Ok(json!({ "weight": info.weight, "class": info.class, "partialFee": info.partial_fee.to_string() }))
    })?;
    module.register_method("payment_queryFeeDetails", |params, node, _| -> Answer<Value> {
        let details: FeeDetails<Balance> = price(&params, node, "TransactionPaymentApi_query_fee_details")?;
        let hex = |n: Balance| format!("{n:#x}");
        let inclusion = details.inclusion_fee.map(|fee| {
            json!({
                "baseFee": hex(fee.base_fee),
                "lenFee": hex(fee.len_fee),
                "adjustedWeightFee": hex(fee.adjusted_weight_fee),
            })
        });
        Ok(json!({ "inclusionFee": inclusion }))
    })?;
    Ok(())
}

fn register_queries(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    module.register_method("state_getMetadata", |params, node, _| -> Answer<String> {
        let at: Option<H256> = params.sequence().optional_next()?;
        let state = node.read();
        let answer = state.call(at, "Metadata_metadata", &[]).map_err(failed)?;
        Ok(to_hex(&Vec::<u8>::decode(&mut answer.as_slice()).map_err(failed)?))
    })?;
    for name in ["state_getRuntimeVersion", "chain_getRuntimeVersion"] {
        module.register_method(name, |_, _, _| json!(VERSION))?;
    }
    for name in ["state_call", "state_callAt"] {
        module.register_method(name, |params, node, _| -> Answer<String> {
            let mut params = params.sequence();
            let (method, data): (String, String) = (params.next()?, params.next()?);
            let at: Option<H256> = params.optional_next()?;
            let data = from_hex(&data)?;
            Ok(to_hex(&node.read().call(at, &method, &data).map_err(failed)?))
        })?;
    }
    for name in ["state_getStorage", "state_getStorageAt"] {
        module.register_method(name, |params, node, _| -> Answer<Option<String>> {
            Ok(value(&params, node)?.map(|value| to_hex(&value)))
        })?;
    }
    module.register_method("state_getStorageSize", |params, node, _| -> Answer<Option<usize>> {
        Ok(value(&params, node)?.map(|value| value.len()))
    })?;
    module.register_method("state_getStorageHash", |params, node, _| -> Answer<Option<H256>> {
        Ok(value(&params, node)?.map(|value| sp_io::hashing::blake2_256(&value).into()))
    })?;
    for name in ["state_getKeysPaged", "state_getKeysPagedAt"] {
        module.register_method(name, |params, node, _| keys(&params, node))?;
    }
    module.register_method("state_queryStorageAt", |params, node, _| -> Answer<Value> {
        let mut params = params.sequence();
        let keys: Vec<String> = params.next()?;
        let at: Option<H256> = params.optional_next()?;
        let state = node.read();
        let block = state.chain().block(at).map_err(failed)?.hash;
        let read = |key: String| -> Answer<Value> {
            let value = state.chain().storage(Some(block), &from_hex(&key)?).map_err(failed)?;
            Ok(json!([key, value.map(|value| to_hex(&value))]))
        };
        let changes = keys.into_iter().map(read).collect::<Answer<Vec<_>>>()?;
        Ok(json!([{ "block": block, "changes": changes }]))
    })?;
    Ok(())
}

fn register_subscriptions(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    let versions = [
        (
            "state_subscribeRuntimeVersion",
            "state_runtimeVersion",
            "state_unsubscribeRuntimeVersion",
        ),
        (
            "chain_subscribeRuntimeVersion",
            "chain_runtimeVersion",
            "chain_unsubscribeRuntimeVersion",
        ),
    ];
    for (subscribe, notification, unsubscribe) in versions {
        module.register_subscription(subscribe, notification, unsubscribe, |_, pending, _, _| async move {
            let Ok(sink) = pending.accept().await else { return };
            if send(&sink, &VERSION).await {
                sink.closed().await; // the runtime never changes
            }
        })?;
    }
    module.register_subscription(
        "state_subscribeStorage",
        "state_storage",
        "state_unsubscribeStorage",
        |params, pending, node, _| async move {
            let keys: Result<Option<Vec<String>>, _> = params.sequence().optional_next();
            match keys
                .map_err(invalid)
                .and_then(|keys| parse_keys(&keys.unwrap_or_default()))
            {
                Ok(keys) => follow(pending, &node, keys).await,
                Err(e) => pending.reject(e).await,
            }
        },
    )?;
    Ok(())
}

/// Sends the values of some keys, then at every block those that changed.
async fn follow(pending: PendingSubscriptionSink, node: &Node, keys: Vec<(String, Vec<u8>)>) {
    let Ok(sink) = pending.accept().await else { return };
    let mut heads = node.heads();
    let mut known: HashMap<String, Option<Vec<u8>>> = HashMap::new();
    loop {
        let changes = {
            let state = node.read();
            changed(state.chain(), &keys, &mut known)
        };
        if let Some(changes) = changes
            && !send(&sink, &changes).await
        {
            return;
        }
        tokio::select! {
            () = sink.closed() => return,
            head = heads.recv() => if matches!(head, Err(RecvError::Closed)) { return },
        }
    }
}

/// The keys whose values differ from the known ones, which are brought up to date.
fn changed(chain: &Chain, keys: &[(String, Vec<u8>)], known: &mut HashMap<String, Option<Vec<u8>>>) -> Option<Value> {
    let mut changes = Vec::new();
    for (text, key) in keys {
        let value = chain.storage(None, key).ok()?;
        if known.get(text) != Some(&value) {
            changes.push(json!([text, value.as_ref().map(|value| to_hex(value))]));
            known.insert(text.clone(), value);
        }
    }
    (!changes.is_empty()).then(|| json!({ "block": chain.best().hash, "changes": changes }))
}

fn parse_keys(keys: &[String]) -> Answer<Vec<(String, Vec<u8>)>> {
    keys.iter().map(|text| Ok((text.clone(), from_hex(text)?))).collect()
}

fn value(params: &Params<'_>, node: &Node) -> Answer<Option<Vec<u8>>> {
    let mut params = params.sequence();
    let key: String = params.next()?;
    let at: Option<H256> = params.optional_next()?;
    node.read().chain().storage(at, &from_hex(&key)?).map_err(failed)
}

fn keys(params: &Params<'_>, node: &Node) -> Answer<Vec<String>> {
    let mut params = params.sequence();
    let prefix: Option<String> = params.optional_next()?;
    let count: u32 = params.next()?;
    let start: Option<String> = params.optional_next()?;
    let at: Option<H256> = params.optional_next()?;
    if count > KEYS_PER_PAGE_MAX {
        return Err(failed(format!(
            "{count} keys are more than the {KEYS_PER_PAGE_MAX} of a page"
        )));
    }
    let prefix = prefix.map(|text| from_hex(&text)).transpose()?.unwrap_or_default();
    let start = start
        .map(|text| from_hex(&text))
        .transpose()?
        .filter(|start| !start.is_empty());
    let state = node.read();
    let keys = state
        .chain()
        .keys(at, &prefix, count as usize, start.as_deref())
        .map_err(failed)?;
    Ok(keys.iter().map(|key| to_hex(key)).collect())
}

/// Asks the runtime what a transaction costs.
fn price<T: Decode>(params: &Params<'_>, node: &Node, method: &str) -> Answer<T> {
    let mut params = params.sequence();
    let extrinsic: String = params.next()?;
    let at: Option<H256> = params.optional_next()?;
    let mut data = from_hex(&extrinsic)?;
    let length = u32::try_from(data.len()).map_err(invalid)?;
    data.extend_from_slice(&length.encode());
    let answer = node.read().chain().call(at, method, &data).map_err(failed)?;
    T::decode(&mut answer.as_slice()).map_err(failed)
}
