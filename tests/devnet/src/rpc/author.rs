//! `author_*`: transactions into the pool, and what becomes of them.

use super::{Answer, from_hex, send, to_hex};
use crate::{
    chain::Refused,
    node::{Node, PoolError, TransactionStatus},
};
use jsonrpsee::{RpcModule, core::RegisterMethodError, types::ErrorObjectOwned};
use serde_json::{Value, json};
use sp_core::H256;
use sp_runtime::transaction_validity::{InvalidTransaction, TransactionValidityError};
use std::sync::Arc;

// Substrate's codes for refused transactions.
const BAD_FORMAT: i32 = 1001;
const INVALID_TRANSACTION: i32 = 1010;
const UNKNOWN_VALIDITY: i32 = 1011;
const ALREADY_IMPORTED: i32 = 1013;
const TOO_LOW_PRIORITY: i32 = 1014;
const IMMEDIATELY_DROPPED: i32 = 1016;

pub(super) fn register(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    module.register_method("author_submitExtrinsic", |params, node, _| -> Answer<H256> {
        let extrinsic = from_hex(&params.one::<String>()?)?;
        node.submit(extrinsic).map_err(refusal)
    })?;
    module.register_method("author_pendingExtrinsics", |_, node, _| -> Vec<String> {
        node.read()
            .pool()
            .candidates()
            .iter()
            .map(|extrinsic| to_hex(extrinsic))
            .collect()
    })?;
    module.register_subscription(
        "author_submitAndWatchExtrinsic",
        "author_extrinsicUpdate",
        "author_unwatchExtrinsic",
        |params, pending, node, _| async move {
            let extrinsic = params
                .one::<String>()
                .map_err(super::invalid)
                .and_then(|text| from_hex(&text));
            let watched = extrinsic.and_then(|extrinsic| node.submit_and_watch(extrinsic).map_err(refusal));
            let mut statuses = match watched {
                Ok(statuses) => statuses,
                Err(e) => return pending.reject(e).await,
            };
            let Ok(sink) = pending.accept().await else { return };
            loop {
                tokio::select! {
                    () = sink.closed() => return,
                    status = statuses.recv() => match status {
                        Some(status) if send(&sink, &to_json(status)).await => {}
                        _ => return, // the last word is said, or the client is gone
                    }
                }
            }
        },
    )?;
    Ok(())
}

fn to_json(status: TransactionStatus) -> Value {
    match status {
        TransactionStatus::Future => json!("future"),
        TransactionStatus::Ready => json!("ready"),
        TransactionStatus::InBlock(hash) => json!({ "inBlock": hash }),
        TransactionStatus::Finalized(hash) => json!({ "finalized": hash }),
        TransactionStatus::Usurped(hash) => json!({ "usurped": hash }),
        TransactionStatus::Invalid => json!("invalid"),
    }
}

fn refusal(error: PoolError) -> ErrorObjectOwned {
    let (code, message, data) = match error {
        PoolError::Refused(Refused::Invalid(TransactionValidityError::Invalid(e))) => {
            let reason = match e {
                InvalidTransaction::Custom(n) => format!("Custom error: {n}"),
                e => <&'static str>::from(e).to_owned(),
            };
            (INVALID_TRANSACTION, "Invalid Transaction", reason)
        }
        PoolError::Refused(Refused::Invalid(TransactionValidityError::Unknown(e))) => (
            UNKNOWN_VALIDITY,
            "Unknown Transaction Validity",
            <&'static str>::from(e).to_owned(),
        ),
        PoolError::Refused(Refused::Malformed(reason)) => (BAD_FORMAT, "Extrinsic has invalid format", reason),
        PoolError::AlreadyImported(hash) => (ALREADY_IMPORTED, "Transaction Already Imported", format!("{hash:?}")),
        PoolError::TooLowPriority { old, new } => {
            let reason = "The transaction has too low priority to replace another transaction already in the pool.";
            return ErrorObjectOwned::owned(
                TOO_LOW_PRIORITY,
                format!("Priority is too low: ({old} vs {new})"),
                Some(reason),
            );
        }
        PoolError::Full => (
            IMMEDIATELY_DROPPED,
            "Immediately Dropped",
            "The pool is full.".to_owned(),
        ),
    };
    ErrorObjectOwned::owned(code, message, Some(data))
}
