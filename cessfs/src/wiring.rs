//! The one place that builds what is real: clocks, randomness, sockets, databases, threads. Everything else is given them.

mod trees;

use crate::config::{AtRestMode, Passthrough, StoreBackend, VolumeConfig};
use crate::exit::{Exit, Failure};
use crate::home::{self, VolumeDir};
use crate::moment;
use crate::network;
use crate::seen;
use cessfs_crypto::limits::SLOTS_JSON_BYTES_MAX;
use cessfs_crypto::{AccountKey, Entropy, KeySlots, VolumeId, VolumeSecret};
use cessfs_sync::ballast::Ballast;
use cessfs_sync::chain::{Pin, SubxtChain};
use cessfs_sync::engine::{Config as EngineConfig, Engine, Seams};
use cessfs_sync::erasure::geometry;
use cessfs_sync::fragment_store::{HttpFragments, Reach};
use cessfs_sync::store::{Backend, Journal, RedbBackend, Sealer, SledBackend};
use cessfs_sync::{Chain, Clock, FragmentStore, MetaStore, StoreError};
use cessfs_vfs::{Vfs, VfsConfig, VfsParts};
use futures::future::BoxFuture;
use nix::time::{ClockId, clock_gettime};
use parking_lot::Mutex;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, Runtime};
use trees::TreeDirectory;

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
    // The kernel stamps cached writes by its coarse clock (a few milliseconds a tick). What we stamp must go by the same
    // one: by a finer clock a file written after another would look older than it.
    fn wall(&self) -> Duration {
        clock_gettime(ClockId::CLOCK_REALTIME_COARSE).map_or(Duration::ZERO, Duration::from)
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A clock that starts now.
pub fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock { start: Instant::now() })
}

/// The kernel's random number generator.
#[derive(Clone, Copy, Debug)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        // Going on without randomness would repeat nonces (I7). getrandom(2) does not fail on a kernel that runs FUSE.
        getrandom::fill(out).expect("the kernel gives random bytes");
    }
}

/// The threads that wait for the disk and the network on behalf of somebody.
///
/// # Errors
/// When the system gives no threads.
pub fn runtime() -> Result<Runtime, Failure> {
    threads("cessfs", || ())
}

/// The threads that pack, send and fetch; they step back behind those that answer the kernel.
///
/// # Errors
/// When the system gives no threads.
pub fn background() -> Result<Runtime, Failure> {
    threads("cessfs-sync", cessfs_sync::priority::step_back)
}

fn threads(name: &str, on_start: fn()) -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name(name)
        .on_thread_start(on_start)
        .build()
        .map_err(|e| Failure::new(Exit::Failed, format!("cannot start threads: {e}")))
}

/// The chain behind an address, acting as an account on the network of `pin`. Does not connect yet.
///
/// # Errors
/// When the address is none.
pub fn chain(rpc: &str, account: AccountKey, pin: Pin) -> Result<Arc<dyn Chain>, Failure> {
    let chain = SubxtChain::new(rpc, account, Box::new(OsEntropy), pin)?;
    Ok(Arc::new(chain))
}

/// The miners' data plane, of the network that the node at `rpc` is of.
///
/// # Errors
/// When the HTTP client cannot be made.
pub fn fragments(rpc: &str) -> Result<Arc<dyn FragmentStore>, Failure> {
    let fragments = HttpFragments::new(&mut OsEntropy, Reach::beside(rpc))
        .map_err(|e| Failure::new(Exit::Failed, format!("cannot make the HTTP client: {e}")))?;
    Ok(Arc::new(fragments))
}

/// A key that nobody has, for questions that any account may ask.
pub fn throwaway_key() -> AccountKey {
    let mut seed = [0; 32];
    OsEntropy.fill(&mut seed);
    AccountKey::from_seed(&seed)
}

/// Reads a volume's key slots.
///
/// # Errors
/// When the file is missing or damaged.
pub fn key_slots(volume: &VolumeDir) -> Result<KeySlots, Failure> {
    let path = volume.keys();
    let text = home::read_text(&path, SLOTS_JSON_BYTES_MAX as u64)?.ok_or_else(|| {
        let what = format!("{} is too large to hold key slots", path.display());
        Failure::new(Exit::Failed, what)
    })?;
    KeySlots::from_json(&text).map_err(|e| Failure::from(e).during(&path.display().to_string()))
}

/// What a mount may change about the configuration.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Refuse changes.
    pub read_only: bool,
    /// When reading moves an access time.
    pub atime: cessfs_vfs::AtimeRule,
    /// Those of directories too.
    pub dir_atime: bool,
}

/// A volume whose parts are there and rest: nothing is sent, nothing changes.
pub struct Closed {
    /// Packs.
    pub engine: Arc<Engine>,
    /// The chain.
    pub chain: Arc<dyn Chain>,
    /// What makes a [`Vfs`].
    pub parts: VfsParts,
}

impl Closed {
    /// Opens the journal and builds engine and parts over it. The caller holds the volume's lock. `options`: those of a mount.
    ///
    /// # Errors
    /// [`Exit::Disk`] when the journal or the staging directory cannot be read.
    pub fn open(
        dir: &VolumeDir,
        config: &VolumeConfig,
        options: Option<&OpenOptions>,
        slots: &KeySlots,
        secret: &VolumeSecret,
        runtime: &Handle,
    ) -> Result<Closed, Failure> {
        let clock = clock();
        cessfs_sync::stages::measure_with(clock.clone());
        let keys = secret.volume_keys(slots.volume());
        let ballast = Arc::new(Ballast::at(&dir.ballast()));
        let store = journal_over(dir, config, &keys, ballast.clone())?;
        if options.is_some_and(|options| !options.read_only) {
            ballast.keep();
        }
        let trees_keys = keys.clone();
        let chain = chain(&config.rpc, secret.account_key(), network::pin(dir)?)?;
        let mut engine_config = EngineConfig::new(dir.staging(), &config.territory);
        // Before anybody could be asked about the connection: where a metered one pauses, nothing is sent yet.
        engine_config.uplink = config.uplink().ruling(moment::this_minute(), true).limit;
        engine_config.backlog_bound_bytes = config.backlog_max;
        engine_config.upkeep = config.upkeep(options.is_none_or(|options| options.read_only));
        engine_config.read_only = options.is_some_and(|options| options.read_only);
        engine_config.claims = options.is_some_and(|options| !options.read_only);
        let engine = Engine::open(
            engine_config,
            Seams {
                chain: chain.clone(),
                fragments: fragments(&config.rpc)?,
                store: store.clone(),
                clock: clock.clone(),
                keys: keys.clone(),
                labels: secret.label_key(),
                entropy: Box::new(OsEntropy),
                tasks: runtime.clone().into(),
            },
        )?;
        let engine = Arc::new(engine);
        let parts = VfsParts {
            store,
            clock,
            chunks: engine.clone(),
            keys,
            config: vfs_config(dir, config, options),
            entropy: Arc::new(Mutex::new(OsEntropy)),
            trees: Arc::new(TreeDirectory::new(dir, config, trees_keys)),
        };
        Ok(Closed { engine, chain, parts })
    }
}

fn vfs_config(dir: &VolumeDir, config: &VolumeConfig, options: Option<&OpenOptions>) -> VfsConfig {
    let mut vfs_config = VfsConfig::new(dir.cache());
    vfs_config.at_rest = config.at_rest.into();
    vfs_config.writeback_delay = config.writeback_delay;
    vfs_config.cache_bytes_max = config.cache_size;
    vfs_config.room_wait = config.full_wait;
    vfs_config.trash_keep = config.trash.keep;
    vfs_config.trash_min_age = config.trash.min_age;
    vfs_config.boot = boot_id().unwrap_or_default();
    if let Some(options) = options {
        vfs_config.read_only = options.read_only;
        vfs_config.atime = options.atime;
        vfs_config.dir_atime = options.dir_atime;
        vfs_config.passthrough = passthrough(dir, config, options);
    }
    vfs_config.root_uid = nix::unistd::getuid().as_raw();
    vfs_config.root_gid = nix::unistd::getgid().as_raw();
    vfs_config
}

/// Which start of the machine this is; `None` if the kernel does not tell.
fn boot_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
    Some(id.to_be_bytes())
}

/// Whether files of the volume can be handed to the kernel; the log says why not.
fn passthrough(dir: &VolumeDir, config: &VolumeConfig, options: &OpenOptions) -> bool {
    if config.at_rest != AtRestMode::Plain {
        return false;
    }
    let cache = dir.cache();
    let obstacle = if config.passthrough == Passthrough::Off {
        Some("it is switched off".to_owned())
    } else if options.read_only {
        Some("the mount is read-only".to_owned())
    } else if options.atime == cessfs_vfs::AtimeRule::Always {
        Some("with strictatime every read has to be seen".to_owned())
    } else if !has_capability(CAP_SYS_ADMIN) {
        Some("it needs CAP_SYS_ADMIN".to_owned())
    } else {
        // The cache is made by whoever opens it first.
        match std::fs::DirBuilder::new().mode(0o700).create(&cache) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Some(format!("{}: {e}", cache.display())),
            _ => cessfs_vfs::passthrough_obstacle(&cache),
        }
    };
    if let Some(why) = &obstacle {
        tracing::info!("no passthrough: {why}");
    }
    obstacle.is_none()
}

/// Bit of CAP_SYS_ADMIN in a capability set (capabilities(7)).
const CAP_SYS_ADMIN: u32 = 21;

/// Whether this process has a capability.
fn has_capability(bit: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set & (1 << bit) != 0)
}

/// A volume at work.
pub struct Volume {
    /// Files.
    pub vfs: Arc<Vfs>,
    /// Its random name.
    pub id: VolumeId,
    /// Packs.
    pub engine: Arc<Engine>,
    /// The chain.
    pub chain: Arc<dyn Chain>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl Volume {
    /// Opens the journal, builds engine and filesystem over it, and starts uploading what is pending, unless it is only read. The
    /// caller holds the volume's lock. Does not need the network.
    ///
    /// # Errors
    /// [`Exit::Disk`] when the journal or the cache cannot be read; [`Exit::Refused`] when it is to be written into, and older than
    /// what this machine has seen of it.
    pub fn open(
        dir: &VolumeDir,
        config: &VolumeConfig,
        options: &OpenOptions,
        slots: &KeySlots,
        secret: &VolumeSecret,
        runtime: &Handle,
    ) -> Result<Volume, Failure> {
        assert!(geometry::is_cess(), "real miners take fragments of 8 MiB only");
        let Closed { engine, chain, parts } = Closed::open(dir, config, Some(options), slots, secret, runtime)?;
        // One that was taken over refuses changes anyway, and says more.
        if !options.read_only && engine.fenced().is_none() {
            seen::refuse_behind(dir, slots.volume(), engine.last_pack())?;
        }
        let clock = parts.clock.clone();
        let vfs = Vfs::open(parts)?;
        engine.attach(vfs.delta_source());
        engine.start();
        Ok(Volume {
            id: slots.volume(),
            vfs,
            engine,
            chain,
            clock,
        })
    }

    /// Flushes and stops. What is not on the network yet goes on at the next [`open`](Volume::open).
    ///
    /// # Errors
    /// [`Exit::Disk`]: the last changes may be missing after a power cut.
    pub async fn close(&self) -> Result<(), Failure> {
        // The engine first: writeback may be waiting in it for room that only the network can make.
        let stopped = self.engine.shutdown().await;
        let vfs = self.vfs.clone();
        let closed = tokio::task::spawn_blocking(move || vfs.close()).await;
        closed.map_err(|e| Failure::new(Exit::Failed, format!("closing the volume failed: {e}")))??;
        Ok(stopped?)
    }
}

/// A volume's metadata store. On a full disk it takes of what was set aside for it, and sets nothing aside.
///
/// # Errors
/// [`Exit::Disk`] when it cannot be read.
pub fn journal(
    dir: &VolumeDir,
    config: &VolumeConfig,
    keys: &cessfs_crypto::VolumeKeys,
) -> Result<Arc<dyn MetaStore>, Failure> {
    journal_over(dir, config, keys, Arc::new(Ballast::at(&dir.ballast())))
}

fn journal_over(
    dir: &VolumeDir,
    config: &VolumeConfig,
    keys: &cessfs_crypto::VolumeKeys,
    ballast: Arc<Ballast>,
) -> Result<Arc<dyn MetaStore>, Failure> {
    // Not only the journal is written to.
    ballast.make_room();
    open_journal(&dir.journal(), dir.name().as_str(), config, keys, Some(ballast))
}

/// The metadata store in a directory, which is there: a journal that went away is damage, not a new volume.
///
/// # Errors
/// [`Exit::Disk`] when it cannot be read.
pub fn journal_at(
    path: &Path,
    name: &str,
    config: &VolumeConfig,
    keys: &cessfs_crypto::VolumeKeys,
) -> Result<Arc<dyn MetaStore>, Failure> {
    open_journal(path, name, config, keys, None)
}

fn open_journal(
    path: &Path,
    name: &str,
    config: &VolumeConfig,
    keys: &cessfs_crypto::VolumeKeys,
    ballast: Option<Arc<Ballast>>,
) -> Result<Arc<dyn MetaStore>, Failure> {
    if !path.is_dir() {
        return Err(damaged(StoreError::Corrupt("it is not there".into()), path, name));
    }
    let sealer = Sealer::new(keys.at_rest(), Box::new(OsEntropy));
    let rests = (config.at_rest, sealer);
    let (sled, redb) = (path.join(SledBackend::FILE), path.join(RedbBackend::FILE));
    let place = Place { path, name, ballast };
    match config.store.backend {
        StoreBackend::Sled => over(SledBackend::open, SledBackend::open_over, place, &redb, rests),
        StoreBackend::Redb => over(RedbBackend::open, RedbBackend::open_over, place, &sled, rests),
    }
}

/// Where a journal is, whose, and what it may take on a full disk.
struct Place<'a> {
    path: &'a Path,
    name: &'a str,
    ballast: Option<Arc<Ballast>>,
}

/// Opens the journal with one database; refuses if the other's file is there, since that one has the volume's records, and if it
/// rests otherwise: what only cannot be read would look damaged.
fn over<B: Backend>(
    open: fn(&Path) -> Result<B, StoreError>,
    open_over: fn(&Path, Arc<Ballast>) -> Result<B, StoreError>,
    place: Place<'_>,
    other: &Path,
    (at_rest, sealer): (AtRestMode, Sealer),
) -> Result<Arc<dyn MetaStore>, Failure> {
    let Place { path, name, ballast } = place;
    let another = |shows: &Path, key: &str| {
        let what = format!(
            "{} shows that the volume was made with another `{key}`",
            shows.display()
        );
        Failure::new(Exit::Config, what).hint("put the old value back into volume.toml: it never changes")
    };
    if other.exists() {
        return Err(another(other, "store.backend"));
    }
    let opened = match &ballast {
        Some(ballast) => open_over(path, ballast.clone()),
        None => open(path),
    };
    let backend = opened.map_err(|e| damaged(e, path, name))?;
    let wanted = at_rest == AtRestMode::Sealed;
    let is_sealed = Journal::is_sealed(&backend, &sealer).map_err(|e| damaged(e, path, name))?;
    if is_sealed.is_some_and(|is_sealed| is_sealed != wanted) {
        return Err(another(path, "at_rest"));
    }
    let sealer = wanted.then_some(sealer);
    let journal = Journal::marked(backend, sealer, path, ballast).map_err(|e| damaged(e, path, name))?;
    Ok(Arc::new(journal))
}

/// What is said of a journal that does not open.
fn damaged(error: StoreError, path: &Path, name: &str) -> Failure {
    let failure = Failure::from(error.clone()).during(&path.display().to_string());
    match error {
        StoreError::Corrupt(_) => failure.hint(format!(
            "nothing was changed; `cessfs fsck {name} --rebuild` keeps the damaged journal aside, makes a new one from what can \
             be read of it and from the network, and says what is missing"
        )),
        _ => failure,
    }
}
