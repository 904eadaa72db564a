//! A limit on every pause of a transfer instead of one on the whole.

use super::MinerError;
use crate::limits::MINER_UPLOAD_PIECE_BYTES;
use bytes::Bytes;
use futures::{Stream, stream};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// When a transfer last moved.
#[derive(Clone)]
pub(super) struct Progress {
    last: Arc<Mutex<Instant>>,
    pause_max: Duration,
}

impl Progress {
    /// A transfer that starts now and may pause for `pause_max` at a time.
    pub(super) fn new(pause_max: Duration) -> Progress {
        Progress {
            last: Arc::new(Mutex::new(Instant::now())),
            pause_max,
        }
    }

    /// The transfer moved.
    pub(super) fn note(&self) {
        *self.last.lock() = Instant::now();
    }

    /// The bytes in pieces, without a copy. Taking a piece is movement: the connection asks for one when it has passed
    /// the one before on to the kernel.
    pub(super) fn watch(&self, bytes: Bytes) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
        let progress = self.clone();
        stream::unfold(bytes, move |mut rest| {
            progress.note();
            let piece = rest.split_to(rest.len().min(MINER_UPLOAD_PIECE_BYTES));
            std::future::ready((!piece.is_empty()).then_some((Ok(piece), rest)))
        })
    }

    /// Runs a step of the transfer until it ends or nothing has moved for too long.
    pub(super) async fn limit<T>(&self, step: impl Future<Output = T>) -> Result<T, MinerError> {
        tokio::pin!(step);
        loop {
            let deadline = *self.last.lock() + self.pause_max;
            tokio::select! {
                result = &mut step => return Ok(result),
                () = tokio::time::sleep_until(deadline) => {
                    if *self.last.lock() + self.pause_max <= Instant::now() {
                        return Err(MinerError::Unreachable(format!("nothing moved for {:?}", self.pause_max)));
                    }
                }
            }
        }
    }
}
