//! What the chain says about a volume's account and territory, in the words of `status`.

use crate::config::{AtRestMode, VolumeConfig};
use crate::control::{Status, TerritoryStatus};
use crate::exit::{Exit, Failure};
use crate::limits::CHAIN_TIMEOUT;
use cessfs_sync::Chain;
use cessfs_sync::chain::{ChainError, ChainInfo, Head, Planck, Territory, TerritoryState};
use std::future::Future;
use std::time::Duration;

/// Seconds between two blocks of CESS.
pub const BLOCK_SECONDS: u64 = 6;

/// One answer of the chain.
pub struct Answer {
    /// What chain it is.
    pub info: ChainInfo,
    /// Free balance.
    pub balance: Planck,
    /// The territory, if there is one of that name.
    pub territory: Option<Territory>,
    /// Best block.
    pub height: u32,
}

/// Asks everything at once about the account that the chain acts as.
///
/// # Errors
/// The first thing that could not be had.
pub async fn ask_chain(chain: &dyn Chain, territory: &str) -> Result<Answer, ChainError> {
    let (info, balance, territory, height) = futures::try_join!(
        chain.info(),
        chain.balance(chain.account()),
        chain.territory(territory),
        chain.height(Head::Best),
    )?;
    Ok(Answer {
        info,
        balance,
        territory,
        height,
    })
}

impl Answer {
    /// Adds it to a status.
    pub fn fill(&self, status: &mut Status) {
        status.chain_reachable = true;
        status.balance = Some(self.balance.to_string());
        status.token = self.info.token_symbol.clone();
        status.territory = self.territory.as_ref().map(|t| territory_status(t, self.height));
    }
}

/// A territory in the words of `status`.
pub fn territory_status(territory: &Territory, height: u32) -> TerritoryStatus {
    let bytes = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
    TerritoryStatus {
        name: territory.name.clone(),
        state: territory_state(territory.state).to_owned(),
        total_bytes: bytes(territory.total_bytes),
        used_bytes: bytes(territory.used_bytes),
        locked_bytes: bytes(territory.locked_bytes),
        remaining_bytes: bytes(territory.remaining_bytes),
        deadline_block: territory.deadline_block,
        seconds_left: u64::from(territory.deadline_block.saturating_sub(height)) * BLOCK_SECONDS,
    }
}

fn territory_state(state: TerritoryState) -> &'static str {
    match state {
        TerritoryState::Active => "active",
        TerritoryState::Frozen => "frozen",
        TerritoryState::Expired => "expired",
        TerritoryState::OnConsignment => "on-consignment",
    }
}

/// How the cache rests, as text.
pub fn at_rest(config: &VolumeConfig) -> String {
    match config.at_rest {
        AtRestMode::Sealed => "sealed",
        AtRestMode::Plain => "plain",
    }
    .to_owned()
}

/// Price of a new territory; none while the chain names no unit price.
pub fn price(info: &ChainInfo, gib: u32, days: u32) -> Option<Planck> {
    info.unit_price?
        .checked_mul(u128::from(gib))?
        .checked_mul(u128::from(days))
}

/// Waits for the chain, but not for ever: it may never have been there.
///
/// # Errors
/// What the chain says, or [`Exit::ChainAway`] naming the address.
pub async fn reach<T>(rpc: &str, question: impl Future<Output = Result<T, ChainError>>) -> Result<T, Failure> {
    reach_within(rpc, CHAIN_TIMEOUT, question).await
}

/// As [`reach`], with another patience.
///
/// # Errors
/// As [`reach`].
pub async fn reach_within<T>(
    rpc: &str,
    patience: Duration,
    question: impl Future<Output = Result<T, ChainError>>,
) -> Result<T, Failure> {
    let away = |why: String| {
        Failure::new(
            Exit::ChainAway,
            format!("the CESS node at {rpc} cannot be reached: {why}"),
        )
        .hint("check the address and this machine's network")
    };
    match tokio::time::timeout(patience, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(ChainError::Away(why))) => Err(away(why)),
        Ok(Err(other)) => Err(other.into()),
        Err(_) => Err(away(format!("no answer within {} s", patience.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_and_deadlines() {
        let mut info = ChainInfo {
            name: "x".into(),
            spec_version: 137,
            genesis: [0; 32],
            segment_count_max: 1000,
            fragment_count: 12,
            existential_deposit: 1,
            unit_price: Some(5),
            token_symbol: "TCESS".into(),
        };
        assert_eq!(price(&info, 10, 30), Some(1500));
        info.unit_price = None;
        assert_eq!(price(&info, 10, 30), None);
        let territory = Territory {
            name: "t".into(),
            total_bytes: 1 << 70,
            used_bytes: 1,
            locked_bytes: 2,
            remaining_bytes: 3,
            start_block: 0,
            deadline_block: 110,
            state: TerritoryState::Active,
        };
        let told = territory_status(&territory, 100);
        assert_eq!((told.total_bytes, told.seconds_left), (u64::MAX, 60));
        assert_eq!(territory_status(&territory, 200).seconds_left, 0);
    }
}
