//! Operators: accounts that may declare, move and delete an owner's files.
//!
//! There is no finer permission on CESS: an authorised operator may delete. The call's name `proxy_authorzie` is
//! misspelt on the real chain.

pub use pallet::*;

use codec::{Decode, DecodeWithMemTracking, Encode};
use frame_support::{BoundedVec, traits::ConstU32};
use scale_info::TypeInfo;
use sp_core::crypto::AccountId32;

/// A gateway's entry.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct OssInfo {
    /// Its libp2p identity.
    pub peer_id: [u8; 38],
    /// Where it can be reached.
    pub domain: BoundedVec<u8, ConstU32<50>>,
}

/// What an owner signs so that somebody else can submit the authorisation.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct ProxyAuthPayload {
    /// The operator to authorise.
    pub oss: AccountId32,
    /// Block from which on the signature is good for `PayloadExpired` more blocks.
    pub exp: u32,
}

#[frame_support::pallet]
#[allow(missing_docs)] // generated items; ours are documented
pub mod pallet {
    use super::{OssInfo, ProxyAuthPayload};
    use frame_support::{pallet_prelude::*, traits::ConstU32};
    use frame_system::pallet_prelude::*;
    use sp_core::{crypto::AccountId32, sr25519};
    use sp_runtime::traits::SaturatedConversion;

    /// Operators per owner, at most.
    pub const AUTHOR_LIMIT: u32 = 20;

    #[pallet::pallet]
    #[pallet::without_storage_info] // sizes are bounded by the types; no validator weighs our proofs
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config: frame_system::Config<AccountId = AccountId32> {
        /// Length limit of a peer's address, bytes.
        #[pallet::constant]
        type P2PLength: Get<u32>;
        /// Operators per owner, at most.
        #[pallet::constant]
        type AuthorLimit: Get<u32>;
        /// Blocks that a signed authorisation stays good after its `exp`.
        #[pallet::constant]
        type PayloadExpired: Get<u32>;
    }

    /// Owner to its operators.
    #[pallet::storage]
    pub type AuthorityList<T: Config> =
        StorageMap<_, Blake2_128Concat, AccountId32, BoundedVec<AccountId32, ConstU32<AUTHOR_LIMIT>>, ValueQuery>;

    /// Gateways.
    #[pallet::storage]
    pub type Oss<T: Config> = StorageMap<_, Blake2_128Concat, AccountId32, OssInfo>;

    #[pallet::event]
    #[pallet::generate_deposit(fn deposit_event)]
    pub enum Event<T: Config> {
        /// An operator was authorised.
        Authorize { acc: T::AccountId, operator: T::AccountId },
        /// An authorisation was taken back.
        CancelAuthorize { acc: T::AccountId, oss: T::AccountId },
        /// A gateway came.
        OssRegister { acc: T::AccountId, endpoint: [u8; 38] },
        /// A gateway moved.
        OssUpdate { acc: T::AccountId, new_endpoint: [u8; 38] },
        /// A gateway left.
        OssDestroy { acc: T::AccountId },
    }

    #[pallet::error]
    pub enum Error<T> {
        /// Not authorised in the first place.
        NoAuthorization,
        /// Registered already.
        Registered,
        /// Not registered.
        UnRegister,
        /// Not used here.
        OptionParseError,
        /// The list of operators is full.
        BoundedVecError,
        /// Authorised already.
        Existed,
        /// Not 64 bytes.
        MalformedSignature,
        /// The signature is not the owner's.
        VerifySigFailed,
        /// The signed authorisation is too old.
        Expired,
        /// Not used here.
        ConvertError,
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Lets `operator` act on the signer's files.
        #[pallet::call_index(0)]
        #[pallet::weight(T::DbWeight::get().reads_writes(1, 1))]
        pub fn authorize(origin: OriginFor<T>, operator: AccountId32) -> DispatchResult {
            let acc = ensure_signed(origin)?;
            Self::add(&acc, &operator)?;
            Self::deposit_event(Event::Authorize { acc, operator });
            Ok(())
        }

        /// Takes that back.
        #[pallet::call_index(1)]
        #[pallet::weight(T::DbWeight::get().reads_writes(1, 1))]
        pub fn cancel_authorize(origin: OriginFor<T>, oss: AccountId32) -> DispatchResult {
            let acc = ensure_signed(origin)?;
            AuthorityList::<T>::try_mutate(&acc, |list| -> DispatchResult {
                let before = list.len();
                list.retain(|operator| *operator != oss);
                ensure!(list.len() < before, Error::<T>::NoAuthorization);
                Ok(())
            })?;
            Self::deposit_event(Event::CancelAuthorize { acc, oss });
            Ok(())
        }

        /// Enters a gateway.
        #[pallet::call_index(2)]
        #[pallet::weight(T::DbWeight::get().reads_writes(1, 1))]
        pub fn register(
            origin: OriginFor<T>,
            endpoint: [u8; 38],
            domain: BoundedVec<u8, ConstU32<50>>,
        ) -> DispatchResult {
            let acc = ensure_signed(origin)?;
            ensure!(!Oss::<T>::contains_key(&acc), Error::<T>::Registered);
            Oss::<T>::insert(
                &acc,
                OssInfo {
                    peer_id: endpoint,
                    domain,
                },
            );
            Self::deposit_event(Event::OssRegister { acc, endpoint });
            Ok(())
        }

        /// Changes a gateway's entry.
        #[pallet::call_index(3)]
        #[pallet::weight(T::DbWeight::get().reads_writes(1, 1))]
        pub fn update(
            origin: OriginFor<T>,
            endpoint: [u8; 38],
            domain: BoundedVec<u8, ConstU32<50>>,
        ) -> DispatchResult {
            let acc = ensure_signed(origin)?;
            ensure!(Oss::<T>::contains_key(&acc), Error::<T>::UnRegister);
            Oss::<T>::insert(
                &acc,
                OssInfo {
                    peer_id: endpoint,
                    domain,
                },
            );
            Self::deposit_event(Event::OssUpdate {
                acc,
                new_endpoint: endpoint,
            });
            Ok(())
        }

        /// Removes a gateway.
        #[pallet::call_index(4)]
        #[pallet::weight(T::DbWeight::get().reads_writes(1, 1))]
        pub fn destroy(origin: OriginFor<T>) -> DispatchResult {
            let acc = ensure_signed(origin)?;
            ensure!(Oss::<T>::take(&acc).is_some(), Error::<T>::UnRegister);
            Self::deposit_event(Event::OssDestroy { acc });
            Ok(())
        }

        /// Authorises on the strength of the owner's signature over `<Bytes>payload</Bytes>`; anybody may submit it.
        /// Emits no event.
        #[pallet::call_index(5)]
        #[pallet::weight(T::DbWeight::get().reads_writes(1, 1))]
        pub fn proxy_authorzie(
            origin: OriginFor<T>,
            auth_puk: sr25519::Public,
            sig: BoundedVec<u8, ConstU32<64>>,
            payload: ProxyAuthPayload,
        ) -> DispatchResult {
            ensure_signed(origin)?;
            let now: u32 = frame_system::Pallet::<T>::block_number().saturated_into();
            ensure!(
                payload.exp.saturating_add(T::PayloadExpired::get()) > now,
                Error::<T>::Expired
            );
            let signature = sr25519::Signature::try_from(sig.as_slice()).map_err(|_| Error::<T>::MalformedSignature)?;
            let message = [b"<Bytes>".as_slice(), &payload.encode(), b"</Bytes>"].concat();
            ensure!(
                sp_io::crypto::sr25519_verify(&signature, &message, &auth_puk),
                Error::<T>::VerifySigFailed
            );
            Self::add(&AccountId32::new(auth_puk.0), &payload.oss)
        }
    }

    impl<T: Config> Pallet<T> {
        /// True if `operator` may act for `owner`: it is the owner, or the owner said so.
        pub fn permits(operator: &AccountId32, owner: &AccountId32) -> bool {
            operator == owner || AuthorityList::<T>::get(owner).contains(operator)
        }

        fn add(owner: &AccountId32, operator: &AccountId32) -> DispatchResult {
            AuthorityList::<T>::try_mutate(owner, |list| -> DispatchResult {
                ensure!(!list.contains(operator), Error::<T>::Existed);
                list.try_push(operator.clone())
                    .map_err(|_| Error::<T>::BoundedVecError)?;
                Ok(())
            })
        }
    }
}
