//! `volume.toml`: what a volume is and how it is mounted. An unknown key is an error, never a silent default.
//!
//! Every key is described in docs/CONFIGURATION.md; [`KEYS`] is the list both are checked against.

mod upkeep;
mod uplink;

use crate::exit::{Exit, Failure};
use crate::home;
use crate::limits;
use crate::units;
use cessfs_sync::chain::subxt::{is_address, is_in_the_clear};
use cessfs_sync::limits::{BACKLOG_BOUND_BYTES, BACKLOG_BOUND_BYTES_MIN};
use cessfs_vfs::AtRest;
use cessfs_vfs::limits::ROOM_WAIT_DEFAULT;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::Path;
use std::time::Duration;
pub use uplink::{Metered, Ruling, UplinkConfig, Window};

/// How the local cache rests on disk, as written in `volume.toml` and on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AtRestMode {
    /// Encrypted.
    #[default]
    Sealed,
    /// Readable to the machine's owner: for disks that are encrypted already.
    Plain,
}

impl From<AtRestMode> for AtRest {
    fn from(mode: AtRestMode) -> AtRest {
        match mode {
            AtRestMode::Sealed => AtRest::Sealed,
            AtRestMode::Plain => AtRest::Plain,
        }
    }
}

/// The database under the journal, as written in `volume.toml` and on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StoreBackend {
    /// sled.
    Sled,
    /// redb.
    #[default]
    Redb,
}

/// `[store]`: the metadata store. Fixed by `init`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// The database under it.
    #[serde(default = "first_backend")]
    pub backend: StoreBackend,
}

/// The database of a volume that does not say which: made when there was only one.
fn first_backend() -> StoreBackend {
    StoreBackend::Sled
}

fn first_store() -> StoreConfig {
    StoreConfig {
        backend: first_backend(),
    }
}

/// `[trash]`: deleted files that can be had back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrashConfig {
    /// For how long; 0: not at all.
    #[serde(serialize_with = "write_duration", deserialize_with = "read_duration")]
    pub keep: Duration,
    /// Younger files are deleted for good.
    #[serde(serialize_with = "write_duration", deserialize_with = "read_duration")]
    pub min_age: Duration,
}

impl Default for TrashConfig {
    fn default() -> TrashConfig {
        TrashConfig {
            keep: limits::TRASH_KEEP_DEFAULT,
            min_age: limits::TRASH_MIN_AGE_DEFAULT,
        }
    }
}

pub use upkeep::{GcConfig, RepairConfig, ScrubConfig};

/// What the kernel may keep of written data before cessfs sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum KernelCache {
    /// Small writes are gathered in the page cache.
    #[default]
    Writeback,
    /// Every write comes through at once.
    None,
}

/// Whether the kernel reads and writes resident files of a plain volume itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Passthrough {
    /// Where kernel, rights and the cache's filesystem allow it.
    #[default]
    Auto,
    /// No.
    Off,
}

/// What the daemon writes to its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what failed.
    Error,
    /// And what may become a problem.
    Warn,
    /// And what happens.
    #[default]
    Info,
    /// And every failed operation.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The name, as in `volume.toml`.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// A volume as `init` made it and as its owner edited it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeConfig {
    /// Format of this file; 1.
    pub version: u32,
    /// Address of a CESS node: `ws://` or `wss://`.
    pub rpc: String,
    /// The territory that packs are charged to.
    pub territory: String,
    /// The account that owns them (SS58); derived from the phrase, here so that it can be told without it.
    pub account: String,
    /// How the cache rests on disk. Fixed by `init`.
    pub at_rest: AtRestMode,
    /// When `init` made the volume: seconds since the Unix epoch.
    pub created: u64,
    /// Most bytes of the cache on disk.
    #[serde(
        default = "default_cache_size",
        serialize_with = "write_bytes",
        deserialize_with = "read_bytes"
    )]
    pub cache_size: u64,
    /// Quiet time after which a changed chunk is sent off.
    #[serde(
        default = "default_writeback_delay",
        serialize_with = "write_duration",
        deserialize_with = "read_duration"
    )]
    pub writeback_delay: Duration,
    /// Bytes per second that may be sent to miners, on average; 0: any number. Read again while mounted.
    #[serde(default, serialize_with = "write_bytes", deserialize_with = "read_bytes")]
    pub uplink_max: u64,
    /// Times at which another limit holds. Read again while mounted.
    #[serde(default)]
    pub uplink_schedule: Vec<Window>,
    /// What a metered connection means. Read again while mounted.
    #[serde(default)]
    pub metered: Metered,
    /// Bytes of packs that may wait on this disk for the network; then changes stay in the cache, until that is full, too.
    #[serde(
        default = "default_backlog_max",
        serialize_with = "write_bytes",
        deserialize_with = "read_bytes"
    )]
    pub backlog_max: u64,
    /// How long a writer waits when the cache is full of what is not sent, before it is told that there is no space.
    #[serde(
        default = "default_full_wait",
        serialize_with = "write_duration",
        deserialize_with = "read_duration"
    )]
    pub full_wait: Duration,
    /// What the kernel may keep.
    #[serde(default)]
    pub kernel_cache: KernelCache,
    /// Whether the kernel does without the daemon where it can.
    #[serde(default)]
    pub passthrough: Passthrough,
    /// What is logged. Read again while mounted.
    #[serde(default)]
    pub log_level: LogLevel,
    /// The metadata store. Fixed by `init`.
    #[serde(default = "first_store")]
    pub store: StoreConfig,
    /// What happens to deleted files.
    #[serde(default)]
    pub trash: TrashConfig,
    /// Looking at what miners hold.
    #[serde(default)]
    pub scrub: ScrubConfig,
    /// Rewriting what is damaged.
    #[serde(default)]
    pub repair: RepairConfig,
    /// Giving back what is dead.
    #[serde(default)]
    pub gc: GcConfig,
}

/// Every key of `volume.toml`.
pub const KEYS: [&str; 21] = [
    "version",
    "rpc",
    "territory",
    "account",
    "at_rest",
    "created",
    "cache_size",
    "writeback_delay",
    "uplink_max",
    "uplink_schedule",
    "metered",
    "backlog_max",
    "full_wait",
    "kernel_cache",
    "passthrough",
    "log_level",
    "store",
    "trash",
    "scrub",
    "repair",
    "gc",
];

/// The format this program writes and reads.
pub const CONFIG_VERSION: u32 = 1;

impl VolumeConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`Exit::Config`], naming the key and, for an unknown one, the nearest that exists.
    pub fn load(path: &Path) -> Result<VolumeConfig, Failure> {
        let text = home::read_text(path, limits::CONFIG_BYTES_MAX)?.ok_or_else(|| {
            let what = format!("{} is too large to be a configuration", path.display());
            Failure::new(Exit::Config, what)
        })?;
        VolumeConfig::parse(&text).map_err(|e| e.during(&path.display().to_string()))
    }

    /// Reads and checks a text.
    ///
    /// # Errors
    /// [`Exit::Config`].
    pub fn parse(text: &str) -> Result<VolumeConfig, Failure> {
        let wrong = |e: toml::de::Error| Failure::new(Exit::Config, on_one_line(&e, text));
        let table: toml::Table = text.parse().map_err(wrong)?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let failure = Failure::new(Exit::Config, format!("unknown key `{key}`"));
            return Err(match nearest(key, KEYS) {
                Some(known) => failure.hint(format!("did you mean `{known}`?")),
                None => failure.hint(format!("the keys are: {}", KEYS.join(", "))),
            });
        }
        let config: VolumeConfig = toml::from_str(text).map_err(wrong)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Failure> {
        if self.version != CONFIG_VERSION {
            let what = format!("`version` is {}, this cessfs knows {CONFIG_VERSION}", self.version);
            return Err(Failure::new(Exit::Config, what).hint("use the cessfs that made the volume, or a newer one"));
        }
        check_rpc(&self.rpc)?;
        if self.cache_size < limits::CACHE_BYTES_MIN {
            let least = units::bytes(limits::CACHE_BYTES_MIN);
            return Err(Failure::new(
                Exit::Config,
                format!("`cache_size` is below the least of {least}"),
            ));
        }
        if self.backlog_max < BACKLOG_BOUND_BYTES_MIN {
            let least = units::bytes(BACKLOG_BOUND_BYTES_MIN);
            return Err(Failure::new(
                Exit::Config,
                format!("`backlog_max` is below the least of {least}, two full packs"),
            ));
        }
        upkeep::check(self)
    }

    /// What decides how fast may be sent.
    pub fn uplink(&self) -> UplinkConfig {
        UplinkConfig {
            max: self.uplink_max,
            schedule: self.uplink_schedule.clone(),
            metered: self.metered,
        }
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        let body = toml::to_string(self).expect("strings and numbers, tables last, have a TOML form");
        format!(
            "# A cessfs volume. Keys: /usr/share/doc/cessfs/CONFIGURATION.md; check edits with `cessfs config check`.\n{body}"
        )
    }
}

/// Where and what, without the picture that the parser draws.
fn on_one_line(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().split('\n').collect::<Vec<_>>().join(", ");
    let before = error.span().and_then(|span| text.get(..span.start));
    match before {
        Some(before) => {
            let (line, column) = (
                before.matches('\n').count() + 1,
                before.chars().rev().take_while(|c| *c != '\n').count() + 1,
            );
            format!("line {line}, column {column}: {message}")
        }
        None => message,
    }
}

/// Accepts what can be an RPC address.
///
/// # Errors
/// [`Exit::Config`] for what is none, or has another scheme.
pub fn check_rpc(url: &str) -> Result<(), Failure> {
    if is_address(url) {
        return Ok(());
    }
    Err(Failure::new(Exit::Config, format!("`{url}` is not an RPC address"))
        .hint("it starts with ws:// or wss://, such as wss://t2-rpc.cess.network"))
}

/// What to do about a connection that anybody on the way can change.
pub const RPC_IN_THE_CLEAR_HINT: &str = "give a wss:// address, or one on this machine";

/// What is wrong with an RPC address whose answers anybody on the way to the node can change.
pub fn rpc_in_the_clear(url: &str) -> Option<String> {
    let what = "is not encrypted: whoever is on the way to the node can answer in its place";
    is_in_the_clear(url).then(|| format!("{url} {what}"))
}

/// Says on stderr what is wrong with an RPC address that works.
pub fn warn_of_rpc(url: &str) {
    if let Some(what) = rpc_in_the_clear(url) {
        tell!("warning: {what}; {RPC_IN_THE_CLEAR_HINT}");
    }
}

/// The known word most like a given one, if any is alike at all.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(word, k), k))
        .filter(|(distance, k)| *distance * 2 <= k.len().max(word.len()))
        .min()
        .map(|(_, k)| k)
}

fn default_cache_size() -> u64 {
    limits::CACHE_BYTES_DEFAULT
}

fn default_writeback_delay() -> Duration {
    limits::WRITEBACK_DELAY_DEFAULT
}

fn default_backlog_max() -> u64 {
    BACKLOG_BOUND_BYTES
}

fn default_full_wait() -> Duration {
    ROOM_WAIT_DEFAULT
}

fn write_bytes<S: Serializer>(n: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    let text = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _)| n.trailing_zeros() >= *shift && *n != 0)
        .map_or_else(|| n.to_string(), |(shift, unit)| format!("{}{unit}", n >> shift));
    serializer.serialize_str(&text)
}

fn read_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    units::parse_bytes(&text).map_err(serde::de::Error::custom)
}

fn write_duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let millis = duration.as_millis();
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1000, "s"),
        (1, "ms"),
    ];
    let text = units
        .into_iter()
        .find(|(unit, _)| millis != 0 && millis.is_multiple_of(*unit))
        .map_or_else(|| "0s".to_owned(), |(unit, name)| format!("{}{name}", millis / unit));
    serializer.serialize_str(&text)
}

fn read_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    units::parse_duration(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> VolumeConfig {
        VolumeConfig {
            version: CONFIG_VERSION,
            rpc: "ws://127.0.0.1:9944".to_owned(),
            territory: "photos".to_owned(),
            account: "cXabc".to_owned(),
            at_rest: AtRestMode::Sealed,
            created: 1_790_000_000,
            cache_size: 3 << 30,
            writeback_delay: Duration::from_millis(1500),
            uplink_max: 3 << 20,
            uplink_schedule: vec!["sat,sun 22:00-06:00 pause".parse().unwrap()],
            metered: Metered::Pause,
            backlog_max: 1 << 30,
            full_wait: Duration::ZERO,
            kernel_cache: KernelCache::Writeback,
            passthrough: Passthrough::Off,
            log_level: LogLevel::Info,
            store: StoreConfig {
                backend: StoreBackend::Redb,
            },
            trash: TrashConfig {
                keep: Duration::from_secs(86_400),
                min_age: Duration::from_secs(90),
            },
            scrub: ScrubConfig {
                rate: 8 << 20,
                ..ScrubConfig::default()
            },
            repair: RepairConfig {
                away: Duration::from_secs(1800),
                read_back: Duration::from_secs(600),
                ..RepairConfig::default()
            },
            gc: GcConfig {
                keep_history: Duration::from_secs(3 * 86_400),
                ..GcConfig::default()
            },
        }
    }

    #[test]
    fn a_store_without_its_backend_has_the_first() {
        let text = sample().to_toml().replace("backend = \"redb\"\n", "");
        assert_eq!(VolumeConfig::parse(&text).unwrap().store.backend, StoreBackend::Sled);
    }

    #[test]
    fn what_is_wrong_is_told_on_one_line() {
        let text = sample().to_toml();
        for (from, to, said) in [
            ("at_rest = \"sealed\"", "at_rest = sealed", "line "),
            ("at_rest = \"sealed\"", "at_rest = \"open\"", "open"),
            ("version = 1", "version = \"\"\"1", "line "),
            ("[trash]", "[trash", "line "),
            ("territory = \"photos\"\n", "", "territory"),
        ] {
            assert!(text.contains(from), "{from}");
            let failure = VolumeConfig::parse(&text.replace(from, to)).unwrap_err();
            assert_eq!(failure.exit, Exit::Config);
            assert!(
                failure.what.contains(said) && !failure.what.contains('\n'),
                "{}",
                failure.what
            );
        }
    }

    #[test]
    fn what_is_no_text_is_a_wrong_configuration() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"version = 1 # \xff\n").unwrap();
        assert_eq!(VolumeConfig::load(file.path()).unwrap_err().exit, Exit::Config);
    }

    #[test]
    fn round_trip_and_key_list() {
        let text = sample().to_toml();
        assert_eq!(VolumeConfig::parse(&text).unwrap(), sample());
        let table: toml::Table = text.parse().unwrap();
        let mut written: Vec<&str> = table.keys().map(String::as_str).collect();
        let mut known = KEYS.to_vec();
        written.sort_unstable();
        known.sort_unstable();
        assert_eq!(written, known);
        let documented = include_str!("../../docs/CONFIGURATION.md");
        for key in KEYS {
            assert!(
                documented.contains(&format!("| `{key}` |")),
                "docs/CONFIGURATION.md lacks {key}"
            );
        }
    }

    #[test]
    fn a_volume_that_does_not_name_its_store_is_of_the_first_one() {
        let text = sample().to_toml().replace("[store]\nbackend = \"redb\"\n", "");
        assert!(!text.contains("store"), "{text}");
        let config = VolumeConfig::parse(&text).unwrap();
        assert_eq!(config.store.backend, StoreBackend::Sled);
        assert_eq!(
            StoreConfig::default().backend,
            StoreBackend::Redb,
            "new ones are of the other"
        );
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let cases = [
            ("cache_sise = \"1GiB\"", Some("did you mean `cache_size`?")),
            ("teritory = \"x\"", Some("did you mean `territory`?")),
            ("loglevel = \"info\"", Some("did you mean `log_level`?")),
        ];
        for (line, hint) in cases {
            let failure = VolumeConfig::parse(&format!("{line}\n{}", sample().to_toml())).unwrap_err();
            assert_eq!(failure.exit, Exit::Config, "{line}");
            assert_eq!(failure.hint.as_deref(), hint, "{line}");
        }
        let failure = VolumeConfig::parse("zzzzzzzzzzzzzz = 1").unwrap_err();
        assert!(failure.hint.unwrap().starts_with("the keys are:"));
    }

    #[test]
    fn wrong_values_are_refused() {
        let good = sample().to_toml();
        for (from, to) in [
            ("version = 1", "version = 2"),
            ("ws://127.0.0.1:9944", "http://127.0.0.1:9944"),
            ("3GiB", "1MiB"),
            ("3GiB", "many"),
            ("1500ms", "soon"),
            ("\"sealed\"", "\"open\""),
            ("\"redb\"", "\"bolt\""),
            ("backend =", "backed ="),
            ("keep =", "kept ="),
            ("\"90s\"", "\"soon\""),
            ("\"8MiB\"", "\"1KiB\""),
            ("rewrite_below = 9", "rewrite_below = 13"),
            ("urgent_below = 6", "urgent_below = 10"),
            ("urgent_below = 6", "urgent_below = 3"),
            ("live_percent = 50", "live_percent = 95"),
            ("keep_history =", "keep_story ="),
            ("22:00-06:00", "22:00"),
            ("metered = \"pause\"", "metered = \"stop\""),
        ] {
            assert!(good.contains(from), "{from}");
            let failure = VolumeConfig::parse(&good.replace(from, to)).unwrap_err();
            assert_eq!(failure.exit, Exit::Config, "{to}");
        }
    }
}
