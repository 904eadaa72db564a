//! A chain in memory for the pallets' tests: three users with money and a territory each, fourteen miners.

use crate::{
    AccountId, Runtime, RuntimeEvent, RuntimeGenesisConfig, RuntimeOrigin, StorageHandler, System,
    cess::{FRAGMENT_COUNT, FRAGMENT_SIZE, GIB, Hash, TCESS, TerrName},
    file_bank::{self, SegmentList, UserBrief},
    storage_handler::{self, TerritoryInfo},
};
use frame_support::traits::Hooks;
use sp_runtime::{BuildStorage, DispatchError, DispatchResult};

/// Miners of the chain.
pub(crate) const MINERS: u8 = 14;
/// Segments that each miner has room for.
pub(crate) const MINER_SEGMENTS: u128 = 80;

pub(crate) fn user(n: u8) -> AccountId {
    [n; 32].into()
}

pub(crate) fn miner(n: u8) -> AccountId {
    [100 + n; 32].into()
}

pub(crate) fn signed(account: &AccountId) -> RuntimeOrigin {
    RuntimeOrigin::signed(account.clone())
}

pub(crate) fn name(text: &str) -> TerrName {
    text.as_bytes().to_vec().try_into().unwrap()
}

/// A hash that names a file, segment or fragment of the tests.
pub(crate) fn hash(n: u32) -> Hash {
    Hash::from_text(&format!("{n:064x}")).unwrap()
}

/// Runs `test` at block 1, where users 1 to 3 own a 1-GiB territory called `home` for 30 days.
pub(crate) fn chain(test: impl FnOnce()) {
    let miners = (0..MINERS).map(|n| (miner(n), format!("http://miner-{n}"), FRAGMENT_SIZE * MINER_SEGMENTS));
    let genesis = RuntimeGenesisConfig {
        balances: crate::BalancesConfig {
            balances: (1..=3).map(|n| (user(n), 10_000 * TCESS)).collect(),
            ..Default::default()
        },
        sminer: crate::SminerConfig {
            miners: miners.collect(),
            ..Default::default()
        },
        ..Default::default()
    };
    sp_io::TestExternalities::new(genesis.build_storage().unwrap()).execute_with(|| {
        System::set_block_number(1);
        for n in 1..=3 {
            StorageHandler::mint_territory(signed(&user(n)), 1, name("home"), 30).unwrap();
        }
        System::reset_events();
        test();
    });
}

/// Jumps to a block and lets the pallets begin it.
pub(crate) fn begin_block(number: u32) {
    System::set_block_number(number);
    crate::FileBank::on_initialize(number);
}

pub(crate) fn territory(owner: u8, territory: &str) -> TerritoryInfo {
    storage_handler::Territory::<Runtime>::get(user(owner), name(territory)).unwrap()
}

/// Used, locked and remaining space of a user's `home`, in segments of the 1-GiB total.
pub(crate) fn space(owner: u8) -> (u128, u128, u128) {
    let t = territory(owner, "home");
    let leaked_or_exact = t.used_space + t.locked_space + t.remaining_space;
    assert_eq!(leaked_or_exact, GIB);
    let segments = |space: u128| {
        assert_eq!(space % crate::cess::SEGMENT_CHARGE, 0);
        space / crate::cess::SEGMENT_CHARGE
    };
    (segments(t.used_space), segments(t.locked_space), t.remaining_space)
}

pub(crate) fn brief(owner: u8, file: &str) -> UserBrief {
    UserBrief {
        user: user(owner),
        file_name: file.as_bytes().to_vec().try_into().unwrap(),
        territory_name: name("home"),
    }
}

/// Segments with distinct fragments.
pub(crate) fn segments(count: u32) -> Vec<SegmentList> {
    let segment = |s: u32| SegmentList {
        hash: hash(1_000_000 + s),
        fragment_list: (0..FRAGMENT_COUNT)
            .map(|f| hash(2_000_000 + s * 12 + f))
            .collect::<Vec<_>>()
            .try_into()
            .unwrap(),
    };
    (0..count).map(segment).collect()
}

/// Declares file `fid` of so many segments.
pub(crate) fn declare(signer: u8, owner: u8, fid: u32, count: u32) -> DispatchResult {
    let deal = segments(count).try_into().unwrap();
    file_bank::Pallet::<Runtime>::upload_declaration(signed(&user(signer)), hash(fid), deal, brief(owner, "file"), 1)
}

/// Has miner `n` report an index.
pub(crate) fn report(n: u8, index: u8, fid: u32) -> DispatchResult {
    file_bank::Pallet::<Runtime>::transfer_report(signed(&miner(n)), index, hash(fid))
}

/// Declares a file and has twelve miners report it.
pub(crate) fn store(owner: u8, fid: u32, count: u32) {
    declare(owner, owner, fid, count).unwrap();
    for n in 0..12 {
        report(n, n + 1, fid).unwrap();
    }
    assert!(file_bank::File::<Runtime>::contains_key(hash(fid)));
}

/// Name of the error variant a call failed with.
pub(crate) fn error(outcome: DispatchResult) -> &'static str {
    match outcome.unwrap_err() {
        DispatchError::Module(module) => module.message.unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Events of the file bank, in order.
pub(crate) fn events() -> Vec<file_bank::Event<Runtime>> {
    let events = System::events().into_iter();
    events
        .filter_map(|record| {
            if let RuntimeEvent::FileBank(e) = record.event {
                Some(e)
            } else {
                None
            }
        })
        .collect()
}
