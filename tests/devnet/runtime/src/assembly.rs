//! The pallets, under CESS's indices. All names here are generated.

#![allow(missing_docs)]

mod apis;

pub use apis::{RUNTIME_API_VERSIONS, api};

use crate::{devnet, file_bank, oss, sminer, storage_handler, tx_pause};
use frame_support::construct_runtime;

construct_runtime!(
    pub enum Runtime {
        System: frame_system = 0,
        Timestamp: pallet_timestamp = 3,
        Balances: pallet_balances = 6,
        TransactionPayment: pallet_transaction_payment = 7,
        TxPause: tx_pause = 69,
        FileBank: file_bank = 104,
        Sminer: sminer = 105,
        StorageHandler: storage_handler = 107,
        Oss: oss = 108,
        Devnet: devnet = 250,
    }
);
