//! Time of a world: it stands still while anybody has work, and jumps to the next thing somebody waits for when nobody has.

use crate::dice::Dice;
use cessfs_sync::Clock;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Wall time at which worlds begin. Before the time of the machine that simulates, so that every file there looks new.
const BEGIN: Duration = Duration::from_secs(1_700_000_000);

/// When, a random number so that those of one instant come in random order, and one that makes it unique.
type Key = (Duration, u64, u64);

struct State {
    now: Duration,
    /// Seconds by which the wall clock is wrong.
    wrong_s: i64,
    timers: BTreeMap<Key, Waker>,
    made: u64,
    dice: Dice,
    stuck: bool,
    watcher: Option<Waker>,
}

/// See the module head. Cheap to clone.
#[derive(Clone)]
pub struct SimClock(Arc<Mutex<State>>);

impl SimClock {
    /// A clock at zero.
    pub fn new(seed: u64) -> SimClock {
        SimClock(Arc::new(Mutex::new(State {
            now: Duration::ZERO,
            wrong_s: 0,
            timers: BTreeMap::new(),
            made: 0,
            dice: Dice::new(seed, "timers"),
            stuck: false,
            watcher: None,
        })))
    }

    /// The wall clock is wrong by so many seconds from now on; time passes as before.
    pub fn set_wrong(&self, seconds: i64) {
        self.0.lock().wrong_s = seconds;
    }

    /// Nobody has work: time jumps to the next timer and wakes whoever set it.
    pub fn step(&self) {
        let woken = {
            let mut state = self.0.lock();
            match state.timers.pop_first() {
                Some(((when, ..), waker)) => {
                    state.now = state.now.max(when);
                    Some(waker)
                }
                None => {
                    state.stuck = true;
                    state.watcher.take()
                }
            }
        };
        if let Some(waker) = woken {
            waker.wake();
        }
    }

    /// Resolves when nobody has work and nobody waits for a time: the world would stand still for ever.
    pub fn stuck(&self) -> impl Future<Output = ()> + use<> {
        let state = self.0.clone();
        futures::future::poll_fn(move |context| {
            let mut state = state.lock();
            if state.stuck {
                return Poll::Ready(());
            }
            state.watcher = Some(context.waker().clone());
            Poll::Pending
        })
    }

    /// How many timers were set, and the next number of the stream that orders them: part of what makes two runs equal.
    pub fn fingerprint(&self) -> (Duration, u64, u64) {
        let state = self.0.lock();
        (state.now, state.made, state.dice.clone().word())
    }
}

struct Sleep {
    clock: SimClock,
    until: Duration,
    key: Option<Key>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let clock = self.clock.0.clone();
        // Dropped after the lock: a waker may own what owns a timer.
        let _before;
        let mut state = clock.lock();
        _before = self.key.take().and_then(|key| state.timers.remove(&key));
        if state.now >= self.until {
            return Poll::Ready(());
        }
        state.made += 1;
        let key = (self.until, state.dice.word(), state.made);
        state.timers.insert(key, context.waker().clone());
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            let waker = self.clock.0.lock().timers.remove(&key);
            drop(waker);
        }
    }
}

impl Clock for SimClock {
    fn monotonic(&self) -> Duration {
        self.0.lock().now
    }

    fn wall(&self) -> Duration {
        let state = self.0.lock();
        let right = BEGIN + state.now;
        Duration::from_secs(right.as_secs().saturating_add_signed(state.wrong_s))
            + Duration::from_nanos(right.subsec_nanos().into())
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let until = self.monotonic() + duration;
        Sleep {
            clock: self.clone(),
            until,
            key: None,
        }
        .boxed()
    }
}
