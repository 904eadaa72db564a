//! Files: declared, reported by twelve miners, stored, deleted, purged.
//!
//! ```text
//!  upload_declaration -> DealMap(fid) --12 reports--> File(fid) --last owner leaves--> gone
//!        |                 |  ^ re-declared: replaced, its first lock leaks
//!        |                 +-> dropped silently if the territory expired meanwhile
//!        +-> File(fid) exists: one more owner, at once
//! ```
//! The chain checks sizes and counts only, never a hash. A deal can't be cancelled and has no timeout. Restoral orders,
//! tags and audits are left out: they are between miners and tees.

mod deal;
mod ownership;
mod purge;
mod record;

pub use pallet::*;
pub use record::{
    CompleteInfo, DealInfo, FileInfo, FileState, FragmentInfo, OWNER_LIMIT, SegmentInfo, SegmentList, USER_FILE_LIMIT,
    UserBrief, UserFileSliceInfo,
};

#[cfg(test)]
mod tests;

#[frame_support::pallet]
#[allow(missing_docs)] // generated items; ours are documented
pub mod pallet {
    use super::record::{Segments, USER_FILE_LIMIT};
    use super::{DealInfo, FileInfo, FileState, UserBrief, UserFileSliceInfo};
    use crate::{
        cess::{Hash, SEGMENT_CHARGE, TerrName},
        oss, sminer, storage_handler,
    };
    use frame_support::{
        pallet_prelude::*,
        traits::{ConstU32, Hooks},
    };
    use frame_system::pallet_prelude::*;
    use sp_core::crypto::AccountId32;

    /// Expired territories that wait for their purge, at most.
    pub const CLEAR_LIST_LIMIT: u32 = 2000;
    /// Weight of a declaration per segment, picoseconds of computation.
    const SEGMENT_WEIGHT: u64 = 5_000_000;

    #[pallet::pallet]
    #[pallet::without_storage_info] // sizes are bounded by the types; no validator weighs our proofs
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config:
        frame_system::Config<AccountId = AccountId32> + storage_handler::Config + sminer::Config + oss::Config
    {
        /// Account of the pallet.
        #[pallet::constant]
        type FilbakPalletId: Get<frame_support::PalletId>;
        /// Files per account, at most.
        #[pallet::constant]
        type UserFileLimit: Get<u32>;
        /// Blocks in a day.
        #[pallet::constant]
        type OneDay: Get<u32>;
        /// Longest file name, bytes.
        #[pallet::constant]
        type NameStrLimit: Get<u32>;
        /// Shortest file name, bytes.
        #[pallet::constant]
        type NameMinLength: Get<u32>;
        /// Segments in a file, at most.
        #[pallet::constant]
        type SegmentCount: Get<u32>;
        /// Fragments in a segment.
        #[pallet::constant]
        type FragmentCount: Get<u32>;
        /// Owners of a file, at most.
        #[pallet::constant]
        type OwnerLimit: Get<u32>;
        /// Blocks that a restoral order is one miner's alone.
        #[pallet::constant]
        type RestoralOrderLife: Get<u32>;
        /// Missions, at most.
        #[pallet::constant]
        type MissionCount: Get<u32>;
    }

    /// Declared files that are not stored yet.
    #[pallet::storage]
    pub type DealMap<T: Config> = StorageMap<_, Blake2_128Concat, Hash, DealInfo>;

    /// Stored files.
    #[pallet::storage]
    pub type File<T: Config> = StorageMap<_, Blake2_128Concat, Hash, FileInfo>;

    /// What each account holds. One value per account, however many files.
    #[pallet::storage]
    pub type UserHoldFileList<T: Config> = StorageMap<
        _,
        Blake2_128Concat,
        AccountId32,
        BoundedVec<UserFileSliceInfo, ConstU32<USER_FILE_LIMIT>>,
        ValueQuery,
    >;

    /// Expired territories whose files are still to be purged.
    #[pallet::storage]
    pub type ClearUserList<T: Config> =
        StorageValue<_, BoundedVec<(AccountId32, TerrName), ConstU32<CLEAR_LIST_LIMIT>>, ValueQuery>;

    /// Those without a comment are not emitted here.
    #[pallet::event]
    #[pallet::generate_deposit(pub(super) fn deposit_event)]
    pub enum Event<T: Config> {
        /// A file was declared, or got one more owner.
        UploadDeclaration {
            operator: T::AccountId,
            owner: T::AccountId,
            deal_hash: Hash,
        },
        /// A miner holds its column.
        TransferReport {
            acc: T::AccountId,
            deal_hash: Hash,
        },
        /// An owner left a file.
        DeleteFile {
            operator: T::AccountId,
            owner: T::AccountId,
            file_hash: Hash,
        },
        ReplaceFiller {
            acc: T::AccountId,
            filler_list: Vec<Hash>,
        },
        IdleSpaceCert {
            acc: T::AccountId,
            space: u128,
        },
        ReplaceIdleSpace {
            acc: T::AccountId,
            space: u128,
        },
        GenerateRestoralOrder {
            miner: T::AccountId,
            fragment_hash: Hash,
        },
        ClaimRestoralOrder {
            miner: T::AccountId,
            order_id: Hash,
        },
        RecoveryCompleted {
            miner: T::AccountId,
            order_id: Hash,
        },
        /// All twelve columns are held: the file exists.
        StorageCompleted {
            file_hash: Hash,
        },
        CalculateReport {
            miner: T::AccountId,
            file_hash: Hash,
        },
        /// A file moved to another territory of its owner.
        TerritoryFileDelivery {
            file_hash: Hash,
            new_territory: TerrName,
        },
    }

    /// Only the places matter to clients; those without a comment are not raised here.
    #[pallet::error]
    pub enum Error<T> {
        /// It is there already: a report of this miner or index, a file in this territory.
        Existed,
        FileExistent,
        /// No such file.
        FileNonExistent,
        /// A number left its range.
        Overflow,
        /// The account is no owner of the file.
        NotOwner,
        ScheduleNonExistent,
        /// A list is full.
        BoundedVecError,
        /// The account holds as many files as it may.
        StorageLimitReached,
        MinerPowerInsufficient,
        NotEmpty,
        Locked,
        LengthExceedsLimit,
        BugInvalid,
        ConvertHashError,
        /// The signer is neither the owner nor one of his operators.
        NoPermission,
        /// No such deal or file.
        NonExistent,
        /// A state the code excludes.
        Unexpected,
        LessMinLength,
        /// The file is not active.
        Unprepared,
        IsOwned,
        /// Not twelve fragments, a name too short, an index out of 1..=12.
        SpecError,
        PanicOverflow,
        /// The territory has not more room left than the file costs.
        InsufficientAvailableSpace,
        Calculate,
        /// The miner is not positive.
        MinerStateError,
        Expired,
        VerifyTeeSigFailed,
        TeeNoPermission,
        DigestError,
        MalformedSignature,
        MinerError,
        RulesNotAllowed,
        NotActive,
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn on_initialize(_now: BlockNumberFor<T>) -> Weight {
            Self::end_territories();
            T::DbWeight::get().reads(3)
        }
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Declares a file: `deal_info` lists its segments and their fragments, `user_brief` whose it is and where it
        /// goes. Neither `file_hash` nor any other hash nor `file_size` is checked.
        #[pallet::call_index(0)]
        #[pallet::weight(
            T::DbWeight::get().reads_writes(4, 3) + Weight::from_parts(SEGMENT_WEIGHT * deal_info.len() as u64, 0)
        )]
        pub fn upload_declaration(
            origin: OriginFor<T>,
            file_hash: Hash,
            deal_info: Segments,
            user_brief: UserBrief,
            file_size: u128,
        ) -> DispatchResult {
            let operator = ensure_signed(origin)?;
            let owner = user_brief.user.clone();
            ensure!(oss::Pallet::<T>::permits(&operator, &owner), Error::<T>::NoPermission);
            let full = |s: &super::SegmentList| s.fragment_list.len() as u32 == T::FragmentCount::get();
            ensure!(deal_info.iter().all(full), Error::<T>::SpecError);
            ensure!(
                user_brief.file_name.len() as u32 >= T::NameMinLength::get(),
                Error::<T>::SpecError
            );
            if File::<T>::contains_key(file_hash) {
                Self::add_owner(file_hash, user_brief)?;
            } else {
                let needed = SEGMENT_CHARGE * deal_info.len() as u128;
                Self::ensure_room(&user_brief, needed)?;
                storage_handler::Pallet::<T>::lock(&owner, &user_brief.territory_name, needed)?;
                let deal = DealInfo {
                    file_size,
                    segment_list: deal_info,
                    user: user_brief,
                    complete_list: Default::default(),
                };
                // As on CESS: a pending deal is replaced without a look, and what it had locked stays locked.
                DealMap::<T>::insert(file_hash, deal);
            }
            Self::deposit_event(Event::UploadDeclaration {
                operator,
                owner,
                deal_hash: file_hash,
            });
            Ok(())
        }

        /// Moves a stored file to another territory of the same owner.
        #[pallet::call_index(2)]
        #[pallet::weight(T::DbWeight::get().reads_writes(5, 4))]
        pub fn territory_file_delivery(
            origin: OriginFor<T>,
            user: AccountId32,
            file_hash: Hash,
            target_territory: TerrName,
        ) -> DispatchResult {
            let operator = ensure_signed(origin)?;
            ensure!(oss::Pallet::<T>::permits(&operator, &user), Error::<T>::NoPermission);
            Self::deliver(&user, file_hash, &target_territory)?;
            Self::deposit_event(Event::TerritoryFileDelivery {
                file_hash,
                new_territory: target_territory,
            });
            Ok(())
        }

        /// A miner's word that it holds fragment `index - 1` of every segment.
        #[pallet::call_index(3)]
        #[pallet::weight(T::DbWeight::get().reads_writes(6, 6))]
        pub fn transfer_report(origin: OriginFor<T>, index: u8, deal_hash: Hash) -> DispatchResult {
            let miner = ensure_signed(origin)?;
            ensure!(
                (1..=T::FragmentCount::get()).contains(&index.into()),
                Error::<T>::SpecError
            );
            let deal = DealMap::<T>::get(deal_hash).ok_or(Error::<T>::NonExistent)?;
            if Self::drop_if_expired(deal_hash, &deal)? {
                return Ok(());
            }
            ensure!(sminer::Pallet::<T>::is_positive(&miner)?, Error::<T>::MinerStateError);
            Self::report(deal_hash, deal, index, miner.clone())?;
            Self::deposit_event(Event::TransferReport { acc: miner, deal_hash });
            Ok(())
        }

        /// Ends an owner's hold on a file. The territory gets its room back, in whatever state it is; the file goes when
        /// nobody holds it.
        #[pallet::call_index(6)]
        #[pallet::weight(T::DbWeight::get().reads_writes(20, 20))]
        pub fn delete_file(origin: OriginFor<T>, owner: AccountId32, file_hash: Hash) -> DispatchResult {
            let operator = ensure_signed(origin)?;
            ensure!(oss::Pallet::<T>::permits(&operator, &owner), Error::<T>::NoPermission);
            let file = File::<T>::get(file_hash).ok_or(Error::<T>::NonExistent)?;
            ensure!(file.is_owned_by(&owner), Error::<T>::NotOwner);
            Self::leave(file_hash, file, &owner)?;
            Self::deposit_event(Event::DeleteFile {
                operator,
                owner,
                file_hash,
            });
            Ok(())
        }
    }

    impl<T: Config> Pallet<T> {
        /// The territory must have strictly more room left than is needed.
        pub(super) fn ensure_room(brief: &UserBrief, needed: u128) -> DispatchResult {
            let territory = storage_handler::Pallet::<T>::find(&brief.user, &brief.territory_name)?;
            ensure!(
                territory.remaining_space > needed,
                Error::<T>::InsufficientAvailableSpace
            );
            Ok(())
        }

        /// Notes that an account holds a file.
        pub(super) fn hold(owner: &AccountId32, entry: UserFileSliceInfo) -> DispatchResult {
            UserHoldFileList::<T>::try_mutate(owner, |list| -> DispatchResult {
                ensure!(!list.contains(&entry), Error::<T>::Existed);
                list.try_push(entry).map_err(|_| Error::<T>::StorageLimitReached)?;
                Ok(())
            })
        }

        /// The file, which has to be active.
        pub(super) fn active(file_hash: Hash) -> Result<FileInfo, DispatchError> {
            let file = File::<T>::get(file_hash).ok_or(Error::<T>::FileNonExistent)?;
            ensure!(file.stat == FileState::Active, Error::<T>::Unprepared);
            Ok(file)
        }
    }
}
