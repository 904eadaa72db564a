//! `cessfs config show|check NAME`.

use super::{Context, print_json};
use crate::config::{self, VolumeConfig};
use crate::exit::Failure;
use crate::home::VolumeName;
use crate::output;
use clap::{Args, Subcommand};

/// Show or check a volume's configuration
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs config show photos
  cessfs config check photos && echo fine")]
pub struct ConfigArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print every key with the value in force
    #[command(after_help = "Examples:
  cessfs config show photos
  cessfs config show photos --json | jq -r .rpc")]
    Show {
        /// The volume
        name: VolumeName,
    },
    /// Read volume.toml as a mount would; silent when it is fine
    #[command(after_help = "Examples:
  cessfs config check photos")]
    Check {
        /// The volume
        name: VolumeName,
    },
}

/// Reads the file.
///
/// # Errors
/// [`Exit::Config`](crate::exit::Exit::Config) with the key that is wrong.
pub fn run(args: &ConfigArgs, context: &Context) -> Result<(), Failure> {
    match &args.what {
        What::Show { name } => {
            let config = VolumeConfig::load(&context.home.existing(name)?.config())?;
            if context.json {
                print_json(&config);
            } else {
                output::text(&config.to_toml());
            }
        }
        What::Check { name } => {
            let config = VolumeConfig::load(&context.home.existing(name)?.config())?;
            config::warn_of_rpc(&config.rpc);
        }
    }
    Ok(())
}
