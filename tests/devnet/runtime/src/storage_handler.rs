//! Territories: the storage an account has bought, and the clock that takes it away.
//!
//! Life of a territory:
//! ```text
//!  mint -> Active --deadline--> Frozen --FrozenDays--> Expired
//!            ^ |renewal           |renewal               |reactivate (empty, its files are gone)
//!            +-+------------------+----------------------+
//! ```
//! Frozen refuses new data and keeps the old; Expired gives the space back to the market and has the owner's files purged
//! (by `file_bank`). Prices are `GiB x days x UnitPrice`, as the real code computes them, except reactivation, which
//! takes a thirtieth of that. Selling territories (consignment) is not offered.

mod record;
mod territory;

pub use pallet::*;
pub use record::{OrderInfo, OrderType, TerritoryInfo, TerritoryState};

#[cfg(test)]
mod tests;

#[frame_support::pallet]
#[allow(missing_docs)] // generated items; ours are documented
pub mod pallet {
    use super::{OrderInfo, OrderType, TerritoryInfo, TerritoryState};
    use crate::cess::{GIB, TCESS, TerrName, TokenId};
    use frame_support::{
        pallet_prelude::*,
        traits::{ConstU32, Currency},
    };
    use frame_system::pallet_prelude::*;
    use sp_core::crypto::AccountId32;

    /// Fewest days a territory is sold for.
    pub const DAYS_MIN: u32 = 30;
    /// Longest life of a pay order, blocks (exclusive).
    const ORDER_LIFE_MAX: u32 = 600;
    /// Blocks that the real code takes for a minute of an order's life.
    const ORDER_BLOCKS_PER_MINUTE: u32 = 6;

    #[pallet::pallet]
    #[pallet::without_storage_info] // sizes are bounded by the types; no validator weighs our proofs
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config: frame_system::Config<AccountId = AccountId32> {
        /// The token.
        type Currency: Currency<AccountId32, Balance = u128>;
        /// Blocks in a day.
        #[pallet::constant]
        type OneDay: Get<u32>;
        /// Account that takes the rent.
        #[pallet::constant]
        type RewardPalletId: Get<frame_support::PalletId>;
        /// Longest territory name, bytes.
        #[pallet::constant]
        type NameLimit: Get<u32>;
        /// Territories that may end in one block (exclusive).
        #[pallet::constant]
        type FrozenLimit: Get<u32>;
        /// Blocks from freezing to expiry.
        #[pallet::constant]
        type FrozenDays: Get<u32>;
    }

    /// Territory by token.
    #[pallet::storage]
    pub type TerritoryKey<T: Config> = StorageMap<_, Blake2_128Concat, TokenId, (AccountId32, TerrName)>;

    /// Territory by owner and name.
    #[pallet::storage]
    pub type Territory<T: Config> =
        StorageDoubleMap<_, Blake2_128Concat, AccountId32, Blake2_128Concat, TerrName, TerritoryInfo>;

    /// Which territories freeze at a block.
    #[pallet::storage]
    pub type TerritoryFrozen<T: Config> = StorageDoubleMap<_, Blake2_128Concat, u32, Blake2_128Concat, TokenId, bool>;

    /// How many.
    #[pallet::storage]
    pub type TerritoryFrozenCounter<T: Config> = StorageMap<_, Blake2_128Concat, u32, u32, ValueQuery>;

    /// Which territories expire at a block.
    #[pallet::storage]
    pub type TerritoryExpired<T: Config> = StorageDoubleMap<_, Blake2_128Concat, u32, Blake2_128Concat, TokenId, bool>;

    /// Planck per GiB and day.
    #[pallet::storage]
    pub type UnitPrice<T: Config> = StorageValue<_, u128>;

    /// Bytes the miners offer.
    #[pallet::storage]
    pub type TotalIdleSpace<T: Config> = StorageValue<_, u128, ValueQuery>;

    /// Bytes the miners keep for users.
    #[pallet::storage]
    pub type TotalServiceSpace<T: Config> = StorageValue<_, u128, ValueQuery>;

    /// Bytes sold.
    #[pallet::storage]
    pub type PurchasedSpace<T: Config> = StorageValue<_, u128, ValueQuery>;

    /// Orders that anybody may pay.
    #[pallet::storage]
    pub type PayOrder<T: Config> = StorageMap<_, Blake2_128Concat, BoundedVec<u8, ConstU32<32>>, OrderInfo>;

    #[pallet::genesis_config]
    pub struct GenesisConfig<T: Config> {
        /// Planck per GiB and day.
        pub price: u128,
        #[serde(skip)]
        pub _config: core::marker::PhantomData<T>,
    }

    impl<T: Config> Default for GenesisConfig<T> {
        fn default() -> Self {
            Self {
                price: 30 * TCESS,
                _config: Default::default(),
            } // as the testnet's genesis has it
        }
    }

    #[pallet::genesis_build]
    impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
        fn build(&self) {
            UnitPrice::<T>::put(self.price);
        }
    }

    #[pallet::event]
    #[pallet::generate_deposit(pub(super) fn deposit_event)]
    pub enum Event<T: Config> {
        /// Not emitted any more.
        BuySpace {
            acc: T::AccountId,
            storage_capacity: u128,
            spend: u128,
        },
        /// Not emitted any more.
        ExpansionSpace {
            acc: T::AccountId,
            expansion_space: u128,
            fee: u128,
        },
        /// Not emitted any more.
        RenewalSpace {
            acc: T::AccountId,
            renewal_days: u32,
            fee: u128,
        },
        /// Not emitted any more.
        LeaseExpired { acc: T::AccountId, size: u128 },
        /// Not emitted any more.
        LeaseExpireIn24Hours { acc: T::AccountId, size: u128 },
        /// An order waits for a payer.
        CreatePayOrder { order_hash: BoundedVec<u8, ConstU32<32>> },
        /// An order was paid.
        PaidOrder { order_hash: BoundedVec<u8, ConstU32<32>> },
        /// A territory was bought.
        MintTerritory {
            token: TokenId,
            name: TerrName,
            storage_capacity: u128,
            spend: u128,
        },
        /// A territory grew.
        ExpansionTerritory {
            name: TerrName,
            expansion_space: u128,
            spend: u128,
        },
        /// A territory's end was put off.
        RenewalTerritory { name: TerrName, days: u32, spend: u128 },
        /// An expired territory was bought again, empty.
        ReactivateTerritory { name: TerrName, days: u32, spend: u128 },
        /// Not emitted here.
        Consignment {
            name: TerrName,
            token: TokenId,
            price: u128,
        },
        /// Not emitted here.
        BuyConsignment {
            name: TerrName,
            token: TokenId,
            price: u128,
        },
        /// Not emitted here (the real chain spells it so).
        CancleConsignment { token: TokenId },
        /// Not emitted here.
        CancelPurchaseAction { token: TokenId },
        /// Not emitted here.
        ExecConsignment {
            buyer: T::AccountId,
            seller: T::AccountId,
            token: TokenId,
        },
    }

    /// Only the places matter to clients; those without a comment are not raised here.
    #[pallet::error]
    pub enum Error<T> {
        /// A state the code excludes.
        BugInvalid,
        BoundedVecError,
        /// The network has not that much to sell.
        InsufficientAvailableSpace,
        /// The account has not that much money.
        InsufficientBalance,
        /// The territory has not that much room.
        InsufficientStorage,
        /// A number left its range.
        Overflow,
        WrongOperation,
        /// The owner has a territory of that name.
        PurchasedSpace,
        /// The owner has no territory of that name.
        NotPurchasedSpace,
        LeaseFreeze,
        LeaseExpired,
        /// The order is too old to be paid.
        OrderExpired,
        RandomErr,
        /// No such order.
        NoOrder,
        /// An argument out of its range.
        ParamError,
        /// The new territory's token is taken.
        DuplicateTokens,
        /// The owner has no territory of that name.
        NotHaveTerritory,
        /// The territory is frozen, expired or for sale.
        NotActive,
        /// Only an expired territory can be reactivated.
        NotExpire,
        NotOnConsignment,
        InsufficientLease,
        ConsignmentExisted,
        OnConsignment,
        /// The territory's state does not allow that.
        StateError,
        /// The territory is not empty.
        ObjectNotZero,
        NonExistentConsignment,
        ConsignmentLocked,
        ConsignmentUnLocked,
        /// A state the code excludes.
        Unexpected,
        NotBuyer,
        /// The territory changed after the order was made.
        InvalidOrder,
        OwnConsignment,
        /// Fewer days than can be bought.
        BoundariesNotMet,
        /// The owner has a territory of the new name.
        DuplicateName,
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Buys a territory of whole GiB for at least thirty days.
        #[pallet::call_index(0)]
        #[pallet::weight(T::DbWeight::get().reads_writes(6, 6))]
        pub fn mint_territory(
            origin: OriginFor<T>,
            gib_count: u32,
            territory_name: TerrName,
            days: u32,
        ) -> DispatchResult {
            let sender = ensure_signed(origin)?;
            ensure!(
                !Territory::<T>::contains_key(&sender, &territory_name),
                Error::<T>::PurchasedSpace
            );
            ensure!(days >= DAYS_MIN, Error::<T>::BoundariesNotMet);
            let spend = Self::price(gib_count, days)?;
            let token = Self::mint(&sender, &territory_name, gib_count, days)?;
            Self::pay(&sender, spend)?;
            let storage_capacity = GIB * u128::from(gib_count);
            Self::deposit_event(Event::MintTerritory {
                token,
                name: territory_name,
                storage_capacity,
                spend,
            });
            Ok(())
        }

        /// Makes an active territory bigger, for the days it has left (a started day counts).
        #[pallet::call_index(1)]
        #[pallet::weight(T::DbWeight::get().reads_writes(5, 4))]
        pub fn expanding_territory(origin: OriginFor<T>, territory_name: TerrName, gib_count: u32) -> DispatchResult {
            let sender = ensure_signed(origin)?;
            let territory = Self::find(&sender, &territory_name)?;
            ensure!(territory.state == TerritoryState::Active, Error::<T>::NotActive);
            let spend = Self::price(gib_count, Self::days_left(territory.deadline)?)?;
            Self::expand(&sender, &territory_name, gib_count)?;
            Self::pay(&sender, spend)?;
            let expansion_space = GIB * u128::from(gib_count);
            Self::deposit_event(Event::ExpansionTerritory {
                name: territory_name,
                expansion_space,
                spend,
            });
            Ok(())
        }

        /// Puts an active or frozen territory's end off.
        #[pallet::call_index(2)]
        #[pallet::weight(T::DbWeight::get().reads_writes(5, 6))]
        pub fn renewal_territory(origin: OriginFor<T>, territory_name: TerrName, days: u32) -> DispatchResult {
            let sender = ensure_signed(origin)?;
            let territory = Self::find(&sender, &territory_name)?;
            let renewable = matches!(territory.state, TerritoryState::Active | TerritoryState::Frozen);
            ensure!(renewable, Error::<T>::StateError);
            let spend = Self::price(territory.gib_count(), days)?;
            Self::pay(&sender, spend)?;
            Self::renew(&sender, &territory_name, days)?;
            Self::deposit_event(Event::RenewalTerritory {
                name: territory_name,
                days,
                spend,
            });
            Ok(())
        }

        /// Buys an expired territory again. It comes back empty.
        #[pallet::call_index(101)]
        #[pallet::weight(T::DbWeight::get().reads_writes(5, 5))]
        pub fn reactivate_territory(origin: OriginFor<T>, territory_name: TerrName, days: u32) -> DispatchResult {
            let sender = ensure_signed(origin)?;
            Self::do_reactivate(&sender, sender.clone(), territory_name, days)
        }

        /// Buys somebody's expired territory again for him.
        #[pallet::call_index(120)]
        #[pallet::weight(T::DbWeight::get().reads_writes(5, 5))]
        pub fn other_reactivate_territory(
            origin: OriginFor<T>,
            target_acc: AccountId32,
            territory_name: TerrName,
            days: u32,
        ) -> DispatchResult {
            let sender = ensure_signed(origin)?;
            Self::do_reactivate(&sender, target_acc, territory_name, days)
        }

        /// Gives an empty territory away; its name becomes its token's 32 bytes.
        #[pallet::call_index(107)]
        #[pallet::weight(T::DbWeight::get().reads_writes(3, 3))]
        pub fn territory_grants(
            origin: OriginFor<T>,
            territory_name: TerrName,
            receiver: AccountId32,
        ) -> DispatchResult {
            let sender = ensure_signed(origin)?;
            let token = Self::find(&sender, &territory_name)?.token;
            let name = token
                .as_bytes()
                .to_vec()
                .try_into()
                .map_err(|_| Error::<T>::BoundedVecError)?;
            Self::hand_over((&sender, &territory_name), (receiver, name))
        }

        /// Renames an empty territory.
        #[pallet::call_index(108)]
        #[pallet::weight(T::DbWeight::get().reads_writes(3, 3))]
        pub fn territory_rename(origin: OriginFor<T>, old_name: TerrName, new_name: TerrName) -> DispatchResult {
            let sender = ensure_signed(origin)?;
            Self::hand_over((&sender, &old_name), (sender.clone(), new_name))
        }

        /// Moves a territory's end. Root only.
        #[pallet::call_index(5)]
        #[pallet::weight(T::DbWeight::get().reads_writes(2, 3))]
        pub fn update_user_territory_life(
            origin: OriginFor<T>,
            user: AccountId32,
            terr_name: TerrName,
            deadline: u32,
        ) -> DispatchResult {
            ensure_root(origin)?;
            Self::move_deadline(&user, &terr_name, deadline)
        }

        /// Moves the block at which a frozen territory expires. Root only.
        #[pallet::call_index(201)]
        #[pallet::weight(T::DbWeight::get().writes(2))]
        pub fn update_expired_exec(
            origin: OriginFor<T>,
            old_block: u32,
            new_block: u32,
            token: TokenId,
        ) -> DispatchResult {
            ensure_root(origin)?;
            TerritoryExpired::<T>::remove(old_block, token);
            TerritoryExpired::<T>::insert(new_block, token, true);
            Ok(())
        }

        /// Makes an order that anybody may pay within `expired` minutes.
        #[pallet::call_index(6)]
        #[pallet::weight(T::DbWeight::get().reads_writes(3, 1))]
        pub fn create_order(
            origin: OriginFor<T>,
            target_acc: AccountId32,
            territory_name: TerrName,
            order_type: OrderType,
            gib_count: u32,
            days: u32,
            expired: u32,
        ) -> DispatchResult {
            ensure_signed(origin)?;
            let life = expired
                .checked_mul(ORDER_BLOCKS_PER_MINUTE)
                .ok_or(Error::<T>::Overflow)?;
            ensure!(life < ORDER_LIFE_MAX, Error::<T>::ParamError);
            let pay = Self::order_price(&target_acc, &territory_name, order_type, gib_count, days)?;
            let expired = Self::now().saturating_add(life);
            let order = OrderInfo {
                territory_name,
                pay,
                gib_count,
                days,
                expired,
                target_acc,
                order_type,
            };
            let order_hash: BoundedVec<u8, _> = sp_io::hashing::blake2_256(&(Self::seed(), &order).encode())
                .to_vec()
                .try_into()
                .map_err(|_| Error::<T>::BoundedVecError)?;
            PayOrder::<T>::insert(&order_hash, order);
            Self::deposit_event(Event::CreatePayOrder { order_hash });
            Ok(())
        }

        /// Pays an order.
        #[pallet::call_index(7)]
        #[pallet::weight(T::DbWeight::get().reads_writes(8, 8))]
        pub fn exec_order(origin: OriginFor<T>, order_id: BoundedVec<u8, ConstU32<32>>) -> DispatchResult {
            let sender = ensure_signed(origin)?;
            let order = PayOrder::<T>::get(&order_id).ok_or(Error::<T>::NoOrder)?;
            ensure!(order.expired > Self::now(), Error::<T>::OrderExpired);
            let (owner, name) = (&order.target_acc, &order.territory_name);
            let price = Self::order_price(owner, name, order.order_type, order.gib_count, order.days)?;
            ensure!(price == order.pay, Error::<T>::InvalidOrder);
            match order.order_type {
                OrderType::Buy => Self::mint(owner, name, order.gib_count, order.days).map(|_| ())?,
                OrderType::Expansion => Self::expand(owner, name, order.gib_count)?,
                OrderType::Renewal => Self::renew(owner, name, order.days)?,
            }
            Self::pay(&sender, order.pay)?;
            PayOrder::<T>::remove(&order_id);
            Self::deposit_event(Event::PaidOrder { order_hash: order_id });
            Ok(())
        }

        /// Sets the price per GiB and day, planck. Root only.
        #[pallet::call_index(9)]
        #[pallet::weight(T::DbWeight::get().writes(1))]
        pub fn define_update_price(origin: OriginFor<T>, price: u128) -> DispatchResult {
            ensure_root(origin)?;
            UnitPrice::<T>::put(price);
            Ok(())
        }
    }
}
