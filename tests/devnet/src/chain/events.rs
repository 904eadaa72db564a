//! Counts of what happened on the chain, by event name.
//!
//! Taken from the events that each block leaves in the state, so that a replayed chain counts the same.

use super::Change;
use cessfs_devnet_runtime::{Runtime, RuntimeEvent, file_bank, oss, sminer, storage_handler};
use codec::{Decode, Encode};
use frame_system::EventRecord;
use scale_info::{TypeDef, TypeInfo};
use sp_core::H256;
use std::{collections::BTreeMap, sync::LazyLock};

/// Pallet index and event index to the event's name, for CESS's own pallets.
static NAMES: LazyLock<BTreeMap<[u8; 2], &'static str>> = LazyLock::new(|| {
    let tables = [
        (104, file_bank::Event::<Runtime>::type_info()),
        (105, sminer::Event::<Runtime>::type_info()),
        (107, storage_handler::Event::<Runtime>::type_info()),
        (108, oss::Event::<Runtime>::type_info()),
    ];
    let mut names = BTreeMap::new();
    for (pallet, info) in tables {
        let TypeDef::Variant(events) = info.type_def else {
            continue;
        };
        names.extend(
            events
                .variants
                .into_iter()
                .map(|event| ([pallet, event.index], event.name)),
        );
    }
    names
});

/// Event name to count, for events of FileBank, Sminer, StorageHandler and Oss.
#[derive(Clone, Default)]
pub struct EventCounts(BTreeMap<&'static str, u64>);

impl EventCounts {
    /// Adds the events that a block's changes put into the state.
    pub(super) fn count(&mut self, changes: &[Change]) {
        let key = frame_support::storage::storage_prefix(b"System", b"Events");
        let Some((_, Some(events))) = changes.iter().find(|(k, _)| *k == key) else {
            return;
        };
        let events = Vec::<EventRecord<RuntimeEvent, H256>>::decode(&mut events.as_slice()).unwrap_or_default();
        for record in events {
            let [pallet, event, ..] = record.event.encode()[..] else {
                continue;
            };
            if let Some(name) = NAMES.get(&[pallet, event]) {
                *self.0.entry(name).or_default() += 1;
            }
        }
    }

    /// How often an event happened.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(name, count)| (*name, *count))
    }
}
