//! Edits of `volume.toml` while mounted: what can change at once does, the rest is told to wait for the next mount, and an
//! edit that makes no sense changes nothing.

use super::log::LogHandle;
use crate::config::{UplinkConfig, VolumeConfig};
use crate::home::VolumeDir;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Watches the file until the result is dropped. Without a watcher the mount works all the same.
pub fn watch(
    volume: &VolumeDir,
    config: VolumeConfig,
    log: LogHandle,
    uplink: watch::Sender<UplinkConfig>,
) -> Option<RecommendedWatcher> {
    let path = volume.config();
    let current = Mutex::new(config);
    let file = path.clone();
    let on_event = move |event: Result<Event, notify::Error>| {
        let Ok(event) = event else { return };
        let written = matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_));
        if !written || !event.paths.contains(&file) {
            return;
        }
        match VolumeConfig::load(&file) {
            Ok(new) => apply(&mut current.lock(), new, &log, &uplink),
            Err(failure) => tracing::warn!("volume.toml is not taken over: {failure}"),
        }
    };
    // The directory, not the file: editors replace files.
    let watcher = notify::recommended_watcher(on_event)
        .and_then(|mut w| w.watch(volume.path(), RecursiveMode::NonRecursive).map(|()| w));
    match watcher {
        Ok(watcher) => Some(watcher),
        Err(e) => {
            tracing::warn!("edits of {} are seen only at the next mount: {e}", path.display());
            None
        }
    }
}

fn apply(current: &mut VolumeConfig, new: VolumeConfig, log: &LogHandle, uplink: &watch::Sender<UplinkConfig>) {
    if new == *current {
        return;
    }
    if new.log_level != current.log_level {
        log.set(new.log_level);
        tracing::info!("log_level is now {}", new.log_level.as_str());
    }
    if new.uplink() != current.uplink() {
        uplink.send_replace(new.uplink());
    }
    let later = VolumeConfig {
        log_level: current.log_level,
        uplink_max: current.uplink_max,
        uplink_schedule: current.uplink_schedule.clone(),
        metered: current.metered,
        ..new.clone()
    };
    if later != *current {
        tracing::info!("the other edits of volume.toml take effect at the next mount");
    }
    *current = new;
}
