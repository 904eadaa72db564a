//! Keeps sending as fast as `volume.toml`, the time of day and the connection want it.

use crate::config::{Metered, Ruling, UplinkConfig};
use crate::limits::UPLINK_LOOK_EVERY;
use crate::metered::Metering;
use crate::moment;
use cessfs_sync::{Engine, UplinkLimit};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;

/// Why nothing is sent at the moment; shared with whoever tells of it.
pub type WhyPaused = Arc<Mutex<Option<String>>>;

/// Follows the configuration, and the clock and the connection where those matter. Ends when the configuration's sender is gone.
pub async fn follow(engine: Arc<Engine>, mut config: watch::Receiver<UplinkConfig>, why_paused: WhyPaused) {
    let mut metering = Metering::default();
    let mut last = None;
    loop {
        let wanted = config.borrow_and_update().clone();
        let metered = wanted.metered == Metered::Pause && metering.is_metered().await;
        let ruling = wanted.ruling(moment::this_minute(), metered);
        if last.as_ref() != Some(&ruling) {
            tell(&ruling);
            engine.limit_uplink(ruling.limit);
            why_paused.lock().clone_from(&ruling.why_paused);
            last = Some(ruling);
        }
        let next_look = async {
            match wanted.changes_by_itself() {
                true => tokio::time::sleep(UPLINK_LOOK_EVERY).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = config.changed() => if changed.is_err() { return },
            () = next_look => {}
        }
    }
}

fn tell(ruling: &Ruling) {
    match (&ruling.why_paused, ruling.limit) {
        (Some(why), _) => tracing::info!("sending pauses: {why}"),
        (None, UplinkLimit::BytesPerSecond(bytes)) => tracing::info!("at most {bytes} bytes per second are sent"),
        (None, _) => tracing::info!("sending has no limit"),
    }
}
