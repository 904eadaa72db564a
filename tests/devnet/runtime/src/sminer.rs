//! Miners as the chain knows them: who, where, in what state, with how much room.
//!
//! Here miners come with the genesis; staking, rewards, punishment and proofs of idle space are left out. Freed space is
//! idle again at once, as if the miner had proved it in the same block.

pub use pallet::*;
pub use record::MinerInfo;

mod record;

#[frame_support::pallet]
#[allow(missing_docs)] // generated items; ours are documented
pub mod pallet {
    use super::MinerInfo;
    use crate::{cess::EndPoint, storage_handler};
    use frame_support::{DefaultNoBound, pallet_prelude::*, traits::ConstU32};
    use frame_system::pallet_prelude::*;
    use sp_core::crypto::AccountId32;

    /// Miners, at most.
    pub const ITEM_LIMIT: u32 = 200_000;
    /// The state in which a miner takes data.
    pub const STATE_POSITIVE: &[u8] = b"positive";
    /// Every state a miner can be in.
    pub const STATES: [&[u8]; 6] = [STATE_POSITIVE, b"not ready", b"frozen", b"exit", b"lock", b"offline"];

    #[pallet::pallet]
    #[pallet::without_storage_info] // sizes are bounded by the types; no validator weighs our proofs
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config: frame_system::Config<AccountId = AccountId32> + storage_handler::Config {
        /// Miners, at most.
        #[pallet::constant]
        type ItemLimit: Get<u32>;
    }

    /// Miners by account.
    #[pallet::storage]
    pub type MinerItems<T: Config> = CountedStorageMap<_, Blake2_128Concat, AccountId32, MinerInfo>;

    /// Accounts of all miners, in the order they came.
    #[pallet::storage]
    pub type AllMiner<T: Config> = StorageValue<_, BoundedVec<AccountId32, ConstU32<ITEM_LIMIT>>, ValueQuery>;

    /// Space that users' data took and that the miner has yet to take out of its proof, bytes.
    #[pallet::storage]
    pub type PendingReplacements<T: Config> = StorageMap<_, Blake2_128Concat, AccountId32, u128, ValueQuery>;

    #[pallet::genesis_config]
    #[derive(DefaultNoBound)]
    pub struct GenesisConfig<T: Config> {
        /// Account, endpoint text and idle bytes of each miner.
        pub miners: Vec<(AccountId32, String, u128)>,
        #[serde(skip)]
        pub _config: core::marker::PhantomData<T>,
    }

    #[pallet::genesis_build]
    impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
        fn build(&self) {
            for (account, endpoint, idle_space) in &self.miners {
                let endpoint = endpoint
                    .as_bytes()
                    .to_vec()
                    .try_into()
                    .expect("a loopback URL is short");
                MinerItems::<T>::insert(account, MinerInfo::positive(account.clone(), endpoint, *idle_space));
                AllMiner::<T>::mutate(|all| all.try_push(account.clone()).expect("fewer miners than the limit"));
                storage_handler::Pallet::<T>::add_idle_space(*idle_space);
            }
        }
    }

    /// Only the places matter to clients; most are never emitted here.
    #[pallet::event]
    #[pallet::generate_deposit(fn deposit_event)]
    pub enum Event<T: Config> {
        Registered {
            acc: T::AccountId,
        },
        RegisterPoisKey {
            miner: T::AccountId,
        },
        DrawFaucetMoney(),
        FaucetTopUpMoney {
            acc: T::AccountId,
        },
        LessThan24Hours {
            last: BlockNumberFor<T>,
            now: BlockNumberFor<T>,
        },
        AlreadyFrozen {
            acc: T::AccountId,
        },
        IncreaseCollateral {
            acc: T::AccountId,
            balance: u128,
        },
        Deposit {
            balance: u128,
        },
        UpdateBeneficiary {
            acc: T::AccountId,
            new: T::AccountId,
        },
        /// A miner moved.
        UpdateEndPoint {
            acc: T::AccountId,
            old: EndPoint,
            new: EndPoint,
        },
        Receive {
            acc: T::AccountId,
            reward: u128,
        },
        /// A miner is about to leave.
        MinerExitPrep {
            miner: T::AccountId,
        },
        Withdraw {
            acc: T::AccountId,
        },
        IncreaseDeclarationSpace {
            miner: T::AccountId,
            space: u128,
        },
        DecreaseDeclarationSpace {
            miner: T::AccountId,
            space: u128,
        },
    }

    /// Only the places matter to clients; those without a comment are not raised here.
    #[pallet::error]
    pub enum Error<T> {
        /// The account is no miner.
        NotMiner,
        AlreadyRegistered,
        /// The miner has not that much room.
        Overflow,
        NotExisted,
        LessThan24Hours,
        ConversionError,
        AlreadyFrozen,
        NotpositiveState,
        StorageLimitReached,
        BoundedVecError,
        DataNotExist,
        Unexpected,
        VerifyTeeSigFailed,
        CountError,
        /// No such state.
        StateError,
        BloomElemPushError,
        CollateralNotUp,
        NotStakingAcc,
        BugInvalid,
        InsufficientStakingPeriod,
        ExceedingDeclarationSpace,
        InsufficientReplaceable,
        MalformedSignature,
        NotSetWhite,
        WrongOrigin,
        ExceedRelease,
        UnableReduceDeclaration,
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Tells clients where the miner is now.
        #[pallet::call_index(3)]
        #[pallet::weight(T::DbWeight::get().reads_writes(1, 1))]
        pub fn update_endpoint(origin: OriginFor<T>, endpoint: EndPoint) -> DispatchResult {
            let acc = ensure_signed(origin)?;
            let old = Self::change(&acc, |miner| {
                Ok(core::mem::replace(&mut miner.endpoint, endpoint.clone()))
            })?;
            Self::deposit_event(Event::UpdateEndPoint {
                acc,
                old,
                new: endpoint,
            });
            Ok(())
        }
    }

    impl<T: Config> Pallet<T> {
        fn change<R>(
            miner: &AccountId32,
            change: impl FnOnce(&mut MinerInfo) -> Result<R, DispatchError>,
        ) -> Result<R, DispatchError> {
            MinerItems::<T>::try_mutate(miner, |entry| change(entry.as_mut().ok_or(Error::<T>::NotMiner)?))
        }

        /// True if the miner takes data; `NotMiner` if it is none.
        pub(crate) fn is_positive(miner: &AccountId32) -> Result<bool, DispatchError> {
            let info = MinerItems::<T>::get(miner).ok_or(Error::<T>::NotMiner)?;
            Ok(info.state.as_slice() == STATE_POSITIVE)
        }

        /// The devnet's way to make a miner leave, freeze or come back.
        pub(crate) fn set_state(miner: &AccountId32, state: Vec<u8>) -> DispatchResult {
            ensure!(STATES.contains(&state.as_slice()), Error::<T>::StateError);
            let exits = state == b"exit";
            let state = state.try_into().map_err(|_| Error::<T>::BoundedVecError)?;
            Self::change(miner, |info| {
                info.state = state;
                Ok(())
            })?;
            if exits {
                Self::deposit_event(Event::MinerExitPrep { miner: miner.clone() });
            }
            Ok(())
        }

        /// Holds a miner's room for a reported deal.
        pub(crate) fn lock_space(miner: &AccountId32, space: u128) -> DispatchResult {
            Self::change(miner, |info| {
                info.idle_space = info.idle_space.checked_sub(space).ok_or(Error::<T>::Overflow)?;
                info.lock_space = info.lock_space.checked_add(space).ok_or(Error::<T>::Overflow)?;
                Ok(())
            })
        }

        /// Gives held room back. A miner that is gone is no error: the owner's deletion must not fail for it.
        pub(crate) fn unlock_space(miner: &AccountId32, space: u128) {
            MinerItems::<T>::mutate(miner, |entry| {
                let Some(info) = entry else { return };
                let space = space.min(info.lock_space);
                info.lock_space -= space;
                info.idle_space = info.idle_space.saturating_add(space);
            });
        }

        /// Notes that held room now carries a stored file.
        pub(crate) fn increase_replace_space(miner: &AccountId32, space: u128) {
            PendingReplacements::<T>::mutate(miner, |pending| *pending = pending.saturating_add(space));
        }
    }
}
