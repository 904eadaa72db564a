//! The chain as the miners see it, and their signatures on it.

use super::{Node, PoolError, State};
use crate::seam::{ChainView, Deal};
use cessfs_devnet_runtime::{
    AccountId, Runtime, RuntimeCall, Signature, SignedPayload, System, TxExtension, UncheckedExtrinsic, VERSION,
    cess::{FRAGMENT_COUNT, Hash},
    file_bank,
};
use codec::Encode;
use sp_core::{H256, Pair, sr25519};
use sp_runtime::generic::Era;
use std::sync::Arc;

/// Signing keys of the fleet, by index.
pub struct MinerKeys(Vec<sr25519::Pair>);

impl MinerKeys {
    /// Keys of `count` miners of the devnet with this seed; always the same.
    pub fn derive(seed: &[u8; 32], count: usize) -> Self {
        let root = sr25519::Pair::from_seed(seed);
        let key = |index| {
            let path = [
                sp_core::DeriveJunction::hard("miner"),
                sp_core::DeriveJunction::hard(index as u64),
            ];
            root.derive(path.into_iter(), None)
                .expect("hard derivation does not fail")
                .0
        };
        Self((0..count).map(key).collect())
    }

    /// Accounts of the fleet, by index.
    pub fn accounts(&self) -> impl Iterator<Item = AccountId> + '_ {
        self.0.iter().map(|pair| pair.public().into())
    }

    fn index_of(&self, account: &AccountId) -> Option<usize> {
        self.0
            .iter()
            .position(|pair| AccountId::from(pair.public()) == *account)
    }
}

/// A node and the keys of its miners.
pub struct MinerView {
    node: Arc<Node>,
    keys: MinerKeys,
}

impl Node {
    /// The seam to a fleet with these keys.
    pub fn view(self: Arc<Self>, keys: MinerKeys) -> Arc<MinerView> {
        Arc::new(MinerView { node: self, keys })
    }
}

impl State {
    /// The nonce an account's next transaction needs, counting those that wait.
    pub fn next_nonce(&self, account: &AccountId) -> u32 {
        let in_state = self
            .chain
            .query(None, || System::account_nonce(account))
            .unwrap_or_default();
        (in_state..)
            .find(|nonce| !self.pool.provides(&(account, nonce).encode()))
            .unwrap_or(in_state)
    }
}

pub(super) fn sign(pair: &sr25519::Pair, call: RuntimeCall, nonce: u32, genesis: H256) -> UncheckedExtrinsic {
    let extension: TxExtension = (
        frame_system::CheckNonZeroSender::new(),
        frame_system::CheckSpecVersion::new(),
        frame_system::CheckTxVersion::new(),
        frame_system::CheckGenesis::new(),
        frame_system::CheckEra::from(Era::Immortal),
        frame_system::CheckNonce::from(nonce),
        frame_system::CheckWeight::new(),
        pallet_transaction_payment::ChargeTransactionPayment::from(0),
    );
    let implicit = (
        (),
        VERSION.spec_version,
        VERSION.transaction_version,
        genesis,
        genesis,
        (),
        (),
        (),
    );
    let payload = SignedPayload::from_raw(call, extension, implicit);
    let signature = payload.using_encoded(|bytes| pair.sign(bytes));
    let (call, extension, _) = payload.deconstruct();
    let address = AccountId::from(pair.public()).into();
    UncheckedExtrinsic::new_signed(call, address, Signature::Sr25519(signature), extension)
}

impl ChainView for MinerView {
    fn deal(&self, fid: &str) -> Option<Deal> {
        let hash = Hash::from_text(fid)?;
        let state = self.node.read();
        let info = state
            .chain
            .query(None, || file_bank::DealMap::<Runtime>::get(hash))
            .ok()??;
        let fragments = |segment: &file_bank::SegmentList| -> Option<[String; FRAGMENT_COUNT as usize]> {
            let texts: Vec<String> = segment.fragment_list.iter().map(Hash::to_text).collect();
            texts.try_into().ok()
        };
        Some(Deal {
            segments: info.segment_list.iter().map(fragments).collect::<Option<_>>()?,
            reported: info
                .complete_list
                .iter()
                .map(|done| (done.index, self.keys.index_of(&done.miner)))
                .collect(),
        })
    }

    fn report(&self, miner: usize, index: u8, fid: &str) -> Result<(), String> {
        let pair = self.keys.0.get(miner).ok_or("no such miner")?;
        let deal_hash = Hash::from_text(fid).ok_or("the fid is not 64 bytes")?;
        let call = RuntimeCall::FileBank(file_bank::Call::transfer_report { index, deal_hash });
        let state = &mut *self.node.state.write();
        let nonce = state.next_nonce(&pair.public().into());
        let extrinsic = sign(pair, call, nonce, state.chain.genesis_hash()).encode();
        state
            .pool
            .submit(&state.chain, extrinsic)
            .map(|_| ())
            .map_err(|e: PoolError| e.to_string())
    }

    fn stored(&self, fid: &str, miner: usize) -> bool {
        let (Some(hash), Some(pair)) = (Hash::from_text(fid), self.keys.0.get(miner)) else {
            return false;
        };
        let account = AccountId::from(pair.public());
        let file = self
            .node
            .read()
            .chain
            .query(None, || file_bank::File::<Runtime>::get(hash));
        let holds = |file: file_bank::FileInfo| {
            file.segment_list
                .iter()
                .flat_map(|s| &s.fragment_list)
                .any(|fragment| fragment.miner == account)
        };
        file.ok().flatten().is_some_and(holds)
    }

    fn height(&self) -> u32 {
        self.node.read().chain.height()
    }
}
