//! Trie nodes of every state, by position and hash. Grows only.

use super::{ChainError, Change};
use hash_db::Prefix;
use sp_core::{H256, storage::StateVersion};
use sp_runtime::traits::BlakeTwo256;
use sp_state_machine::{IterArgs, TrieBackend, TrieBackendBuilder, TrieBackendStorage, backend::Backend};
use sp_trie::{LayoutV1, PrefixedMemoryDB};
use std::collections::HashMap;

/// The nodes.
#[derive(Default)]
pub(super) struct Nodes(HashMap<Vec<u8>, Vec<u8>>);

impl TrieBackendStorage<BlakeTwo256> for Nodes {
    fn get(&self, key: &H256, prefix: Prefix<'_>) -> Result<Option<Vec<u8>>, String> {
        Ok(self.0.get(&sp_trie::prefixed_key::<BlakeTwo256>(key, prefix)).cloned())
    }
}

impl Nodes {
    /// Root of the state without keys.
    pub(super) fn empty_root() -> H256 {
        sp_trie::empty_trie_root::<LayoutV1<BlakeTwo256>>()
    }

    /// The state with that root, for reading or running on.
    pub(super) fn state(&self, root: H256) -> TrieBackend<&Self, BlakeTwo256> {
        TrieBackendBuilder::new(self, root).build()
    }

    /// Adds the state that comes out of another by these changes, and returns its root.
    pub(super) fn apply(&mut self, parent: H256, changes: &[Change]) -> Result<H256, ChainError> {
        let delta = changes.iter().map(|(key, value)| (key.as_slice(), value.as_deref()));
        let (root, added) = self.state(parent).storage_root(delta, StateVersion::V1);
        self.add(added);
        Ok(root)
    }

    /// Adds the nodes of a new state. Those it does without stay: older states have them.
    pub(super) fn add(&mut self, mut added: PrefixedMemoryDB<BlakeTwo256>) {
        let fresh = added.drain().into_iter().filter(|(_, (_, references))| *references > 0);
        self.0.extend(fresh.map(|(key, (node, _))| (key, node)));
    }

    /// A value.
    pub(super) fn value(&self, root: H256, key: &[u8]) -> Result<Option<Vec<u8>>, ChainError> {
        self.state(root)
            .storage(key)
            .map_err(|e| ChainError::State(e.to_string()))
    }

    /// Keys with a prefix, after `start`.
    pub(super) fn keys(
        &self,
        root: H256,
        prefix: &[u8],
        count: usize,
        start: Option<&[u8]>,
    ) -> Result<Vec<Vec<u8>>, ChainError> {
        let mut args = IterArgs::default();
        args.prefix = Some(prefix);
        args.start_at = start;
        args.start_at_exclusive = start.is_some();
        let state = self.state(root);
        let keys = state.keys(args).map_err(|e| ChainError::State(e.to_string()))?;
        keys.take(count)
            .map(|key| key.map_err(|e| ChainError::State(e.to_string())))
            .collect()
    }
}
