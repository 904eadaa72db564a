//! `cessfs scrub NAME`.

use super::{Context, print_json};
use crate::control::client::{Client, unexpected};
use crate::control::{Op, Reply};
use crate::exit::{Exit, Failure};
use crate::home::VolumeName;
use crate::limits::SCRUB_RATE_MIN;
use crate::progress::Waiting;
use crate::units;
use clap::Args;

/// Look at what the miners hold
///
/// Reads a random range of every column of every pack and compares them with each other and with the chain; with --full every
/// byte. The same happens in the background (`scrub` in volume.toml); this does it now. What is damaged is rewritten in the
/// background too, when it is worth it, or by `cessfs repair`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs scrub photos
  cessfs scrub photos --full --rate 20MiB
  cessfs scrub photos --json | jq .damaged")]
pub struct ScrubArgs {
    /// The volume
    name: VolumeName,
    /// Read every byte
    #[arg(long, conflicts_with = "sample")]
    full: bool,
    /// Read a random range of every column (the default)
    #[arg(long)]
    sample: bool,
    /// Bytes a second at most [default: `scrub.rate` of volume.toml]
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    rate: Option<u64>,
}

/// Below that a scrub would hardly end, as with `scrub.rate` of volume.toml.
fn rate(text: &str) -> Result<u64, String> {
    match units::parse_bytes(text)? {
        rate if rate < SCRUB_RATE_MIN => Err(format!("the least is {SCRUB_RATE_MIN} bytes a second")),
        rate => Ok(rate),
    }
}

/// Asks the daemon.
///
/// # Errors
/// [`Exit::NotMounted`]; [`Exit::Partial`] when a pack has fewer than four good columns.
pub fn run(args: &ScrubArgs, context: &Context) -> Result<(), Failure> {
    let volume = context.home.existing(&args.name)?;
    let waiting = Waiting::on("looking at the miners");
    let op = Op::Scrub {
        full: args.full,
        rate: args.rate,
    };
    let reply = Client::connect(&volume)?.call(op, &mut |_| ())?;
    drop(waiting);
    let Reply::Scrubbed(scrubbed) = reply else {
        return Err(unexpected(&reply));
    };
    if context.json {
        print_json(&scrubbed);
    } else {
        say!(
            "looked at {} packs, read {}",
            scrubbed.packs,
            units::bytes(scrubbed.bytes_read)
        );
        for damaged in &scrubbed.damaged {
            let grade = damaged.grade.as_deref().unwrap_or_default();
            say!(
                "pack {:>8}  {:>2} of 12 columns are good: {grade}",
                damaged.pack,
                damaged.good
            );
        }
    }
    match scrubbed.damaged.iter().filter(|damaged| damaged.good < 4).count() {
        0 => Ok(()),
        lost => Err(Failure::new(
            Exit::Partial,
            format!("{lost} packs have fewer than the four good columns that are needed"),
        )
        .hint(format!(
            "`cessfs repair {}` rewrites what this machine still has of them; miners may come back, too",
            args.name
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_that_would_never_end_are_refused() {
        for text in ["0", "1", "65535"] {
            assert!(rate(text).unwrap_err().contains("65536"), "{text}");
        }
        assert_eq!(rate("64KiB"), Ok(SCRUB_RATE_MIN));
    }
}
