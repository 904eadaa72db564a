//! The rules a client has to live with.

use super::{DealMap, Event, File, FileState, UserHoldFileList};
use crate::{
    FileBank, Oss, Runtime, RuntimeOrigin, Sminer, StorageHandler,
    cess::{FRAGMENT_SIZE, SEGMENT_CHARGE},
    fixture::*,
    sminer::MinerItems,
    storage_handler::{PurchasedSpace, TerritoryState, TotalIdleSpace, TotalServiceSpace},
};
use frame_support::assert_ok;

fn miner_space(n: u8) -> (u128, u128) {
    let info = MinerItems::<Runtime>::get(miner(n)).unwrap();
    (info.idle_space, info.lock_space)
}

fn held(owner: u8) -> Vec<(crate::cess::Hash, u128)> {
    UserHoldFileList::<Runtime>::get(user(owner))
        .into_iter()
        .map(|e| (e.file_hash, e.file_size))
        .collect()
}

#[test]
fn twelve_reports_make_a_file() {
    chain(|| {
        assert_ok!(declare(1, 1, 7, 2));
        assert_eq!(space(1).1, 2);
        // The indexes come in any order; who reported index i holds fragment i - 1 of every segment.
        for n in 0..12 {
            assert_ok!(report(n, 12 - n, 7));
        }
        let file = File::<Runtime>::get(hash(7)).unwrap();
        assert_eq!(file.stat, FileState::Active);
        for segment in &file.segment_list {
            for (place, fragment) in segment.fragment_list.iter().enumerate() {
                assert_eq!(fragment.miner, miner(11 - place as u8));
                assert!(fragment.avail && fragment.tag.is_none());
            }
        }
        assert!(DealMap::<Runtime>::get(hash(7)).is_none());
        assert_eq!((space(1).0, space(1).1), (2, 0));
        assert_eq!(held(1), [(hash(7), 2 * SEGMENT_CHARGE)]);
        assert_eq!(TotalServiceSpace::<Runtime>::get(), 2 * SEGMENT_CHARGE);
        assert_eq!(
            miner_space(0),
            ((MINER_SEGMENTS - 2) * FRAGMENT_SIZE, 2 * FRAGMENT_SIZE)
        );
        let events = events();
        assert!(matches!(&events[0], Event::UploadDeclaration { deal_hash, .. } if *deal_hash == hash(7)));
        assert!(events.contains(&Event::StorageCompleted { file_hash: hash(7) }));
        assert_eq!(
            events
                .iter()
                .filter(|e| matches!(e, Event::TransferReport { .. }))
                .count(),
            12
        );
    });
}

#[test]
fn room_must_be_strictly_greater_than_the_need() {
    chain(|| {
        // 1 GiB is 10 segments and 64 MiB.
        assert_eq!(error(declare(1, 1, 7, 11)), "InsufficientAvailableSpace");
        assert_ok!(declare(1, 1, 7, 10));
        // 3 GiB are exactly 32 segments: the last one can't be used.
        assert_ok!(StorageHandler::expanding_territory(signed(&user(2)), name("home"), 2));
        assert_eq!(error(declare(2, 2, 8, 32)), "InsufficientAvailableSpace");
        assert_ok!(declare(2, 2, 8, 31));
    });
}

#[test]
fn a_declaration_is_checked_for_shape_only() {
    chain(|| {
        let declare = |deal: Vec<_>, file: &str| {
            let deal = deal.try_into().unwrap();
            FileBank::upload_declaration(signed(&user(1)), hash(7), deal, brief(1, file), 1)
        };
        let mut short = segments(2);
        short[1].fragment_list.pop();
        assert_eq!(error(declare(short, "file")), "SpecError");
        assert_eq!(error(declare(segments(1), "ab")), "SpecError");
        assert_ok!(declare(segments(1), "abc"));
        let mut elsewhere = brief(1, "file");
        elsewhere.territory_name = name("nowhere");
        let deal = segments(1).try_into().unwrap();
        let outcome = FileBank::upload_declaration(signed(&user(1)), hash(8), deal, elsewhere, 1);
        assert_eq!(error(outcome), "NotHaveTerritory");
    });
}

#[test]
fn only_the_owner_and_his_operators_may() {
    chain(|| {
        assert_eq!(error(declare(2, 1, 7, 1)), "NoPermission");
        assert_ok!(Oss::authorize(signed(&user(1)), user(2)));
        assert_ok!(declare(2, 1, 7, 1));
        store(1, 8, 1);
        assert_ok!(FileBank::delete_file(signed(&user(2)), user(1), hash(8)));
        store(1, 9, 1);
        assert_ok!(Oss::cancel_authorize(signed(&user(1)), user(2)));
        assert_eq!(
            error(FileBank::delete_file(signed(&user(2)), user(1), hash(9))),
            "NoPermission"
        );
        assert_eq!(error(declare(2, 1, 10, 1)), "NoPermission");
    });
}

#[test]
fn declaring_again_replaces_the_deal_and_leaks_the_lock() {
    chain(|| {
        assert_ok!(declare(1, 1, 7, 2));
        assert_ok!(report(0, 1, 7));
        assert_ok!(declare(1, 1, 7, 3));
        let deal = DealMap::<Runtime>::get(hash(7)).unwrap();
        assert_eq!((deal.segment_list.len(), deal.complete_list.len()), (3, 0));
        assert_eq!(space(1).1, 5);
        // Somebody else may take a pending deal over as well.
        assert_ok!(declare(2, 2, 7, 1));
        assert_eq!(DealMap::<Runtime>::get(hash(7)).unwrap().user.user, user(2));
        for n in 0..12 {
            assert_ok!(report(n, n + 1, 7));
        }
        assert_eq!((space(2).0, space(2).1), (1, 0));
        assert_eq!((space(1).0, space(1).1), (0, 5));
    });
}

#[test]
fn a_stored_fid_gets_one_more_owner_at_once() {
    chain(|| {
        store(1, 7, 2);
        assert_ok!(declare(2, 2, 7, 1)); // what is declared does not count, what is stored does
        let file = File::<Runtime>::get(hash(7)).unwrap();
        assert_eq!(
            file.owner.iter().map(|b| b.user.clone()).collect::<Vec<_>>(),
            [user(1), user(2)]
        );
        assert_eq!((space(2).0, space(2).1), (2, 0));
        assert_eq!(held(2), [(hash(7), 2 * SEGMENT_CHARGE)]);
        assert!(DealMap::<Runtime>::get(hash(7)).is_none());
        assert_eq!(error(declare(2, 2, 7, 1)), "Existed");
        // The file lives until its last owner leaves.
        assert_ok!(FileBank::delete_file(signed(&user(1)), user(1), hash(7)));
        assert!(File::<Runtime>::contains_key(hash(7)));
        assert_eq!((space(1).0, held(1).len()), (0, 0));
        assert_ok!(FileBank::delete_file(signed(&user(2)), user(2), hash(7)));
        assert!(!File::<Runtime>::contains_key(hash(7)));
    });
}

#[test]
fn a_report_needs_a_free_index_and_a_fresh_positive_miner_with_room() {
    chain(|| {
        assert_eq!(error(report(0, 1, 7)), "NonExistent");
        assert_ok!(declare(1, 1, 7, 1));
        assert_eq!(error(report(0, 0, 7)), "SpecError");
        assert_eq!(error(report(0, 13, 7)), "SpecError");
        assert_eq!(
            error(FileBank::transfer_report(signed(&user(1)), 1, hash(7))),
            "NotMiner"
        );
        assert_ok!(report(0, 1, 7));
        assert_eq!(error(report(1, 1, 7)), "Existed");
        assert_eq!(error(report(0, 2, 7)), "Existed");
        assert_ok!(Sminer::set_state(&miner(1), b"frozen".to_vec()));
        assert_eq!(error(report(1, 2, 7)), "MinerStateError");
        MinerItems::<Runtime>::mutate(miner(2), |m| m.as_mut().unwrap().idle_space = FRAGMENT_SIZE - 1);
        assert_eq!(error(report(2, 2, 7)), "Overflow");
        assert_eq!(DealMap::<Runtime>::get(hash(7)).unwrap().complete_list.len(), 1);
    });
}

#[test]
fn deleting_refunds_owner_and_miners() {
    chain(|| {
        let idle = TotalIdleSpace::<Runtime>::get();
        store(1, 7, 3);
        assert_eq!(
            error(FileBank::delete_file(signed(&user(2)), user(2), hash(7))),
            "NotOwner"
        );
        assert_ok!(FileBank::delete_file(signed(&user(1)), user(1), hash(7)));
        assert_eq!((space(1).0, space(1).1), (0, 0));
        assert_eq!(miner_space(3), (MINER_SEGMENTS * FRAGMENT_SIZE, 0));
        assert_eq!(
            (TotalIdleSpace::<Runtime>::get(), TotalServiceSpace::<Runtime>::get()),
            (idle, 0)
        );
        assert_eq!(
            error(FileBank::delete_file(signed(&user(1)), user(1), hash(7))),
            "NonExistent"
        );
    });
}

#[test]
fn a_file_moves_between_territories_of_its_owner() {
    chain(|| {
        store(1, 7, 1);
        assert_ok!(StorageHandler::mint_territory(signed(&user(1)), 1, name("away"), 30));
        let deliver = |to: &str| FileBank::territory_file_delivery(signed(&user(1)), user(1), hash(7), name(to));
        assert_eq!(error(deliver("nowhere")), "NotHaveTerritory");
        assert_ok!(deliver("away"));
        assert_eq!(space(1).0, 0);
        assert_eq!(territory(1, "away").used_space, SEGMENT_CHARGE);
        assert_eq!(
            UserHoldFileList::<Runtime>::get(user(1))[0].territory_name,
            name("away")
        );
        let unowned = FileBank::territory_file_delivery(signed(&user(2)), user(2), hash(7), name("home"));
        assert_eq!(error(unowned), "NotOwner");
    });
}

#[test]
fn a_frozen_territory_keeps_files_and_takes_none() {
    chain(|| {
        store(1, 7, 1);
        assert_ok!(declare(1, 1, 8, 1));
        begin_block(territory(1, "home").deadline);
        assert_eq!(territory(1, "home").state, TerritoryState::Frozen);
        assert_eq!(error(declare(1, 1, 9, 1)), "NotActive");
        // A deal that was open goes on.
        for n in 0..12 {
            assert_ok!(report(n, n + 1, 8));
        }
        assert_ok!(FileBank::delete_file(signed(&user(1)), user(1), hash(7)));
        assert!(File::<Runtime>::contains_key(hash(8)));
    });
}

#[test]
fn an_expired_territory_loses_its_files_and_silently_its_deals() {
    chain(|| {
        store(1, 7, 1);
        store(2, 6, 1);
        assert_ok!(declare(2, 2, 7, 1)); // shared with user 2, whose territory is renewed
        assert_ok!(declare(1, 1, 8, 1));
        assert_ok!(report(5, 1, 8));
        assert_ok!(StorageHandler::renewal_territory(signed(&user(2)), name("home"), 30));
        let deadline = territory(1, "home").deadline;
        begin_block(deadline);
        let sold = PurchasedSpace::<Runtime>::get();
        begin_block(deadline + 100_800);
        assert_eq!(territory(1, "home").state, TerritoryState::Expired);
        assert!(PurchasedSpace::<Runtime>::get() < sold);
        assert!(held(1).is_empty());
        let owners = File::<Runtime>::get(hash(7)).unwrap().owner;
        assert_eq!(owners.iter().map(|b| b.user.clone()).collect::<Vec<_>>(), [user(2)]);
        assert!(File::<Runtime>::contains_key(hash(6)));
        crate::System::reset_events();
        assert_ok!(report(6, 2, 8));
        assert!(DealMap::<Runtime>::get(hash(8)).is_none());
        assert!(events().is_empty());
        assert_eq!(miner_space(6).1, 2 * FRAGMENT_SIZE, "it holds files 6 and 7");
    });
}

#[test]
fn a_purge_takes_list_entries_of_other_territories_too() {
    chain(|| {
        assert_ok!(StorageHandler::mint_territory(signed(&user(1)), 1, name("away"), 60));
        store(1, 7, 1);
        store(1, 8, 1);
        let deliver = FileBank::territory_file_delivery(signed(&user(1)), user(1), hash(8), name("away"));
        assert_ok!(deliver);
        let deadline = territory(1, "home").deadline;
        begin_block(deadline);
        begin_block(deadline + 100_800);
        assert!(!File::<Runtime>::contains_key(hash(7)));
        assert!(File::<Runtime>::contains_key(hash(8)));
        assert!(
            held(1).is_empty(),
            "the entry of the living file is gone, as on the network"
        );
    });
}

#[test]
fn nobody_else_gets_through_the_devnets_door() {
    chain(|| {
        let fund = |origin| crate::Devnet::fund(origin, user(1), 1);
        assert!(fund(signed(&user(1))).is_err());
        assert!(fund(RuntimeOrigin::root()).is_err());
        assert_ok!(fund(RuntimeOrigin::none()));
    });
}
