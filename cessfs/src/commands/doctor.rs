//! `cessfs doctor [NAME]`: looks for what keeps a volume from working, and says what to do about it.

use super::{Context, print_json};
use crate::config::{self, RPC_IN_THE_CLEAR_HINT, VolumeConfig};
use crate::control::serving::Remains;
use crate::control::{Status, TerritoryStatus, client};
use crate::exit::{Exit, Failure};
use crate::home::{VolumeDir, VolumeName};
use crate::limits;
use crate::network;
use crate::output;
use crate::secret::Sources;
use crate::survey::{self, reach};
use crate::units;
use crate::wiring;
use cessfs_crypto::{AccountId, AccountKey};
use cessfs_sync::chain::{ChainError, ChainInfo, Head, Miner, Planck};
use cessfs_sync::{Chain, FragmentStore};
use clap::Args;
use futures::StreamExt;
use serde::Serialize;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Miners that a pack needs.
const MINERS_NEEDED: usize = cessfs_sync::limits::COLUMNS;
/// Kernel from which every capability that cessfs asks for is there.
const KERNEL_WANTED: (u32, u32) = (5, 12);
/// Days left at which a territory is worth a warning.
const DAYS_WARN: u64 = 7;

/// Look for what keeps a volume from working
///
/// Without a name only the machine is looked at. Ends with exit code 16 when something must be repaired.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs doctor
  cessfs doctor photos --json | jq '.[] | select(.verdict == \"fail\")'")]
pub struct DoctorArgs {
    /// The volume
    name: Option<VolumeName>,
    /// Passphrase of the volume, to look at its territory while it is not mounted
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Key file of the volume, for the same
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

#[derive(Clone, Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    what: String,
    advice: Option<String>,
}

fn ok(check: &'static str, what: impl Into<String>) -> Finding {
    Finding {
        check,
        verdict: Verdict::Ok,
        what: what.into(),
        advice: None,
    }
}

fn warn(check: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding {
        check,
        verdict: Verdict::Warn,
        what: what.into(),
        advice: Some(advice.into()),
    }
}

fn fail(check: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding {
        check,
        verdict: Verdict::Fail,
        what: what.into(),
        advice: Some(advice.into()),
    }
}

fn failed(check: &'static str, failure: Failure) -> Finding {
    fail(check, failure.what, failure.hint.unwrap_or_default())
}

/// Prints one line per check.
///
/// # Errors
/// [`Exit::Doctor`] when one of them failed.
pub fn run(args: &DoctorArgs, context: &Context) -> Result<(), Failure> {
    let mut findings = machine();
    if let Some(name) = &args.name {
        let volume = context.home.existing(name)?;
        let daemon = client::status(&volume);
        findings.extend(local(&volume, &daemon));
        let config = VolumeConfig::load(&volume.config());
        findings.extend(config.as_ref().ok().map(|config| space(&volume, config, &daemon)));
        match config {
            Ok(config) => {
                findings.push(match config::rpc_in_the_clear(&config.rpc) {
                    Some(what) => warn("config", what, RPC_IN_THE_CLEAR_HINT),
                    None => ok("config", "volume.toml is fine"),
                });
                let sources = Sources::new(args.key_file.clone(), args.passphrase_file.clone());
                let beyond = network(&volume, &config, &sources, daemon.ok());
                findings.extend(beyond.unwrap_or_else(|failure| vec![failed("network", failure)]));
            }
            Err(failure) => findings.push(failed("config", failure)),
        }
    }
    if context.json {
        print_json(&findings);
    } else {
        findings.iter().for_each(print);
    }
    match findings.iter().filter(|f| f.verdict == Verdict::Fail).count() {
        0 => Ok(()),
        n => Err(Failure::new(
            Exit::Doctor,
            format!("{n} of {} checks failed", findings.len()),
        )),
    }
}

fn print(finding: &Finding) {
    let verdict = match finding.verdict {
        Verdict::Ok => "ok  ",
        Verdict::Warn => "WARN",
        Verdict::Fail => "FAIL",
    };
    say!("{verdict} {:10} {}", finding.check, finding.what);
    if let Some(advice) = finding.advice.as_deref().filter(|a| !a.is_empty()) {
        say!("{:15} {advice}", "");
    }
}

fn machine() -> Vec<Finding> {
    let device = match std::fs::File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => ok("fuse", "/dev/fuse can be opened"),
        Err(e) => fail(
            "fuse",
            format!("/dev/fuse: {e}"),
            match e.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    "let its users open it: `chmod 666 /dev/fuse` as root, as udev does"
                }
                _ => "`modprobe fuse`, or give this container the device",
            },
        ),
    };
    vec![device, unmounter(), kernel()]
}

fn unmounter() -> Finding {
    if nix::unistd::geteuid().is_root() {
        return ok("mount", "root mounts by itself");
    }
    match Command::new("fusermount3").arg("--version").output() {
        Ok(_) => ok("mount", "fusermount3 is there"),
        Err(e) => fail("mount", format!("fusermount3: {e}"), "install the package fuse3"),
    }
}

fn kernel() -> Finding {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let numbers: Vec<u32> = release.split(['.', '-']).map_while(|n| n.parse().ok()).collect();
    match numbers.as_slice() {
        [major, minor, ..] if (*major, *minor) >= KERNEL_WANTED => ok("kernel", format!("Linux {release}")),
        _ => warn(
            "kernel",
            format!("Linux {release}"),
            "mounts work, but slower than on Linux 5.12 or newer",
        ),
    }
}

fn local(volume: &VolumeDir, daemon: &Result<Status, Failure>) -> Vec<Finding> {
    vec![private(volume.path()), private(&volume.keys()), tenancy(volume, daemon)]
}

fn private(path: &Path) -> Finding {
    match std::fs::metadata(path) {
        Ok(m) if m.permissions().mode() & 0o077 == 0 => ok("private", format!("{} is private", path.display())),
        Ok(_) => {
            let advice = format!("`chmod go-rwx {}`", output::word(path));
            warn("private", format!("others can read {}", path.display()), advice)
        }
        Err(e) => fail(
            "private",
            format!("{}: {e}", path.display()),
            "restore the volume from its recovery phrase",
        ),
    }
}

fn space(volume: &VolumeDir, config: &VolumeConfig, daemon: &Result<Status, Failure>) -> Finding {
    let path = volume.path();
    let Ok(stat) = nix::sys::statvfs::statvfs(path) else {
        return fail(
            "disk",
            format!("{} cannot be asked for space", path.display()),
            "check the disk",
        );
    };
    let free = stat.blocks_available() * stat.fragment_size();
    // A mount may have been given another size.
    let (used, most) = match daemon {
        Ok(status) => (status.cache_bytes, status.cache_bound_bytes),
        Err(_) => (occupied(&volume.cache()), config.cache_size),
    };
    room(free, used, most, config.backlog_max)
}

/// Bytes that the files below a directory take on the disk; what cannot be looked at takes none.
fn occupied(dir: &Path) -> u64 {
    let (mut bytes, mut dirs) = (0, vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => dirs.push(entry.path()),
                Ok(found) => bytes += found.blocks() * BLOCK_UNIT,
                Err(_) => {}
            }
        }
    }
    bytes
}

/// Unit of the blocks that stat(2) counts.
const BLOCK_UNIT: u64 = 512;

/// Whether a disk has room for what the cache may still grow by, and for what may wait to be sent.
fn room(free: u64, used: u64, cache_size: u64, backlog_max: u64) -> Finding {
    let what = format!("{} free for cache and staging", units::bytes(free));
    if free < limits::CACHE_BYTES_MIN {
        return fail("disk", what, "free some space");
    }
    let wanted = cache_size.saturating_sub(used).saturating_add(backlog_max);
    if free < wanted {
        let fits = used.saturating_add(free).saturating_sub(backlog_max);
        let advice = match fits >= limits::CACHE_BYTES_MIN {
            true => format!(
                "free some space, or set `cache_size` in volume.toml to no more than {}",
                units::bytes(fits)
            ),
            false => "free some space".to_owned(),
        };
        return warn(
            "disk",
            format!("{what}, which may yet take {}", units::bytes(wanted)),
            advice,
        );
    }
    ok("disk", what)
}

/// Lock, mount and daemon have to tell one story.
fn tenancy(volume: &VolumeDir, daemon: &Result<Status, Failure>) -> Finding {
    match (volume.is_locked(), Remains::of(volume), daemon) {
        (true, _, Ok(status)) => ok(
            "daemon",
            format!("process {} serves it", status.pid.unwrap_or_default()),
        ),
        (true, _, Err(failure)) if failure.exit == Exit::Busy => failed("daemon", failure.clone()),
        (true, _, Err(e)) => warn(
            "daemon",
            format!("a process holds the volume, but: {e}"),
            "is it just starting?",
        ),
        (false, Some(Remains { mount: Some(mount) }), _) => {
            let advice = format!("`cessfs umount {}`, or mount it there again", output::word(&mount.dir));
            let what = format!("it died; a dead mount is left on {}", mount.dir.display());
            warn("daemon", what, advice)
        }
        (false, Some(_), _) => {
            let advice = format!("`cessfs mount {} DIR` goes on with what is on this disk", volume.name());
            warn("daemon", "it died, and the volume was not closed", advice)
        }
        _ => ok("daemon", "not mounted"),
    }
}

/// Everything beyond this machine.
fn network(
    volume: &VolumeDir,
    config: &VolumeConfig,
    sources: &Sources,
    daemon: Option<Status>,
) -> Result<Vec<Finding>, Failure> {
    let account = match AccountId::from_ss58(&config.account) {
        Ok((account, _)) => account,
        Err(e) => {
            return Ok(vec![fail(
                "config",
                format!("`account`: {e}"),
                "restore the line that init wrote",
            )]);
        }
    };
    // Without it there is still much to look at.
    let (key, mut findings) = match key(volume, sources) {
        Ok(key) => (key, Vec::new()),
        Err(failure) => (None, vec![failed("secret", failure)]),
    };
    let known = daemon.filter(|status| status.chain_reachable);
    let runtime = wiring::runtime()?;
    let _inside = runtime.enter();
    // Asking needs no right: without the volume's key any other will do, but the chain seam knows only its own territory.
    let own = key.is_some();
    let account_key = key.unwrap_or_else(wiring::throwaway_key);
    let chain = wiring::chain(&config.rpc, account_key, network::pin(volume)?)?;
    let fragments = wiring::fragments(&config.rpc)?;
    findings.extend(runtime.block_on(async {
        let mut findings = match reach(&config.rpc, chain_facts(chain.as_ref(), account)).await {
            Ok(facts) => facts.findings(config),
            Err(failure) => return vec![failed("chain", failure)],
        };
        let told = match known {
            None if own => reach(&config.rpc, survey::ask_chain(chain.as_ref(), &config.territory))
                .await
                .map(|answer| {
                    Some(
                        answer
                            .territory
                            .as_ref()
                            .map(|t| survey::territory_status(t, answer.height)),
                    )
                }),
            known => Ok(known.map(|status| status.territory)),
        };
        findings.push(match told {
            Ok(Some(found)) => territory(found.as_ref(), config, volume.name()),
            Ok(None) => warn(
                "territory",
                "not looked at",
                "mount the volume, or give --passphrase-file",
            ),
            Err(failure) => failed("territory", failure),
        });
        match reach(&config.rpc, chain.miners()).await {
            Ok(miners) => findings.push(willing(fragments.as_ref(), miners).await),
            Err(failure) => findings.push(failed("miners", failure)),
        }
        findings
    }));
    runtime.shutdown_background();
    Ok(findings)
}

/// The account's key, if something was given that opens the volume.
fn key(volume: &VolumeDir, sources: &Sources) -> Result<Option<AccountKey>, Failure> {
    let Some(secret) = sources.in_files(volume.name())? else {
        return Ok(None);
    };
    Ok(Some(secret.open(&wiring::key_slots(volume)?)?.account_key()))
}

struct ChainFacts {
    info: ChainInfo,
    balance: Planck,
    height: u32,
}

async fn chain_facts(chain: &dyn Chain, account: AccountId) -> Result<ChainFacts, ChainError> {
    let (info, balance, height) = futures::try_join!(chain.info(), chain.balance(account), chain.height(Head::Best))?;
    Ok(ChainFacts { info, balance, height })
}

impl ChainFacts {
    fn findings(&self, config: &VolumeConfig) -> Vec<Finding> {
        let (name, spec) = (&self.info.name, self.info.spec_version);
        let what = format!(
            "{} on {}",
            units::tcess_down(self.balance, &self.info.token_symbol),
            config.account
        );
        let balance = if self.balance < self.info.existential_deposit + limits::FEE_RESERVE {
            fail("balance", what, "send TCESS to that account: every pack pays a fee")
        } else {
            ok("balance", what)
        };
        vec![
            ok("chain", format!("{name}, spec {spec}, block {}", self.height)),
            balance,
        ]
    }
}

fn territory(found: Option<&TerritoryStatus>, config: &VolumeConfig, volume: &VolumeName) -> Finding {
    let name = &config.territory;
    let renew = format!("`cessfs territory renew {volume} --days 30` pays for more days");
    let Some(told) = found else {
        return fail(
            "territory",
            format!("the account has no territory `{name}`"),
            format!("`cessfs territory mint {volume}` buys it"),
        );
    };
    let days = told.seconds_left / 86_400;
    let what = format!(
        "{name}: {}, {} left, {days} days",
        told.state,
        units::bytes(told.remaining_bytes)
    );
    if told.state != "active" {
        return fail("territory", what, renew);
    }
    if told.remaining_bytes < cessfs_sync::limits::SEGMENT_CHARGE_BYTES {
        let expand = format!("`cessfs territory expand {volume} --gib 10` buys more space");
        return fail("territory", what, expand);
    }
    if days < DAYS_WARN {
        return warn("territory", what, renew);
    }
    ok("territory", what)
}

/// A pack needs twelve miners that are positive, have room, and answer.
async fn willing(fragments: &dyn FragmentStore, miners: Vec<Miner>) -> Finding {
    let known = miners.len();
    let room = cessfs_sync::limits::FRAGMENT_BYTES as u128;
    let candidates = miners.into_iter().filter(|m| m.positive && m.idle_bytes >= room);
    let probes = candidates.map(|miner| {
        let probe = fragments.probe(&miner.endpoint);
        async move {
            tokio::time::timeout(cessfs_sync::limits::PROBE_DEADLINE, probe)
                .await
                .is_ok_and(|answer| answer.is_ok())
        }
    });
    let answers: Vec<bool> = futures::stream::iter(probes)
        .buffer_unordered(limits::PROBES_AT_ONCE)
        .collect()
        .await;
    let willing = answers.iter().filter(|answered| **answered).count();
    let what = format!("{willing} of {known} miners answer and have room; a pack needs {MINERS_NEEDED}");
    if willing < MINERS_NEEDED {
        return fail(
            "miners",
            what,
            "writing goes on locally; uploads wait until enough miners are back",
        );
    }
    ok("miners", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_and_device_are_judged() {
        let findings = machine();
        assert_eq!(
            findings.iter().map(|f| f.check).collect::<Vec<_>>(),
            ["fuse", "mount", "kernel"]
        );
        for finding in findings {
            assert_eq!(finding.advice.is_none(), finding.verdict == Verdict::Ok, "{finding:?}");
        }
    }

    #[test]
    fn exposed_files_are_told() {
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("keys.json");
        assert_eq!(private(&file).verdict, Verdict::Fail);
        std::fs::write(&file, "x").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(private(&file).verdict, Verdict::Warn);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(private(&file).verdict, Verdict::Ok);
    }

    #[test]
    fn a_disk_has_to_hold_what_the_cache_may_still_take() {
        const GIB: u64 = 1 << 30;
        for (free, used, cache_size, verdict) in [
            (12, 0, 10, Verdict::Ok),
            (9, 0, 10, Verdict::Warn),
            // What the cache has taken already is not missing.
            (2, 10, 10, Verdict::Ok),
            (2, 5, 10, Verdict::Warn),
            // By what is configured, and not by what is usual.
            (4, 0, 2, Verdict::Ok),
            (50, 0, 100, Verdict::Warn),
            (0, 10, 10, Verdict::Fail),
        ] {
            let found = room(free * GIB, used * GIB, cache_size * GIB, GIB);
            assert_eq!(found.verdict, verdict, "{free} {used} {cache_size}: {found:?}");
        }
        let advice = room(50 * GIB, 0, 100 * GIB, GIB).advice.unwrap();
        assert!(advice.contains("no more than 49.0 GiB"), "{advice}");
    }

    #[test]
    fn what_a_directory_takes_is_counted_to_its_depth() {
        let tmp = tempfile::tempdir().unwrap();
        assert_eq!(occupied(&tmp.path().join("none")), 0);
        std::fs::create_dir(tmp.path().join("a")).unwrap();
        std::fs::write(tmp.path().join("a/b"), vec![1; 100_000]).unwrap();
        let file = std::fs::File::open(tmp.path().join("a/b")).unwrap();
        file.sync_all().unwrap();
        assert_eq!(occupied(tmp.path()), file.metadata().unwrap().blocks() * 512);
    }
}
