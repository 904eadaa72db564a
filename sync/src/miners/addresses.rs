//! Where miners were, over restarts: what is on the network can be read while the chain does not answer.
//!
//! Only of those that this volume had to do with; the chain's word counts as soon as it was heard.

use crate::limits::ADDRESSES_MAX;
use crate::store::{Batch, MetaStore, StoreError};
use cessfs_crypto::AccountId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Before a miner's account (32 bytes): the URL base it answered under, UTF-8.
const MINER_PREFIX: &[u8] = b"Sminer/";
/// Records read per scan.
const SCAN_RECORDS: usize = 256;

/// See the room's head.
pub(crate) struct Addresses {
    store: Arc<dyn MetaStore>,
    kept: Mutex<BTreeMap<AccountId, String>>,
}

impl Addresses {
    /// Reads what earlier runs put down.
    pub(crate) fn load(store: Arc<dyn MetaStore>) -> Result<Addresses, StoreError> {
        let corrupt = || StoreError::Corrupt("address of a miner".into());
        let mut kept = BTreeMap::new();
        let mut from = MINER_PREFIX.to_vec();
        loop {
            let found = store.scan(MINER_PREFIX, &from, SCAN_RECORDS)?;
            let Some((last, _)) = found.last() else { break };
            from = last.clone();
            from.push(0);
            for (key, value) in found {
                let account: [u8; 32] = key[MINER_PREFIX.len()..].try_into().map_err(|_| corrupt())?;
                kept.insert(AccountId(account), String::from_utf8(value).map_err(|_| corrupt())?);
            }
        }
        Ok(Addresses {
            store,
            kept: Mutex::new(kept),
        })
    }

    pub(crate) fn get(&self, account: AccountId) -> Option<String> {
        self.kept.lock().get(&account).cloned()
    }

    /// The chain says that it is there. A store that fails is no concern of whoever asked for the address.
    pub(crate) fn note(&self, account: AccountId, endpoint: &str) {
        let mut kept = self.kept.lock();
        let is_known = kept.get(&account).map(|known| known == endpoint);
        if is_known == Some(true) || is_known.is_none() && kept.len() >= ADDRESSES_MAX {
            return;
        }
        let mut batch = Batch::new();
        batch.put([MINER_PREFIX, &account.0].concat(), endpoint.as_bytes());
        if self.store.commit(batch).is_ok() {
            kept.insert(account, endpoint.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemStore;

    #[test]
    fn what_was_noted_last_comes_back_and_there_is_a_bound() {
        let store = Arc::new(MemStore::new());
        let account = |number: u32| {
            let mut account = [0; 32];
            account[..4].copy_from_slice(&number.to_le_bytes());
            AccountId(account)
        };
        let addresses = Addresses::load(store.clone()).unwrap();
        addresses.note(account(1), "http://one:15001");
        for number in 0..ADDRESSES_MAX as u32 + 10 {
            addresses.note(account(number), "http://there:1");
        }
        addresses.note(account(1), "http://moved:1");
        let addresses = Addresses::load(store.clone()).unwrap();
        assert_eq!(addresses.kept.lock().len(), ADDRESSES_MAX);
        assert_eq!(addresses.get(account(1)).as_deref(), Some("http://moved:1"));
        assert_eq!(addresses.get(account(7)).as_deref(), Some("http://there:1"));
        assert_eq!(addresses.get(account(ADDRESSES_MAX as u32 + 1)), None);
        let mut batch = Batch::new();
        batch.put([MINER_PREFIX, b"short"].concat(), "x");
        store.commit(batch).unwrap();
        assert!(matches!(Addresses::load(store), Err(StoreError::Corrupt(_))));
    }
}
