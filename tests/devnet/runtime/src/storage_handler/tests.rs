//! Territories: price, life, death.

use super::{Event, PurchasedSpace, TerritoryState};
use crate::{
    Balances, Runtime, RuntimeEvent, RuntimeOrigin, StorageHandler, System,
    cess::{GIB, TCESS},
    fixture::*,
};
use frame_support::assert_ok;

fn balance(n: u8) -> u128 {
    Balances::free_balance(user(n))
}

#[test]
fn a_territory_costs_gib_times_days_times_price() {
    chain(|| {
        // The fixture minted 1 GiB x 30 days at 30 TCESS.
        assert_eq!(balance(1), (10_000 - 900) * TCESS);
        assert_ok!(StorageHandler::mint_territory(signed(&user(1)), 2, name("two"), 31));
        assert_eq!(balance(1), (10_000 - 900 - 1860) * TCESS);
        let minted = territory(1, "two");
        assert_eq!((minted.total_space, minted.remaining_space), (2 * GIB, 2 * GIB));
        assert_eq!((minted.start, minted.deadline), (1, 1 + 31 * 14_400));
        assert_eq!(minted.state, TerritoryState::Active);
        let event = RuntimeEvent::StorageHandler(Event::MintTerritory {
            token: minted.token,
            name: name("two"),
            storage_capacity: 2 * GIB,
            spend: 1860 * TCESS,
        });
        System::assert_has_event(event);
    });
}

#[test]
fn a_mint_has_bounds() {
    chain(|| {
        let mint = |gib, what: &str, days| StorageHandler::mint_territory(signed(&user(1)), gib, name(what), days);
        assert_eq!(error(mint(1, "home", 30)), "PurchasedSpace");
        assert_eq!(error(mint(1, "short", 29)), "BoundariesNotMet");
        assert_eq!(error(mint(1, "dear", 1000)), "InsufficientBalance");
        assert_eq!(error(mint(100, "wide", 30)), "InsufficientAvailableSpace");
        assert_eq!(
            PurchasedSpace::<Runtime>::get(),
            3 * GIB,
            "a failed mint leaves nothing behind"
        );
    });
}

#[test]
fn expansion_pays_for_the_days_left_and_a_started_one_counts() {
    chain(|| {
        begin_block(2); // 30 days less one block: still 30
        assert_ok!(StorageHandler::expanding_territory(signed(&user(1)), name("home"), 1));
        assert_eq!(balance(1), (10_000 - 900 - 900) * TCESS);
        begin_block(1 + 29 * 14_400);
        assert_ok!(StorageHandler::expanding_territory(signed(&user(1)), name("home"), 1));
        assert_eq!(balance(1), (10_000 - 900 - 900 - 30) * TCESS);
        assert_eq!(territory(1, "home").total_space, 3 * GIB);
    });
}

#[test]
fn renewal_wakes_a_frozen_territory_before_it_expires() {
    chain(|| {
        let deadline = territory(1, "home").deadline;
        begin_block(deadline);
        assert_eq!(territory(1, "home").state, TerritoryState::Frozen);
        assert_eq!(
            error(StorageHandler::expanding_territory(signed(&user(1)), name("home"), 1)),
            "NotActive"
        );
        begin_block(deadline + 5);
        assert_ok!(StorageHandler::renewal_territory(signed(&user(1)), name("home"), 2));
        let renewed = territory(1, "home");
        assert_eq!(
            (renewed.state, renewed.deadline),
            (TerritoryState::Active, deadline + 5 + 2 * 14_400)
        );
        begin_block(deadline + 100_800);
        assert_eq!(
            territory(1, "home").state,
            TerritoryState::Active,
            "the old expiry is off"
        );
        begin_block(renewed.deadline);
        assert_eq!(territory(1, "home").state, TerritoryState::Frozen);
    });
}

#[test]
fn an_expired_territory_comes_back_empty_for_a_thirtieth() {
    chain(|| {
        store(1, 7, 1);
        let deadline = territory(1, "home").deadline;
        begin_block(deadline);
        assert_eq!(
            error(StorageHandler::reactivate_territory(signed(&user(1)), name("home"), 30)),
            "NotExpire"
        );
        begin_block(deadline + 100_800);
        assert_eq!(
            error(StorageHandler::renewal_territory(signed(&user(1)), name("home"), 30)),
            "StateError"
        );
        let before = balance(1);
        assert_ok!(StorageHandler::reactivate_territory(signed(&user(1)), name("home"), 30));
        assert_eq!(before - balance(1), 30 * TCESS);
        let back = territory(1, "home");
        assert_eq!((back.used_space, back.locked_space, back.remaining_space), (0, 0, GIB));
        assert_eq!(back.state, TerritoryState::Active);
    });
}

#[test]
fn only_an_empty_territory_changes_hands_or_name() {
    chain(|| {
        assert_ok!(declare(1, 1, 7, 1));
        let rename = |n: u8, to: &str| StorageHandler::territory_rename(signed(&user(n)), name("home"), name(to));
        assert_eq!(error(rename(1, "new")), "ObjectNotZero");
        assert_ok!(rename(2, "new"));
        assert_eq!(
            error(StorageHandler::territory_grants(
                signed(&user(2)),
                name("home"),
                user(3)
            )),
            "NotHaveTerritory"
        );
        let token = territory(2, "new").token;
        assert_ok!(StorageHandler::territory_grants(signed(&user(2)), name("new"), user(3)));
        let granted = super::Territory::<Runtime>::iter_prefix(user(3))
            .find(|(_, t)| t.token == token)
            .unwrap();
        assert_eq!(granted.0.as_slice(), token.as_bytes());
        assert_eq!(super::TerritoryKey::<Runtime>::get(token).unwrap().0, user(3));
    });
}

#[test]
fn an_order_is_paid_once_and_in_time() {
    chain(|| {
        let create = |minutes| {
            let order = super::OrderType::Buy;
            StorageHandler::create_order(signed(&user(1)), user(1), name("gift"), order, 1, 30, minutes)
        };
        assert_eq!(error(create(100)), "ParamError");
        assert_ok!(create(1));
        let (id, order) = super::PayOrder::<Runtime>::iter().next().unwrap();
        assert_eq!((order.expired, order.pay), (7, 900 * TCESS));
        begin_block(7);
        assert_eq!(
            error(StorageHandler::exec_order(signed(&user(2)), id.clone())),
            "OrderExpired"
        );
        begin_block(6);
        assert_ok!(StorageHandler::exec_order(signed(&user(2)), id.clone()));
        assert_eq!(balance(2), (10_000 - 900 - 900) * TCESS);
        assert_eq!(territory(1, "gift").total_space, GIB);
        assert_eq!(error(StorageHandler::exec_order(signed(&user(2)), id)), "NoOrder");
    });
}

#[test]
fn root_moves_ends_and_prices() {
    chain(|| {
        let root = RuntimeOrigin::root;
        assert!(StorageHandler::define_update_price(signed(&user(1)), 1).is_err());
        assert_ok!(StorageHandler::define_update_price(root(), TCESS));
        assert_ok!(StorageHandler::mint_territory(signed(&user(1)), 1, name("cheap"), 30));
        assert_eq!(balance(1), (10_000 - 900 - 30) * TCESS);
        assert_ok!(StorageHandler::update_user_territory_life(
            root(),
            user(1),
            name("home"),
            5
        ));
        begin_block(5);
        let home = territory(1, "home");
        assert_eq!(home.state, TerritoryState::Frozen);
        assert_ok!(StorageHandler::update_expired_exec(root(), 5 + 100_800, 6, home.token));
        begin_block(6);
        assert_eq!(territory(1, "home").state, TerritoryState::Expired);
        begin_block(5 + 100_800);
        assert_eq!(PurchasedSpace::<Runtime>::get(), 3 * GIB, "it expires once");
    });
}
