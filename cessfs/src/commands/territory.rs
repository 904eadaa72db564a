//! `cessfs territory show|mint|expand|renew NAME`.

use super::{Context, print_json};
use crate::config::VolumeConfig;
use crate::control::{TerritoryStatus, client};
use crate::exit::{Exit, Failure};
use crate::home::VolumeName;
use crate::limits::{TERRITORY_DAYS_DEFAULT, TERRITORY_GIB_DEFAULT, territory_days};
use crate::network;
use crate::progress::Waiting;
use crate::secret::Sources;
use crate::survey::{self, reach};
use crate::units;
use crate::wiring;
use cessfs_sync::Chain;
use cessfs_sync::chain::TerritoryState;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Show and buy storage space on the chain
///
/// A territory is space bought for a time: whole GiB, paid per GiB and day. Packs are charged to it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs territory show photos
  cessfs territory expand photos --gib 50")]
pub struct TerritoryArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Args)]
struct Who {
    /// The volume
    name: VolumeName,
    /// Passphrase of the volume
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Key file of the volume
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Tell size, use and deadline
    #[command(after_help = "Examples:
  cessfs territory show photos --json | jq .remaining_bytes")]
    Show {
        #[command(flatten)]
        who: Who,
    },
    /// Buy the volume's territory, when `init` could not
    #[command(after_help = "Examples:
  cessfs territory mint photos --gib 10 --days 30")]
    Mint {
        #[command(flatten)]
        who: Who,
        /// How much
        #[arg(long, default_value_t = TERRITORY_GIB_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
        gib: u32,
        /// For how long; the chain's least is 30
        #[arg(long, default_value_t = TERRITORY_DAYS_DEFAULT, value_parser = territory_days())]
        days: u32,
    },
    /// Buy more space until the same deadline
    #[command(after_help = "Examples:
  cessfs territory expand photos --gib 50")]
    Expand {
        #[command(flatten)]
        who: Who,
        /// How much more
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        gib: u32,
    },
    /// Buy more days; an expired territory starts again, empty
    #[command(after_help = "Examples:
  cessfs territory renew photos --days 30")]
    Renew {
        #[command(flatten)]
        who: Who,
        /// How many more
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        days: u32,
    },
}

/// Asks the chain, or buys.
///
/// # Errors
/// What the chain says.
pub fn run(args: &TerritoryArgs, context: &Context) -> Result<(), Failure> {
    let (who, purchase) = match &args.what {
        What::Show { who } => (who, None),
        What::Mint { who, gib, days } => (who, Some(Purchase::Mint { gib: *gib, days: *days })),
        What::Expand { who, gib } => (who, Some(Purchase::Expand { gib: *gib })),
        What::Renew { who, days } => (who, Some(Purchase::Renew { days: *days })),
    };
    let volume = context.home.existing(&who.name)?;
    let config = VolumeConfig::load(&volume.config())?;
    if purchase.is_none()
        && let Ok(told) = client::status(&volume)
    {
        // The daemon knows, and nobody needs to type a passphrase.
        if !told.chain_reachable {
            let what = format!("the CESS node at {} cannot be reached", config.rpc);
            return Err(Failure::new(Exit::ChainAway, what).hint("check the address and this machine's network"));
        }
        return print(told.territory.as_ref(), &config.territory, context);
    }
    let sources = Sources::new(who.key_file.clone(), who.passphrase_file.clone());
    let slots = wiring::key_slots(&volume)?;
    let keys = sources.for_mount(&who.name, &slots)?.open(&slots)?;
    let runtime = wiring::runtime()?;
    let _inside = runtime.enter();
    let chain = wiring::chain(&config.rpc, keys.account_key(), network::pin(&volume)?)?;
    let told = runtime.block_on(deal(chain.as_ref(), &config, purchase));
    runtime.shutdown_background();
    print(told?.as_ref(), &config.territory, context)
}

/// What is bought.
#[derive(Clone, Copy, Debug)]
enum Purchase {
    Mint { gib: u32, days: u32 },
    Expand { gib: u32 },
    Renew { days: u32 },
}

/// Buys, if anything is bought, and tells the territory as it is then.
async fn deal(
    chain: &dyn Chain,
    config: &VolumeConfig,
    purchase: Option<Purchase>,
) -> Result<Option<TerritoryStatus>, Failure> {
    let info = reach(&config.rpc, chain.info()).await?;
    if let Some(purchase) = purchase {
        let name = &config.territory;
        if let Purchase::Mint { .. } = purchase {
            refuse_second(chain, config).await?;
        }
        let bought = match purchase {
            Purchase::Mint { gib, days } => {
                if let Some(price) = survey::price(&info, gib, days) {
                    tell!(
                        "{gib} GiB for {days} days cost {}",
                        units::tcess_up(price, &info.token_symbol)
                    );
                }
                chain.mint_territory(name, gib, days)
            }
            Purchase::Expand { gib } => chain.expand_territory(name, gib),
            Purchase::Renew { days } => chain.renew_territory(name, days),
        };
        // Not bounded: a purchase ends at a finalized block, and giving up on it would not undo it.
        let waiting = Waiting::on("waiting for the chain");
        bought.await?;
        drop(waiting);
    }
    let answer = reach(&config.rpc, survey::ask_chain(chain, &config.territory)).await?;
    Ok(answer
        .territory
        .as_ref()
        .map(|territory| survey::territory_status(territory, answer.height)))
}

/// The chain would only say that it holds purchased space.
async fn refuse_second(chain: &dyn Chain, config: &VolumeConfig) -> Result<(), Failure> {
    let name = &config.territory;
    let Some(found) = reach(&config.rpc, chain.territory(name)).await? else {
        return Ok(());
    };
    let hint = match found.state {
        TerritoryState::Active => {
            "`cessfs territory expand NAME --gib N` buys more space, `cessfs territory renew NAME --days N` more days"
        }
        _ => "`cessfs territory renew NAME --days N` pays for more days",
    };
    Err(Failure::new(Exit::Refused, format!("the account has a territory `{name}` already")).hint(hint))
}

fn print(told: Option<&TerritoryStatus>, name: &str, context: &Context) -> Result<(), Failure> {
    let Some(t) = told else {
        return Err(
            Failure::new(Exit::Territory, format!("the account has no territory `{name}`"))
                .hint("`cessfs territory mint NAME` buys it"),
        );
    };
    if context.json {
        print_json(t);
        return Ok(());
    }
    say!("territory  {}: {}", t.name, t.state);
    say!("size       {}", units::bytes(t.total_bytes));
    say!("used       {}", units::bytes(t.used_bytes));
    say!("reserved   {}", units::bytes(t.locked_bytes));
    say!("left       {}", units::bytes(t.remaining_bytes));
    say!(
        "deadline   block {}, in about {} days",
        t.deadline_block,
        t.seconds_left / 86_400
    );
    Ok(())
}
