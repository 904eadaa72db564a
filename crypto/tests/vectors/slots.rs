//! `keys.json` in hostile hands: each field changed, slots moved, costs forged.

use cessfs_crypto::{CryptoError, KdfCost, KeySlots, Phrase, SlotKind, VolumeId};
use serde_json::{Value, json};

use crate::{PHRASE, Seeded, pattern, secret};

const PASSPHRASE: &[u8] = b"correct horse battery staple";
/// As cheap as is allowed.
const CHEAP: KdfCost = KdfCost {
    memory_kib: 8192,
    passes: 1,
    lanes: 1,
};

fn slots(volume: u8) -> KeySlots {
    let mut slots = KeySlots::new(VolumeId([volume; 16]));
    let mut entropy = Seeded::new(u64::from(volume));
    slots.set_passphrase(secret(), PASSPHRASE, CHEAP, &mut entropy).unwrap();
    slots.set_phrase(secret(), &phrase(), &mut entropy).unwrap();
    slots.set_key_file(secret(), &pattern(64), &mut entropy).unwrap();
    slots
}

fn phrase() -> Phrase {
    Phrase::parse(PHRASE).unwrap()
}

fn json(slots: &KeySlots) -> Value {
    serde_json::from_str(&slots.to_json()).unwrap()
}

/// What opening each slot of a (forged) file says: `Ok` only if the secret came out.
fn open_all(file: &Value) -> [Result<(), CryptoError>; 3] {
    match KeySlots::from_json(&file.to_string()) {
        Err(error) => {
            assert!(matches!(error, CryptoError::KeyFile(_)), "{error}");
            [(); 3].map(|()| Err(CryptoError::KeyFile(error.to_string())))
        }
        Ok(slots) => [
            slots.open_passphrase(PASSPHRASE),
            slots.open_phrase(&phrase()),
            slots.open_key_file(&pattern(64)),
        ]
        .map(|opened| opened.map(drop)),
    }
}

fn open_count(file: &Value) -> usize {
    open_all(file).iter().filter(|opened| opened.is_ok()).count()
}

#[test]
fn every_slot_opens_to_the_same_secret_after_a_round_trip() {
    assert_eq!(open_count(&json(&slots(1))), 3);
}

#[test]
fn a_wrong_secret_is_told_from_a_missing_slot() {
    let mut slots = slots(1);
    assert!(matches!(
        slots.open_passphrase(b"correct horse battery stapl").err(),
        Some(CryptoError::WrongSecret)
    ));
    assert!(matches!(
        slots.open_passphrase(b"").err(),
        Some(CryptoError::WrongSecret)
    ));
    let other = Phrase::generate(&mut Seeded::new(9));
    assert!(matches!(
        slots.open_phrase(&other).err(),
        Some(CryptoError::WrongSecret)
    ));
    assert!(matches!(
        slots.open_key_file(&pattern(65)).err(),
        Some(CryptoError::WrongSecret)
    ));
    assert!(matches!(
        slots.open_key_file(&pattern(31)).err(),
        Some(CryptoError::WrongSecret)
    ));

    assert!(slots.remove(SlotKind::Passphrase));
    assert!(!slots.remove(SlotKind::Passphrase));
    assert!(matches!(
        slots.open_passphrase(PASSPHRASE).err(),
        Some(CryptoError::NoSlot(SlotKind::Passphrase))
    ));
    assert!(slots.open_phrase(&phrase()).is_ok());
}

#[test]
fn a_new_passphrase_replaces_the_old_one_and_touches_no_other_slot() {
    let mut slots = slots(1);
    let before = json(&slots);
    slots
        .set_passphrase(secret(), b"new", CHEAP, &mut Seeded::new(77))
        .unwrap();
    assert!(slots.open_passphrase(PASSPHRASE).is_err());
    assert!(slots.open_passphrase(b"new").is_ok());
    assert_eq!(
        json(&slots)["slots"].as_array().unwrap()[1..],
        before["slots"].as_array().unwrap()[1..]
    );
}

/// Flips one bit of the first and of the last byte of a hexadecimal field.
fn forgeries(text: &str) -> [String; 2] {
    [0, text.len() / 2 - 1].map(|at| {
        let mut bytes = hex::decode(text).unwrap();
        bytes[at] ^= 1;
        hex::encode(bytes)
    })
}

#[test]
fn no_slot_opens_once_a_field_of_it_is_changed() {
    let honest = json(&slots(1));
    for slot in 0..3 {
        for field in ["salt", "nonce", "commitment", "wrapped"] {
            for forged in forgeries(honest["slots"][slot][field].as_str().unwrap()) {
                let mut file = honest.clone();
                file["slots"][slot][field] = json!(forged);
                let opened = open_all(&file);
                assert!(opened[slot].is_err(), "slot {slot} opened with a forged {field}");
                assert_eq!(open_count(&file), 2, "the other slots are their own");
            }
            let mut short = honest.clone();
            short["slots"][slot][field] = json!("00");
            assert_eq!(open_count(&short), 0, "a {field} of the wrong length spoils the file");
        }
    }
    for forged in forgeries(honest["volume"].as_str().unwrap()) {
        let mut file = honest.clone();
        file["volume"] = json!(forged);
        assert_eq!(open_count(&file), 0, "every slot is bound to its volume");
    }
}

/// A changed commitment must be noticed as a wrong secret *before* the cipher runs, a changed ciphertext as damage after.
#[test]
fn the_commitment_comes_before_the_cipher() {
    let honest = json(&slots(1));
    for (field, wrong_secret) in [("commitment", true), ("wrapped", false)] {
        let mut file = honest.clone();
        file["slots"][1][field] = json!(forgeries(honest["slots"][1][field].as_str().unwrap())[0]);
        let error = open_all(&file)[1]
            .as_ref()
            .err()
            .map(|error| matches!(error, CryptoError::WrongSecret));
        assert_eq!(error, Some(wrong_secret), "{field}");
    }
}

#[test]
fn slots_can_not_be_moved_between_volumes_or_kinds() {
    let (one, two) = (json(&slots(1)), json(&slots(2)));
    for slot in 0..3 {
        let mut file = one.clone();
        file["slots"][slot] = two["slots"][slot].clone();
        assert!(open_all(&file)[slot].is_err(), "slot {slot} of another volume opened");
    }
    let mut swapped = one.clone();
    swapped["slots"][1]["kind"] = json!("key-file");
    swapped["slots"][2]["kind"] = json!("phrase");
    assert_eq!(open_count(&swapped), 1, "only the passphrase slot is still itself");
}

#[test]
fn forged_costs_are_refused_or_do_not_open() {
    let honest = json(&slots(1));
    // Within bounds: another derivation, so the slot does not open.
    for (field, value) in [("memory_kib", 8200), ("passes", 2), ("lanes", 2)] {
        let mut file = honest.clone();
        file["slots"][0]["kdf"][field] = json!(value);
        assert!(matches!(open_all(&file)[0], Err(CryptoError::WrongSecret)), "{field}");
    }
    // Out of bounds: refused before any memory is taken.
    let out_of_bounds = [
        ("memory_kib", 8191),
        ("memory_kib", 4_194_305),
        ("memory_kib", u64::from(u32::MAX)),
        ("memory_kib", 1 << 40),
        ("passes", 0),
        ("passes", 17),
        ("lanes", 0),
        ("lanes", 17),
    ];
    for (field, value) in out_of_bounds {
        let mut file = honest.clone();
        file["slots"][0]["kdf"][field] = json!(value);
        assert!(KeySlots::from_json(&file.to_string()).is_err(), "{field}={value}");
    }
    // A passphrase that is not stretched is a downgrade, whatever it opens.
    let mut file = honest;
    file["slots"][0]["kdf"] = json!({"name": "hkdf-sha256"});
    assert!(KeySlots::from_json(&file.to_string()).is_err());
}

#[test]
fn files_this_version_would_not_write_are_refused() {
    let honest = json(&slots(1));
    let forge = |change: &dyn Fn(&mut Value)| {
        let mut file = honest.clone();
        change(&mut file);
        KeySlots::from_json(&file.to_string()).is_err()
    };
    assert!(!forge(&|_| ()));
    assert!(forge(&|file| file["format"] = json!("other")));
    assert!(forge(&|file| file["version"] = json!(2)));
    assert!(forge(&|file| file["extra"] = json!(1)));
    assert!(forge(&|file| file["slots"][0]["extra"] = json!(1)));
    assert!(forge(&|file| file["slots"][0]["kdf"]["extra"] = json!(1)));
    assert!(forge(&|file| file["slots"][0]["kind"] = json!("fido2")));
    assert!(
        forge(&|file| file["slots"][1] = file["slots"][2].clone()),
        "two slots of a kind"
    );
    assert!(forge(&|file| file["volume"] = json!("00")));
    assert!(forge(&|file| file["slots"] = json!(null)));
    let spaces = " ".repeat(cessfs_crypto::limits::SLOTS_JSON_BYTES_MAX);
    assert!(KeySlots::from_json(&format!("{honest}{spaces}")).is_err(), "too large");
    assert!(KeySlots::from_json("").is_err());
}

#[test]
fn weak_secrets_are_refused_when_set() {
    let mut slots = KeySlots::new(VolumeId([1; 16]));
    let mut entropy = Seeded::new(1);
    let mut refused = |passphrase: &[u8], cost| {
        matches!(
            slots.set_passphrase(secret(), passphrase, cost, &mut entropy),
            Err(CryptoError::Refused(_))
        )
    };
    assert!(refused(b"", CHEAP));
    assert!(refused(&[b'x'; 4097], CHEAP));
    assert!(refused(
        PASSPHRASE,
        KdfCost {
            memory_kib: 8191,
            ..CHEAP
        }
    ));
    assert!(refused(PASSPHRASE, KdfCost { passes: 17, ..CHEAP }));
    assert!(refused(PASSPHRASE, KdfCost { lanes: 0, ..CHEAP }));
    let mut refused = |content: &[u8]| {
        matches!(
            slots.set_key_file(secret(), content, &mut entropy),
            Err(CryptoError::Refused(_))
        )
    };
    assert!(refused(&pattern(31)));
    assert!(refused(&vec![0; (32 << 10) + 1]));
    assert_eq!(slots.kinds().count(), 0, "a refusal leaves nothing behind");
}

#[test]
fn the_file_holds_no_secret_in_the_clear() {
    let (text, secret) = (slots(1).to_json(), secret());
    let account = secret.account_key().account_id();
    assert!(!text.contains(&hex::encode(account.0)), "not even the public key");
    assert!(!text.contains("correct horse") && !text.contains("abandon"));
}
