//! A machine: a disk, and on it one process after the other, each of the real vfs over the real engine.

use crate::chain::Link;
use crate::clock::SimClock;
use crate::death::Death;
use crate::dice::Dice;
use crate::disk::{Crash, Disk, ReliedOn};
use crate::miners::SimMiners;
use crate::model::Found;
use crate::trace::Trace;
use cessfs_crypto::{AccountId, Entropy, LabelKey, Phrase, VolumeId, VolumeKeys};
use cessfs_sync::erasure::geometry::segment_bytes;
use cessfs_sync::ledger::PackState;
use cessfs_sync::store::MemStore;
use cessfs_sync::upkeep::{Thresholds, UpkeepConfig};
use cessfs_sync::{Clock, Config, Engine, MetaStore, Seams, StoreError, Tasks};
use cessfs_vfs::{AtRest, Content, FileKind, OpenFlags, TreeStores, Vfs, VfsConfig, VfsError, VfsParts};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Where a machine would put the trees of its snapshots: in memory.
#[derive(Default)]
struct Trees(Mutex<BTreeMap<String, Arc<MemStore>>>);

impl TreeStores for Trees {
    fn open(&self, name: &str) -> Result<Arc<dyn MetaStore>, StoreError> {
        let mut stores = self.0.lock();
        let store = stores.entry(name.into()).or_default();
        Ok(store.clone())
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.0.lock().remove(name);
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.0.lock().keys().cloned().collect())
    }
}

/// What a phrase gives, and the volume on it.
pub struct Secrets {
    pub keys: VolumeKeys,
    pub labels: LabelKey,
    pub account: AccountId,
}

impl Secrets {
    /// Those of a seed.
    pub fn new(seed: u64) -> Secrets {
        let secret = Phrase::generate(&mut Dice::new(seed, "phrase")).secret();
        Secrets {
            keys: secret.volume_keys(VolumeId([7; 16])),
            labels: secret.label_key(),
            account: AccountId([0xCE; 32]),
        }
    }
}

/// How the volume of a world is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Segments of a full pack.
    pub pack_segments: u64,
    /// How long content waits in the open pack.
    pub pack_age: Duration,
    /// How long a chunk is quiet before it is written back.
    pub writeback_delay: Duration,
    /// The cache is sealed.
    pub sealed: bool,
    /// Packs that the backlog may hold.
    pub backlog_packs: u64,
    /// How packs are looked after.
    pub upkeep: UpkeepConfig,
    /// Another machine takes the volume over.
    pub second_machine: bool,
}

impl Settings {
    /// Those of a seed; `taken_over` if another machine has to take over, and not only perhaps.
    pub fn new(dice: &mut Dice, taken_over: bool) -> Settings {
        Settings {
            pack_segments: 1 + dice.below(4),
            pack_age: dice.time(Duration::from_secs(20), Duration::from_secs(1200)),
            writeback_delay: dice.time(Duration::from_millis(200), Duration::from_secs(30)),
            sealed: dice.one_in(2),
            backlog_packs: 2 + dice.below(6),
            upkeep: upkeep(dice),
            second_machine: false,
        }
        .fitting_together(dice, taken_over)
    }

    /// Perhaps another machine takes over. Then dead packs stay long enough for it to make itself known.
    fn fitting_together(mut self, dice: &mut Dice, taken_over: bool) -> Settings {
        // Collected by hand only. In simulated networks a chunk may fill half of a pack, chunks that are moved out of such packs
        // take as many again, and collecting in the background would never come to an end; a real segment has room for 31.
        self.upkeep.gc = false;
        self.second_machine = dice.one_in(4) || taken_over;
        let minute = Duration::from_secs(60);
        self.upkeep.grace = match self.second_machine {
            true => dice.time(GRACE_MIN, GRACE_MIN * 2),
            false => dice.time(Duration::ZERO, minute * 10),
        };
        self
    }
}

/// In worlds: within this whoever took over has made himself known.
pub const GRACE_MIN: Duration = Duration::from_secs(45 * 60);

fn upkeep(dice: &mut Dice) -> UpkeepConfig {
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
    let scrub_interval = dice.time(minute * 2, hour * 2);
    let away = dice.time(minute, hour);
    let read_back = dice.time(minute * 2, hour);
    UpkeepConfig {
        scrub: dice.below(4) > 0,
        scrub_interval,
        scrub_full_interval: scrub_interval * (1 + dice.below(5) as u32),
        scrub_rate: 4 << 20,
        repair: dice.below(4) > 0,
        read_back,
        gc: dice.below(4) > 0,
        gc_interval: dice.time(minute * 2, hour),
        live_percent_max: 10 + dice.below(81) as u8,
        keep_history: Duration::from_secs(dice.below(1200)),
        grace: Duration::ZERO,
        thresholds: Thresholds {
            away,
            ..UpkeepConfig::default().thresholds
        },
    }
}

/// Everything outside of a machine.
#[derive(Clone)]
pub struct Outside {
    pub clock: SimClock,
    pub trace: Trace,
    pub miners: SimMiners,
    pub secrets: Arc<Secrets>,
    pub settings: Settings,
}

/// A machine that is on: one process.
pub struct Life {
    pub vfs: Arc<Vfs>,
    pub engine: Arc<Engine>,
    pub death: Death,
}

/// See the module head.
pub struct Device {
    pub disk: Disk,
    pub link: Link,
    outside: Outside,
    dice: Dice,
}

impl Device {
    /// A machine that is off.
    pub fn new(disk: Disk, link: Link, outside: Outside, dice: Dice) -> Device {
        Device {
            disk,
            link,
            outside,
            dice,
        }
    }

    /// Starts a process; its journal breaks after `fuse` batches. Fails only if that happens while it starts.
    ///
    /// # Errors
    /// The volume cannot be opened, and the process is not to blame.
    pub fn start(&mut self, fuse: Option<u64>) -> Result<Option<Life>, String> {
        let death = Death::default();
        let opened = self.open(fuse, &death);
        match opened {
            Ok(life) => {
                life.engine.start();
                Ok(Some(life))
            }
            Err(_) if death.has_come() => Ok(None),
            Err(error) => Err(format!("the volume does not open: {error}")),
        }
    }

    /// A process that only reads: nothing is sealed, sent or looked after.
    ///
    /// # Errors
    /// The volume cannot be opened.
    pub fn start_idle(&mut self) -> Result<Life, String> {
        self.open(None, &Death::default())
    }

    fn open(&mut self, fuse: Option<u64>, death: &Death) -> Result<Life, String> {
        let outside = self.outside.clone();
        let (miners, trace) = (outside.miners.clone(), outside.trace.clone());
        let relied_on: ReliedOn = Arc::new(move |pack| {
            // One that was doubted before it was encoded is nowhere, so nobody relies on it.
            let Some(fid) = pack.encoded.as_ref().map(|encoded| encoded.fid) else {
                return;
            };
            match pack.state {
                PackState::Draining => return miners.rely_no_more(fid),
                _ => miners.rely_on(fid),
            }
            if pack.state == PackState::Confirmed && pack.intent.is_some() && !miners.proven(fid) {
                trace.violation(format_args!(
                    "I1: pack {} is Confirmed, and not all miners gave it back",
                    pack.seq.0
                ));
            }
        });
        let store = self.disk.lease(fuse, death.clone(), outside.trace.clone(), relied_on);
        let secrets = &outside.secrets;
        let target = outside.settings.pack_segments * segment_bytes() as u64;
        let mut config = Config::new(self.disk.staging(), "main");
        config.pack_target_bytes = target;
        config.pack_bytes_max = target;
        config.pack_age_max = outside.settings.pack_age;
        config.backlog_bound_bytes = outside.settings.backlog_packs * target;
        config.upkeep = outside.settings.upkeep.clone();
        let (clock, pauses) = (outside.clock.clone(), Arc::new(Mutex::new(self.fork("pauses"))));
        let pausing = clock.clone();
        let tasks = Tasks::inline(Handle::current(), move || {
            let pause = pauses
                .lock()
                .time(Duration::from_micros(50), Duration::from_millis(200));
            pausing.sleep(pause)
        });
        let seams = Seams {
            chain: Arc::new(self.link.reborn(death.clone())),
            fragments: Arc::new(outside.miners.seen_by(death.clone())),
            store: store.clone(),
            clock: Arc::new(clock.clone()),
            keys: secrets.keys.clone(),
            labels: secrets.labels.clone(),
            entropy: Box::new(self.fork("engine")),
            tasks,
        };
        let engine = Arc::new(Engine::open(config, seams).map_err(|error| error.to_string())?);
        let mut config = VfsConfig::new(self.disk.cache());
        config.background = false;
        config.writeback_delay = outside.settings.writeback_delay;
        config.at_rest = match outside.settings.sealed {
            true => AtRest::Sealed,
            false => AtRest::Plain,
        };
        let entropy: Arc<Mutex<dyn Entropy>> = Arc::new(Mutex::new(self.fork("vfs")));
        let vfs = Vfs::open(VfsParts {
            store,
            clock: Arc::new(clock),
            chunks: engine.clone(),
            keys: secrets.keys.clone(),
            config,
            entropy,
            trees: Arc::new(Trees::default()),
        });
        let vfs = vfs.map_err(|error| error.to_string())?;
        engine.attach(vfs.delta_source());
        Ok(Life {
            vfs,
            engine,
            death: death.clone(),
        })
    }

    fn fork(&mut self, purpose: &str) -> Dice {
        Dice::new(self.dice.word(), purpose)
    }

    /// Whatever process there was has ended, and with `PowerCut` the machine too; how many journal batches are left.
    pub fn crash(&mut self, crash: Crash) -> usize {
        self.disk.crash(crash, &mut self.dice, &self.outside.trace)
    }
}

/// Lets go of what a dead process held. Its seams do nothing any more, so this changes nothing outside.
pub async fn bury(life: Life) {
    assert!(life.death.has_come(), "only the dead are buried");
    // Its journal is gone: that it cannot be made durable is no news.
    let _ = life.engine.shutdown().await;
}

/// Everything in a tree, contents read through the volume.
///
/// # Errors
/// Something cannot be read.
pub async fn walk(vfs: &Vfs) -> Result<Found, VfsError> {
    let mut found = Found::new();
    let mut dirs = vec![(String::new(), vfs.resolve(b"")?)];
    while let Some((path, ino)) = dirs.pop() {
        let mut entries = Vec::new();
        vfs.readdir(ino, 0, false, &mut |entry| {
            entries.push((String::from_utf8_lossy(entry.name).into_owned(), entry.ino, entry.kind));
            false
        })?;
        for (name, ino, kind) in entries {
            if name == "." || name == ".." || name == ".cessfs" {
                continue;
            }
            let path = format!("{path}/{name}");
            match kind {
                FileKind::Directory => {
                    found.insert(path.clone(), None);
                    dirs.push((path, ino));
                }
                _ => {
                    let content = read(vfs, ino).await?;
                    found.insert(path, Some((ino, content)));
                }
            }
        }
    }
    Ok(found)
}

/// A whole file.
///
/// # Errors
/// As [`Vfs::read`].
pub async fn read(vfs: &Vfs, ino: u64) -> Result<Vec<u8>, VfsError> {
    let size = vfs.getattr(ino)?.size;
    let flags = OpenFlags {
        read: true,
        ..OpenFlags::default()
    };
    let handle = vfs.open_file(ino, flags)?;
    let answer = match vfs.read(ino, handle, 0, size as u32) {
        Ok(bytes) => bytes.settled().await,
        Err(error) => Err(error),
    };
    vfs.release(ino, handle)?;
    answer.map(Content::keep)
}

/// How long somebody waits for the living to finish.
pub const PATIENCE: Duration = Duration::from_secs(12 * 3600);

/// Waits for `work` no longer than [`PATIENCE`].
///
/// # Errors
/// It is not done by then.
pub async fn patiently<T>(clock: &SimClock, what: &str, work: impl Future<Output = T>) -> Result<T, String> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = clock.sleep(PATIENCE) => Err(format!("not within {PATIENCE:?}: {what}")),
    }
}
