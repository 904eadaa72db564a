//! How long an upload may take.

use super::*;
use crate::clock::ByHand;
use crate::fragment_store::MinerStatus;
use crate::limits::ROW_BYTES;
use crate::sim::{SimEntropy, SimMiners, World};
use futures::FutureExt;
use futures::future::{BoxFuture, pending, ready};

/// A line on which each piece takes its time, and that breaks off after so many.
struct Slow {
    clock: Arc<ByHand>,
    per_piece: Duration,
    pieces: usize,
}

impl FragmentStore for Slow {
    fn put(
        &self,
        _: &str,
        _: Fid,
        _: Sha256Hash,
        mut body: FragmentBody,
    ) -> BoxFuture<'static, Result<(), MinerError>> {
        let (clock, per_piece, pieces) = (self.clock.clone(), self.per_piece, self.pieces);
        async move {
            for _ in 0..pieces {
                if body.next().await.is_none() {
                    return Ok(());
                }
                clock.pass(per_piece);
                tokio::task::yield_now().await;
            }
            pending().await
        }
        .boxed()
    }

    fn get(&self, _: &str, _: Fid, _: Sha256Hash, _: Range<u32>) -> BoxFuture<'static, Result<Bytes, MinerError>> {
        pending().boxed()
    }

    fn probe(&self, _: &str) -> BoxFuture<'static, Result<MinerStatus, MinerError>> {
        ready(Ok(MinerStatus { state: String::new() })).boxed()
    }
}

/// A clock whose waits end when somebody else lets the time pass.
struct Patient(Arc<ByHand>);

impl Clock for Patient {
    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
    fn wall(&self) -> Duration {
        self.0.wall()
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (clock, until) = (self.0.clone(), self.0.monotonic() + duration);
        async move {
            while clock.monotonic() < until {
                clock.pass(Duration::from_secs(1));
                tokio::task::yield_now().await;
            }
        }
        .boxed()
    }
}

/// Sends a fragment over such a line; what came of it, and how long it took.
async fn send(per_piece: Duration, pieces: usize) -> (Result<(), MinerError>, Duration) {
    let world = World::new(1, 5);
    let clock = Arc::new(ByHand::default());
    let slow = Slow {
        clock: clock.clone(),
        per_piece,
        pieces,
    };
    let dice = Dice::new(Box::new(SimEntropy::new(1)));
    let patient = Arc::new(Patient(clock.clone()));
    let miners = Miners::new(world.chain.clone(), Arc::new(slow), patient, dice, None);
    let rows = (0..fragment_bytes() / ROW_BYTES.min(fragment_bytes())).map(|_| Ok(Bytes::from_static(b"row")));
    let body = futures::stream::iter(rows.collect::<Vec<_>>()).boxed();
    let sent = miners
        .put(SimMiners::account(0), Fid([0; 32]), Sha256Hash([0; 32]), body)
        .await;
    (sent, clock.monotonic())
}

#[tokio::test]
async fn an_upload_may_take_as_long_as_it_moves() {
    let (sent, took) = send(Duration::from_secs(60), usize::MAX).await;
    assert!(sent.is_ok(), "{sent:?}");
    assert!(took > PUT_BEGIN_TIMEOUT.max(PUT_STALL_TIMEOUT), "{took:?}");
}

#[tokio::test]
async fn an_upload_that_stands_still_is_given_up() {
    for (pieces, limit) in [(0, PUT_BEGIN_TIMEOUT), (1, PUT_STALL_TIMEOUT)] {
        let (sent, took) = send(Duration::from_secs(1), pieces).await;
        assert!(matches!(sent, Err(MinerError::Unreachable(_))), "{sent:?}");
        assert!(took >= limit && took < limit * 2, "{took:?}");
    }
}

/// Each of them would ask anew, one after the other.
#[tokio::test]
async fn whoever_waits_for_a_list_that_does_not_come_waits_once() {
    let world = World::new(0, 6);
    let dice = Dice::new(Box::new(SimEntropy::new(1)));
    let miners = Miners::new(
        world.chain.clone(),
        world.miners.clone(),
        world.clock.clone(),
        dice,
        None,
    );
    world.chain.withhold_miners(Duration::from_secs(10));
    let asked = (0..40).map(|_| miners.look());
    let answers = futures::future::join_all(asked).await;
    assert!(answers.iter().all(|answer| matches!(answer, Err(ChainError::Away(_)))));
    assert_eq!(world.chain.lists_asked(), 1);
    assert!(miners.look().await.is_err());
    assert_eq!(world.chain.lists_asked(), 2, "who comes later asks anew");
}
