//! Work beside the one who asked for it: on threads that may wait for the disk, and past the asker's end.

use crate::exit::{Exit, Failure};
use futures::FutureExt;
use futures::future::BoxFuture;

/// Runs what waits for the disk beside the tasks that wait for the network.
pub(super) fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> BoxFuture<'static, Result<T, Failure>> {
    let task = tokio::task::spawn_blocking(work);
    async move { task.await.unwrap_or_else(|e| Err(failed_inside(&e))) }.boxed()
}

/// Runs what goes on to its end though nobody waits for it any more.
pub(super) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    tokio::spawn(work).await.unwrap_or_else(|e| Err(failed_inside(&e)))
}

fn failed_inside(error: &tokio::task::JoinError) -> Failure {
    Failure::new(Exit::Failed, format!("the daemon failed inside: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::sync::Notify;

    #[test]
    fn what_is_detached_goes_on_when_nobody_waits() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (begun, told) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (begins, tells) = (begun.clone(), told.clone());
        let work = detached(async move {
            begins.notify_one();
            tokio::time::sleep(Duration::from_millis(50)).await;
            tells.notify_one();
            Ok(())
        });
        runtime.block_on(async {
            tokio::select! { _ = work => unreachable!("it sleeps"), () = begun.notified() => {} }
            let told = tokio::time::timeout(Duration::from_secs(20), told.notified());
            told.await.expect("it went on");
        });
    }
}
