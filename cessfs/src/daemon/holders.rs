//! Who still has a mount that was taken away here.

use crate::limits::HOLDERS_AFTER;
use crate::mountpoint;

/// Logs it, if the mount does not end soon: the daemon goes on until then.
pub fn watch(device: Option<String>) {
    let Some(device) = device else { return };
    tokio::spawn(async move {
        tokio::time::sleep(HOLDERS_AFTER).await;
        let held = tokio::task::spawn_blocking(move || mountpoint::still_held(&device)).await;
        if let Ok(Some(held)) = held {
            tracing::warn!("unmounted, but {held}");
        }
    });
}
