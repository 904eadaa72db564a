//! What the devnet's owner can do to the chain that no transaction can: money, root, standstill.

use super::Node;
use crate::limits::{EFFECT_BLOCKS_MAX, EFFECT_TIMEOUT};
use cessfs_devnet_runtime::{
    AccountId, Runtime, RuntimeCall,
    cess::TerrName,
    devnet,
    storage_handler::{self, TerritoryInfo, TerritoryState},
    tx_pause,
};
use frame_support::traits::Get;
use sp_core::H256;
use sp_runtime::DispatchError;
use tokio::sync::oneshot;

/// Why the door stayed shut.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Nothing gets into a block while there are none.
    #[error("block production is paused; resume it first")]
    Paused,
    /// The chain did not take the call within its time.
    #[error("the chain did not do it within {} s", EFFECT_TIMEOUT.as_secs())]
    TimedOut,
    /// The block that was to have the call could not be made.
    #[error("the block failed; the log says why")]
    NoBlock,
    /// The call was in a block and failed.
    #[error("the chain refused: {0}")]
    Refused(String),
    /// There is no such thing.
    #[error("{0}")]
    Unknown(String),
}

impl Node {
    /// Puts an author's call into the next block and waits for it.
    async fn force(&self, call: impl FnOnce(u32) -> RuntimeCall) -> Result<H256, DoorError> {
        let outcome = {
            let mut state = self.state.write();
            if state.paused {
                return Err(DoorError::Paused);
            }
            let (sender, receiver) = oneshot::channel();
            let next = state.chain.height() + 1;
            state.forced.push((call(next), sender));
            receiver
        };
        let outcome = tokio::time::timeout(EFFECT_TIMEOUT, outcome)
            .await
            .map_err(|_| DoorError::TimedOut)?;
        outcome
            .map_err(|_| DoorError::NoBlock)?
            .map_err(|e| DoorError::Refused(describe(e)))
    }

    async fn as_root(&self, call: impl FnOnce(u32) -> RuntimeCall) -> Result<H256, DoorError> {
        self.force(|next| {
            RuntimeCall::Devnet(devnet::Call::as_root {
                call: Box::new(call(next)),
            })
        })
        .await
    }

    /// Makes `planck` for an account; returns the block.
    ///
    /// # Errors
    /// If no block takes it.
    pub async fn fund(&self, who: AccountId, planck: u128) -> Result<H256, DoorError> {
        self.force(|_| RuntimeCall::Devnet(devnet::Call::fund { who, amount: planck }))
            .await
    }

    /// Leaves an account `planck` of free money, whatever it has; returns the block.
    ///
    /// # Errors
    /// If no block takes it.
    pub async fn drain(&self, who: AccountId, planck: u128) -> Result<H256, DoorError> {
        self.as_root(|_| {
            let call = pallet_balances::Call::force_set_balance {
                who: who.into(),
                new_free: planck,
            };
            call.into()
        })
        .await
    }

    /// Tells another name of the same length in the metadata from now on: a runtime that clients do not know. A restart
    /// ends it.
    ///
    /// # Errors
    /// If the lengths differ: every name after it would stand elsewhere.
    pub fn rename(&self, name: &str, told: &str) -> Result<(), DoorError> {
        if name.is_empty() || name.len() != told.len() {
            return Err(DoorError::Unknown("the two names must be of one length".into()));
        }
        self.state.write().renamed = Some((name.to_owned(), told.to_owned()));
        Ok(())
    }

    /// Puts a miner into a state such as `positive`, `frozen` or `exit`.
    ///
    /// # Errors
    /// If there is no such miner or state.
    pub async fn set_miner_state(&self, miner: AccountId, state: &str) -> Result<H256, DoorError> {
        let state = state.as_bytes().to_vec();
        self.force(|_| RuntimeCall::Devnet(devnet::Call::set_miner_state { miner, state }))
            .await
    }

    /// Sets the price of territory, planck per GiB and day.
    ///
    /// # Errors
    /// If no block takes it.
    pub async fn set_price(&self, price: u128) -> Result<H256, DoorError> {
        self.as_root(|_| storage_handler::Call::define_update_price { price }.into())
            .await
    }

    /// Switches a call off, or on again.
    ///
    /// # Errors
    /// If there is no such call, or it is in that state already.
    pub async fn pause_call(&self, pallet: &str, call: &str, pause: bool) -> Result<H256, DoorError> {
        let name = |text: &str| text.as_bytes().to_vec().try_into();
        let (Ok(pallet), Ok(call)) = (name(pallet), name(call)) else {
            return Err(DoorError::Unknown("no call has so long a name".into()));
        };
        let name = (pallet, call);
        self.as_root(|_| match pause {
            true => tx_pause::Call::pause { full_name: name }.into(),
            false => tx_pause::Call::unpause { ident: name }.into(),
        })
        .await
    }

    /// Stops making blocks, or goes on. A restart goes on too.
    pub fn pause(&self, pause: bool) {
        self.state.write().paused = pause;
    }

    /// Sets how many blocks the final head lags behind. It never moves back.
    pub fn set_lag(&self, blocks: u32) {
        self.state.write().lag = blocks;
    }

    fn territory(&self, owner: &AccountId, name: &TerrName) -> Result<TerritoryInfo, DoorError> {
        let state = self.read();
        let found = state
            .chain
            .query(None, || storage_handler::Territory::<Runtime>::get(owner, name));
        found
            .ok()
            .flatten()
            .ok_or_else(|| DoorError::Unknown("the account has no territory of that name".into()))
    }

    /// Moves a territory's deadline to now and waits until it is frozen.
    ///
    /// # Errors
    /// If there is no such territory, or it is not active.
    pub async fn freeze_territory(&self, owner: AccountId, name: TerrName) -> Result<(), DoorError> {
        let state = self.territory(&owner, &name)?.state;
        if state != TerritoryState::Active {
            return Err(DoorError::Unknown(format!("the territory is {state:?}, not Active")));
        }
        let (user, terr_name) = (owner.clone(), name.clone());
        self.as_root(|next| {
            storage_handler::Call::update_user_territory_life {
                user,
                terr_name,
                deadline: next + 1,
            }
            .into()
        })
        .await?;
        self.wait_for(&owner, &name, TerritoryState::Frozen).await
    }

    /// Moves a territory's deadline and its grace to now and waits until it is expired. Its files are purged from that
    /// block on, 300 per block.
    ///
    /// # Errors
    /// If there is no such territory, or it is neither active nor frozen.
    pub async fn expire_territory(&self, owner: AccountId, name: TerrName) -> Result<(), DoorError> {
        if self.territory(&owner, &name)?.state == TerritoryState::Active {
            self.freeze_territory(owner.clone(), name.clone()).await?;
        }
        let territory = self.territory(&owner, &name)?;
        if territory.state != TerritoryState::Frozen {
            return Err(DoorError::Unknown(format!("the territory is {:?}", territory.state)));
        }
        let grace = <Runtime as storage_handler::Config>::FrozenDays::get();
        let (old_block, token) = (territory.deadline.saturating_add(grace), territory.token);
        self.as_root(|next| {
            storage_handler::Call::update_expired_exec {
                old_block,
                new_block: next + 1,
                token,
            }
            .into()
        })
        .await?;
        self.wait_for(&owner, &name, TerritoryState::Expired).await
    }

    async fn wait_for(&self, owner: &AccountId, name: &TerrName, state: TerritoryState) -> Result<(), DoorError> {
        let mut heads = self.heads();
        let deadline = tokio::time::Instant::now() + EFFECT_TIMEOUT;
        for _ in 0..EFFECT_BLOCKS_MAX {
            if self.territory(owner, name)?.state == state {
                return Ok(());
            }
            // A missed head is as good as one: the state is read afresh.
            let _ = tokio::time::timeout_at(deadline, heads.recv())
                .await
                .map_err(|_| DoorError::TimedOut)?;
        }
        Err(DoorError::TimedOut)
    }
}

/// A dispatch error in words: `StorageHandler.NotActive`.
fn describe(error: DispatchError) -> String {
    use frame_support::traits::PalletInfoAccess;
    use scale_info::{TypeDef, TypeInfo};
    let DispatchError::Module(module) = error else {
        return format!("{error:?}");
    };
    let tables = [
        (
            tx_pause::Pallet::<Runtime>::index(),
            "TxPause",
            tx_pause::Error::<Runtime>::type_info(),
        ),
        (
            storage_handler::Pallet::<Runtime>::index(),
            "StorageHandler",
            storage_handler::Error::<Runtime>::type_info(),
        ),
        (
            cessfs_devnet_runtime::sminer::Pallet::<Runtime>::index(),
            "Sminer",
            cessfs_devnet_runtime::sminer::Error::<Runtime>::type_info(),
        ),
    ];
    for (index, pallet, info) in tables {
        let TypeDef::Variant(errors) = info.type_def else {
            continue;
        };
        let named = errors.variants.iter().find(|v| v.index == module.error[0]);
        if let (true, Some(variant)) = (index == usize::from(module.index), named) {
            return format!("{pallet}.{}", variant.name);
        }
    }
    format!("{module:?}")
}
