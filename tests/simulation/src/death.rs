//! The end of a process: from then on nothing it does has any effect, and nothing it waits for comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// Whether one life of a machine is over. Cheap to clone.
#[derive(Clone, Default)]
pub struct Death(Arc<Inner>);

#[derive(Default)]
struct Inner {
    dead: AtomicBool,
    died: Notify,
}

impl Death {
    /// It is over.
    pub fn strike(&self) {
        self.0.dead.store(true, Ordering::SeqCst);
        self.0.died.notify_waiters();
    }

    /// Whether it is over.
    pub fn has_come(&self) -> bool {
        self.0.dead.load(Ordering::SeqCst)
    }

    /// Resolves when it is over.
    pub async fn wait(&self) {
        let mut died = std::pin::pin!(self.0.died.notified());
        died.as_mut().enable();
        if !self.has_come() {
            died.await;
        }
    }

    /// Passes the living; the dead wait for ever.
    pub async fn guard(&self) {
        if self.has_come() {
            std::future::pending::<()>().await;
        }
    }
}
