//! The primitives we build on, against the documents that define them. A crate update that breaks one breaks every volume.

use aes_gcm::Aes256Gcm;
use aes_gcm_siv::Aes256GcmSiv;
use aes_gcm_siv::aead::{Aead, KeyInit, Payload};
use argon2::{Algorithm, Argon2, AssociatedData, ParamsBuilder, Version};
use serde_json::Value;

use crate::{entries, hex, hex_array, number, pattern};

fn read(text: &str) -> Value {
    serde_json::from_str(text).expect("a vector file is JSON")
}

fn check_aead<C: Aead + KeyInit>(file: &Value) {
    for case in entries(file, "cases") {
        let cipher = C::new_from_slice(&hex(case, "key")).unwrap();
        let nonce = hex(case, "nonce");
        let nonce = nonce.as_slice().try_into().unwrap();
        let (aad, plaintext, sealed) = (hex(case, "aad"), hex(case, "plaintext"), hex(case, "sealed"));
        let made = cipher
            .encrypt(
                nonce,
                Payload {
                    msg: &plaintext,
                    aad: &aad,
                },
            )
            .unwrap();
        assert_eq!(hex::encode(made), hex::encode(&sealed), "{case}");
        let opened = cipher
            .decrypt(
                nonce,
                Payload {
                    msg: &sealed,
                    aad: &aad,
                },
            )
            .unwrap();
        assert_eq!(opened, plaintext, "{case}");
    }
}

#[test]
fn aes_256_gcm_siv_is_rfc_8452() {
    check_aead::<Aes256GcmSiv>(&read(include_str!("../../testdata/rfc8452.json")));
}

#[test]
fn aes_256_gcm_is_sp_800_38d() {
    check_aead::<Aes256Gcm>(&read(include_str!("../../testdata/aes256gcm.json")));
}

#[test]
fn keyed_blake3_matches_the_reference() {
    let file = read(include_str!("../../testdata/blake3.json"));
    let key = hex_array(&file, "key");
    for case in entries(&file, "cases") {
        let length = number(case, "input_len") as usize;
        let hash = blake3::keyed_hash(&key, &pattern(length));
        assert_eq!(
            hash.to_hex().as_str(),
            case["keyed_hash"].as_str().unwrap(),
            "length {length}"
        );
    }
}

#[test]
fn hkdf_is_rfc_5869() {
    for case in entries(&read(include_str!("../../testdata/rfc5869.json")), "cases") {
        let okm = hex(case, "okm");
        let mut made = vec![0; okm.len()];
        let hkdf = hkdf::Hkdf::<sha2::Sha256>::new(Some(&hex(case, "salt")), &hex(case, "ikm"));
        hkdf.expand(&hex(case, "info"), &mut made).unwrap();
        assert_eq!(made, okm, "{case}");
    }
}

#[test]
fn argon2id_is_rfc_9106() {
    for case in entries(&read(include_str!("../../testdata/rfc9106.json")), "cases") {
        let cost = |field| number(case, field) as u32;
        let params = ParamsBuilder::new()
            .m_cost(cost("memory_kib"))
            .t_cost(cost("passes"))
            .p_cost(cost("lanes"))
            .data(AssociatedData::new(&hex(case, "associated_data")).unwrap())
            .build()
            .unwrap();
        let pepper = hex(case, "secret");
        let argon2 = Argon2::new_with_secret(&pepper, Algorithm::Argon2id, Version::V0x13, params).unwrap();
        let mut made = [0; 32];
        argon2
            .hash_password_into(&hex(case, "password"), &hex(case, "salt"), &mut made)
            .unwrap();
        assert_eq!(made, hex_array(case, "tag"), "{case}");
    }
}
