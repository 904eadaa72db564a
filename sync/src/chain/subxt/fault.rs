//! What an error of the chain's client means for the caller.
//!
//! A chain that answers but does not fit is `Shape`; a transaction refused by a rule is named by that rule; all the rest
//! is the network, and `Away`.

use crate::chain::ChainError;
use crate::limits::CHAIN_TEXT_CHARS_MAX;
use crate::printable::printable;
use std::error::Error as StdError;
use subxt::error::{
    BackendError, DispatchError, ExtrinsicError, OnlineClientAtBlockError, RpcError, StorageError, TokenError,
};
use subxt::rpcs::{Error as ClientError, UserError};

/// JSON-RPC code of a transaction that fails its checks before it enters the pool.
const INVALID_TRANSACTION: i32 = 1010;

/// What the call was about, where one error name means different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It takes space from a territory.
    Upload,
    /// It buys space from the network.
    Purchase,
    /// Neither.
    Other,
}

/// The kind of an error while reading.
pub(super) fn fault(error: impl Into<subxt::Error>) -> ChainError {
    use subxt::Error as E;
    let error = error.into();
    let fits = match &error {
        E::ConstantError(_) | E::StorageValueError(_) | E::StorageKeyError(_) | E::OtherCodecError(_) => false,
        E::StorageError(
            StorageError::CannotFetchValue(_) | StorageError::CannotIterateValues(_) | StorageError::StreamFailure(_),
        ) => true,
        E::StorageError(_) => false,
        E::OnlineClientAtBlockError(at) => !matches!(
            at,
            OnlineClientAtBlockError::CannotDecodeSpecVersion { .. }
                | OnlineClientAtBlockError::UnsupportedMetadataVersion { .. }
                | OnlineClientAtBlockError::MissingLegacyTypes
                | OnlineClientAtBlockError::CannotConvertLegacyMetadata { .. }
                | OnlineClientAtBlockError::CannotConvertModernMetadata { .. }
        ),
        _ => true,
    };
    if fits {
        away(&error)
    } else {
        ChainError::Shape(with_causes(&error))
    }
}

/// The error as it may be told: what it says is the node's text.
pub(super) fn shown(error: ChainError) -> ChainError {
    use ChainError as E;
    let make: fn(String) -> ChainError = match &error {
        E::Away(_) => E::Away,
        E::NoFunds(_) => E::NoFunds,
        E::TerritoryFull(_) => E::TerritoryFull,
        E::TerritoryInactive(_) => E::TerritoryInactive,
        E::NoTerritory(_) => E::NoTerritory,
        E::Paused(_) => E::Paused,
        E::Refused(_) => E::Refused,
        E::Shape(_) => E::Shape,
    };
    let (E::Away(text)
    | E::NoFunds(text)
    | E::TerritoryFull(text)
    | E::TerritoryInactive(text)
    | E::NoTerritory(text)
    | E::Paused(text)
    | E::Refused(text)
    | E::Shape(text)) = error;
    make(printable(&text, CHAIN_TEXT_CHARS_MAX))
}

/// The network failed.
pub(super) fn away(error: &(dyn StdError + 'static)) -> ChainError {
    ChainError::Away(with_causes(error))
}

fn with_causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}

/// Why a transaction was not taken, if it certainly was not; `None` if it may be in the pool.
pub(super) fn rejection(error: &ExtrinsicError) -> Option<ChainError> {
    match error {
        ExtrinsicError::ErrorSubmittingTransaction(BackendError::Rpc(RpcError::ClientError(ClientError::User(
            error,
        )))) => rejection_by_pool(error),
        ExtrinsicError::ErrorSubmittingTransaction(_)
        | ExtrinsicError::TransactionStatusError(_)
        | ExtrinsicError::TransactionStatusStreamError(_)
        | ExtrinsicError::UnexpectedEndOfTransactionStatusStream => None,
        ExtrinsicError::AccountNonceError { .. } => Some(away(error)),
        // The rest comes from building it.
        _ => Some(ChainError::Shape(with_causes(error))),
    }
}

fn rejection_by_pool(error: &UserError) -> Option<ChainError> {
    let data = error
        .data
        .as_ref()
        .map(|data| data.get().trim_matches('"'))
        .unwrap_or_default();
    let text = format!("{} {data}", error.message).trim().to_owned();
    if error.code != INVALID_TRANSACTION {
        // Already there, another one with this nonce is there, or the node is busy: whether ours counts must be asked.
        return None;
    }
    let lower = text.to_lowercase();
    Some(if lower.contains("inability to pay") {
        ChainError::NoFunds(text)
    } else if lower.contains("outdated") || lower.contains("stale") || lower.contains("future") {
        // Somebody else used the account meanwhile; nothing of ours was taken, and asking again is right.
        ChainError::Away(text)
    } else {
        ChainError::Refused(text)
    })
}

/// Why a transaction that is in a finalized block did nothing (error names: facts 1.7).
pub(super) fn dispatch(error: &DispatchError, purpose: Purpose) -> ChainError {
    match error {
        DispatchError::Module(module) => match module.details() {
            Ok(details) => by_name(details.pallet.name(), &details.variant.name, purpose),
            Err(e) => ChainError::Refused(format!("{error} ({e})")),
        },
        DispatchError::Token(TokenError::FundsUnavailable | TokenError::NotExpendable | TokenError::BelowMinimum) => {
            ChainError::NoFunds(error.to_string())
        }
        other => ChainError::Refused(other.to_string()),
    }
}

pub(super) fn by_name(pallet: &str, name: &str, purpose: Purpose) -> ChainError {
    let text = format!("{pallet}.{name}");
    match (pallet, name) {
        ("System", "CallFiltered") => ChainError::Paused(text),
        ("Balances", "InsufficientBalance" | "LiquidityRestrictions" | "ExistentialDeposit" | "Expendability") => {
            ChainError::NoFunds(text)
        }
        ("StorageHandler", "InsufficientBalance") => ChainError::NoFunds(text),
        ("StorageHandler" | "FileBank", "InsufficientStorage" | "InsufficientAvailableSpace")
            if purpose == Purpose::Upload =>
        {
            ChainError::TerritoryFull(text)
        }
        ("StorageHandler" | "FileBank", "NotActive") => ChainError::TerritoryInactive(text),
        ("StorageHandler", "NotHaveTerritory") => ChainError::NoTerritory(text),
        _ => ChainError::Refused(text),
    }
}
