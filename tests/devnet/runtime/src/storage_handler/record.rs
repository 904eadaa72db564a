//! Records of territories and orders, in CESS's field order.

use crate::cess::{GIB, TerrName, TokenId};
use codec::{Decode, DecodeWithMemTracking, Encode};
use scale_info::TypeInfo;
use sp_core::crypto::AccountId32;

/// Where a territory is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub enum TerritoryState {
    /// Takes data.
    Active,
    /// Past its deadline: keeps data, takes none.
    Frozen,
    /// Its data is gone.
    Expired,
    /// For sale.
    OnConsignment,
}

/// A territory. `total == used + locked + remaining`, unless a deal was declared twice: then the first lock leaked into
/// `locked` for good.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct TerritoryInfo {
    /// Identity.
    pub token: TokenId,
    /// Bytes bought.
    pub total_space: u128,
    /// Bytes charged for stored files.
    pub used_space: u128,
    /// Bytes held for declared files.
    pub locked_space: u128,
    /// Bytes left.
    pub remaining_space: u128,
    /// Block of purchase.
    pub start: u32,
    /// Block at which it freezes.
    pub deadline: u32,
    /// Where it is in its life.
    pub state: TerritoryState,
}

impl TerritoryInfo {
    /// Size in whole GiB.
    pub fn gib_count(&self) -> u32 {
        u32::try_from(self.total_space / GIB).unwrap_or(u32::MAX)
    }

    /// True if it neither holds nor expects data.
    pub fn is_empty(&self) -> bool {
        self.remaining_space == self.total_space
    }
}

/// What an order buys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub enum OrderType {
    /// A territory.
    Buy,
    /// More GiB.
    Expansion,
    /// More days.
    Renewal,
}

/// An order that waits for somebody to pay it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct OrderInfo {
    /// The territory it is for.
    pub territory_name: TerrName,
    /// Planck.
    pub pay: u128,
    /// GiB bought, where GiB are bought.
    pub gib_count: u32,
    /// Days bought, where days are bought.
    pub days: u32,
    /// Block from which on it can't be paid.
    pub expired: u32,
    /// Owner of the territory.
    pub target_acc: AccountId32,
    /// What it buys.
    pub order_type: OrderType,
}
