//! Calls that governance has switched off.
//!
//! A paused call is still taken into a block and charged for; its dispatch fails with `System.CallFiltered`. Clients look
//! the name up in `PausedCalls` first. Only root pauses, and the devnet's only root is its control door.

pub use pallet::*;

use frame_support::traits::{Contains, GetCallMetadata};

#[frame_support::pallet]
#[allow(missing_docs)] // generated items; ours are documented
pub mod pallet {
    use frame_support::{
        pallet_prelude::*,
        traits::{ConstU32, GetCallMetadata},
    };
    use frame_system::pallet_prelude::*;

    /// Longest pallet or call name, bytes.
    pub const NAME_LEN_MAX: u32 = 256;

    /// Pallet name and call name, as the metadata spells them.
    pub type RuntimeCallName = (
        BoundedVec<u8, ConstU32<NAME_LEN_MAX>>,
        BoundedVec<u8, ConstU32<NAME_LEN_MAX>>,
    );

    #[pallet::pallet]
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config: frame_system::Config<RuntimeCall: GetCallMetadata> {
        /// Longest pallet or call name, bytes.
        #[pallet::constant]
        type MaxNameLen: Get<u32>;
    }

    /// The calls that are switched off.
    #[pallet::storage]
    pub type PausedCalls<T: Config> = StorageMap<_, Blake2_128Concat, RuntimeCallName, (), OptionQuery>;

    #[pallet::event]
    #[pallet::generate_deposit(fn deposit_event)]
    pub enum Event<T: Config> {
        /// A call was switched off.
        CallPaused { full_name: RuntimeCallName },
        /// A call was switched on again.
        CallUnpaused { full_name: RuntimeCallName },
    }

    #[pallet::error]
    pub enum Error<T> {
        /// Already paused.
        IsPaused,
        /// Not paused.
        IsUnpaused,
        /// The chain could not go on without it.
        Unpausable,
        /// No such call.
        NotFound,
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Switches a call off. Root only.
        #[pallet::call_index(0)]
        #[pallet::weight(T::DbWeight::get().reads_writes(1, 1))]
        pub fn pause(origin: OriginFor<T>, full_name: RuntimeCallName) -> DispatchResult {
            ensure_root(origin)?;
            let pallet = core::str::from_utf8(&full_name.0).map_err(|_| Error::<T>::NotFound)?;
            ensure!(!super::UNPAUSABLE.contains(&pallet), Error::<T>::Unpausable);
            let modules = <T::RuntimeCall as GetCallMetadata>::get_module_names();
            ensure!(modules.contains(&pallet), Error::<T>::NotFound);
            let calls = <T::RuntimeCall as GetCallMetadata>::get_call_names(pallet);
            ensure!(
                calls.iter().any(|c| c.as_bytes() == full_name.1.as_slice()),
                Error::<T>::NotFound
            );
            ensure!(!PausedCalls::<T>::contains_key(&full_name), Error::<T>::IsPaused);
            PausedCalls::<T>::insert(&full_name, ());
            Self::deposit_event(Event::CallPaused { full_name });
            Ok(())
        }

        /// Switches a call on again. Root only.
        #[pallet::call_index(1)]
        #[pallet::weight(T::DbWeight::get().reads_writes(1, 1))]
        pub fn unpause(origin: OriginFor<T>, ident: RuntimeCallName) -> DispatchResult {
            ensure_root(origin)?;
            ensure!(PausedCalls::<T>::take(&ident).is_some(), Error::<T>::IsUnpaused);
            Self::deposit_event(Event::CallUnpaused { full_name: ident });
            Ok(())
        }
    }
}

/// Pallets whose calls carry the chain itself.
const UNPAUSABLE: [&str; 3] = ["Timestamp", "TxPause", "Devnet"];

impl<T: Config> Contains<<T as frame_system::Config>::RuntimeCall> for Pallet<T> {
    fn contains(call: &<T as frame_system::Config>::RuntimeCall) -> bool {
        let name = call.get_call_metadata();
        let text = |name: &str| name.as_bytes().to_vec().try_into();
        match (text(name.pallet_name), text(name.function_name)) {
            (Ok(pallet), Ok(call)) => !PausedCalls::<T>::contains_key::<RuntimeCallName>((pallet, call)),
            _ => true, // a name too long for the map can't have been put into it
        }
    }
}
