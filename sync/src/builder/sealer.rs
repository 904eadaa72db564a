//! The task that seals packs when they are full or aged.

use super::Builder;
use crate::engine::Errors;
use crate::ledger::stopped;
use crate::limits::{SEAL_RETRY_DELAY, SEALER_TICK};
use crate::store::StoreError;
use crate::tasks::{Gone, Tasks};
use std::sync::Arc;

/// Runs until it is aborted.
pub(crate) async fn run_sealer(builder: Arc<Builder>, errors: Arc<Errors>, tasks: Tasks) {
    loop {
        tokio::select! {
            biased;
            () = builder.wake.notified() => {}
            () = builder.clock.sleep(SEALER_TICK) => {}
        }
        let worker = builder.clone();
        let sealed = tasks.blocking(move || worker.seal_if_due()).await;
        let result: Result<_, StoreError> = sealed.unwrap_or_else(|Gone| Err(stopped()));
        if let Err(error) = result {
            errors.push(format!("a pack could not be sealed and is built anew: {error}"));
            builder.clock.sleep(SEAL_RETRY_DELAY).await;
        }
    }
}
