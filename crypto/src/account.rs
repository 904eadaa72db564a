//! The CESS account: an sr25519 key pair and its SS58 address.
//!
//! The account signs extrinsics and nothing else; no encryption key is derived from it or shared with it.

mod ss58;

use std::sync::Arc;

use schnorrkel::context::attach_rng;
use schnorrkel::{ExpansionMode, Keypair, MiniSecretKey};

use crate::entropy::Entropy;

pub use ss58::{AccountId, SS58_PREFIX};

/// Signing context of every Substrate chain.
const SIGNING_CONTEXT: &[u8] = b"substrate";

/// The sr25519 account of the phrase. Cheap to clone, zeroized when the last clone goes.
#[derive(Clone)]
pub struct AccountKey(Arc<Keypair>);

impl AccountKey {
    /// The account of a 32-byte mini secret ("secret seed" in `subkey`), expanded as Substrate does (Ed25519 mode).
    pub fn from_seed(seed: &[u8; 32]) -> AccountKey {
        let mini = MiniSecretKey::from_bytes(seed).expect("32 bytes are a mini secret");
        AccountKey(Arc::new(mini.expand_to_keypair(ExpansionMode::Ed25519)))
    }

    /// The public key, which is the account's id.
    pub fn account_id(&self) -> AccountId {
        AccountId(self.0.public.to_bytes())
    }

    /// Signs `message` in the context `substrate`. The nonce mixes the key, the message and `entropy`, so a poor source of
    /// randomness does not reveal the key.
    pub fn sign(&self, message: &[u8], entropy: &mut dyn Entropy) -> [u8; 64] {
        let transcript = schnorrkel::signing_context(SIGNING_CONTEXT).bytes(message);
        self.0.sign(attach_rng(transcript, Rng(entropy))).to_bytes()
    }
}

/// [`Entropy`] in the form that schnorrkel takes.
struct Rng<'a>(&'a mut dyn Entropy);

impl rand_core::CryptoRng for Rng<'_> {}

impl rand_core::RngCore for Rng<'_> {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        self.0.fill(out);
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), rand_core::Error> {
        self.0.fill(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Counting;

    #[test]
    fn signatures_verify_in_the_substrate_context_only() {
        let key = AccountKey::from_seed(&[7; 32]);
        let signature = schnorrkel::Signature::from_bytes(&key.sign(b"message", &mut Counting(0))).unwrap();
        let public = schnorrkel::PublicKey::from_bytes(&key.account_id().0).unwrap();
        assert!(public.verify_simple(b"substrate", b"message", &signature).is_ok());
        assert!(public.verify_simple(b"substrate", b"massage", &signature).is_err());
        assert!(public.verify_simple(b"other", b"message", &signature).is_err());
    }

    #[test]
    fn signing_draws_from_the_entropy_it_is_given() {
        let key = AccountKey::from_seed(&[7; 32]);
        let sign = |seed| key.sign(b"message", &mut Counting(seed));
        assert_eq!(sign(1), sign(1));
        assert_ne!(sign(1), sign(2));
    }
}
