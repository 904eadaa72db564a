//! What can go wrong, by what the caller would do about it.

use crate::slots::SlotKind;

/// Errors of this crate. No variant carries secret material: all may be logged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CryptoError {
    /// The text is not a recovery phrase; says which word is wrong by its number, never the word.
    #[error("not a valid 24-word recovery phrase: {0}")]
    Phrase(String),
    /// The text is not an address.
    #[error("not a valid SS58 address: {0}")]
    Address(String),
    /// A slot exists, and what was offered is not its secret.
    #[error("the passphrase, phrase or key file does not open this volume")]
    WrongSecret,
    /// There is no slot of this kind: offer another kind of secret.
    #[error("this volume has no {0} slot")]
    NoSlot(SlotKind),
    /// An authentication tag does not match: bit rot, a lying miner, or data moved from where it was sealed.
    #[error("sealed data is damaged or belongs elsewhere")]
    Sealed,
    /// `keys.json` can't be understood or has been altered.
    #[error("the key file is damaged: {0}")]
    KeyFile(String),
    /// The caller's input is outside the limits this crate enforces (empty passphrase, too cheap a KDF).
    #[error("refused: {0}")]
    Refused(String),
    /// The machine could not give the key derivation its memory.
    #[error("not enough memory for the key derivation: memory_kib={memory_kib}")]
    Memory {
        /// What the slot asks for, in KiB.
        memory_kib: u32,
    },
}
