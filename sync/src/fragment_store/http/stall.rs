//! A limit on every pause of a transfer instead of one on the whole.

use super::{FragmentBody, MinerError};
use crate::limits::MINER_UPLOAD_PIECE_BYTES;
use bytes::Bytes;
use futures::{Stream, TryStreamExt, stream};
use parking_lot::Mutex;
use std::io;
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

    /// The body in smaller pieces, without a copy. Taking a piece is movement: the connection asks for one when it has
    /// passed the one before on to the kernel.
    pub(super) fn watch(&self, body: FragmentBody) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let progress = self.clone();
        stream::try_unfold((body, Bytes::new()), move |(mut body, mut rest)| {
            let progress = progress.clone();
            async move {
                progress.note();
                if rest.is_empty() {
                    rest = body.try_next().await?.unwrap_or_default();
                }
                let piece = rest.split_to(rest.len().min(MINER_UPLOAD_PIECE_BYTES));
                Ok((!piece.is_empty()).then_some((piece, (body, rest))))
            }
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
