//! Our own formats, byte for byte, against `golden.json`, which `rederive.py` computes from the document with other
//! implementations. If one of these fails, existing volumes have become unreadable: don't change the file, change the code.

use cessfs_crypto::{
    ChunkId, FrameId, FrameKind, KdfCost, KeySlots, PackKind, PackLabel, PackSeq, Phrase, SS58_PREFIX, SlotKind,
    VolumeId,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{PHRASE, Script, entries, hex, hex_array, keys, number, pattern, secret};

fn golden() -> Value {
    serde_json::from_str(include_str!("../../testdata/golden.json")).expect("golden.json is JSON")
}

#[test]
fn phrase_and_account() {
    let golden = golden();
    assert_eq!(golden["phrase"], PHRASE);
    let mut entropy = Script::new(&[&hex(&golden, "entropy")]);
    let phrase = Phrase::generate(&mut entropy);
    assert_eq!(phrase.words(), PHRASE);
    assert!(entropy.is_spent());
    let account = phrase.secret().account_key().account_id();
    assert_eq!(account.0, hex_array(&golden["keys"], "account_id"));
    assert_eq!(golden["address_11330"], account.to_ss58(SS58_PREFIX));
    assert_eq!(golden["address_42"], account.to_ss58(42));
}

#[test]
fn volume() {
    assert_eq!(keys().volume(), VolumeId(hex_array(&golden(), "volume")));
}

#[test]
fn chunk_ids() {
    for case in entries(&golden(), "chunk_ids") {
        assert_eq!(
            keys().chunk_id(&pattern(number(case, "length") as usize)),
            ChunkId(hex_array(case, "id")),
            "{case}"
        );
    }
}

fn frame_id(case: &Value) -> FrameId {
    let name = &case["name"];
    let kind = match case["kind"].as_str().unwrap() {
        "chunk" => return FrameId::Chunk(ChunkId(hex_array(name, "chunk"))),
        "delta" => FrameKind::Delta,
        "directory" => FrameKind::Directory,
        "header" => FrameKind::Header,
        "footer" => FrameKind::Footer,
        other => panic!("unknown kind {other}"),
    };
    FrameId::Pack {
        seq: PackSeq(number(name, "seq")),
        kind,
        index: number(name, "index") as u32,
    }
}

#[test]
fn frames() {
    for case in entries(&golden(), "frames") {
        let (frame, plaintext) = (frame_id(case), hex(case, "plaintext"));
        let mut out = b"before".to_vec();
        keys().seal(frame, &plaintext, &mut Script::new(&[&hex(case, "nonce")]), &mut out);
        assert_eq!(&out[..6], b"before", "sealing appends");
        assert_eq!(hex::encode(&out[6..]), case["sealed"], "{case}");
        assert_eq!(keys().open(frame, &out[6..]).unwrap(), plaintext);
    }
}

#[test]
fn labels() {
    let key = secret().label_key();
    for case in entries(&golden(), "labels") {
        let label = PackLabel {
            volume: keys().volume(),
            seq: PackSeq(number(case, "seq")),
            epoch: number(case, "epoch") as u32,
            kind: if case["kind"] == "data" {
                PackKind::Data
            } else {
                PackKind::Checkpoint
            },
        };
        let text = case["text"].as_str().unwrap();
        assert_eq!(key.seal(&label), text);
        assert_eq!(key.open(text.as_bytes()), Some(label));
    }
}

#[test]
fn pads() {
    for case in entries(&golden(), "pads") {
        let bytes = hex(case, "bytes");
        let mut made = vec![0xee; bytes.len()];
        keys().pad(PackSeq(number(case, "seq")), number(case, "offset"), &mut made);
        assert_eq!(made, bytes, "{case}");
    }
}

#[test]
fn records() {
    let at_rest = keys().at_rest();
    for case in entries(&golden(), "records") {
        let (key, value, sealed) = (hex(case, "key"), hex(case, "value"), hex(case, "sealed"));
        assert_eq!(
            at_rest.seal_record(&key, &value, &mut Script::new(&[&hex(case, "nonce")])),
            sealed
        );
        assert_eq!(at_rest.open_record(&key, &sealed).unwrap(), value);
    }
}

#[test]
fn blocks() {
    for case in entries(&golden(), "blocks") {
        let key = keys().at_rest().inode(number(case, "ino"));
        let (block, version) = (number(case, "block"), number(case, "version") as u32);
        let (nonce, tag) = (hex_array(case, "nonce"), hex_array(case, "tag"));
        let mut data = pattern(4096);
        assert_eq!(key.seal_block(block, version, &nonce, &mut data), tag);
        assert_eq!(data[..16], hex(case, "ciphertext_head"));
        assert_eq!(Sha256::digest(&data)[..], hex(case, "ciphertext_sha256"));
        key.open_block(block, version, &nonce, &tag, &mut data).unwrap();
        assert_eq!(data, pattern(4096));
    }
}

#[test]
fn name_hashes() {
    for case in entries(&golden(), "name_hashes") {
        let hash = keys().at_rest().name_hash(number(case, "parent"), &hex(case, "name"));
        assert_eq!(hash, number(case, "hash"), "{case}");
    }
}

#[test]
fn slots() {
    let golden = golden();
    let (golden, file) = (&golden["slots"], &golden["slots"]["file"]);
    let passphrase = golden["passphrase"].as_str().unwrap().as_bytes();
    let key_file = pattern(number(golden, "key_file_length") as usize);
    let phrase = Phrase::parse(PHRASE).unwrap();
    let draws: Vec<u8> = entries(file, "slots")
        .iter()
        .flat_map(|slot| [hex(slot, "salt"), hex(slot, "nonce")].concat())
        .collect();
    let mut entropy = Script::new(&[&draws]);

    let mut slots = KeySlots::new(keys().volume());
    let cost = KdfCost {
        memory_kib: 8192,
        passes: 1,
        lanes: 2,
    };
    slots.set_passphrase(secret(), passphrase, cost, &mut entropy).unwrap();
    slots.set_phrase(secret(), &phrase, &mut entropy).unwrap();
    slots.set_key_file(secret(), &key_file, &mut entropy).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&slots.to_json()).unwrap(), *file);

    let read = KeySlots::from_json(&file.to_string()).unwrap();
    assert_eq!(
        read.kinds().collect::<Vec<_>>(),
        [SlotKind::Passphrase, SlotKind::Phrase, SlotKind::KeyFile]
    );
    let opened = [
        read.open_passphrase(passphrase),
        read.open_phrase(&phrase),
        read.open_key_file(&key_file),
    ]
    .map(Result::unwrap);
    for secret in opened {
        assert_eq!(secret.volume_keys(read.volume()).chunk_id(b""), keys().chunk_id(b""));
        assert_eq!(
            secret.account_key().account_id(),
            crate::secret().account_key().account_id()
        );
    }
}
