//! A miner's record, in CESS's field order.

use super::pallet::{ITEM_LIMIT, STATE_POSITIVE};
use crate::cess::{BloomFilter, EndPoint, SpaceProofInfo};
use codec::{Decode, DecodeWithMemTracking, Encode};
use frame_support::{BoundedVec, traits::ConstU32};
use scale_info::TypeInfo;
use sp_core::crypto::AccountId32;

/// A miner.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct MinerInfo {
    /// Who earns.
    pub beneficiary: AccountId32,
    /// Who staked.
    pub staking_account: AccountId32,
    /// Where it serves.
    pub endpoint: EndPoint,
    /// Stake, planck.
    pub collaterals: u128,
    /// Fines not yet paid, planck.
    pub debt: u128,
    /// ASCII: `positive`, `not ready`, `frozen`, `exit`, `lock` or `offline`.
    pub state: BoundedVec<u8, ConstU32<ITEM_LIMIT>>,
    /// Bytes it may ever offer.
    pub declaration_space: u128,
    /// Bytes free for users.
    pub idle_space: u128,
    /// Bytes of tagged user data. Stays 0 here: nothing tags.
    pub service_space: u128,
    /// Bytes of user data that is not tagged yet.
    pub lock_space: u128,
    /// Proof of idle space; none here.
    pub space_proof_info: Option<SpaceProofInfo<AccountId32>>,
    /// Filter over tagged fragments; empty here.
    pub service_bloom_filter: BloomFilter,
    /// A tee's word for it; zeros here.
    pub tee_signature: [u8; 64],
}

impl MinerInfo {
    /// A working miner with `idle_space` free bytes.
    pub(crate) fn positive(account: AccountId32, endpoint: EndPoint, idle_space: u128) -> Self {
        Self {
            beneficiary: account.clone(),
            staking_account: account,
            endpoint,
            collaterals: 0,
            debt: 0,
            state: STATE_POSITIVE.to_vec().try_into().expect("eight bytes fit"),
            declaration_space: idle_space,
            idle_space,
            service_space: 0,
            lock_space: 0,
            space_proof_info: None,
            service_bloom_filter: BloomFilter([0; 256]),
            tee_signature: [0; 64],
        }
    }
}
