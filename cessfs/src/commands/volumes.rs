//! `cessfs volumes`.

use super::{Context, print_json};
use crate::config::VolumeConfig;
use crate::control::client;
use crate::exit::{Exit, Failure};
use clap::Args;
use serde::Serialize;

/// List the volumes of this machine
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs volumes
  cessfs volumes --json | jq -r '.[].name'")]
pub struct VolumesArgs {}

#[derive(Serialize)]
struct Row {
    name: String,
    mountpoint: Option<String>,
    territory: Option<String>,
    rpc: Option<String>,
    error: Option<String>,
}

/// Prints one line per volume.
///
/// # Errors
/// When the home cannot be read. A volume that cannot be read, or asked, is listed with its error.
pub fn run(_args: &VolumesArgs, context: &Context) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for name in context.home.names()? {
        let volume = context.home.volume(&name);
        let config = VolumeConfig::load(&volume.config());
        let told = client::status(&volume);
        // No daemon is none of the errors.
        let silent = told.as_ref().err().filter(|failure| failure.exit != Exit::NotMounted);
        let error = config.as_ref().err().or(silent).map(ToString::to_string);
        rows.push(Row {
            name: name.to_string(),
            mountpoint: told.ok().and_then(|status| status.mountpoint),
            territory: config.as_ref().ok().map(|c| c.territory.clone()),
            rpc: config.as_ref().ok().map(|c| c.rpc.clone()),
            error,
        });
    }
    if context.json {
        print_json(&rows);
        return Ok(());
    }
    if rows.is_empty() {
        tell!("no volumes in {}", context.home.path().display());
    }
    for row in rows {
        let place = row.mountpoint.as_deref().unwrap_or("-");
        let about = row.error.or(row.rpc).unwrap_or_default();
        say!("{}\t{place}\t{about}", row.name);
    }
    Ok(())
}
