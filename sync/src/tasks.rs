//! The door to threads: where tasks run, and work that blocks on disk or processor.
//!
//! A real process has a runtime with threads for blocking work. A simulation has one thread and nothing beside it, so that
//! one seed is one schedule: there blocking work runs in the task that asks for it, before and after a pause that the
//! simulation chooses, so that others run in between as they would beside a thread.

use futures::future::BoxFuture;
use std::future::Future;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// How long blocking work takes in a simulation.
type Pause = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// See the module head. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    handle: Handle,
    inline: Option<Pause>,
}

/// The runtime is shutting down; the work will not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the runtime is shutting down")]
pub struct Gone;

impl From<Handle> for Tasks {
    /// Blocking work goes to the runtime's threads for that. It needs at least one worker beside them.
    fn from(handle: Handle) -> Tasks {
        Tasks { handle, inline: None }
    }
}

impl Tasks {
    /// For simulations: blocking work runs where it is asked for, between two pauses.
    pub fn inline(handle: Handle, pause: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Tasks {
        Tasks {
            handle,
            inline: Some(Arc::new(pause)),
        }
    }

    /// Whether whoever waits for another thread would wait for ever.
    pub(crate) fn is_inline(&self) -> bool {
        self.inline.is_some()
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        #[expect(clippy::disallowed_methods, reason = "this is the door")]
        self.handle.spawn(task)
    }

    /// Runs work that blocks. A panic in it is the caller's.
    ///
    /// # Errors
    /// The runtime shuts down.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Gone> {
        if let Some(pause) = &self.inline {
            pause().await;
            let done = work();
            pause().await;
            return Ok(done);
        }
        #[expect(clippy::disallowed_methods, reason = "this is the door")]
        let thread = self.handle.spawn_blocking(work);
        match thread.await {
            Ok(done) => Ok(done),
            Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
            Err(_) => Err(Gone),
        }
    }
}
