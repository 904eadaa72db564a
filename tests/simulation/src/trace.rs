//! What happened in a world, as one hash, and as lines for whoever asks.

use crate::clock::SimClock;
use cessfs_sync::Clock;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

#[derive(Default)]
struct State {
    hash: DefaultHasher,
    counts: BTreeMap<&'static str, u64>,
    violations: Vec<String>,
}

/// Bytes of a violation that are kept.
const VIOLATION_BYTES_MAX: usize = 600;

/// The log of one world. Cheap to clone.
#[derive(Clone)]
pub struct Trace {
    clock: SimClock,
    aloud: bool,
    state: Arc<Mutex<State>>,
}

impl Trace {
    /// An empty log; `aloud` prints every line.
    pub fn new(clock: SimClock, aloud: bool) -> Trace {
        Trace {
            clock,
            aloud,
            state: Arc::default(),
        }
    }

    /// Something happened.
    pub fn note(&self, what: impl Display) {
        let line = format!("{:>14.6} {what}", self.clock.monotonic().as_secs_f64());
        if self.aloud {
            println!("{line}");
        }
        let mut state = self.state.lock();
        line.hash(&mut state.hash);
    }

    /// Counts one of a kind, for the table at the end.
    pub fn count(&self, kind: &'static str) {
        self.add(kind, 1);
    }

    /// Counts so many of a kind.
    pub fn add(&self, kind: &'static str, many: u64) {
        *self.state.lock().counts.entry(kind).or_default() += many;
    }

    /// A promise was broken.
    pub fn violation(&self, what: impl Display) {
        let mut what = what.to_string();
        what.truncate(what.floor_char_boundary(VIOLATION_BYTES_MAX));
        self.note(format_args!("VIOLATION {what}"));
        self.state.lock().violations.push(what);
    }

    /// Promises broken so far.
    pub fn violations(&self) -> Vec<String> {
        self.state.lock().violations.clone()
    }

    /// Everything counted.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.state.lock().counts.clone()
    }

    /// Of all that happened, in order.
    pub fn hash(&self) -> u64 {
        self.state.lock().hash.finish()
    }
}
