//! Numbers of the runtime: what CESS's spec 137 states as constants, and the prices of its transactions.

use crate::{
    AccountId, Balance, Balances, Block, BlockNumber, Nonce, PalletInfo, Runtime, RuntimeCall, RuntimeEvent,
    RuntimeFreezeReason, RuntimeHoldReason, RuntimeOrigin, RuntimeTask, System, TxPause,
    assembly::RUNTIME_API_VERSIONS,
    cess::{FRAGMENT_COUNT, NAME_LIMIT, ONE_DAY, REWARD_PALLET_ID, SEGMENT_COUNT, TCESS},
    devnet, file_bank, oss, sminer, storage_handler, tx_pause,
};
use frame_support::{
    PalletId, derive_impl,
    dispatch::DispatchClass,
    parameter_types,
    traits::{ConstU8, ConstU32, ConstU64, ConstU128},
    weights::{
        ConstantMultiplier, Weight,
        constants::{RocksDbWeight, WEIGHT_REF_TIME_PER_SECOND},
    },
};
use frame_system::limits::{BlockLength, BlockWeights as Weights};
use pallet_transaction_payment::{FungibleAdapter, Multiplier, TargetedFeeAdjustment};
use sp_runtime::{FixedPointNumber, Perbill, Perquintill, traits::AccountIdLookup};
use sp_version::{RuntimeVersion, runtime_version};
use std::borrow::Cow;

/// Prefix of CESS's test networks in account texts (`cX...`).
pub const SS58_PREFIX: u16 = 11330;
/// Share of a block that ordinary transactions may fill.
const NORMAL_SHARE: Perbill = Perbill::from_percent(75);
/// Share of a block that its initialisation is thought to take.
const INITIALIZATION_SHARE: Perbill = Perbill::from_percent(10);
/// Length of a block, bytes.
const BLOCK_LENGTH_MAX: u32 = 5 << 20;
/// Weights of an empty block and an empty transaction on CESS, picoseconds.
const BLOCK_WEIGHT: u64 = 431_614_000;
const EXTRINSIC_WEIGHT: u64 = 108_157_000;
/// Planck per byte of a transaction.
const BYTE_FEE: u128 = 10_000_000_000_000;
/// Planck per picosecond of weight.
const WEIGHT_FEE: u128 = 5_000_000;

/// What this runtime says it is. `impl_name` alone tells that it is not the real one.
#[runtime_version]
pub const VERSION: RuntimeVersion = RuntimeVersion {
    spec_name: Cow::Borrowed("cess-node"),
    impl_name: Cow::Borrowed("cessfs-devnet"),
    authoring_version: 1,
    spec_version: 137,
    impl_version: 1,
    apis: RUNTIME_API_VERSIONS,
    transaction_version: 1,
    system_version: 1,
};

fn block_weights() -> Weights {
    let whole = Weight::from_parts(2 * WEIGHT_REF_TIME_PER_SECOND, u64::MAX);
    Weights::builder()
        .base_block(Weight::from_parts(BLOCK_WEIGHT, 0))
        .for_class(DispatchClass::all(), |class| {
            class.base_extrinsic = Weight::from_parts(EXTRINSIC_WEIGHT, 0)
        })
        .for_class(DispatchClass::Normal, |class| {
            class.max_total = Some(NORMAL_SHARE * whole)
        })
        .for_class(DispatchClass::Operational, |class| {
            class.max_total = Some(whole);
            class.reserved = Some(whole - NORMAL_SHARE * whole);
        })
        .avg_block_initialization(INITIALIZATION_SHARE)
        .build_or_panic()
}

fn block_length() -> BlockLength {
    BlockLength::builder()
        .max_length(BLOCK_LENGTH_MAX)
        .modify_max_length_for_class(DispatchClass::Normal, |length| {
            *length = NORMAL_SHARE * BLOCK_LENGTH_MAX
        })
        .build()
}

parameter_types! {
    pub const BlockHashCount: BlockNumber = 2400;
    pub const SS58Prefix: u16 = SS58_PREFIX;
    pub const Version: RuntimeVersion = VERSION;
    pub RuntimeBlockWeights: Weights = block_weights();
    pub RuntimeBlockLength: BlockLength = block_length();
    pub const RewardPalletId: PalletId = REWARD_PALLET_ID;
    pub const TargetBlockFullness: Perquintill = Perquintill::from_percent(25);
    pub AdjustmentVariable: Multiplier = Multiplier::saturating_from_rational(1, 100_000);
    pub MinimumMultiplier: Multiplier = Multiplier::saturating_from_rational(1, 1_000_000_000u128);
    pub MaximumMultiplier: Multiplier = <Multiplier as sp_runtime::traits::Bounded>::max_value();
}

#[derive_impl(frame_system::config_preludes::SolochainDefaultConfig)]
impl frame_system::Config for Runtime {
    type Block = Block;
    type BlockWeights = RuntimeBlockWeights;
    type BlockLength = RuntimeBlockLength;
    type DbWeight = RocksDbWeight;
    type AccountId = AccountId;
    type Nonce = Nonce;
    type Lookup = AccountIdLookup<AccountId, u32>;
    type BlockHashCount = BlockHashCount;
    type Version = Version;
    type AccountData = pallet_balances::AccountData<Balance>;
    type SS58Prefix = SS58Prefix;
    type MaxConsumers = ConstU32<16>;
    type BaseCallFilter = TxPause;
}

impl pallet_timestamp::Config for Runtime {
    type Moment = u64;
    type OnTimestampSet = ();
    // CESS states 3000 ms, half a slot; here blocks may come faster than that.
    type MinimumPeriod = ConstU64<1>;
    type WeightInfo = ();
}

#[derive_impl(pallet_balances::config_preludes::TestDefaultConfig)]
impl pallet_balances::Config for Runtime {
    type Balance = Balance;
    type ExistentialDeposit = ConstU128<TCESS>;
    type AccountStore = System;
    type MaxLocks = ConstU32<50>;
    type MaxReserves = ConstU32<50>;
    type ReserveIdentifier = [u8; 8];
}

impl pallet_transaction_payment::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type OnChargeTransaction = FungibleAdapter<Balances, ()>;
    type OperationalFeeMultiplier = ConstU8<5>;
    type WeightToFee = ConstantMultiplier<Balance, ConstU128<WEIGHT_FEE>>;
    type LengthToFee = ConstantMultiplier<Balance, ConstU128<BYTE_FEE>>;
    type FeeMultiplierUpdate =
        TargetedFeeAdjustment<Self, TargetBlockFullness, AdjustmentVariable, MinimumMultiplier, MaximumMultiplier>;
    type WeightInfo = ();
}

impl tx_pause::Config for Runtime {
    type MaxNameLen = ConstU32<{ tx_pause::NAME_LEN_MAX }>;
}

impl oss::Config for Runtime {
    type P2PLength = ConstU32<200>;
    type AuthorLimit = ConstU32<{ oss::AUTHOR_LIMIT }>;
    type PayloadExpired = ConstU32<100>;
}

impl sminer::Config for Runtime {
    type ItemLimit = ConstU32<{ sminer::ITEM_LIMIT }>;
}

impl storage_handler::Config for Runtime {
    type Currency = Balances;
    type OneDay = ConstU32<ONE_DAY>;
    type RewardPalletId = RewardPalletId;
    type NameLimit = ConstU32<NAME_LIMIT>;
    type FrozenLimit = ConstU32<2000>;
    type FrozenDays = ConstU32<{ 7 * ONE_DAY }>;
}

impl file_bank::Config for Runtime {
    type FilbakPalletId = RewardPalletId;
    type UserFileLimit = ConstU32<{ file_bank::USER_FILE_LIMIT }>;
    type OneDay = ConstU32<ONE_DAY>;
    type NameStrLimit = ConstU32<NAME_LIMIT>;
    type NameMinLength = ConstU32<3>;
    type SegmentCount = ConstU32<SEGMENT_COUNT>;
    type FragmentCount = ConstU32<FRAGMENT_COUNT>;
    type OwnerLimit = ConstU32<{ file_bank::OWNER_LIMIT }>;
    type RestoralOrderLife = ConstU32<250>;
    type MissionCount = ConstU32<12_000>;
}

impl devnet::Config for Runtime {
    type AnyCall = RuntimeCall;
}
