//! What an expired territory takes with it.

use super::{ClearUserList, Config, File, Pallet, UserHoldFileList, pallet::CLEAR_LIST_LIMIT};
use crate::{cess::TerrName, storage_handler};
use sp_core::crypto::AccountId32;

/// List entries that one block clears, at most.
const CLEARED_PER_BLOCK_MAX: usize = 300;

impl<T: Config> Pallet<T> {
    /// Freezes and expires territories that are due, and goes on clearing those that expired.
    pub(super) fn end_territories() {
        let mut waiting = ClearUserList::<T>::get();
        for expired in storage_handler::Pallet::<T>::end_due_territories() {
            if waiting.try_push(expired).is_err() {
                break; // more than CLEAR_LIST_LIMIT at once: the rest keeps its files, as on the real chain
            }
        }
        debug_assert!(waiting.len() <= CLEAR_LIST_LIMIT as usize);
        let mut budget = CLEARED_PER_BLOCK_MAX;
        waiting.retain(|(owner, territory)| !Self::clear(owner, territory, &mut budget));
        ClearUserList::<T>::put(waiting);
    }

    /// Pops entries off the owner's list, whichever territory they are in, until it is empty or the budget is used up.
    /// Files of the expired territory lose the owner. Files of his other territories stay, but their entries are gone
    /// too: so does CESS, and clients must not take the list for the whole truth. True when done.
    fn clear(owner: &AccountId32, territory: &TerrName, budget: &mut usize) -> bool {
        UserHoldFileList::<T>::mutate(owner, |list| {
            while *budget > 0 {
                let Some(entry) = list.pop() else { return true };
                *budget -= 1;
                if entry.territory_name != *territory {
                    continue;
                }
                if let Some(file) = File::<T>::get(entry.file_hash) {
                    Self::drop_owner(entry.file_hash, file, |brief| {
                        brief.user == *owner && brief.territory_name == *territory
                    });
                }
            }
            list.is_empty()
        })
    }
}
