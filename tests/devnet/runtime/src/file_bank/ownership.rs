//! Who holds a stored file: joining, moving, leaving.

use super::{Config, Error, File, FileInfo, Pallet, UserBrief, UserFileSliceInfo, UserHoldFileList};
use crate::{
    cess::{FRAGMENT_SIZE, Hash, TerrName},
    sminer, storage_handler,
};
use frame_support::{ensure, pallet_prelude::DispatchResult};
use sp_core::crypto::AccountId32;
use std::collections::BTreeMap;

impl<T: Config> Pallet<T> {
    /// One more owner for a file that is there; no data moves, the territory pays in full at once.
    pub(super) fn add_owner(file_hash: Hash, brief: UserBrief) -> DispatchResult {
        let mut file = File::<T>::get(file_hash).ok_or(Error::<T>::FileNonExistent)?;
        let charge = file.charge();
        Self::ensure_room(&brief, charge)?;
        storage_handler::Pallet::<T>::add_used(&brief.user, &brief.territory_name, charge)?;
        let territory_name = brief.territory_name.clone();
        Self::hold(
            &brief.user,
            UserFileSliceInfo {
                territory_name,
                file_hash,
                file_size: charge,
            },
        )?;
        file.owner.try_push(brief).map_err(|_| Error::<T>::BoundedVecError)?;
        File::<T>::insert(file_hash, file);
        Ok(())
    }

    /// Moves an owner's file to another of his territories.
    pub(super) fn deliver(owner: &AccountId32, file_hash: Hash, target: &TerrName) -> DispatchResult {
        let mut file = Self::active(file_hash)?;
        let charge = file.charge();
        let brief = file
            .owner
            .iter_mut()
            .find(|brief| brief.user == *owner)
            .ok_or(Error::<T>::NotOwner)?;
        ensure!(brief.territory_name != *target, Error::<T>::Existed);
        storage_handler::Pallet::<T>::add_used(owner, target, charge)?;
        storage_handler::Pallet::<T>::sub_used(owner, &brief.territory_name, charge)?;
        let source = core::mem::replace(&mut brief.territory_name, target.clone());
        UserHoldFileList::<T>::mutate(owner, |list| {
            let moved = list
                .iter_mut()
                .find(|e| e.file_hash == file_hash && e.territory_name == source);
            if let Some(entry) = moved {
                entry.territory_name = target.clone();
            }
        });
        File::<T>::insert(file_hash, file);
        Ok(())
    }

    /// Ends all of an account's holds on a file and refunds its territories.
    pub(super) fn leave(file_hash: Hash, file: FileInfo, owner: &AccountId32) -> DispatchResult {
        let charge = file.charge();
        for brief in file.owner.iter().filter(|brief| brief.user == *owner) {
            storage_handler::Pallet::<T>::sub_used(owner, &brief.territory_name, charge)?;
        }
        UserHoldFileList::<T>::mutate(owner, |list| list.retain(|entry| entry.file_hash != file_hash));
        Self::drop_owner(file_hash, file, |brief| brief.user == *owner);
        Ok(())
    }

    /// Takes owners off a file; without any it is removed and its miners get their room back.
    pub(super) fn drop_owner(file_hash: Hash, mut file: FileInfo, leaves: impl Fn(&UserBrief) -> bool) {
        file.owner.retain(|brief| !leaves(brief));
        if !file.owner.is_empty() {
            File::<T>::insert(file_hash, file);
            return;
        }
        let mut fragments: BTreeMap<&AccountId32, u128> = BTreeMap::new();
        for fragment in file.segment_list.iter().flat_map(|segment| &segment.fragment_list) {
            *fragments.entry(&fragment.miner).or_default() += 1;
        }
        for (miner, count) in fragments {
            sminer::Pallet::<T>::unlock_space(miner, FRAGMENT_SIZE * count);
        }
        storage_handler::Pallet::<T>::service_to_idle(file.charge());
        File::<T>::remove(file_hash);
    }
}
