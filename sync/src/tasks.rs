//! The door to threads: where tasks run, and work that blocks on disk or processor.
//!
//! A real process has a runtime with threads for blocking work. A simulation has one thread and nothing beside it, so that
//! one seed is one schedule: there blocking work runs in the task that asks for it, before and after a pause that the
//! simulation chooses, so that others run in between as they would beside a thread.

use crate::clock::Clock;
use crate::engine::Errors;
use crate::limits::RETRY_DELAY_MAX;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::future::Future;
use std::panic::AssertUnwindSafe;
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

    /// Spawns a task that has to live as long as the engine. A panic in it is told, and it begins anew: without it a volume looks well
    /// and is never sealed, looked at or repaired again.
    pub(crate) fn spawn_lasting<F: Future<Output = ()> + Send + 'static>(
        &self,
        what: &'static str,
        errors: Arc<Errors>,
        clock: Arc<dyn Clock>,
        mut make: impl FnMut() -> F + Send + 'static,
    ) -> JoinHandle<()> {
        self.spawn(async move {
            while AssertUnwindSafe(make()).catch_unwind().await.is_err() {
                errors.push(format!(
                    "a mistake in cessfs ended what {what}; it begins again, please report it"
                ));
                clock.sleep(RETRY_DELAY_MAX).await;
            }
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ByHand;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_panics_is_told_and_begins_again() {
        let tasks = Tasks::from(Handle::current());
        let clock: Arc<dyn Clock> = Arc::new(ByHand::default());
        let errors = Arc::new(Errors::new(clock.clone()));
        let runs = Arc::new(AtomicU32::new(0));
        let run = {
            let runs = runs.clone();
            move || {
                let runs = runs.clone();
                async move {
                    let earlier = runs.fetch_add(1, Ordering::SeqCst);
                    assert!(earlier > 0, "this panic is part of the test");
                }
            }
        };
        let task = tasks.spawn_lasting("is tested", errors.clone(), clock.clone(), run);
        task.await.expect("it ends when it is done");
        assert_eq!(runs.load(Ordering::SeqCst), 2);
        assert_eq!(clock.monotonic(), RETRY_DELAY_MAX);
        let told = errors.list();
        assert!(told.len() == 1 && told[0].text.contains("what is tested"), "{told:?}");
    }
}
