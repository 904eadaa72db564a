//! `cessfs passphrase NAME`.
//!
//! Rewrites one file, `keys.json`, at once or not at all. The keys stay, and so does everything that they seal.

use super::{Context, print_json};
use crate::exit::Failure;
use crate::home::{self, VolumeName};
use crate::progress::Waiting;
use crate::secret::{Sources, open_with_phrase, read_phrase};
use crate::wiring;
use clap::Args;
use std::path::PathBuf;

/// Change what opens a volume on this machine
///
/// The new passphrase or key file takes the place of the old one, at once, and also while the volume is mounted. Who forgot the old
/// one opens the volume with its recovery phrase. The keys themselves stay: a copy of the old keys.json is still opened by the
/// old passphrase.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs passphrase photos
  cessfs passphrase photos --phrase-file ~/photos.phrase
  cessfs passphrase photos --passphrase-file old --new-key-file /media/stick/photos.key")]
pub struct PassphraseArgs {
    /// The volume
    name: VolumeName,
    /// The passphrase that opens it now [default: asked for on the terminal]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// The key file that opens it now
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    key_file: Option<PathBuf>,
    /// Its recovery phrase, instead of what opens it now
    #[arg(long, value_name = "FILE", conflicts_with_all = ["passphrase_file", "key_file"])]
    phrase_file: Option<PathBuf>,
    /// The passphrase that will open it [default: asked for on the terminal]
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// The key file that will open it
    #[arg(long, value_name = "FILE", conflicts_with = "new_passphrase_file")]
    new_key_file: Option<PathBuf>,
}

/// Changes it.
///
/// # Errors
/// [`Exit::Secret`](crate::exit::Exit::Secret) when what was given does not open the volume; nothing is changed then.
pub fn run(args: &PassphraseArgs, context: &Context) -> Result<(), Failure> {
    let volume = context.home.existing(&args.name)?;
    let mut slots = wiring::key_slots(&volume)?;
    let keys = match &args.phrase_file {
        Some(path) => open_with_phrase(&slots, &read_phrase(path)?)?,
        None => Sources::new(args.key_file.clone(), args.passphrase_file.clone())
            .for_mount(&args.name, &slots)?
            .open(&slots)?,
    };
    let new = Sources::of_new(args.new_key_file.clone(), args.new_passphrase_file.clone()).for_init(&args.name)?;
    let waiting = Waiting::on("making the key");
    new.lock(&mut slots, &keys)?;
    drop(waiting);
    home::replace(&volume.keys(), slots.to_json().as_bytes())?;
    match context.json {
        true => print_json(&serde_json::json!({ "volume": args.name.to_string(), "opened_by": new.kind() })),
        false => tell!("volume `{}` is opened by the new {} from now on", args.name, new.what()),
    }
    Ok(())
}
