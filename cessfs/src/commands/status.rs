//! `cessfs status NAME`.

use super::{Context, print_json};
use crate::config::VolumeConfig;
use crate::control::serving::Remains;
use crate::control::{Status, client};
use crate::exit::{Exit, Failure};
use crate::home::{VolumeDir, VolumeName};
use crate::moment;
use crate::output;
use crate::survey;
use crate::units;
use clap::Args;

/// Tell how a volume is
///
/// Works without a mount too: then it tells what the last daemon knew when it ended.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs status photos
  cessfs status photos --json | jq .unsent_bytes")]
pub struct StatusArgs {
    /// The volume
    name: VolumeName,
}

/// Prints the status.
///
/// # Errors
/// [`Exit::NoVolume`]; a volume that is not mounted is no error.
pub fn run(args: &StatusArgs, context: &Context) -> Result<(), Failure> {
    let volume = context.home.existing(&args.name)?;
    let status = match client::status(&volume) {
        Ok(status) => status,
        Err(failure) if failure.exit == Exit::NotMounted => unmounted(&volume)?,
        Err(failure) => return Err(failure),
    };
    if context.json {
        print_json(&status);
    } else {
        print(&status);
    }
    Ok(())
}

/// What is known without a daemon.
fn unmounted(volume: &VolumeDir) -> Result<Status, Failure> {
    let config = VolumeConfig::load(&volume.config())?;
    let last = std::fs::read(volume.last_status()).ok();
    let last: Status = last
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let remains = Remains::of(volume);
    Ok(Status {
        name: volume.name().to_string(),
        state: "unmounted".to_owned(),
        pid: None,
        died: remains.is_some(),
        // Of a dead mount.
        mountpoint: remains
            .and_then(|left| left.mount)
            .map(|mount| mount.dir.display().to_string()),
        at_rest: survey::at_rest(&config),
        rpc: config.rpc,
        account: config.account,
        cache_bound_bytes: config.cache_size,
        ..last
    })
}

fn print(status: &Status) {
    let place = status
        .mountpoint
        .as_deref()
        .map(|p| format!(" on {}", output::name(p)))
        .unwrap_or_default();
    let (place, state) = match status.died {
        true => (String::new(), "its daemon died"),
        false => (place, status.state.as_str()),
    };
    let pid = status.pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
    say!("volume     {}: {state}{place}{pid}, {}", status.name, status.at_rest);
    if status.died {
        let dir = output::word(status.mountpoint.as_deref().unwrap_or("DIR"));
        say!(
            "died       `cessfs mount {} {dir}` goes on; what follows is as the volume was last closed",
            status.name
        );
    }
    if let Some(reason) = &status.read_only_reason {
        say!(
            "read-only  {reason} (`cessfs unsent {}` lists what only is here)",
            status.name
        );
    }
    say!(
        "to send    {} changed, {} in packs",
        units::bytes(status.dirty_bytes),
        units::bytes(status.unsent_bytes)
    );
    if let Some(blocked) = &status.blocked {
        say!("waiting    {}", output::name(blocked));
    }
    let packs: Vec<String> = status
        .packs
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(state, n)| format!("{n} {state}"))
        .collect();
    say!(
        "packs      {}",
        if packs.is_empty() {
            "none".to_owned()
        } else {
            packs.join(", ")
        }
    );
    print_health(status);
    say!(
        "cache      {} of {}, {} files",
        units::bytes(status.cache_bytes),
        units::bytes(status.cache_bound_bytes),
        status.files
    );
    print_kept(status);
    say!("account    {}", status.account);
    if let Some(planck) = status.balance.as_deref().and_then(|b| b.parse().ok()) {
        say!("balance    {}", units::tcess_down(planck, &status.token));
    }
    match &status.territory {
        Some(t) => say!(
            "territory  {}: {}, {} of {} left, {} days",
            t.name,
            t.state,
            units::bytes(t.remaining_bytes),
            units::bytes(t.total_bytes),
            t.seconds_left / 86_400
        ),
        None if status.chain_reachable => say!("territory  none of that name"),
        None => say!("chain      not asked or not reachable ({})", status.rpc),
    }
    for error in &status.errors {
        say!("trouble    {}", output::name(error));
    }
    more("trouble   ", status.errors_left_out);
}

/// What is kept beside the live tree, and what could not be.
fn print_kept(status: &Status) {
    if status.trash_files > 0 {
        let bytes = units::bytes(status.trash_bytes);
        say!(
            "trash      {} files, {bytes} (`cessfs trash list {}`)",
            status.trash_files,
            status.name
        );
    }
    if status.snapshots > 0 {
        say!(
            "snapshots  {} (`cessfs snapshot list {}`)",
            status.snapshots,
            status.name
        );
    }
    for lost in &status.lost {
        say!("lost       {}", output::name(lost));
    }
    more("lost      ", status.lost_left_out);
}

/// What there is beside what was told.
fn more(of: &str, left_out: u64) {
    if left_out > 0 {
        say!("{of} and {left_out} more");
    }
}

/// What is known of packs that the network is to hold.
fn print_health(status: &Status) {
    let grades: Vec<String> = status
        .pack_health
        .iter()
        .map(|(grade, n)| format!("{n} {grade}"))
        .collect();
    if !grades.is_empty() {
        let seen = match status.scrubbed_at {
            Some(at) => format!("all looked at since {}", moment::format(at)),
            None => "not all looked at yet".to_owned(),
        };
        say!("health     {} ({seen})", grades.join(", "));
    }
    if let (Some(live), Some(dead)) = (status.live_bytes, status.dead_bytes) {
        say!(
            "network    {} live, {} dead or padding",
            units::bytes(live),
            units::bytes(dead)
        );
    }
    for file in &status.lost_files {
        say!(
            "lost       {}: {} of {} chunks",
            output::name(&file.path),
            file.missing_chunks,
            file.chunks
        );
    }
    let told = status.lost_files.len() as u64;
    more("lost      ", status.lost_file_count.saturating_sub(told));
}
