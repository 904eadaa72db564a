//! The recovery phrase: 24 English words, BIP-39, the one thing a user has to keep.
//!
//! Two unrelated keys come from its 32 bytes of entropy:
//! * the **account**, by Substrate's rule (the same phrase opens it in any Substrate wallet): PBKDF2-HMAC-SHA512 of the
//!   *entropy bytes* (not of the words, as Bitcoin wallets do), salt `mnemonic`, 2048 rounds, first 32 bytes;
//! * the **root** of all encryption, HKDF under our own label.
//!
//! One can't be computed from the other, so that a leaked account key decrypts nothing.

use bip39::{Language, Mnemonic};
use pbkdf2::pbkdf2_hmac;
use sha2::Sha512;
use zeroize::Zeroizing;

use crate::derive::{self, Key};
use crate::entropy::Entropy;
use crate::error::CryptoError;
use crate::limits::{PHRASE_TEXT_BYTES_MAX, PHRASE_WORDS};
use crate::secret::VolumeSecret;

/// Salt of Substrate's rule, without a BIP-39 password (substrate-bip39 `mini_secret_from_entropy`).
const SUBSTRATE_SALT: &[u8] = b"mnemonic";
/// Rounds of Substrate's rule.
const SUBSTRATE_ROUNDS: u32 = 2048;

/// The 24-word recovery phrase; zeroized on drop, without `Debug`.
pub struct Phrase {
    words: Zeroizing<String>,
    entropy: Key,
}

impl Phrase {
    /// A new phrase from 32 random bytes.
    pub fn generate(entropy: &mut dyn Entropy) -> Phrase {
        let mut bytes = Key::default();
        entropy.fill(&mut bytes[..]);
        Phrase::from_entropy(bytes)
    }

    /// Reads a phrase as people type it: any case, any white space, exactly 24 words.
    ///
    /// # Errors
    /// [`CryptoError::Phrase`] says what is wrong and where, without repeating a word.
    pub fn parse(text: &str) -> Result<Phrase, CryptoError> {
        let error = |reason: String| Err(CryptoError::Phrase(reason));
        if text.len() > PHRASE_TEXT_BYTES_MAX {
            return error(format!("longer than {PHRASE_TEXT_BYTES_MAX} bytes"));
        }
        let text = Zeroizing::new(text.to_lowercase());
        let count = text.split_whitespace().count();
        if count != PHRASE_WORDS {
            return error(format!("{count} words instead of {PHRASE_WORDS}"));
        }
        let mnemonic = match Mnemonic::parse_in_normalized(Language::English, &text) {
            Ok(mnemonic) => mnemonic,
            Err(bip39::Error::UnknownWord(index)) => {
                return error(format!("word {} is not in the BIP-39 English list", index + 1));
            }
            Err(bip39::Error::InvalidChecksum) => {
                return error("the checksum does not match: a word is wrong or two are swapped".to_owned());
            }
            Err(other) => return error(other.to_string()),
        };
        let (bytes, length) = mnemonic.to_entropy_array();
        let bytes = Zeroizing::new(bytes);
        let mut entropy = Key::default();
        debug_assert_eq!(length, entropy.len());
        entropy.copy_from_slice(&bytes[..32]);
        Ok(Phrase::from_entropy(entropy))
    }

    /// The words, lower case, one space between them.
    pub fn words(&self) -> &str {
        &self.words
    }

    /// The keys this phrase stands for.
    pub fn secret(&self) -> VolumeSecret {
        VolumeSecret {
            root: derive::tree_key(&self.entropy[..], derive::ROOT, b""),
            account: mini_secret(&self.entropy[..]),
        }
    }

    /// The entropy itself, as the secret of a phrase slot.
    pub(crate) fn entropy(&self) -> &Key {
        &self.entropy
    }

    fn from_entropy(entropy: Key) -> Phrase {
        let mnemonic = Mnemonic::from_entropy_in(Language::English, &entropy[..]).expect("32 bytes make 24 words");
        // Reserved in one go: growing would leave unwiped copies behind.
        let mut words = Zeroizing::new(String::with_capacity(PHRASE_WORDS * 9));
        for word in mnemonic.words() {
            if !words.is_empty() {
                words.push(' ');
            }
            words.push_str(word);
        }
        Phrase { words, entropy }
    }
}

/// Substrate's rule: entropy -> sr25519 mini secret. Takes any BIP-39 entropy so that known 12-word vectors apply.
fn mini_secret(entropy: &[u8]) -> Key {
    let mut seed = Zeroizing::new([0; 64]);
    pbkdf2_hmac::<Sha512>(entropy, SUBSTRATE_SALT, SUBSTRATE_ROUNDS, &mut seed[..]);
    let mut mini = Key::default();
    mini.copy_from_slice(&seed[..32]);
    mini
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{AccountId, AccountKey};
    use crate::entropy::Counting;

    /// The phrase `subkey` documents for its development accounts; 12 words, so only the inner rule applies.
    #[test]
    fn substrate_development_phrase_gives_its_known_account() {
        let words = "bottom drive obey lake curtain smoke basket hold race lonely fit walk";
        let entropy = Mnemonic::parse_in_normalized(Language::English, words)
            .unwrap()
            .to_entropy();
        let mini = mini_secret(&entropy);
        assert_eq!(
            hex::encode(&mini[..]),
            "fac7959dbfe72f052e5a0c3c8d6530f202b02fd8f9f5ca3580ec8deb7797479e"
        );
        let AccountId(public) = AccountKey::from_seed(&mini).account_id();
        assert_eq!(
            hex::encode(public),
            "46ebddef8cd9bb167dc30878d7113b7e168e6f0646beffd77d69d39bad76b47a"
        );
    }

    #[test]
    fn generated_phrases_parse_back_whatever_the_spacing_and_case() {
        let mut entropy = Counting(0);
        for _ in 0..20 {
            let phrase = Phrase::generate(&mut entropy);
            assert_eq!(phrase.words().split(' ').count(), PHRASE_WORDS);
            let typed = format!("\t {}\n", phrase.words().to_uppercase().replace(' ', "  \n"));
            let parsed = Phrase::parse(&typed).unwrap();
            assert_eq!(parsed.words(), phrase.words());
            assert_eq!(parsed.entropy(), phrase.entropy());
        }
    }

    fn refusal(text: &str) -> String {
        Phrase::parse(text).err().expect("refused").to_string()
    }

    #[test]
    fn refusals_say_where_and_never_repeat_a_word() {
        let good = "abandon ".repeat(23) + "art";
        assert!(Phrase::parse(&good).is_ok());
        assert!(refusal("").contains("0 words"));
        assert!(refusal(&"abandon ".repeat(23)).contains("23 words"));
        assert!(refusal(&(good.clone() + " art")).contains("25 words"));
        // A valid 12-word phrase is still too short for us.
        assert!(
            refusal("legal winner thank year wave sausage worth useful legal winner thank yellow").contains("12 words")
        );
        let misspelt = good.replacen("abandon art", "abandonn art", 1);
        let message = refusal(&misspelt);
        assert!(
            message.contains("word 23 ") && !message.contains("abandonn"),
            "{message}"
        );
        assert!(refusal(&good.replace("art", "zoo")).contains("checksum"));
        assert!(refusal(&" ".repeat(PHRASE_TEXT_BYTES_MAX + 1)).contains("longer"));
    }

    #[test]
    fn the_account_key_is_no_relative_of_the_root() {
        let secret = Phrase::generate(&mut Counting(0)).secret();
        assert_ne!(secret.root, secret.account);
    }
}
