//! SS58: the text form of an account.
//!
//! ```text
//! base58( prefix (1 or 2 bytes) ‖ account (32) ‖ BLAKE2b-512("SS58PRE" ‖ prefix ‖ account)[..2] )
//! ```
//! Prefixes up to 63 take one byte, up to 16383 two. Only the shortest form is accepted: one account and prefix, one text.

use blake2::{Blake2b512, Digest};

use crate::error::CryptoError;
use crate::limits::{SS58_PREFIX_MAX, SS58_TEXT_BYTES_MAX};

/// SS58 prefix of CESS test networks (facts 1.2). Addresses have 49 characters and start `cX`.
pub const SS58_PREFIX: u16 = 11330;

const CHECKSUM_DOMAIN: &[u8] = b"SS58PRE";
const CHECKSUM_BYTES: usize = 2;
/// First prefix that needs two bytes.
const TWO_BYTE_FROM: u16 = 64;

/// An account: its sr25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct AccountId(pub [u8; 32]);

impl AccountId {
    /// The address under `prefix`.
    ///
    /// # Panics
    /// If `prefix` is above [`SS58_PREFIX_MAX`]: the format has no such prefix, so the caller's constant is wrong.
    pub fn to_ss58(&self, prefix: u16) -> String {
        let mut bytes = prefix_bytes(prefix);
        bytes.extend_from_slice(&self.0);
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        bs58::encode(bytes).into_string()
    }

    /// Accepts any prefix; returns it with the account.
    ///
    /// # Errors
    /// [`CryptoError::Address`] for anything but a 32-byte account with a matching checksum.
    pub fn from_ss58(text: &str) -> Result<(AccountId, u16), CryptoError> {
        let error = |reason: &str| CryptoError::Address(reason.to_owned());
        if text.len() > SS58_TEXT_BYTES_MAX {
            return Err(error("too long"));
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| error("not base58"))?;
        let prefix = read_prefix(&bytes).ok_or_else(|| error("unknown prefix form"))?;
        let body = prefix_bytes(prefix).len();
        if bytes.len() != body + 32 + CHECKSUM_BYTES {
            return Err(error("not a 32-byte account"));
        }
        let (signed, sum) = bytes.split_at(body + 32);
        if checksum(signed) != sum {
            return Err(error("the checksum does not match: a character is wrong"));
        }
        let account = signed[body..].try_into().expect("the length was checked");
        Ok((AccountId(account), prefix))
    }
}

fn prefix_bytes(prefix: u16) -> Vec<u8> {
    assert!(prefix <= SS58_PREFIX_MAX, "no SS58 prefix: {prefix}");
    if prefix < TWO_BYTE_FROM {
        return vec![prefix as u8];
    }
    // 14 bits, upper six of the low byte first, with the marker 0b01: the order of the format, not a choice.
    let first = ((prefix & 0b1111_1100) >> 2) as u8 | 0b0100_0000;
    let second = (prefix >> 8) as u8 | ((prefix & 0b11) << 6) as u8;
    vec![first, second]
}

fn read_prefix(bytes: &[u8]) -> Option<u16> {
    match *bytes {
        [first, ..] if u16::from(first) < TWO_BYTE_FROM => Some(u16::from(first)),
        [first, second, ..] if first < 128 => {
            let low = (first << 2) | (second >> 6);
            let high = second & 0b0011_1111;
            let prefix = u16::from_le_bytes([low, high]);
            (prefix >= TWO_BYTE_FROM).then_some(prefix)
        }
        _ => None,
    }
}

fn checksum(prefixed: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = Blake2b512::new()
        .chain_update(CHECKSUM_DOMAIN)
        .chain_update(prefixed)
        .finalize();
    [hash[0], hash[1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `subkey inspect //Alice` and `//Bob`, and the development phrase itself.
    const KNOWN: [(&str, &str); 3] = [
        (
            "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d",
            "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
        ),
        (
            "8eaf04151687736326c9fea17e25fc5287613693c912909cb226aa4794f26a48",
            "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty",
        ),
        (
            "46ebddef8cd9bb167dc30878d7113b7e168e6f0646beffd77d69d39bad76b47a",
            "5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV",
        ),
    ];

    fn account(hex: &str) -> AccountId {
        let mut bytes = [0; 32];
        hex::decode_to_slice(hex, &mut bytes).unwrap();
        AccountId(bytes)
    }

    #[test]
    fn known_addresses_under_substrates_generic_prefix() {
        for (public, address) in KNOWN {
            assert_eq!(account(public).to_ss58(42), address);
            assert_eq!(AccountId::from_ss58(address).unwrap(), (account(public), 42));
        }
    }

    #[test]
    fn cess_addresses_start_with_c_x_and_have_49_characters() {
        assert_eq!(prefix_bytes(SS58_PREFIX), [0x50, 0xac]);
        for (public, _) in KNOWN {
            let address = account(public).to_ss58(SS58_PREFIX);
            assert!(address.starts_with("cX") && address.len() == 49, "{address}");
            assert_eq!(AccountId::from_ss58(&address).unwrap(), (account(public), SS58_PREFIX));
        }
    }

    #[test]
    fn every_prefix_comes_back() {
        for prefix in 0..=SS58_PREFIX_MAX {
            let bytes = prefix_bytes(prefix);
            assert_eq!(read_prefix(&bytes), Some(prefix));
            assert_eq!(bytes.len(), if prefix < 64 { 1 } else { 2 });
        }
    }

    #[test]
    fn a_changed_character_is_noticed() {
        let (_, address) = KNOWN[0];
        for at in 0..address.len() {
            let mut text = address.as_bytes().to_vec();
            text[at] = if text[at] == b'2' { b'3' } else { b'2' };
            assert!(
                AccountId::from_ss58(std::str::from_utf8(&text).unwrap()).is_err(),
                "character {at}"
            );
        }
    }

    #[test]
    fn other_forms_are_refused() {
        let checked = |body: &[u8]| bs58::encode([body, &checksum(body)].concat()).into_string();
        let id = [9; 32];
        assert!(AccountId::from_ss58(&checked(&[&[42][..], &id].concat())).is_ok());
        // Prefix 42 in two bytes, the reserved forms from 128, a short account, nothing at all.
        assert!(AccountId::from_ss58(&checked(&[&[0x4a, 0x80][..], &id].concat())).is_err());
        assert!(AccountId::from_ss58(&checked(&[&[128, 1][..], &id].concat())).is_err());
        assert!(AccountId::from_ss58(&checked(&[&[42][..], &id[1..]].concat())).is_err());
        for text in ["", "0", "not an address", &"1".repeat(64), &"1".repeat(10_000)] {
            assert!(AccountId::from_ss58(text).is_err(), "{text}");
        }
    }
}
