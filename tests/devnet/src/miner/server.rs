//! One miner: its disk, its faults, and whether it is on the network.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::warn;

use crate::seam::MinerSpec;

use super::MinerStatus;
use super::auth::Gate;
use super::deals::Deals;
use super::fault::Fault;
use super::http;
use super::name::Fid;
use super::reporter::Reporter;
use super::store::FragmentStore;
use super::wire::CuttableListener;

/// One miner of the fleet.
pub struct Miner {
    pub(super) spec: MinerSpec,
    pub(super) store: FragmentStore,
    pub(super) deals: Arc<Deals>,
    pub(super) gate: Gate,
    /// Files that the chain has as stored with this miner, and the reporter's round that last saw it.
    pub(super) settled: Mutex<HashMap<Fid, u64>>,
    stopped: AtomicBool,
    slow_ms: AtomicU64,
    report_every: Duration,
    first_report: Duration,
    /// Held across the awaits of starting and stopping, so that they come one after the other.
    online: tokio::sync::Mutex<Option<Online>>,
}

/// A miner's presence on the network. Dropping it cuts all connections.
struct Online {
    cut: watch::Sender<bool>,
    server: JoinHandle<()>,
    reporter: JoinHandle<()>,
}

impl Drop for Online {
    fn drop(&mut self) {
        self.cut.send_replace(true);
        self.server.abort();
        self.reporter.abort();
    }
}

impl Miner {
    /// Opens the miner's directory and recalls its faults; its port stays closed.
    ///
    /// # Errors
    /// The directory cannot be used, or its record of faults cannot be read.
    pub fn open(
        spec: MinerSpec,
        deals: Arc<Deals>,
        report_every: Duration,
        first_report: Duration,
    ) -> anyhow::Result<Arc<Miner>> {
        let here = || format!("miner {} in {}", spec.index, spec.dir.display());
        let store = FragmentStore::open(&spec.dir).with_context(here)?;
        let fault = Fault::load(&spec.dir).with_context(here)?;
        Ok(Arc::new(Miner {
            store,
            deals,
            gate: Gate::default(),
            settled: Mutex::default(),
            stopped: AtomicBool::new(fault.stopped),
            slow_ms: AtomicU64::new(fault.slow_ms),
            report_every,
            first_report,
            online: tokio::sync::Mutex::new(None),
            spec,
        }))
    }

    /// True between [`Miner::stop`] and [`Miner::resume`].
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Delay before each answer.
    pub fn delay(&self) -> Duration {
        Duration::from_millis(self.slow_ms.load(Ordering::Relaxed))
    }

    /// Binds the port and starts to serve and to report. Does nothing where it does so already.
    ///
    /// # Errors
    /// The port is taken.
    pub async fn serve(self: &Arc<Self>) -> anyhow::Result<()> {
        let mut online = self.online.lock().await;
        if online.is_some() {
            return Ok(());
        }
        let address = ("127.0.0.1", self.spec.endpoint_port);
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!(
                "miner {}: port {} on 127.0.0.1",
                self.spec.index, self.spec.endpoint_port
            )
        })?;
        let (cut, cut_receiver) = watch::channel(false);
        let listener = CuttableListener::new(listener, cut_receiver);
        // Both tasks hold the miner, and the miner holds them: `stop` and `leave` break the circle.
        let router = http::router(self.clone());
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                warn!(%error, "miner's server ended");
            }
        });
        let reporter = tokio::spawn(report(self.clone()));
        *online = Some(Online { cut, server, reporter });
        Ok(())
    }

    /// Goes off the network, records it, and returns when the port refuses connections.
    pub async fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.record();
        let Some(mut online) = self.online.lock().await.take() else {
            return;
        };
        online.cut.send_replace(true);
        online.server.abort();
        // The listener is closed when the task is gone; that it was aborted is no news.
        let _ = (&mut online.server).await;
    }

    /// Goes off the network at the end of the fleet, without a record: the next run starts this miner again.
    pub fn leave(&self) {
        // Whoever starts or stops a miner holds the fleet, so at its end nobody holds the lock.
        if let Ok(mut online) = self.online.try_lock() {
            online.take();
        }
    }

    /// Comes back after [`Miner::stop`].
    ///
    /// # Errors
    /// The port is taken; the miner then stays stopped.
    pub async fn resume(self: &Arc<Self>) -> anyhow::Result<()> {
        self.serve().await?;
        self.stopped.store(false, Ordering::SeqCst);
        self.record();
        Ok(())
    }

    /// Delays each answer from now on by `ms` milliseconds.
    pub fn slow(&self, ms: u64) {
        self.slow_ms.store(ms, Ordering::Relaxed);
        self.record();
    }

    /// Corrupts what is held; see [`FragmentStore::corrupt`].
    pub fn corrupt(&self) -> usize {
        self.store.corrupt().unwrap_or_else(|error| {
            warn!(miner = self.spec.index, %error, "not everything could be corrupted");
            0
        })
    }

    /// Deletes what is held.
    pub fn forget(&self) -> usize {
        let mut forgotten = 0;
        for fid in self.store.fids() {
            match self.store.drop_file(&fid) {
                Ok(fragments) => forgotten += fragments,
                Err(error) => warn!(miner = self.spec.index, %fid, %error, "not everything could be forgotten"),
            }
        }
        forgotten
    }

    /// The miner as it is now.
    pub fn status(&self) -> MinerStatus {
        MinerStatus {
            state: if self.is_stopped() { "stopped" } else { "running" },
            fragments: self.store.count(),
            slow_ms: self.slow_ms.load(Ordering::Relaxed),
        }
    }

    fn record(&self) {
        let fault = Fault {
            stopped: self.is_stopped(),
            slow_ms: self.slow_ms.load(Ordering::Relaxed),
        };
        if let Err(error) = fault.save(&self.spec.dir) {
            warn!(miner = self.spec.index, %error, "the fault will not survive a restart");
        }
    }
}

/// Reports in rounds, for as long as the task lives. The rounds block, so they run where blocking is allowed.
async fn report(miner: Arc<Miner>) {
    let mut rounds = tokio::time::interval_at(Instant::now() + miner.first_report, miner.report_every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reporter = Reporter::default();
    loop {
        rounds.tick().await;
        let miner = miner.clone();
        let round = tokio::task::spawn_blocking(move || {
            reporter.round(&miner);
            reporter
        });
        match round.await {
            Ok(after) => reporter = after,
            // Only a panic in the chain's half ends here, or the end of the runtime.
            Err(_) => reporter = Reporter::default(),
        }
    }
}
