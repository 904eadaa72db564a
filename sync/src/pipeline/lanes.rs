//! How many fragments are on their way at a time: as many as the line brings to miners within [`FRAGMENT_TIME`].
//!
//! A line of 5 Mbit/s carries a fragment in 13 seconds, and two dozen side by side in more than five minutes: one that breaks off then was
//! sent for nothing, and what the system has in its buffers takes so long to leave that a slow line looks like a dead miner. So
//! few go at first. Each that arrives tells how many did while it was under way, its own included, and so how wide the line is. Where miners
//! are far away, and each takes little, more of them take more, and the number grows. One that was given up after long halves it.
//!
//! A fragment that takes many times as long as others took lately is its miner's doing, however steadily it moves. Where none arrives beside
//! it, it may be the line, and the next one may take twice as long.
//!
//! Nothing waits for it on the chain: a deal has no deadline (facts 1.5).

use crate::clock::Clock;
use crate::limits::{
    FRAGMENT_BEARABLE_FIRST, FRAGMENT_BEARABLE_MIN, FRAGMENT_SLOW_TIMES, FRAGMENT_TIME, FRAGMENTS_IN_FLIGHT,
    LANES_FIRST, LANES_MIN, MINER_STALL_TIMEOUT,
};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

pub(super) struct Lanes {
    clock: Arc<dyn Clock>,
    /// One permit per fragment at the widest; where lanes are fewer, a fragment takes the permits of several.
    room: Semaphore,
    /// Held by the first of those who wait, so that only he goes by an old width.
    first: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

struct State {
    width: usize,
    /// Fragments that have arrived in this run.
    arrived: u64,
    /// How long one may take.
    bearable: Duration,
}

/// A fragment's place on the line.
pub(super) struct Lane<'a> {
    lanes: &'a Lanes,
    _permit: SemaphorePermit<'a>,
    began: Duration,
    arrived_before: u64,
}

impl Lanes {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Lanes {
        Lanes {
            clock,
            room: Semaphore::new(FRAGMENTS_IN_FLIGHT),
            first: tokio::sync::Mutex::default(),
            state: Mutex::new(State {
                width: LANES_FIRST,
                arrived: 0,
                bearable: FRAGMENT_BEARABLE_FIRST,
            }),
        }
    }

    /// Waits for a free lane. Who comes first goes first.
    pub(super) async fn enter(&self) -> Lane<'_> {
        let _first = self.first.lock().await;
        let share = FRAGMENTS_IN_FLIGHT / self.state.lock().width;
        let permit = self.room.acquire_many(share as u32).await;
        Lane {
            lanes: self,
            _permit: permit.expect("the semaphore is never closed"),
            began: self.clock.monotonic(),
            arrived_before: self.state.lock().arrived,
        }
    }
}

impl Lane<'_> {
    /// Sending begins only now: something else was waited for.
    pub(super) fn begin(&mut self) {
        self.began = self.lanes.clock.monotonic();
        self.arrived_before = self.lanes.state.lock().arrived;
    }

    /// Ends when it has taken longer than it may, however steadily it moves: by what those tell that arrive meanwhile, too.
    pub(super) async fn overdue(&self) {
        loop {
            let left = self.lanes.state.lock().bearable.saturating_sub(self.took());
            if left.is_zero() {
                return;
            }
            self.lanes.clock.sleep(left.min(FRAGMENT_BEARABLE_MIN)).await;
        }
    }

    /// The fragment is at its miner.
    pub(super) fn arrived(self) {
        let took = self.took();
        let mut state = self.lanes.state.lock();
        state.arrived += 1;
        let meanwhile = state.arrived - self.arrived_before;
        // As many as arrive in that time when they arrive as fast as these did.
        let width = meanwhile as f64 * FRAGMENT_TIME.as_secs_f64() / took.as_secs_f64().max(f64::EPSILON);
        state.width = (width as usize).clamp(LANES_MIN, FRAGMENTS_IN_FLIGHT);
        let slow = took.saturating_mul(FRAGMENT_SLOW_TIMES).max(FRAGMENT_BEARABLE_MIN);
        state.bearable = slow.max(state.bearable / 2);
    }

    /// It was given up. Whether it was the slowest by far, and so its miner's doing.
    pub(super) fn given_up(self) -> bool {
        let took = self.took();
        let mut state = self.lanes.state.lock();
        if took >= MINER_STALL_TIMEOUT {
            state.width = (state.width / 2).max(LANES_MIN);
        }
        if took < state.bearable {
            return false;
        }
        let others_arrived = state.arrived > self.arrived_before;
        if !others_arrived {
            state.bearable = state.bearable.saturating_mul(2);
        }
        others_arrived
    }

    fn took(&self) -> Duration {
        self.lanes.clock.monotonic().saturating_sub(self.began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ByHand;
    use crate::limits::fragment_bytes;
    use futures::FutureExt;

    /// Bytes a second of a line on which so many fragments arrive in time.
    fn line(width: usize) -> f64 {
        (width * fragment_bytes()) as f64 / FRAGMENT_TIME.as_secs_f64()
    }

    fn enter(lanes: &Lanes) -> Option<Lane<'_>> {
        lanes.enter().now_or_never()
    }

    /// Fills the line, which carries so many bytes a second; how many were on their way at the end of a few minutes.
    fn width_on(bytes_per_second: f64) -> usize {
        let clock = Arc::new(ByHand::default());
        let lanes = Lanes::new(clock.clone());
        let mut width = 0;
        for _ in 0..20 {
            let all: Vec<_> = std::iter::from_fn(|| enter(&lanes)).collect();
            width = all.len();
            for lane in all {
                clock.pass(Duration::from_secs_f64(fragment_bytes() as f64 / bytes_per_second));
                lane.arrived();
            }
        }
        width
    }

    #[test]
    fn few_go_at_first_and_on_a_slow_line_and_all_on_a_fast_one() {
        let lanes = Lanes::new(Arc::new(ByHand::default()));
        let all: Vec<_> = std::iter::from_fn(|| enter(&lanes)).collect();
        assert_eq!(all.len(), LANES_FIRST);
        assert_eq!(width_on(line(FRAGMENTS_IN_FLIGHT) * 2.0), FRAGMENTS_IN_FLIGHT);
        assert_eq!(width_on(line(1) / 10.0), LANES_MIN);
        let middle = width_on(line(6));
        assert!((5..=8).contains(&middle), "{middle}");
    }

    #[test]
    fn a_slow_miner_beside_quick_ones_says_nothing_of_the_line() {
        let clock = Arc::new(ByHand::default());
        let lanes = Lanes::new(clock.clone());
        let slow = enter(&lanes).expect("room");
        for _ in 0..200 {
            let quick = enter(&lanes).expect("room");
            clock.pass(Duration::from_secs(1));
            quick.arrived();
        }
        slow.arrived();
        assert_eq!(lanes.state.lock().width, FRAGMENTS_IN_FLIGHT);
    }

    #[test]
    fn a_fragment_may_take_many_times_as_long_as_others_and_longer_where_none_arrives() {
        let clock = Arc::new(ByHand::default());
        let lanes = Lanes::new(clock.clone());
        let bearable = || lanes.state.lock().bearable;
        let slow = enter(&lanes).expect("room");
        for _ in 0..20 {
            let quick = enter(&lanes).expect("room");
            clock.pass(Duration::from_secs(2));
            quick.arrived();
        }
        assert_eq!(bearable(), FRAGMENT_BEARABLE_MIN);
        clock.pass(FRAGMENT_BEARABLE_MIN);
        assert!(slow.given_up(), "the others were quick");
        assert_eq!(bearable(), FRAGMENT_BEARABLE_MIN);
        // The line is another one by now.
        let lane = enter(&lanes).expect("room");
        clock.pass(FRAGMENT_BEARABLE_MIN);
        assert!(!lane.given_up(), "nobody knows");
        let lane = enter(&lanes).expect("room");
        clock.pass(FRAGMENT_BEARABLE_MIN * 2 - Duration::from_secs(1));
        assert!(bearable() == FRAGMENT_BEARABLE_MIN * 2 && lane.took() < bearable());
        lane.arrived();
        assert!(bearable() > FRAGMENT_BEARABLE_MIN * 10);
        let refused = enter(&lanes).expect("room");
        assert!(!refused.given_up());
    }

    #[test]
    fn what_is_given_up_after_long_makes_the_line_narrower_and_a_refusal_does_not() {
        let clock = Arc::new(ByHand::default());
        let lanes = Lanes::new(clock.clone());
        enter(&lanes).expect("room").given_up();
        assert_eq!(lanes.state.lock().width, LANES_FIRST);
        let lane = enter(&lanes).expect("room");
        clock.pass(MINER_STALL_TIMEOUT);
        lane.given_up();
        assert_eq!(lanes.state.lock().width, LANES_FIRST / 2);
        let mut lane = enter(&lanes).expect("room");
        clock.pass(Duration::from_secs(3600));
        lane.begin();
        clock.pass(Duration::from_secs(1));
        lane.arrived();
        assert_eq!(
            lanes.state.lock().width,
            FRAGMENTS_IN_FLIGHT,
            "what waited was not sent slowly"
        );
    }
}
