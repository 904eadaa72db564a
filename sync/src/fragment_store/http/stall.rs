//! A limit on every pause of a transfer instead of one on the whole.

use super::{FragmentBody, MinerError};
use crate::limits::{MINER_DRAIN_PAUSES, MINER_SEND_BUFFER_BYTES, MINER_UPLOAD_PIECE_BYTES};
use bytes::Bytes;
use futures::{Stream, TryStreamExt, stream};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How far a transfer has come, and when it last moved.
#[derive(Clone)]
pub(super) struct Progress {
    state: Arc<Mutex<State>>,
    pause_max: Duration,
}

#[derive(Clone, Copy)]
struct State {
    last: Instant,
    /// When the first piece of an upload was taken, and the bytes taken since.
    upload: Option<(Instant, u64)>,
}

impl State {
    /// How long what the system has taken of an upload may need to leave: as long as it needed for as many bytes before. It takes the
    /// first ones at once, and after that makes room in large steps, so as long as no more were taken nothing is known of the line.
    fn drain(&self, at_most: Duration) -> Duration {
        let Some((began, taken)) = self.upload else {
            return Duration::ZERO;
        };
        let left = taken.saturating_sub(MINER_SEND_BUFFER_BYTES) as f64;
        let buffered = taken.min(MINER_SEND_BUFFER_BYTES) as f64;
        let drain = self.last.saturating_duration_since(began).as_secs_f64() * buffered / left;
        // Not a number if nothing has left yet.
        match drain < at_most.as_secs_f64() {
            true => Duration::from_secs_f64(drain),
            false => at_most,
        }
    }
}

impl Progress {
    /// A transfer that starts now and may pause for `pause_max` at a time, and an upload for as long as the system still sends.
    pub(super) fn new(pause_max: Duration) -> Progress {
        let state = State {
            last: Instant::now(),
            upload: None,
        };
        Progress {
            state: Arc::new(Mutex::new(state)),
            pause_max,
        }
    }

    /// The transfer moved.
    pub(super) fn note(&self) {
        self.state.lock().last = Instant::now();
    }

    /// So many more bytes of an upload were taken.
    fn taken(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.last = Instant::now();
        let (began, before) = state.upload.unwrap_or((state.last, 0));
        state.upload = Some((began, before + bytes as u64));
    }

    /// When it has not moved for too long, unless it moves meanwhile.
    fn deadline(&self) -> Instant {
        let state = *self.state.lock();
        state.last + self.pause_max + state.drain(self.pause_max * MINER_DRAIN_PAUSES)
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
                progress.taken(piece.len());
                Ok((!piece.is_empty()).then_some((piece, (body, rest))))
            }
        })
    }

    /// Runs a step of the transfer until it ends or nothing has moved for too long.
    pub(super) async fn limit<T>(&self, step: impl Future<Output = T>) -> Result<T, MinerError> {
        tokio::pin!(step);
        loop {
            let deadline = self.deadline();
            tokio::select! {
                // A step that was only kept from running, by a busy machine, moves first.
                biased;
                result = &mut step => return Ok(result),
                () = tokio::time::sleep_until(deadline) => {
                    if self.deadline() <= Instant::now() {
                        let paused = self.state.lock().last.elapsed();
                        return Err(MinerError::Unreachable(format!("nothing moved for {} s", paused.as_secs())));
                    }
                }
            }
        }
    }
}
