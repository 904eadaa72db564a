//! The devnet's own door into the chain: money from nothing, root, a miner's state.
//!
//! Not part of CESS. Its calls are bare extrinsics that only the block author makes (the pool refuses them, as nothing
//! here validates an unsigned transaction), so that everything the door does still stands in a block.

pub use pallet::*;

#[frame_support::pallet]
#[allow(missing_docs)] // generated items; ours are documented
pub mod pallet {
    use crate::{sminer, storage_handler};
    use frame_support::{
        dispatch::GetDispatchInfo,
        pallet_prelude::*,
        traits::{Currency, UnfilteredDispatchable},
    };
    use frame_system::{RawOrigin, pallet_prelude::*};
    use sp_core::crypto::AccountId32;

    #[pallet::pallet]
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config: frame_system::Config<AccountId = AccountId32> + storage_handler::Config + sminer::Config {
        /// Anything that root may do.
        type AnyCall: Parameter + UnfilteredDispatchable<RuntimeOrigin = Self::RuntimeOrigin> + GetDispatchInfo;
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Makes `amount` planck for `who`.
        #[pallet::call_index(0)]
        #[pallet::weight(Weight::zero())]
        pub fn fund(origin: OriginFor<T>, who: AccountId32, amount: u128) -> DispatchResult {
            ensure_none(origin)?;
            let _ = <T as storage_handler::Config>::Currency::deposit_creating(&who, amount);
            Ok(())
        }

        /// Puts a miner into a state, such as `positive` or `exit`.
        #[pallet::call_index(1)]
        #[pallet::weight(Weight::zero())]
        pub fn set_miner_state(origin: OriginFor<T>, miner: AccountId32, state: Vec<u8>) -> DispatchResult {
            ensure_none(origin)?;
            sminer::Pallet::<T>::set_state(&miner, state)
        }

        /// Does a call as root.
        #[pallet::call_index(2)]
        #[pallet::weight(Weight::zero())]
        pub fn as_root(origin: OriginFor<T>, call: Box<<T as Config>::AnyCall>) -> DispatchResult {
            ensure_none(origin)?;
            call.dispatch_bypass_filter(RawOrigin::Root.into())
                .map(|_| ())
                .map_err(|e| e.error)
        }
    }
}
