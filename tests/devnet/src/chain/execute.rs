//! Running the runtime: queries on a state, the pool's question, the making of a block.
//!
//! There is no wasm: `api::dispatch` is the runtime's own dispatcher, run natively inside the externalities of one state.
//! A panic in there is the runtime's way to refuse a malformed call, and is caught.

use super::{Chain, ChainError, Change, Record, nodes::Nodes, transaction_hash};
use crate::limits::TRANSACTION_BYTES_MAX;
use cessfs_devnet_runtime::{self as runtime, Header, RuntimeCall, UncheckedExtrinsic};
use codec::{Decode, DecodeAll, Encode};
use sp_core::{H256, storage::StateVersion};
use sp_runtime::{
    ApplyExtrinsicResult, DispatchError,
    traits::{BlakeTwo256, Header as _},
    transaction_validity::{
        InvalidTransaction, TransactionSource, TransactionValidity, TransactionValidityError, ValidTransaction,
    },
};
use sp_state_machine::{Ext, OverlayedChanges};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// Why the pool does not take a transaction.
#[derive(Debug)]
pub enum Refused {
    /// The runtime says so.
    Invalid(TransactionValidityError),
    /// It is no transaction, or the runtime can't be asked.
    Malformed(String),
}

/// A sealed block.
pub struct Sealed {
    /// Its hash.
    pub hash: H256,
    /// Its header.
    pub header: Header,
    /// Hashes of the candidates that are in it.
    pub included: Vec<H256>,
    /// Hashes of the candidates that can't ever be.
    pub invalid: Vec<H256>,
    /// What became of the author's own calls, in their order.
    pub forced: Vec<Result<(), DispatchError>>,
}

/// What building gathered before the block is committed.
#[derive(Default)]
struct Draft {
    body: Vec<Vec<u8>>,
    included: Vec<H256>,
    invalid: Vec<H256>,
    forced: Vec<Result<(), DispatchError>>,
}

impl Chain {
    fn run<R>(
        nodes: &Nodes,
        root: H256,
        overlay: &mut OverlayedChanges<BlakeTwo256>,
        work: impl FnOnce() -> R,
    ) -> Result<R, ChainError> {
        let state = nodes.state(root);
        let mut externalities = Ext::new(overlay, &state, None);
        let guarded = || catch_unwind(AssertUnwindSafe(work));
        sp_externalities::set_and_run_with_externalities(&mut externalities, guarded).map_err(|_| ChainError::Panicked)
    }

    /// Runs `work` on the state after a block; it may read storage by the pallets' types. What it writes is forgotten.
    ///
    /// # Errors
    /// If there is no such block, or `work` panics.
    pub fn query<R>(&self, at: Option<H256>, work: impl FnOnce() -> R) -> Result<R, ChainError> {
        let root = *self.block(at)?.header.state_root();
        Self::run(&self.nodes, root, &mut OverlayedChanges::default(), work)
    }

    /// Calls a function of the runtime's API by name, with SCALE bytes.
    ///
    /// # Errors
    /// If there is no such block or function, or the arguments are malformed.
    pub fn call(&self, at: Option<H256>, method: &str, data: &[u8]) -> Result<Vec<u8>, ChainError> {
        let answer = self.query(at, || runtime::api::dispatch(method, data))?;
        answer.ok_or_else(|| ChainError::UnknownMethod(method.to_owned()))
    }

    /// Asks the runtime whether the transaction may wait in the pool, and what it needs and gives.
    ///
    /// # Errors
    /// The runtime's refusal.
    pub fn validate(&self, extrinsic: &[u8]) -> Result<ValidTransaction, Refused> {
        if extrinsic.len() > TRANSACTION_BYTES_MAX {
            return Err(Refused::Invalid(InvalidTransaction::ExhaustsResources.into()));
        }
        UncheckedExtrinsic::decode_all(&mut &extrinsic[..])
            .map_err(|e| Refused::Malformed(format!("cannot decode extrinsic: {e}")))?;
        let mut data = TransactionSource::External.encode();
        data.extend_from_slice(extrinsic);
        data.extend_from_slice(self.best().hash.as_ref());
        let answer = self
            .call(None, "TaggedTransactionQueue_validate_transaction", &data)
            .map_err(|e| Refused::Malformed(e.to_string()))?;
        TransactionValidity::decode(&mut answer.as_slice())
            .map_err(|e| Refused::Malformed(e.to_string()))?
            .map_err(Refused::Invalid)
    }

    /// Seals a block: the author's own calls first, then every candidate that is ready. What does not fit or is not yet
    /// due is in neither list of the outcome. `now_ms` is moved on if the chain's clock is not behind it.
    ///
    /// # Errors
    /// If the runtime or the log fails; then there is no block.
    pub fn seal(
        &mut self,
        forced: &[RuntimeCall],
        candidates: &[Arc<Vec<u8>>],
        now_ms: u64,
    ) -> Result<Sealed, ChainError> {
        let (parent, root, number) = {
            let best = self.best();
            (best.hash, *best.header.state_root(), best.header.number() + 1)
        };
        let start = Header::new(
            number,
            Default::default(),
            Default::default(),
            parent,
            Default::default(),
        );
        let mut overlay = OverlayedChanges::default();
        let (header, draft) = Self::run(&self.nodes, root, &mut overlay, || {
            dispatch("Core_initialize_block", &start.encode())?;
            let mut draft = Draft::default();
            draft.set_clock(now_ms)?;
            draft.force(forced)?;
            draft.fill(candidates)?;
            let header = Header::decode(&mut dispatch("BlockBuilder_finalize_block", &[])?.as_slice())?;
            Ok::<_, ChainError>((header, draft))
        })??;
        let changes = self.take_changes(&mut overlay, root, &header)?;
        self.commit(Record {
            header: header.clone(),
            body: draft.body,
            changes,
        })?;
        let hash = self.best().hash;
        Ok(Sealed {
            hash,
            header,
            included: draft.included,
            invalid: draft.invalid,
            forced: draft.forced,
        })
    }

    fn take_changes(
        &mut self,
        overlay: &mut OverlayedChanges<BlakeTwo256>,
        root: H256,
        header: &Header,
    ) -> Result<Vec<Change>, ChainError> {
        let changes = overlay
            .drain_storage_changes(&self.nodes.state(root), StateVersion::V1)
            .map_err(|e| ChainError::State(e.to_string()))?;
        if changes.transaction_storage_root != *header.state_root() {
            return Err(ChainError::RootMismatch(*header.number()));
        }
        self.nodes.add(changes.transaction);
        Ok(changes.main_storage_changes)
    }
}

impl Draft {
    fn set_clock(&mut self, now_ms: u64) -> Result<(), ChainError> {
        let last = pallet_timestamp::Now::<runtime::Runtime>::get();
        let now = now_ms.max(last + 1);
        self.own(pallet_timestamp::Call::set { now }.into())?
            .map_err(|e| ChainError::OwnExtrinsic(format!("Timestamp.set: {e:?}")))
    }

    fn force(&mut self, calls: &[RuntimeCall]) -> Result<(), ChainError> {
        for call in calls {
            let outcome = self.own(call.clone())?;
            self.forced.push(outcome);
        }
        Ok(())
    }

    /// Applies an extrinsic that only the author can make.
    fn own(&mut self, call: RuntimeCall) -> Result<Result<(), DispatchError>, ChainError> {
        let extrinsic = UncheckedExtrinsic::new_bare(call).encode();
        let outcome = apply(&extrinsic)?.map_err(|e| ChainError::OwnExtrinsic(format!("{e:?}")))?;
        self.body.push(extrinsic);
        Ok(outcome)
    }

    /// Applies candidates until none is ready any more. One that waits for another of its account's nonces gets its turn
    /// in the next pass.
    fn fill(&mut self, candidates: &[Arc<Vec<u8>>]) -> Result<(), ChainError> {
        let mut waiting: Vec<&Arc<Vec<u8>>> = candidates.iter().collect();
        loop {
            let before = waiting.len();
            let mut later = Vec::new();
            for extrinsic in waiting {
                match apply(extrinsic)? {
                    Ok(_dispatched) => {
                        // A failed dispatch is in the block too: it paid its fee.
                        self.body.push(extrinsic.to_vec());
                        self.included.push(transaction_hash(extrinsic));
                    }
                    Err(TransactionValidityError::Invalid(
                        InvalidTransaction::Future | InvalidTransaction::ExhaustsResources,
                    )) => later.push(extrinsic),
                    Err(refusal) => {
                        tracing::debug!(?refusal, "transaction left the pool");
                        self.invalid.push(transaction_hash(extrinsic));
                    }
                }
            }
            if later.is_empty() || later.len() == before {
                return Ok(());
            }
            waiting = later;
        }
    }
}

fn dispatch(method: &str, data: &[u8]) -> Result<Vec<u8>, ChainError> {
    runtime::api::dispatch(method, data).ok_or_else(|| ChainError::UnknownMethod(method.to_owned()))
}

fn apply(extrinsic: &[u8]) -> Result<ApplyExtrinsicResult, ChainError> {
    let answer = dispatch("BlockBuilder_apply_extrinsic", extrinsic)?;
    Ok(ApplyExtrinsicResult::decode(&mut answer.as_slice())?)
}
