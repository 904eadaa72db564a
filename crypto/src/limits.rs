//! Every bound of this crate, with its reason.

/// Words of a recovery phrase: BIP-39's longest, 256 bits of entropy.
pub const PHRASE_WORDS: usize = 24;
/// Longest text [`crate::Phrase::parse`] looks at, in bytes: 24 words of at most 8 letters leave room for generous white space.
pub const PHRASE_TEXT_BYTES_MAX: usize = 1024;

/// Largest SS58 prefix: 14 bits exist in the two-byte form.
pub const SS58_PREFIX_MAX: u16 = (1 << 14) - 1;
/// Longest SS58 text looked at, in bytes. Ours have 49; base58 decoding is quadratic.
pub const SS58_TEXT_BYTES_MAX: usize = 64;

/// Least Argon2id memory accepted, in KiB (8 MiB): below it a stolen `keys.json` is cheap to guess at.
pub const KDF_MEMORY_KIB_MIN: u32 = 8 * 1024;
/// Most Argon2id memory accepted, in KiB (4 GiB): above it a forged `keys.json` would exhaust the machine.
pub const KDF_MEMORY_KIB_MAX: u32 = 4 * 1024 * 1024;
/// Most Argon2id passes accepted. The least is 1.
pub const KDF_PASSES_MAX: u32 = 16;
/// Most Argon2id lanes accepted. The least is 1.
pub const KDF_LANES_MAX: u32 = 16;

/// Least key file content, in bytes: the entropy of the keys it guards.
pub const KEY_FILE_BYTES_MIN: usize = 32;
/// Most key file content, in bytes: a thousand times the entropy of the keys it guards, and small enough for a pipe.
pub const KEY_FILE_BYTES_MAX: usize = 32 << 10;
/// Longest passphrase, in bytes.
pub const PASSPHRASE_BYTES_MAX: usize = 4096;
/// Largest `keys.json` parsed, in bytes. A full one has about 1.5 KiB.
pub const SLOTS_JSON_BYTES_MAX: usize = 64 * 1024;

/// Length of the keystream that pads one pack, in bytes: ChaCha20's 32-bit block counter reaches 256 GiB, and the cipher gives
/// up the last block so that the counter never wraps.
pub const PAD_BYTES_MAX: u64 = (1 << 38) - 64;
/// Largest plaintext of one frame, in bytes: the bound of AES-GCM's 32-bit block counter (SP 800-38D, 5.2.1.1).
pub const FRAME_PLAINTEXT_BYTES_MAX: u64 = (1 << 36) - 32;

const _: () = assert!(
    KDF_MEMORY_KIB_MIN >= 8 * KDF_LANES_MAX,
    "RFC 9106 asks for 8 KiB of memory per lane"
);
// 1000 segments of 32 MiB are the longest CESS file.
const _: () = assert!(PAD_BYTES_MAX >= 1000 * (32 << 20));
