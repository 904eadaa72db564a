//! From a deal to a file: twelve reports by twelve miners.

use super::{
    CompleteInfo, Config, DealInfo, DealMap, Error, Event, File, FileInfo, FileState, FragmentInfo, Pallet,
    SegmentInfo, UserFileSliceInfo,
};
use crate::{
    cess::{FRAGMENT_SIZE, Hash},
    sminer,
    storage_handler::{self, TerritoryState},
};
use frame_support::{
    ensure,
    pallet_prelude::{DispatchError, DispatchResult},
    traits::Get,
};
use sp_core::crypto::AccountId32;
use sp_runtime::traits::SaturatedConversion;

impl<T: Config> Pallet<T> {
    /// Drops a deal whose territory has expired, giving the miners their room back. No event tells of it.
    pub(super) fn drop_if_expired(deal_hash: Hash, deal: &DealInfo) -> Result<bool, DispatchError> {
        let territory = storage_handler::Pallet::<T>::find(&deal.user.user, &deal.user.territory_name)?;
        if territory.state != TerritoryState::Expired {
            return Ok(false);
        }
        let space = FRAGMENT_SIZE * deal.segment_list.len() as u128;
        for report in &deal.complete_list {
            sminer::Pallet::<T>::unlock_space(&report.miner, space);
        }
        DealMap::<T>::remove(deal_hash);
        Ok(true)
    }

    /// Takes a report; the twelfth makes the file.
    pub(super) fn report(deal_hash: Hash, mut deal: DealInfo, index: u8, miner: AccountId32) -> DispatchResult {
        let used = |done: &CompleteInfo| done.index == index || done.miner == miner;
        ensure!(!deal.complete_list.iter().any(used), Error::<T>::Existed);
        sminer::Pallet::<T>::lock_space(&miner, FRAGMENT_SIZE * deal.segment_list.len() as u128)?;
        deal.complete_list
            .try_push(CompleteInfo { index, miner })
            .map_err(|_| Error::<T>::BoundedVecError)?;
        if (deal.complete_list.len() as u32) < T::FragmentCount::get() {
            DealMap::<T>::insert(deal_hash, deal);
            return Ok(());
        }
        DealMap::<T>::remove(deal_hash);
        Self::complete(deal_hash, deal)
    }

    fn complete(file_hash: Hash, mut deal: DealInfo) -> DispatchResult {
        let charge = deal.charge();
        deal.complete_list.sort_by_key(|done| done.index);
        for done in &deal.complete_list {
            sminer::Pallet::<T>::increase_replace_space(&done.miner, FRAGMENT_SIZE * deal.segment_list.len() as u128);
        }
        let (owner, territory_name) = (deal.user.user.clone(), deal.user.territory_name.clone());
        storage_handler::Pallet::<T>::lock_to_used(&owner, &territory_name, charge)?;
        storage_handler::Pallet::<T>::idle_to_service(charge)?;
        File::<T>::insert(file_hash, Self::file_of(deal)?);
        Self::hold(
            &owner,
            UserFileSliceInfo {
                territory_name,
                file_hash,
                file_size: charge,
            },
        )?;
        Self::deposit_event(Event::StorageCompleted { file_hash });
        Ok(())
    }

    /// Fragment j of every segment is the miner's that reported index j + 1.
    fn file_of(deal: DealInfo) -> Result<FileInfo, DispatchError> {
        let mut segment_list = Vec::with_capacity(deal.segment_list.len());
        for segment in deal.segment_list {
            let fragments: Vec<_> = segment
                .fragment_list
                .into_iter()
                .zip(&deal.complete_list)
                .map(|(hash, done)| FragmentInfo {
                    hash,
                    avail: true,
                    tag: None,
                    miner: done.miner.clone(),
                })
                .collect();
            let fragment_list = fragments.try_into().map_err(|_| Error::<T>::BoundedVecError)?;
            segment_list.push(SegmentInfo {
                hash: segment.hash,
                fragment_list,
            });
        }
        Ok(FileInfo {
            segment_list: segment_list.try_into().map_err(|_| Error::<T>::BoundedVecError)?,
            owner: vec![deal.user].try_into().map_err(|_| Error::<T>::BoundedVecError)?,
            file_size: deal.file_size,
            completion: frame_system::Pallet::<T>::block_number().saturated_into(),
            stat: FileState::Active,
        })
    }
}
