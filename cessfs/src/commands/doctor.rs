//! `cessfs doctor [NAME]`: looks for what keeps a volume from working, and says what to do about it.

use super::{Context, print_json};
use crate::config::VolumeConfig;
use crate::control::client;
use crate::exit::{Exit, Failure};
use crate::home::{VolumeDir, VolumeName};
use crate::limits;
use crate::mountpoint;
use crate::survey::{self, Answer, reach};
use crate::units;
use crate::wiring;
use cessfs_crypto::{AccountId, AccountKey, Entropy};
use cessfs_sync::chain::{Miner, TerritoryState};
use cessfs_sync::{Chain, FragmentStore};
use clap::Args;
use futures::StreamExt;
use serde::Serialize;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
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
    Finding { check, verdict: Verdict::Ok, what: what.into(), advice: None }
}

fn warn(check: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Warn, what: what.into(), advice: Some(advice.into()) }
}

fn fail(check: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Fail, what: what.into(), advice: Some(advice.into()) }
}

/// Prints one line per check.
///
/// # Errors
/// [`Exit::Doctor`] when one of them failed.
pub fn run(args: &DoctorArgs, context: &Context) -> Result<(), Failure> {
    let mut findings = machine();
    if let Some(name) = &args.name {
        let volume = context.home.existing(name)?;
        findings.extend(local(&volume));
        match VolumeConfig::load(&volume.config()) {
            Ok(config) => {
                findings.push(ok("config", "volume.toml is fine"));
                findings.extend(network(&config)?);
            }
            Err(failure) => findings.push(fail("config", failure.what, failure.hint.unwrap_or_default())),
        }
    }
    if context.json {
        print_json(&findings);
    } else {
        findings.iter().for_each(print);
    }
    match findings.iter().filter(|f| f.verdict == Verdict::Fail).count() {
        0 => Ok(()),
        n => Err(Failure::new(Exit::Doctor, format!("{n} of {} checks failed", findings.len()))),
    }
}

fn print(finding: &Finding) {
    let verdict = match finding.verdict {
        Verdict::Ok => "ok  ",
        Verdict::Warn => "WARN",
        Verdict::Fail => "FAIL",
    };
    println!("{verdict} {:10} {}", finding.check, finding.what);
    if let Some(advice) = finding.advice.as_deref().filter(|a| !a.is_empty()) {
        println!("{:15} {advice}", "");
    }
}

fn machine() -> Vec<Finding> {
    let device = match std::fs::File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => ok("fuse", "/dev/fuse can be opened"),
        Err(e) => fail("fuse", format!("/dev/fuse: {e}"), "`modprobe fuse`, or give this container the device"),
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
        _ => warn("kernel", format!("Linux {release}"), "mounts work, but slower than on Linux 5.12 or newer"),
    }
}

fn local(volume: &VolumeDir) -> Vec<Finding> {
    vec![private(volume.path()), private(&volume.keys()), space(volume.path()), tenancy(volume)]
}

fn private(path: &Path) -> Finding {
    match std::fs::metadata(path) {
        Ok(m) if m.permissions().mode() & 0o077 == 0 => ok("private", format!("{} is private", path.display())),
        Ok(_) => {
            let advice = format!("chmod go-rwx {}", path.display());
            warn("private", format!("others can read {}", path.display()), advice)
        }
        Err(e) => fail("private", format!("{}: {e}", path.display()), "restore the volume from its recovery phrase"),
    }
}

fn space(path: &Path) -> Finding {
    let Ok(stat) = nix::sys::statvfs::statvfs(path) else {
        return fail("disk", format!("{} cannot be asked for space", path.display()), "check the disk");
    };
    let free = stat.blocks_available() * stat.fragment_size();
    let what = format!("{} free for cache and staging", units::bytes(free));
    if free < limits::CACHE_BYTES_MIN {
        return fail("disk", what, "free some space");
    }
    if free < limits::CACHE_BYTES_DEFAULT {
        return warn("disk", what, "set `cache_size` in volume.toml below that");
    }
    ok("disk", what)
}

/// Lock, mount and daemon have to tell one story.
fn tenancy(volume: &VolumeDir) -> Finding {
    let mounts = mountpoint::mounts().unwrap_or_default();
    let ours = mounts.iter().find(|m| m.volume().as_ref() == Some(volume.name()));
    match (volume.is_locked(), ours, client::status(volume)) {
        (true, _, Ok(status)) => ok("daemon", format!("process {} serves it", status.pid.unwrap_or_default())),
        (true, _, Err(e)) => warn("daemon", format!("a process holds the volume, but: {e}"), "is it just starting?"),
        (false, Some(mount), _) if mountpoint::is_dead(&mount.dir) => {
            let advice = format!("`cessfs umount {}`, or mount it there again", mount.dir.display());
            warn("daemon", format!("a dead mount is left on {}", mount.dir.display()), advice)
        }
        _ => ok("daemon", "not mounted"),
    }
}

/// Everything beyond this machine.
fn network(config: &VolumeConfig) -> Result<Vec<Finding>, Failure> {
    let account = match AccountId::from_ss58(&config.account) {
        Ok((account, _)) => account,
        Err(e) => return Ok(vec![fail("config", format!("`account`: {e}"), "restore the line that init wrote")]),
    };
    // Reading needs no right: any key will do to ask with.
    let mut seed = [0; 32];
    wiring::OsEntropy.fill(&mut seed);
    let runtime = wiring::runtime()?;
    let _inside = runtime.enter();
    let chain = wiring::chain(&config.rpc, AccountKey::from_seed(&seed))?;
    let fragments = wiring::fragments()?;
    let findings = runtime.block_on(ask(chain.as_ref(), fragments.as_ref(), config, account));
    runtime.shutdown_background();
    Ok(findings)
}

async fn ask(
    chain: &dyn Chain,
    fragments: &dyn FragmentStore,
    config: &VolumeConfig,
    account: AccountId,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let question = survey::ask_chain_about(chain, account, &config.territory);
    let answer = match reach(&config.rpc, question).await {
        Ok(answer) => answer,
        Err(failure) => {
            return vec![fail("chain", failure.what, failure.hint.unwrap_or_default())];
        }
    };
    let (name, spec) = (&answer.info.name, answer.info.spec_version);
    findings.push(ok("chain", format!("{name}, spec {spec}, block {}", answer.height)));
    findings.push(balance(&answer, config));
    findings.push(territory(&answer, config));
    match reach(&config.rpc, chain.miners()).await {
        Ok(miners) => findings.push(willing(fragments, miners).await),
        Err(failure) => findings.push(fail("miners", failure.what, failure.hint.unwrap_or_default())),
    }
    findings
}

fn balance(answer: &Answer, config: &VolumeConfig) -> Finding {
    let what = format!("{} on {}", units::tcess_down(answer.balance, &answer.info.token_symbol), config.account);
    if answer.balance < answer.info.existential_deposit + limits::FEE_RESERVE {
        return fail("balance", what, "send TCESS to that account: every pack pays a fee");
    }
    ok("balance", what)
}

fn territory(answer: &Answer, config: &VolumeConfig) -> Finding {
    let name = &config.territory;
    let Some(territory) = &answer.territory else {
        return fail("territory", format!("the account has no territory `{name}`"), "`cessfs territory mint` buys it");
    };
    let told = survey::territory_status(territory, answer.height);
    let days = told.seconds_left / 86_400;
    let what = format!("{name}: {}, {} left, {days} days", told.state, units::bytes(told.remaining_bytes));
    if territory.state != TerritoryState::Active {
        return fail("territory", what, "`cessfs territory renew` pays for more days");
    }
    if told.remaining_bytes < cessfs_sync::limits::SEGMENT_CHARGE_BYTES {
        return fail("territory", what, "`cessfs territory expand` buys more space");
    }
    if days < DAYS_WARN {
        return warn("territory", what, "`cessfs territory renew` pays for more days");
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
        async move { tokio::time::timeout(limits::PROBE_TIMEOUT, probe).await.is_ok_and(|answer| answer.is_ok()) }
    });
    let answers: Vec<bool> = futures::stream::iter(probes).buffer_unordered(limits::PROBES_AT_ONCE).collect().await;
    let willing = answers.iter().filter(|answered| **answered).count();
    let what = format!("{willing} of {known} miners answer and have room; a pack needs {MINERS_NEEDED}");
    if willing < MINERS_NEEDED {
        return fail("miners", what, "writing goes on locally; uploads wait until enough miners are back");
    }
    ok("miners", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_and_device_are_judged() {
        let findings = machine();
        assert_eq!(findings.iter().map(|f| f.check).collect::<Vec<_>>(), ["fuse", "mount", "kernel"]);
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
}
