//! Values and records of the log sealed on their way to the disk.

use crate::store::StoreError;
use cessfs_crypto::{AtRestKeys, Entropy, RECORD_NONCE_BYTES};
use parking_lot::Mutex;

/// Seals values on their way to the disk.
pub struct Sealer {
    keys: AtRestKeys,
    entropy: Mutex<Box<dyn Entropy>>,
}

impl Sealer {
    /// A sealer with the volume's at-rest keys.
    pub fn new(keys: AtRestKeys, entropy: Box<dyn Entropy>) -> Sealer {
        Sealer {
            keys,
            entropy: Mutex::new(entropy),
        }
    }

    /// Seals every value. The nonces come from one call for randomness, which may be a system call.
    pub(super) fn seal_all(&self, ops: &mut [(Vec<u8>, Option<Vec<u8>>)]) {
        let values = ops.iter().filter(|(_, value)| value.is_some()).count();
        let mut nonces = Drawn(vec![0; values * RECORD_NONCE_BYTES]);
        self.entropy.lock().fill(&mut nonces.0);
        for (key, value) in ops {
            if let Some(value) = value {
                *value = self.keys.seal_record(key, value, &mut nonces);
            }
        }
    }

    /// Seals one piece, bound to `aad`.
    pub(super) fn seal(&self, aad: &[u8], bytes: &[u8]) -> Vec<u8> {
        self.keys.seal_record(aad, bytes, self.entropy.lock().as_mut())
    }

    pub(super) fn open(&self, key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let damaged = |_| StoreError::Corrupt(format!("record {} does not open", hex::encode(key)));
        self.keys.open_record(key, sealed).map_err(damaged)
    }
}

/// Random bytes drawn before they are needed; each is given out once.
struct Drawn(Vec<u8>);

impl Entropy for Drawn {
    fn fill(&mut self, out: &mut [u8]) {
        let rest = self
            .0
            .len()
            .checked_sub(out.len())
            .expect("as many were drawn as are needed");
        out.copy_from_slice(&self.0[rest..]);
        self.0.truncate(rest);
    }
}
