//! `cessfs init NAME`.
//!
//! Order: ask the network before anything is written; write the phrase before anything is bought; leave nothing behind when
//! it fails before money moved, and nothing out when it fails after.

use super::{Context, print_json};
use crate::config::{
    self, AtRestMode, CONFIG_VERSION, GcConfig, KernelCache, LogLevel, Metered, Passthrough, RepairConfig, ScrubConfig,
    StoreBackend, StoreConfig, TrashConfig, VolumeConfig,
};
use crate::exit::{Exit, Failure};
use crate::home::{self, VolumeDir, VolumeName};
use crate::limits;
use crate::network;
use crate::output;
use crate::progress::Waiting;
use crate::secret::{Secret, Sources, read_phrase};
use crate::survey::{self, Answer, reach};
use crate::units;
use crate::wiring::{self, OsEntropy};
use cessfs_crypto::{Entropy, KeySlots, Phrase, SS58_PREFIX, VolumeId};
use cessfs_sync::Chain;
use cessfs_sync::chain::{ChainError, Pin, Planck, TerritoryState};
use cessfs_sync::limits::BACKLOG_BOUND_BYTES;
use cessfs_vfs::limits::ROOM_WAIT_DEFAULT;
use clap::Args;
use serde::Serialize;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Chain name of the devnet, whose faucet pays for new accounts.
const DEVNET: &str = "cess-devnet-local";
/// How often the balance is looked at while the faucet's money is on its way.
const FAUCET_POLL: Duration = Duration::from_millis(200);

/// Make a volume: keys, account, territory
///
/// The 24-word recovery phrase is the volume: whoever has it can read everything and spend the account's TCESS, and without
/// it nothing can be restored on another machine. It is written to --new-phrase-file, or shown once on the terminal.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs init photos --rpc wss://t2-rpc.cess.network --new-phrase-file ~/photos.phrase
  cessfs init photos --rpc ws://127.0.0.1:9944 --new-phrase-file p --passphrase-file pw --gib 16 --days 30
  cessfs init again --rpc wss://t2-rpc.cess.network --phrase-file ~/photos.phrase --territory again")]
pub struct InitArgs {
    /// Its name on this machine: lower-case letters, digits, `_` and `-`
    name: VolumeName,
    /// Address of a CESS node
    #[arg(long, value_name = "URL")]
    rpc: String,
    /// Use the recovery phrase in this file
    #[arg(long, value_name = "FILE", conflicts_with = "new_phrase_file")]
    phrase_file: Option<PathBuf>,
    /// Make a new recovery phrase and write it here; the file must not exist
    #[arg(long, value_name = "FILE")]
    new_phrase_file: Option<PathBuf>,
    /// Passphrase that will open the volume on this machine [default: asked for on the terminal]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Key file that will open the volume on this machine, instead of a passphrase
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    key_file: Option<PathBuf>,
    /// How the local cache rests on disk; `plain` is for disks that are encrypted already
    #[arg(long, value_enum, default_value_t)]
    at_rest: AtRestMode,
    /// Database under the volume's metadata store
    #[arg(long, value_enum, default_value_t)]
    store: StoreBackend,
    /// Territory to use, bought if there is none of that name [default: NAME]
    #[arg(long, value_name = "NAME")]
    territory: Option<String>,
    /// GiB of the territory, if it is bought
    #[arg(long, default_value_t = limits::TERRITORY_GIB_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    gib: u32,
    /// Days of the territory, if it is bought; the chain's least is 30
    #[arg(long, default_value_t = limits::TERRITORY_DAYS_DEFAULT, value_parser = limits::territory_days())]
    days: u32,
}

/// What `init --json` prints.
#[derive(Serialize)]
struct Made {
    volume: String,
    account: String,
    territory: String,
    chain: String,
    at_rest: AtRestMode,
}

/// Makes the volume.
///
/// # Errors
/// [`Exit::NoFunds`] when the account has to be paid first: the volume stays, and stdout says what to send where.
pub fn run(args: &InitArgs, context: &Context) -> Result<(), Failure> {
    config::check_rpc(&args.rpc)?;
    config::warn_of_rpc(&args.rpc);
    let volume = context.home.place(&args.name)?;
    refuse_existing(args, &volume)?;
    let phrase = phrase(args)?;
    let secret = Sources::new(args.key_file.clone(), args.passphrase_file.clone()).for_init(&args.name)?;
    let keys = phrase.secret();
    let runtime = wiring::runtime()?;
    let _inside = runtime.enter();
    let chain = wiring::chain(&args.rpc, keys.account_key(), Pin::first_met())?;
    let territory = args.territory.clone().unwrap_or_else(|| args.name.to_string());
    let answer = runtime.block_on(reach(&args.rpc, survey::ask_chain(chain.as_ref(), &territory)))?;

    let mut traces = Traces::default();
    write_phrase(args, &phrase, &mut traces)?;
    let mut config = configuration(&args.rpc, territory, chain.as_ref(), args.at_rest);
    config.store.backend = args.store;
    write_volume((&volume, &config, answer.info.genesis), &phrase, &secret, &mut traces)?;
    let order = Order {
        args,
        config: &config,
        chain,
    };
    let bought = runtime.block_on(order.fill(&answer, &mut traces));
    runtime.shutdown_background();
    bought.inspect_err(|_| traces.remove())?;
    report(args, &config, &answer, context);
    Ok(())
}

fn refuse_existing(args: &InitArgs, volume: &VolumeDir) -> Result<(), Failure> {
    if volume.path().exists() {
        return Err(
            Failure::new(Exit::Exists, format!("there is already a volume `{}`", args.name)).hint(format!(
                "choose another name, or move {} away: what is not on the network yet is only there",
                volume.path().display()
            )),
        );
    }
    match &args.new_phrase_file {
        Some(path) if path.symlink_metadata().is_ok() => Err(Failure::new(
            Exit::Exists,
            format!("{} exists and is not overwritten", path.display()),
        )
        .hint("if it holds a phrase to use, give it as --phrase-file")),
        None if args.phrase_file.is_none() && !std::io::stdout().is_terminal() => Err(Failure::new(
            Exit::Usage,
            "there is no terminal to show the recovery phrase on",
        )
        .hint("give --new-phrase-file FILE, or --phrase-file FILE for a phrase you have")),
        _ => Ok(()),
    }
}

fn phrase(args: &InitArgs) -> Result<Phrase, Failure> {
    match &args.phrase_file {
        Some(path) => read_phrase(path),
        None => Ok(Phrase::generate(&mut OsEntropy)),
    }
}

/// Keeps a new phrase before anything depends on it.
fn write_phrase(args: &InitArgs, phrase: &Phrase, traces: &mut Traces) -> Result<(), Failure> {
    if let Some(path) = &args.new_phrase_file {
        let line = Zeroizing::new(format!("{}\n", phrase.words()));
        home::write_new(path, line.as_bytes())?;
        traces.phrase = Some(path.clone());
    } else if args.phrase_file.is_none() {
        tell!("The recovery phrase of this volume. It is shown only now: write it down, and keep it secret.");
        say!("\n{}\n", phrase.words());
        output::arrived()?;
    }
    Ok(())
}

/// The configuration of a new volume.
pub(super) fn configuration(rpc: &str, territory: String, chain: &dyn Chain, at_rest: AtRestMode) -> VolumeConfig {
    VolumeConfig {
        version: CONFIG_VERSION,
        rpc: rpc.to_owned(),
        territory,
        account: chain.account().to_ss58(SS58_PREFIX),
        at_rest,
        created: wiring::clock().wall().as_secs(),
        cache_size: limits::CACHE_BYTES_DEFAULT,
        writeback_delay: limits::WRITEBACK_DELAY_DEFAULT,
        uplink_max: 0,
        uplink_schedule: Vec::new(),
        metered: Metered::Send,
        backlog_max: BACKLOG_BOUND_BYTES,
        full_wait: ROOM_WAIT_DEFAULT,
        kernel_cache: KernelCache::default(),
        passthrough: Passthrough::default(),
        log_level: LogLevel::default(),
        store: StoreConfig::default(),
        trash: TrashConfig::default(),
        scrub: ScrubConfig::default(),
        repair: RepairConfig::default(),
        gc: GcConfig::default(),
    }
}

/// Makes the volume's directory with keys, configuration, and the network it is on.
fn write_volume(
    made: (&VolumeDir, &VolumeConfig, [u8; 32]),
    phrase: &Phrase,
    secret: &Secret,
    traces: &mut Traces,
) -> Result<(), Failure> {
    let written = try_write_volume(made, phrase, secret, traces);
    written.inspect_err(|_| traces.remove())
}

fn try_write_volume(
    (volume, config, genesis): (&VolumeDir, &VolumeConfig, [u8; 32]),
    phrase: &Phrase,
    secret: &Secret,
    traces: &mut Traces,
) -> Result<(), Failure> {
    let mut id = [0; 16];
    OsEntropy.fill(&mut id);
    let slots = key_slots(VolumeId(id), phrase, secret)?;
    volume.create()?;
    traces.volume = Some(volume.path().to_owned());
    home::write_new(&volume.keys(), slots.to_json().as_bytes())?;
    network::write(volume, genesis)?;
    home::write_new(&volume.config(), config.to_toml().as_bytes())
}

/// Slots that open a volume on this machine. Takes a second, on purpose.
pub(super) fn key_slots(id: VolumeId, phrase: &Phrase, secret: &Secret) -> Result<KeySlots, Failure> {
    let _waiting = Waiting::on("making the keys");
    let mut slots = KeySlots::new(id);
    let keys = phrase.secret();
    secret.lock(&mut slots, &keys)?;
    slots.set_phrase(&keys, phrase, &mut OsEntropy)?;
    Ok(slots)
}

/// What was made so far, to be taken back if it was for nothing.
#[derive(Default)]
struct Traces {
    phrase: Option<PathBuf>,
    volume: Option<PathBuf>,
}

impl Traces {
    /// Money moves, or the user was told to pay: phrase and volume are worth something now.
    fn keep(&mut self) {
        *self = Traces::default();
    }

    fn remove(&mut self) {
        let phrase = self.phrase.take().map(|path| (std::fs::remove_file(&path), path));
        let volume = self.volume.take().map(|path| (std::fs::remove_dir_all(&path), path));
        for (removed, path) in phrase.into_iter().chain(volume) {
            if let Err(e) = removed {
                tell!("warning: {} stays behind: {e}", path.display());
            }
        }
    }
}

/// The territory that is to be there in the end.
struct Order<'a> {
    args: &'a InitArgs,
    config: &'a VolumeConfig,
    chain: Arc<dyn Chain>,
}

impl Order<'_> {
    async fn fill(&self, answer: &Answer, traces: &mut Traces) -> Result<(), Failure> {
        let name = &self.config.territory;
        match &answer.territory {
            Some(territory) if territory.state == TerritoryState::Active => return Ok(()),
            Some(_) => {
                return Err(
                    Failure::new(Exit::Territory, format!("territory `{name}` takes no uploads"))
                        .hint("choose another with --territory, or renew that one first"),
                );
            }
            None => {}
        }
        let price = survey::price(&answer.info, self.args.gib, self.args.days);
        let symbol = &answer.info.token_symbol;
        if let Some(price) = price {
            let (gib, days) = (self.args.gib, self.args.days);
            tell!(
                "territory `{name}`: {gib} GiB for {days} days cost {}",
                units::tcess_up(price, symbol)
            );
        }
        let needed = price.unwrap_or(0) + answer.info.existential_deposit + limits::FEE_RESERVE;
        if answer.balance < needed {
            if answer.info.name != DEVNET {
                traces.keep();
                return Err(self.ask_for_money(needed - answer.balance, symbol));
            }
            self.faucet(needed, traces).await?;
        }
        traces.keep();
        let waiting = Waiting::on("buying the territory");
        let minted = self.chain.mint_territory(name, self.args.gib, self.args.days).await;
        drop(waiting);
        minted.map_err(|e| self.not_bought(e))
    }

    /// The volume and its phrase stay: what was paid belongs to them.
    fn not_bought(&self, error: ChainError) -> Failure {
        let name = &self.args.name;
        Failure::from(error)
            .during("the territory was not bought")
            .hint(format!(
                "the volume stays; `cessfs territory mint {name} --gib {} --days {}` tries again",
                self.args.gib, self.args.days
            ))
    }

    fn ask_for_money(&self, missing: Planck, symbol: &str) -> Failure {
        say!("account {}", self.config.account);
        say!("send    {}", units::tcess_up(missing, symbol));
        let name = &self.args.name;
        Failure::new(
            Exit::NoFunds,
            format!("the account of volume `{name}` has too little {symbol}"),
        )
        .hint(format!(
            "send it, then `cessfs territory mint {name} --gib {} --days {}` completes the volume",
            self.args.gib, self.args.days
        ))
    }

    /// A devnet pays by itself.
    async fn faucet(&self, needed: Planck, traces: &mut Traces) -> Result<(), Failure> {
        let _waiting = Waiting::on("waiting for the devnet's faucet");
        self.chain.faucet().await?;
        traces.keep();
        let account = self.chain.account();
        let arrived = async {
            while self.chain.balance(account).await? < needed {
                tokio::time::sleep(FAUCET_POLL).await;
            }
            Ok::<(), ChainError>(())
        };
        match tokio::time::timeout(limits::FAUCET_TIMEOUT, arrived).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(Failure::new(
                Exit::NoFunds,
                "the devnet's faucet does not give enough for this territory",
            )
            .hint("ask for fewer GiB or days")),
        }
    }
}

fn report(args: &InitArgs, config: &VolumeConfig, answer: &Answer, context: &Context) {
    if context.json {
        print_json(&Made {
            volume: args.name.to_string(),
            account: config.account.clone(),
            territory: config.territory.clone(),
            chain: answer.info.name.clone(),
            at_rest: config.at_rest,
        });
        return;
    }
    say!("volume    {}", args.name);
    say!("account   {}", config.account);
    say!("territory {}", config.territory);
    if let Some(path) = &args.new_phrase_file {
        remind(path);
    }
    tell!("`cessfs mount {} DIR` mounts it", args.name);
}

fn remind(path: &Path) {
    tell!(
        "the recovery phrase is in {}: keep a copy away from this machine",
        path.display()
    );
}
