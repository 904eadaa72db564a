//! What hostile values from the chain must not do. Anybody may declare nonsense under a fid of ours, and an RPC may lie.
//!
//! Values are decoded by the types of runtime 137; the few that are read lie in `sync/testdata/values-137.scale`, cut out of
//! its metadata.

use super::endpoint::endpoint_url;
use super::wire::{AccountInfo, DealInfo, FileInfo, MinerInfo, TerritoryInfo, UserFileSliceInfo};
use crate::chain::{Deal, StoredFile};
use crate::fragment_store::Reach;
use codec::Decode;
use scale_info::PortableRegistry;
use std::sync::LazyLock;
use subxt::ext::scale_decode::DecodeAsType;

/// The storage items that are read, in the order of their type ids in the file.
pub(super) const ITEMS: [(&str, &str); 6] = [
    ("FileBank", "DealMap"),
    ("FileBank", "File"),
    ("FileBank", "UserHoldFileList"),
    ("StorageHandler", "Territory"),
    ("Sminer", "MinerItems"),
    ("System", "Account"),
];

/// Types, and the id of each item's value among them.
pub(super) type Types = (PortableRegistry, [u32; ITEMS.len()]);

static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let mut bytes = &include_bytes!("../../../testdata/values-137.scale")[..];
    Types::decode(&mut bytes).expect("the file is what its test makes")
});

/// The first byte chooses the item, the rest is its value: an error, or a value of ours.
pub(crate) fn value(input: &[u8]) {
    let Some((item, bytes)) = input.split_first() else {
        return;
    };
    match usize::from(*item) % ITEMS.len() {
        0 => drop(decode::<DealInfo>(0, bytes).map(Deal::try_from)),
        1 => drop(decode::<FileInfo>(1, bytes).map(StoredFile::try_from)),
        2 => {
            let list = decode::<Vec<UserFileSliceInfo>>(2, bytes);
            for fid in list
                .into_iter()
                .flatten()
                .filter_map(|entry| entry.file_hash.fid().ok())
            {
                let text = super::wire::HexHash::from(fid);
                assert_eq!(text.fid(), Ok(fid), "a fid has one text");
            }
        }
        3 => drop(decode::<TerritoryInfo>(3, bytes).map(|territory| territory.named(String::new()))),
        4 => {
            if let Ok(miner) = decode::<MinerInfo>(4, bytes) {
                endpoint(&miner.endpoint);
            }
        }
        _ => drop(decode::<AccountInfo>(5, bytes)),
    }
    // A miner's endpoint is any text it likes.
    endpoint(bytes);
}

fn endpoint(text: &[u8]) {
    assert!(endpoint_url(text, Reach::Public).is_none_or(|url| endpoint_url(text, Reach::Anywhere) == Some(url)));
    let Some(url) = endpoint_url(text, Reach::Anywhere) else {
        return;
    };
    assert!(url.starts_with("http://") || url.starts_with("https://"), "{url:?}");
    assert!(!url.chars().any(|c| c.is_control() || c.is_whitespace()), "{url:?}");
    let parsed = reqwest::Url::parse(&url).expect("it was made by the parser");
    assert!(
        parsed.path() == "/" && parsed.query().is_none() && parsed.username().is_empty(),
        "{url:?}"
    );
}

fn decode<T: DecodeAsType>(item: usize, mut bytes: &[u8]) -> Result<T, subxt::ext::scale_decode::Error> {
    let (types, ids) = &*TYPES;
    T::decode_as_type(&mut bytes, ids[item], types)
}
