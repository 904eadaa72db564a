//! Which network a client belongs to. A signature counts on one network only, and each is told by the hash of its first block;
//! that hash is the node's word, so the first one is taken, kept, and asked of every node after it.

use super::ChainError;
use parking_lot::Mutex;

/// What keeps the first hash for the next time.
type Keep = Box<dyn Fn([u8; 32]) + Send + Sync>;

/// The network of a client, known or still to be met.
pub struct Pin {
    genesis: Mutex<Option<[u8; 32]>>,
    keep: Keep,
}

impl Pin {
    /// The network of which `known` is the first block's hash; if none is known, the one that is met first, which `keep` is told.
    pub fn new(known: Option<[u8; 32]>, keep: impl Fn([u8; 32]) + Send + Sync + 'static) -> Pin {
        Pin {
            genesis: Mutex::new(known),
            keep: Box::new(keep),
        }
    }

    /// Whatever network is met first, for as long as the client lives.
    pub fn first_met() -> Pin {
        Pin::new(None, |_| ())
    }

    /// Whether a node is one of this network.
    ///
    /// # Errors
    /// `Shape` if it is not.
    pub(crate) fn admit(&self, genesis: [u8; 32]) -> Result<(), ChainError> {
        let mut known = self.genesis.lock();
        match *known {
            Some(known) if known == genesis => Ok(()),
            Some(known) => Err(ChainError::Shape(format!(
                "the node is of another network: its first block is {}, and that of the network used so far is {}",
                hex::encode(genesis),
                hex::encode(known)
            ))),
            None => {
                *known = Some(genesis);
                (self.keep)(genesis);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_first_network_is_kept_and_another_is_refused() {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let told = kept.clone();
        let pin = Pin::new(None, move |genesis| told.lock().push(genesis));
        for _ in 0..2 {
            pin.admit([1; 32]).unwrap();
        }
        assert!(matches!(pin.admit([2; 32]), Err(ChainError::Shape(text)) if text.contains("another network")));
        assert_eq!(*kept.lock(), [[1; 32]]);
        let pin = Pin::new(Some([2; 32]), |_| panic!("it is known"));
        assert!(pin.admit([1; 32]).is_err() && pin.admit([2; 32]).is_ok());
    }
}
