//! What the calls and the other pallets do to a territory.

use super::{
    Config, Error, Event, Pallet, PurchasedSpace, Territory, TerritoryExpired, TerritoryFrozen, TerritoryFrozenCounter,
    TerritoryInfo, TerritoryKey, TerritoryState, TotalIdleSpace, TotalServiceSpace, UnitPrice, record::OrderType,
};
use crate::cess::{GIB, TerrName, TokenId};
use codec::Encode;
use frame_support::{
    ensure,
    pallet_prelude::{DispatchError, DispatchResult},
    traits::{Currency, ExistenceRequirement, Get},
};
use sp_core::crypto::AccountId32;
use sp_runtime::traits::{AccountIdConversion, SaturatedConversion};

/// Days' rent that a reactivation's price unit covers.
const REACTIVATION_DISCOUNT: u128 = 30;

impl<T: Config> Pallet<T> {
    /// The current block's number.
    pub(super) fn now() -> u32 {
        frame_system::Pallet::<T>::block_number().saturated_into()
    }

    /// Something that differs from call to call, for tokens and order ids.
    pub(super) fn seed() -> Vec<u8> {
        let system = (
            frame_system::Pallet::<T>::parent_hash(),
            frame_system::Pallet::<T>::extrinsic_index(),
        );
        (system, Self::now()).encode()
    }

    /// The territory, or `NotHaveTerritory`.
    pub fn find(owner: &AccountId32, name: &TerrName) -> Result<TerritoryInfo, DispatchError> {
        Ok(Territory::<T>::get(owner, name).ok_or(Error::<T>::NotHaveTerritory)?)
    }

    fn change(
        owner: &AccountId32,
        name: &TerrName,
        change: impl FnOnce(&mut TerritoryInfo) -> DispatchResult,
    ) -> DispatchResult {
        Territory::<T>::try_mutate(owner, name, |entry| {
            change(entry.as_mut().ok_or(Error::<T>::NotHaveTerritory)?)
        })
    }

    /// Planck for `gib_count` GiB over `days` days.
    pub(super) fn price(gib_count: u32, days: u32) -> Result<u128, DispatchError> {
        let unit = UnitPrice::<T>::get().ok_or(Error::<T>::BugInvalid)?;
        let price = u128::from(gib_count)
            .checked_mul(days.into())
            .and_then(|n| n.checked_mul(unit));
        Ok(price.ok_or(Error::<T>::Overflow)?)
    }

    /// Planck for an order, at this block.
    pub(super) fn order_price(
        owner: &AccountId32,
        name: &TerrName,
        order_type: OrderType,
        gib_count: u32,
        days: u32,
    ) -> Result<u128, DispatchError> {
        match order_type {
            OrderType::Buy => {
                ensure!(!Territory::<T>::contains_key(owner, name), Error::<T>::PurchasedSpace);
                ensure!(days >= super::pallet::DAYS_MIN, Error::<T>::BoundariesNotMet);
                Self::price(gib_count, days)
            }
            OrderType::Expansion => {
                let territory = Self::find(owner, name)?;
                ensure!(territory.state == TerritoryState::Active, Error::<T>::NotActive);
                Self::price(gib_count, Self::days_left(territory.deadline)?)
            }
            OrderType::Renewal => {
                let territory = Self::find(owner, name)?;
                let renewable = matches!(territory.state, TerritoryState::Active | TerritoryState::Frozen);
                ensure!(renewable, Error::<T>::StateError);
                Self::price(territory.gib_count(), days)
            }
        }
    }

    /// Days from now to the deadline; a started one counts.
    pub(super) fn days_left(deadline: u32) -> Result<u32, DispatchError> {
        let blocks = deadline.checked_sub(Self::now()).ok_or(Error::<T>::Overflow)?;
        Ok(blocks.div_ceil(T::OneDay::get()))
    }

    /// Takes the rent, leaving the account alive.
    pub(super) fn pay(payer: &AccountId32, amount: u128) -> DispatchResult {
        ensure!(T::Currency::can_slash(payer, amount), Error::<T>::InsufficientBalance);
        let pot: AccountId32 = T::RewardPalletId::get().into_account_truncating();
        T::Currency::transfer(payer, &pot, amount, ExistenceRequirement::KeepAlive)
    }

    fn blocks_of(days: u32) -> Result<u32, DispatchError> {
        Ok(T::OneDay::get().checked_mul(days).ok_or(Error::<T>::Overflow)?)
    }

    /// Enters a territory that starts now.
    pub(super) fn mint(
        owner: &AccountId32,
        name: &TerrName,
        gib_count: u32,
        days: u32,
    ) -> Result<TokenId, DispatchError> {
        let token = TokenId::from(sp_io::hashing::blake2_256(&(owner, name, Self::seed()).encode()));
        ensure!(!TerritoryKey::<T>::contains_key(token), Error::<T>::DuplicateTokens);
        let total_space = GIB * u128::from(gib_count);
        Self::add_purchased_space(total_space)?;
        let start = Self::now();
        let deadline = start.checked_add(Self::blocks_of(days)?).ok_or(Error::<T>::Overflow)?;
        let info = TerritoryInfo {
            token,
            total_space,
            used_space: 0,
            locked_space: 0,
            remaining_space: total_space,
            start,
            deadline,
            state: TerritoryState::Active,
        };
        Territory::<T>::insert(owner, name, info);
        TerritoryKey::<T>::insert(token, (owner, name));
        Self::schedule_freeze(deadline, token)?;
        Ok(token)
    }

    /// Adds GiB to a territory.
    pub(super) fn expand(owner: &AccountId32, name: &TerrName, gib_count: u32) -> DispatchResult {
        let space = GIB * u128::from(gib_count);
        Self::add_purchased_space(space)?;
        Self::change(owner, name, |t| {
            t.remaining_space = t.remaining_space.checked_add(space).ok_or(Error::<T>::Overflow)?;
            t.total_space = t.total_space.checked_add(space).ok_or(Error::<T>::Overflow)?;
            Ok(())
        })
    }

    /// Adds days to a territory, counted from now if it froze already.
    pub(super) fn renew(owner: &AccountId32, name: &TerrName, days: u32) -> DispatchResult {
        let (now, blocks) = (Self::now(), Self::blocks_of(days)?);
        Self::change(owner, name, |t| {
            Self::unschedule_freeze(t.deadline, t.token);
            TerritoryExpired::<T>::remove(t.deadline.saturating_add(T::FrozenDays::get()), t.token);
            if now > t.deadline {
                t.start = now;
            }
            t.deadline = t.deadline.max(now).checked_add(blocks).ok_or(Error::<T>::Overflow)?;
            if t.deadline > now {
                t.state = TerritoryState::Active;
            }
            Self::schedule_freeze(t.deadline, t.token)
        })
    }

    /// Starts an expired territory afresh, empty, on `payer`'s money.
    pub(super) fn do_reactivate(payer: &AccountId32, owner: AccountId32, name: TerrName, days: u32) -> DispatchResult {
        let territory = Self::find(&owner, &name)?;
        ensure!(territory.state == TerritoryState::Expired, Error::<T>::NotExpire);
        let unit = UnitPrice::<T>::get().ok_or(Error::<T>::BugInvalid)? / REACTIVATION_DISCOUNT;
        let spend = u128::from(territory.gib_count())
            .checked_mul(days.into())
            .and_then(|n| n.checked_mul(unit))
            .ok_or(Error::<T>::Overflow)?;
        Self::pay(payer, spend)?;
        Self::add_purchased_space(territory.total_space)?;
        let start = Self::now();
        let deadline = start.checked_add(Self::blocks_of(days)?).ok_or(Error::<T>::Overflow)?;
        Self::change(&owner, &name, |t| {
            *t = TerritoryInfo {
                used_space: 0,
                locked_space: 0,
                remaining_space: t.total_space,
                start,
                deadline,
                state: TerritoryState::Active,
                ..t.clone()
            };
            Self::schedule_freeze(deadline, t.token)
        })?;
        Self::deposit_event(Event::ReactivateTerritory { name, days, spend });
        Ok(())
    }

    /// Gives an empty, active territory another owner or name.
    pub(super) fn hand_over(from: (&AccountId32, &TerrName), to: (AccountId32, TerrName)) -> DispatchResult {
        let territory = Self::find(from.0, from.1)?;
        ensure!(territory.state == TerritoryState::Active, Error::<T>::NotActive);
        ensure!(territory.is_empty(), Error::<T>::ObjectNotZero);
        ensure!(!Territory::<T>::contains_key(&to.0, &to.1), Error::<T>::DuplicateName);
        Territory::<T>::remove(from.0, from.1);
        TerritoryKey::<T>::insert(territory.token, (&to.0, &to.1));
        Territory::<T>::insert(&to.0, &to.1, territory);
        Ok(())
    }

    /// Root's way to move a deadline.
    pub(super) fn move_deadline(owner: &AccountId32, name: &TerrName, deadline: u32) -> DispatchResult {
        Self::change(owner, name, |t| {
            Self::unschedule_freeze(t.deadline, t.token);
            t.deadline = deadline;
            Self::schedule_freeze(deadline, t.token)
        })
    }

    fn schedule_freeze(deadline: u32, token: TokenId) -> DispatchResult {
        TerritoryFrozen::<T>::insert(deadline, token, true);
        TerritoryFrozenCounter::<T>::try_mutate(deadline, |count| -> DispatchResult {
            *count += 1;
            ensure!(*count < T::FrozenLimit::get(), Error::<T>::Overflow);
            Ok(())
        })
    }

    fn unschedule_freeze(deadline: u32, token: TokenId) {
        TerritoryFrozen::<T>::remove(deadline, token);
        TerritoryFrozenCounter::<T>::mutate(deadline, |count| *count = count.saturating_sub(1));
    }

    fn add_purchased_space(space: u128) -> DispatchResult {
        PurchasedSpace::<T>::try_mutate(|sold| -> DispatchResult {
            let offered = TotalIdleSpace::<T>::get().saturating_add(TotalServiceSpace::<T>::get());
            let wanted = sold.checked_add(space).ok_or(Error::<T>::Overflow)?;
            ensure!(wanted <= offered, Error::<T>::InsufficientAvailableSpace);
            *sold = wanted;
            Ok(())
        })
    }

    /// Freezes and expires what is due at this block; returns the territories that expired.
    pub(crate) fn end_due_territories() -> Vec<(AccountId32, TerrName)> {
        let now = Self::now();
        for (token, _) in TerritoryFrozen::<T>::drain_prefix(now) {
            let Some((owner, name)) = TerritoryKey::<T>::get(token) else {
                continue;
            };
            Territory::<T>::mutate(&owner, &name, |entry| {
                let Some(t) = entry else { return };
                t.state = TerritoryState::Frozen;
                TerritoryExpired::<T>::insert(t.deadline.saturating_add(T::FrozenDays::get()), token, true);
            });
        }
        let mut expired = Vec::new();
        for (token, _) in TerritoryExpired::<T>::drain_prefix(now) {
            let Some((owner, name)) = TerritoryKey::<T>::get(token) else {
                continue;
            };
            Territory::<T>::mutate(&owner, &name, |entry| {
                let Some(t) = entry else { return };
                t.state = TerritoryState::Expired;
                PurchasedSpace::<T>::mutate(|sold| *sold = sold.saturating_sub(t.total_space));
            });
            expired.push((owner, name));
        }
        expired
    }

    /// Holds room for a declared file.
    pub(crate) fn lock(owner: &AccountId32, name: &TerrName, space: u128) -> DispatchResult {
        Self::change(owner, name, |t| {
            ensure!(t.state == TerritoryState::Active, Error::<T>::NotActive);
            t.remaining_space = t
                .remaining_space
                .checked_sub(space)
                .ok_or(Error::<T>::InsufficientStorage)?;
            t.locked_space = t.locked_space.checked_add(space).ok_or(Error::<T>::Overflow)?;
            Ok(())
        })
    }

    /// Turns held room into used room.
    pub(crate) fn lock_to_used(owner: &AccountId32, name: &TerrName, space: u128) -> DispatchResult {
        Self::change(owner, name, |t| {
            t.locked_space = t.locked_space.checked_sub(space).ok_or(Error::<T>::Overflow)?;
            t.used_space = t.used_space.checked_add(space).ok_or(Error::<T>::Overflow)?;
            Ok(())
        })
    }

    /// Uses room at once.
    pub(crate) fn add_used(owner: &AccountId32, name: &TerrName, space: u128) -> DispatchResult {
        Self::change(owner, name, |t| {
            ensure!(t.state == TerritoryState::Active, Error::<T>::NotActive);
            t.remaining_space = t
                .remaining_space
                .checked_sub(space)
                .ok_or(Error::<T>::InsufficientStorage)?;
            t.used_space = t.used_space.checked_add(space).ok_or(Error::<T>::Overflow)?;
            Ok(())
        })
    }

    /// Gives used room back, in any state.
    pub(crate) fn sub_used(owner: &AccountId32, name: &TerrName, space: u128) -> DispatchResult {
        Self::change(owner, name, |t| {
            t.used_space = t.used_space.checked_sub(space).ok_or(Error::<T>::Overflow)?;
            t.remaining_space = t.remaining_space.checked_add(space).ok_or(Error::<T>::Overflow)?;
            Ok(())
        })
    }

    /// Counts new space on offer.
    pub(crate) fn add_idle_space(space: u128) {
        TotalIdleSpace::<T>::mutate(|total| *total = total.saturating_add(space));
    }

    /// Moves offered space to users' space when a file is stored.
    pub(crate) fn idle_to_service(space: u128) -> DispatchResult {
        TotalIdleSpace::<T>::try_mutate(|total| -> DispatchResult {
            *total = total.checked_sub(space).ok_or(Error::<T>::Overflow)?;
            Ok(())
        })?;
        TotalServiceSpace::<T>::mutate(|total| *total = total.saturating_add(space));
        Ok(())
    }

    /// And back when it is gone.
    pub(crate) fn service_to_idle(space: u128) {
        TotalServiceSpace::<T>::mutate(|total| *total = total.saturating_sub(space));
        Self::add_idle_space(space);
    }
}
