//! What a key slot wraps and everything is derived from.

use crate::account::AccountKey;
use crate::derive::{self, Key};
use crate::id::VolumeId;
use crate::label::LabelKey;
use crate::volume::VolumeKeys;

/// The root key and the account's mini secret. Zeroized on drop.
pub struct VolumeSecret {
    pub(crate) root: Key,
    pub(crate) account: Key,
}

impl VolumeSecret {
    /// The account that pays for and owns the packs.
    pub fn account_key(&self) -> AccountKey {
        AccountKey::from_seed(&self.account)
    }

    /// The key of pack labels: one per phrase, whatever the volume, so that recovery can read an account's file list.
    pub fn label_key(&self) -> LabelKey {
        LabelKey::new(&derive::tree_key(&self.root[..], derive::LABEL, b""))
    }

    /// The keys of one volume.
    pub fn volume_keys(&self, volume: VolumeId) -> VolumeKeys {
        VolumeKeys::new(volume, &derive::tree_key(&self.root[..], derive::VOLUME, &volume.0))
    }
}
