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
