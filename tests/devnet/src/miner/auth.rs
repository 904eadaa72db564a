//! Who may talk to a miner: anybody with an sr25519 key.
//!
//! The headers `Account`, `Message` and `Signature` must agree with each other and nothing more is asked: no nonce, no
//! expiry, no relation between the account and the file. A wallet signs `<Bytes>message</Bytes>` where a program signs
//! the message, and both count.

use std::collections::HashSet;

use axum::http::HeaderMap;
use parking_lot::Mutex;
use sp_core::crypto::Ss58Codec;
use sp_core::{Pair, sr25519};

use super::limits::SIGNATURES_REMEMBERED_MAX;

/// SS58 prefixes that a miner takes: CESS's test networks, and Substrate's generic one.
const SS58_PREFIXES: [u16; 2] = [11330, 42];

/// Why a request is turned away, with the text that goes out as `msg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("header {0} is missing or not text")]
    Missing(&'static str),
    #[error("Account is not an SS58 address with prefix 11330 or 42")]
    Account,
    #[error("Signature is not 64 bytes of hex")]
    SignatureForm,
    #[error("the signature is not the account's over the message")]
    Signature,
}

/// Checks signatures, and remembers good ones: a curve operation for each 1 MiB range would be a tax on the tests.
#[derive(Default)]
pub struct Gate {
    good: Mutex<HashSet<(String, String, String)>>,
}

impl Gate {
    /// Lets a request with these headers pass, or says why not.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), AuthError> {
        let claim = (
            text(headers, "Account")?,
            text(headers, "Message")?,
            text(headers, "Signature")?,
        );
        if self.good.lock().contains(&claim) {
            return Ok(());
        }
        verify(&claim.0, &claim.1, &claim.2)?;
        let mut good = self.good.lock();
        if good.len() >= SIGNATURES_REMEMBERED_MAX {
            good.clear();
        }
        good.insert(claim);
        Ok(())
    }
}

fn text(headers: &HeaderMap, name: &'static str) -> Result<String, AuthError> {
    let value = headers
        .get(name)
        .and_then(|v| std::str::from_utf8(v.as_bytes()).ok())
        .unwrap_or_default();
    if value.is_empty() {
        Err(AuthError::Missing(name))
    } else {
        Ok(value.to_owned())
    }
}

fn verify(account: &str, message: &str, signature: &str) -> Result<(), AuthError> {
    let (public, format) = sr25519::Public::from_ss58check_with_version(account).map_err(|_| AuthError::Account)?;
    if !SS58_PREFIXES.contains(&u16::from(format)) {
        return Err(AuthError::Account);
    }
    let mut raw = [0; 64];
    hex::decode_to_slice(signature.strip_prefix("0x").unwrap_or(signature), &mut raw)
        .map_err(|_| AuthError::SignatureForm)?;
    let signature = sr25519::Signature::from_raw(raw);
    let wrapped = format!("<Bytes>{message}</Bytes>");
    let good = [message, &wrapped]
        .iter()
        .any(|signed| sr25519::Pair::verify(&signature, signed.as_bytes(), &public));
    if good { Ok(()) } else { Err(AuthError::Signature) }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use sp_core::crypto::Ss58AddressFormat;

    use super::*;

    fn headers(account: &str, message: &str, signature: &str) -> HeaderMap {
        [("account", account), ("message", message), ("signature", signature)]
            .into_iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn signed(prefix: u16, signed: &str) -> (String, String) {
        let pair = sr25519::Pair::from_seed(&[7; 32]);
        let account = pair
            .public()
            .to_ss58check_with_version(Ss58AddressFormat::custom(prefix));
        (account, hex::encode(pair.sign(signed.as_bytes()).0))
    }

    #[test]
    fn any_key_passes_in_each_accepted_form() {
        for prefix in SS58_PREFIXES {
            for over in ["hello", "<Bytes>hello</Bytes>"] {
                let (account, signature) = signed(prefix, over);
                for signature in [signature.clone(), format!("0x{signature}")] {
                    let gate = Gate::default();
                    let headers = headers(&account, "hello", &signature);
                    assert_eq!(gate.check(&headers), Ok(()), "{prefix} {over}");
                    assert_eq!(gate.check(&headers), Ok(()), "a second time, from memory");
                }
            }
        }
    }

    #[test]
    fn a_wrong_part_is_named() {
        let gate = Gate::default();
        let (account, signature) = signed(42, "hello");
        let (polkadot, _) = signed(0, "hello");
        let cases = [
            (headers(&account, "other", &signature), AuthError::Signature),
            (headers(&account, "", &signature), AuthError::Missing("Message")),
            (headers(&polkadot, "hello", &signature), AuthError::Account),
            (headers("not an address", "hello", &signature), AuthError::Account),
            (headers(&account, "hello", "0x12"), AuthError::SignatureForm),
            (HeaderMap::new(), AuthError::Missing("Account")),
        ];
        gate.check(&headers(&account, "hello", &signature))
            .expect("the good one is remembered first");
        for (headers, want) in cases {
            assert_eq!(gate.check(&headers), Err(want));
        }
    }
}
