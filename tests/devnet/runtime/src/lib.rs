//! The CESS rules that a client meets, as a native FRAME runtime.
//!
//! It is the interface of CESS's runtime spec 137 cut down to what a storage client sees: the pallets it calls, reads and
//! listens to, under their real indices, names and encodings, with the real transaction extensions and prices. It is
//! compiled natively and run inside the node's process; there is no wasm and no consensus. What the chain does not check
//! (hashes, sizes) is not checked here either, and its traps are kept: a devnet kinder than the network is worth nothing.

mod assembly;
pub mod cess;
mod config;
pub mod devnet;
pub mod file_bank;
#[cfg(test)]
mod fixture;
pub mod oss;
pub mod sminer;
pub mod storage_handler;
pub mod tx_pause;

pub use assembly::*;
pub use config::{SS58_PREFIX, VERSION};

use sp_runtime::{
    MultiSignature, generic,
    traits::{BlakeTwo256, IdentifyAccount, Verify},
};

/// Any of the three signature schemes.
pub type Signature = MultiSignature;
/// An account: the public key, or its hash.
pub type AccountId = <<Signature as Verify>::Signer as IdentifyAccount>::AccountId;
/// Count of an account's transactions.
pub type Nonce = u32;
/// Height of a block.
pub type BlockNumber = u32;
/// Planck.
pub type Balance = u128;
/// Header of a block.
pub type Header = generic::Header<BlockNumber, BlakeTwo256>;
/// An account or one of its short forms.
pub type Address = sp_runtime::MultiAddress<AccountId, u32>;
/// What every transaction carries beside its call. The order is part of the encoding.
pub type TxExtension = (
    frame_system::CheckNonZeroSender<Runtime>,
    frame_system::CheckSpecVersion<Runtime>,
    frame_system::CheckTxVersion<Runtime>,
    frame_system::CheckGenesis<Runtime>,
    frame_system::CheckEra<Runtime>,
    frame_system::CheckNonce<Runtime>,
    frame_system::CheckWeight<Runtime>,
    pallet_transaction_payment::ChargeTransactionPayment<Runtime>,
);
/// A transaction as it travels.
pub type UncheckedExtrinsic = generic::UncheckedExtrinsic<Address, RuntimeCall, Signature, TxExtension>;
/// What a signature covers.
pub type SignedPayload = generic::SignedPayload<RuntimeCall, TxExtension>;
/// A block.
pub type Block = generic::Block<Header, UncheckedExtrinsic>;
/// Runs blocks.
pub type Executive =
    frame_executive::Executive<Runtime, Block, frame_system::ChainContext<Runtime>, Runtime, AllPalletsWithSystem>;
