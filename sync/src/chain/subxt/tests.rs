//! Offline: against the metadata of runtime spec 137, where it is at hand, with SCALE written out by hand.

use super::calls;
use super::calls::Call;
use super::endpoint::endpoint_url;
use super::fault::{Purpose, by_name, rejection};
use super::payload::{Terms, signable};
use super::submit::Wallet;
use super::{SubxtChain, is_in_the_clear, shape};
use crate::chain::{
    Chain, ChainError, Deal, Declaration, Head, Pin, SegmentHashes, StoredFile, Territory, TerritoryState,
};
use crate::fragment_store::{Fid, Reach, Sha256Hash};
use cessfs_crypto::{AccountId, AccountKey, Entropy};
use codec::{Compact, Encode};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use subxt::SubstrateConfig;
use subxt::client::{OfflineClient, OfflineClientAtBlock};
use subxt::config::substrate::{H256, SpecVersionForRange};
use subxt::error::{BackendError, ExtrinsicError, RpcError};
use subxt::ext::scale_decode::DecodeAsType;
use subxt::ext::scale_encode::EncodeAsFields;
use subxt::metadata::{ArcMetadata, Metadata};

mod lies;

type Offline = OfflineClientAtBlock<SubstrateConfig>;

const ALICE: AccountId = AccountId([0xa1; 32]);
const GENESIS: [u8; 32] = [0x6e; 32];

struct Counting(u8);
impl Entropy for Counting {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self.0.wrapping_add(37);
            *byte = self.0;
        }
    }
}

/// The bytes of `shared/cess/metadata-137.scale`: under `$CESSFS_SHARED`, or beside the repository.
fn metadata_bytes() -> Option<Vec<u8>> {
    let shared = std::env::var_os("CESSFS_SHARED")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")));
    let bytes = std::fs::read(shared.join("cess/metadata-137.scale")).ok();
    if bytes.is_none() {
        eprintln!("SKIPPED: no cess/metadata-137.scale under {}", shared.display());
    }
    bytes
}

fn offline(bytes: &[u8]) -> Offline {
    let metadata: ArcMetadata = Metadata::decode_from(bytes).expect("metadata decodes").into();
    let config = SubstrateConfig::builder()
        .set_genesis_hash(H256(GENESIS))
        .set_metadata_for_spec_versions([(137, metadata)])
        .set_spec_version_for_block_ranges([SpecVersionForRange {
            block_range: 0..u64::MAX,
            spec_version: 137,
            transaction_version: 1,
        }])
        .build();
    OfflineClient::new_with_config(config)
        .at_block(1000u64)
        .expect("every block is spec 137")
}

fn hex64(byte: u8) -> Vec<u8> {
    hex::encode([byte; 32]).into_bytes()
}

fn text(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec().encode()
}

fn segment(first: u8) -> SegmentHashes {
    SegmentHashes {
        segment: Sha256Hash([first; 32]),
        fragments: std::array::from_fn(|i| Sha256Hash([first + 1 + i as u8; 32])),
    }
}

/// `SegmentList` as bytes: the hash, a length of twelve, twelve hashes.
fn segment_scale(first: u8) -> Vec<u8> {
    let mut bytes = hex64(first);
    bytes.push(12 << 2);
    (1..=12).for_each(|i| bytes.extend(hex64(first + i)));
    bytes
}

fn declaration() -> Declaration {
    Declaration {
        fid: Fid([0xf1; 32]),
        segments: vec![segment(0x10), segment(0x40)],
        label: "a label".into(),
        territory: "home".into(),
        size: 64 << 20,
    }
}

#[test]
fn the_chain_of_spec_137_has_the_shape_we_know() {
    let Some(bytes) = metadata_bytes() else { return };
    shape::check(&offline(&bytes)).unwrap();
    shape::check_calls(&offline(&bytes)).unwrap();
}

/// The types that hostile values are decoded by (`fuzzing`), where the metadata is not at hand.
#[test]
fn the_types_of_values_are_those_of_spec_137() {
    let Some(bytes) = metadata_bytes() else { return };
    let at = offline(&bytes);
    let metadata = at.metadata_ref();
    let ids = super::fuzzing::ITEMS.map(|(pallet, item)| shape::value_type(metadata, pallet, item).unwrap());
    let mut types = metadata.types().clone();
    let kept = types.retain(|id| ids.contains(&id));
    let wanted: super::fuzzing::Types = (types, ids.map(|id| kept[&id]));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/values-137.scale");
    if std::env::var_os("CESSFS_WRITE_CORPUS").is_some() {
        std::fs::write(path, wanted.encode()).unwrap();
    }
    assert_eq!(std::fs::read(path).unwrap(), wanted.encode());
}

#[test]
fn a_renamed_field_call_or_constant_is_noticed() {
    let Some(bytes) = metadata_bytes() else { return };
    for (old, new, named) in [
        (
            "remaining_space",
            "remaining_spacf",
            "StorageHandler.Territory has no field remaining_space",
        ),
        (
            "upload_declaration",
            "upload_declaratiom",
            "FileBank.upload_declaration",
        ),
        ("gib_count", "gib_coumt", "StorageHandler.mint_territory"),
        ("SegmentCount", "SegmentCoumt", "FileBank.SegmentCount"),
        ("MinerItems", "MinerItemz", "Sminer.MinerItems"),
        (
            "complete_list",
            "complete_lisp",
            "FileBank.DealMap has no field complete_list",
        ),
    ] {
        let mut tampered = bytes.clone();
        let places: Vec<usize> = (0..bytes.len() - old.len())
            .filter(|&i| bytes[i..].starts_with(old.as_bytes()))
            .collect();
        assert!(!places.is_empty(), "{old} is in the metadata");
        places
            .iter()
            .for_each(|&i| tampered[i..i + old.len()].copy_from_slice(new.as_bytes()));
        let at = offline(&tampered);
        let error = shape::check(&at).and_then(|()| shape::check_calls(&at)).unwrap_err();
        assert!(
            matches!(&error, ChainError::Shape(text) if text.contains(named)),
            "{old}: {error}"
        );
    }
}

/// A call's own bytes, which the metadata encodes, too.
fn bytes_of<F: EncodeAsFields>(at: &Offline, call: &Call<F>) -> Vec<u8> {
    assert_eq!(at.tx().call_data(&call.payload).unwrap(), call.bytes);
    call.bytes.clone()
}

const TERMS: Terms = Terms {
    nonce: 7,
    block: 1000,
    block_hash: H256([0xb1; 32]),
};

#[test]
fn calls_encode_to_the_bytes_of_spec_137() {
    let Some(bytes) = metadata_bytes() else { return };
    let at = offline(&bytes);
    let mut want = vec![104, 0];
    want.extend(hex64(0xf1));
    want.push(2 << 2);
    want.extend([segment_scale(0x10), segment_scale(0x40)].concat());
    want.extend(ALICE.0);
    want.extend([text("a label"), text("home")].concat());
    want.extend((64u128 << 20).to_le_bytes());
    assert_eq!(bytes_of(&at, &calls::upload_declaration(ALICE, &declaration())), want);
    // Two bytes of call, 833 of each segment (facts 1.2).
    assert_eq!(segment_scale(0x10).len(), 833);

    let want = [vec![104, 6], ALICE.0.to_vec(), hex64(0xf1)].concat();
    assert_eq!(bytes_of(&at, &calls::delete_file(ALICE, Fid([0xf1; 32]))), want);
    let want = [vec![107, 0], 5u32.encode(), text("home"), 30u32.encode()].concat();
    assert_eq!(bytes_of(&at, &calls::mint_territory("home", 5, 30)), want);
    let want = [vec![107, 1], text("home"), 5u32.encode()].concat();
    assert_eq!(bytes_of(&at, &calls::expanding_territory("home", 5)), want);
    let want = [vec![107, 2], text("home"), 30u32.encode()].concat();
    assert_eq!(bytes_of(&at, &calls::renewal_territory("home", 30)), want);
    let want = [vec![107, 101], text("home"), 30u32.encode()].concat();
    assert_eq!(bytes_of(&at, &calls::reactivate_territory("home", 30)), want);
}

#[test]
fn a_signed_transaction_is_laid_out_as_spec_137_wants() {
    let Some(bytes) = metadata_bytes() else { return };
    let at = offline(&bytes);
    let key = AccountKey::from_seed(&[9; 32]);
    let wallet = Wallet::new(key.clone(), Box::new(Counting(3)));
    let call = calls::renewal_territory("home", 30);
    let (mut signing, _) = signable(&at, &call, TERMS).unwrap();
    let signed = signing.sign(&wallet).unwrap();

    let call = call.bytes.clone();
    // Era of 32 blocks born at 1000: period log2 - 1 = 4, phase 1000 % 32 = 8, in two bytes; nonce 7; no tip.
    let extra = [
        (4u16 | 8 << 4).to_le_bytes().to_vec(),
        Compact(7u32).encode(),
        Compact(0u128).encode(),
    ]
    .concat();
    let implicit = [137u32.encode(), 1u32.encode(), GENESIS.to_vec(), vec![0xb1; 32]].concat();
    let payload = [call.clone(), extra.clone(), implicit].concat();

    assert_eq!(signing.signer_payload().unwrap(), payload);
    let (length, body) = signed.encoded().split_at(2);
    assert_eq!(length, Compact(body.len() as u32).encode());
    let head = [vec![0x84, 0], key.account_id().0.to_vec(), vec![1]].concat();
    assert_eq!(body[..35], head, "version 4 and signed, account id, sr25519");
    assert_eq!(body[99..], [extra, call].concat());
    let public = schnorrkel::PublicKey::from_bytes(&key.account_id().0).unwrap();
    let signature = schnorrkel::Signature::from_bytes(&body[35..99]).unwrap();
    public.verify_simple(b"substrate", &payload, &signature).unwrap();
}

/// Decodes bytes as the value of a storage item.
fn decode<T: DecodeAsType>(at: &Offline, pallet: &str, item: &str, bytes: &[u8]) -> T {
    let metadata = at.metadata_ref();
    let storage = metadata.pallet_by_name(pallet).unwrap().storage().unwrap();
    let mut rest = bytes;
    let value = T::decode_as_type(
        &mut rest,
        storage.entry_by_name(item).unwrap().value_ty(),
        metadata.types(),
    )
    .unwrap();
    assert!(rest.is_empty(), "{pallet}.{item}: {} bytes left", rest.len());
    value
}

#[test]
fn deals_and_files_decode_from_the_bytes_of_spec_137() {
    let Some(bytes) = metadata_bytes() else { return };
    let at = offline(&bytes);
    let brief = [ALICE.0.to_vec(), text("a label"), text("home")].concat();
    let report = |index: u8, miner: u8| [vec![index], vec![miner; 32]].concat();
    let mut deal = [
        (64u128 << 20).encode(),
        vec![1 << 2],
        segment_scale(0x10),
        brief.clone(),
        vec![2 << 2],
    ]
    .concat();
    deal.extend([report(1, 0x71), report(12, 0x72)].concat());
    let want = Deal {
        owner: ALICE,
        label: b"a label".to_vec(),
        segments: vec![segment(0x10)],
        reported: vec![(0, AccountId([0x71; 32])), (11, AccountId([0x72; 32]))],
    };
    assert_eq!(
        Deal::try_from(decode::<super::wire::DealInfo>(&at, "FileBank", "DealMap", &deal)).unwrap(),
        want
    );
    for index in [0, 13] {
        let last = deal.len() - 33;
        deal[last] = index;
        assert!(Deal::try_from(decode::<super::wire::DealInfo>(&at, "FileBank", "DealMap", &deal)).is_err());
    }

    // hash, avail (not the fifth), no tag, miner
    let fragment = |hash: u8, miner: u8| [hex64(hash), vec![u8::from(miner != 0x85), 0], vec![miner; 32]].concat();
    let mut file = [vec![1 << 2], hex64(0x10), vec![12 << 2]].concat();
    (1..=12).for_each(|i| file.extend(fragment(0x10 + i, 0x80 + i)));
    file.extend([vec![1 << 2], brief, (64u128 << 20).encode(), 900u32.encode(), vec![0]].concat());
    let want = StoredFile {
        owners: vec![(ALICE, b"a label".to_vec(), b"home".to_vec())],
        segments: vec![(segment(0x10), std::array::from_fn(|i| AccountId([0x81 + i as u8; 32])))],
        unavailable: vec![(0, 4)],
        size: 64 << 20,
    };
    assert_eq!(
        StoredFile::try_from(decode::<super::wire::FileInfo>(&at, "FileBank", "File", &file)).unwrap(),
        want
    );
    let failed = decode::<u32>(&at, "Audit", "CountedServiceFailed", &3u32.encode());
    assert!(failed == 3 && shape::has_storage(at.metadata_ref(), "Audit", "CountedServiceFailed"));
    assert!(!shape::has_storage(at.metadata_ref(), "Audit", "Nothing"));
    // The chain takes any 64 characters for a hash.
    file[1] = b'x';
    assert!(StoredFile::try_from(decode::<super::wire::FileInfo>(&at, "FileBank", "File", &file)).is_err());

    let entry = [text("home"), hex64(0xf1), (96u128 << 20).encode()].concat();
    let list = [vec![1 << 2], entry].concat();
    let list: Vec<super::wire::UserFileSliceInfo> = decode(&at, "FileBank", "UserHoldFileList", &list);
    assert_eq!(list[0].file_hash.fid(), Ok(Fid([0xf1; 32])));
}

#[test]
fn territories_miners_and_accounts_decode_from_the_bytes_of_spec_137() {
    let Some(bytes) = metadata_bytes() else { return };
    let at = offline(&bytes);
    let states = [
        TerritoryState::Active,
        TerritoryState::Frozen,
        TerritoryState::Expired,
        TerritoryState::OnConsignment,
    ];
    for (variant, state) in states.into_iter().enumerate() {
        let mut scale = [
            vec![0x70; 32],
            100u128.encode(),
            20u128.encode(),
            30u128.encode(),
            50u128.encode(),
        ]
        .concat();
        scale.extend([7u32.encode(), 8u32.encode(), vec![variant as u8]].concat());
        let territory = decode::<super::wire::TerritoryInfo>(&at, "StorageHandler", "Territory", &scale);
        let want = Territory {
            name: "home".into(),
            total_bytes: 100,
            used_bytes: 20,
            locked_bytes: 30,
            remaining_bytes: 50,
            start_block: 7,
            deadline_block: 8,
            state,
        };
        assert_eq!(territory.named("home".into()), want);
    }

    let mut miner = [
        vec![1; 32],
        vec![2; 32],
        text("1.2.3.4:15001\0\0"),
        1u128.encode(),
        2u128.encode(),
    ]
    .concat();
    miner.extend(
        [
            text("positive"),
            3u128.encode(),
            77u128.encode(),
            5u128.encode(),
            6u128.encode(),
        ]
        .concat(),
    );
    miner.push(0); // no space proof
    miner.extend(vec![0; 256 * 8 + 64]); // bloom filter, signature
    let miner: super::wire::MinerInfo = decode(&at, "Sminer", "MinerItems", &miner);
    assert_eq!((&miner.state[..], miner.idle_space), (&b"positive"[..], 77));
    assert_eq!(
        endpoint_url(&miner.endpoint, Reach::Public).as_deref(),
        Some("http://1.2.3.4:15001")
    );

    let account = [4u32.encode(), vec![0; 12], 99u128.encode(), vec![0; 48]].concat();
    let account: super::wire::AccountInfo = decode(&at, "System", "Account", &account);
    assert_eq!((account.nonce, account.data.free), (4, 99));
}

#[test]
fn storage_keys_begin_as_the_chain_states_them() {
    let Some(bytes) = metadata_bytes() else { return };
    let at = offline(&bytes);
    let storage = at.storage();
    let file = storage
        .entry(calls::file())
        .unwrap()
        .fetch_key((Fid([0xf1; 32]).into(),))
        .unwrap();
    assert!(hex::encode(&file).starts_with("a3c62a50675125d74bc9f59e3f75adc9"));
    // 16 pallet + 16 item + 16 Blake2_128 + the 64 characters themselves
    assert_eq!((file.len(), &file[48..]), (112, &hex64(0xf1)[..]));
    let territory = storage
        .entry(calls::territory())
        .unwrap()
        .fetch_key((ALICE.0, b"home".to_vec()))
        .unwrap();
    assert!(hex::encode(&territory).starts_with("d594a5c1eaaed1896a72205f11d64700"));
    assert_eq!(
        (&territory[48..80], &territory[96..]),
        (&ALICE.0[..], &text("home")[..])
    );
}

#[test]
fn dispatch_errors_have_the_kind_that_the_caller_acts_on() {
    use ChainError::*;
    let kind = |pallet, name, purpose| by_name(pallet, name, purpose);
    assert!(matches!(
        kind("FileBank", "InsufficientAvailableSpace", Purpose::Upload),
        TerritoryFull(_)
    ));
    assert!(matches!(
        kind("StorageHandler", "InsufficientStorage", Purpose::Upload),
        TerritoryFull(_)
    ));
    assert!(matches!(
        kind("StorageHandler", "InsufficientAvailableSpace", Purpose::Purchase),
        Refused(_)
    ));
    assert!(matches!(
        kind("StorageHandler", "InsufficientBalance", Purpose::Purchase),
        NoFunds(_)
    ));
    assert!(matches!(
        kind("Balances", "InsufficientBalance", Purpose::Other),
        NoFunds(_)
    ));
    assert!(matches!(
        kind("StorageHandler", "NotActive", Purpose::Upload),
        TerritoryInactive(_)
    ));
    assert!(matches!(
        kind("FileBank", "NotActive", Purpose::Upload),
        TerritoryInactive(_)
    ));
    assert!(matches!(
        kind("StorageHandler", "NotHaveTerritory", Purpose::Upload),
        NoTerritory(_)
    ));
    assert!(matches!(kind("System", "CallFiltered", Purpose::Upload), Paused(_)));
    assert!(matches!(kind("FileBank", "Existed", Purpose::Upload), Refused(text) if text == "FileBank.Existed"));
}

#[test]
fn only_what_certainly_was_not_taken_is_a_rejection() {
    let pool = |code: i32, message: &str, data: &str| {
        let error = subxt::rpcs::UserError {
            code,
            message: message.into(),
            data: Some(serde_json::value::to_raw_value(data).unwrap()),
        };
        let error = subxt::rpcs::Error::User(error);
        rejection(&ExtrinsicError::ErrorSubmittingTransaction(BackendError::Rpc(
            RpcError::ClientError(error),
        )))
    };
    let inability = "Inability to pay some fees (e.g. account balance too low)";
    assert!(matches!(
        pool(1010, "Invalid Transaction", inability),
        Some(ChainError::NoFunds(_))
    ));
    assert!(matches!(
        pool(1010, "Invalid Transaction", "Transaction is outdated"),
        Some(ChainError::Away(_))
    ));
    assert!(matches!(
        pool(1010, "Invalid Transaction", "Transaction has a bad signature"),
        Some(ChainError::Refused(_))
    ));
    assert!(pool(1013, "Transaction is already imported", "").is_none());
    assert!(pool(1014, "Priority is too low", "").is_none());
    assert!(rejection(&ExtrinsicError::UnexpectedEndOfTransactionStatusStream).is_none());
}

fn chain(url: &str) -> Result<SubxtChain, ChainError> {
    SubxtChain::new(
        url,
        AccountKey::from_seed(&[9; 32]),
        Box::new(Counting(3)),
        Pin::first_met(),
    )
}

#[test]
fn an_address_that_is_none_is_refused_at_once() {
    for url in ["", "localhost:9944", "http://localhost:9944", "ws//x"] {
        assert!(matches!(chain(url), Err(ChainError::Refused(_))), "{url}");
    }
    assert!(chain("wss://t2-rpc.cess.network").is_ok());
}

#[test]
fn only_this_machine_is_spoken_to_in_the_clear() {
    for url in ["ws://1.2.3.4:9944", "ws://192.168.1.2", "ws://node.example"] {
        assert!(is_in_the_clear(url), "{url}");
    }
    for url in [
        "ws://127.0.0.1:9944",
        "ws://localhost:9944",
        "ws://[::1]:9944",
        "wss://node.example",
    ] {
        assert!(!is_in_the_clear(url), "{url}");
    }
}

#[tokio::test]
async fn without_a_network_every_question_ends_as_away() {
    // A port that nobody listens on: bound and let go.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let chain = chain(&format!("ws://127.0.0.1:{port}")).unwrap();
    let start = Instant::now();
    assert!(matches!(chain.info().await, Err(ChainError::Away(_))));
    assert!(matches!(chain.height(Head::Finalized).await, Err(ChainError::Away(_))));
    assert!(matches!(chain.miners().await, Err(ChainError::Away(_))));
    assert!(matches!(chain.declare(declaration()).await, Err(ChainError::Away(_))));
    assert!(start.elapsed() < Duration::from_secs(20));
}
