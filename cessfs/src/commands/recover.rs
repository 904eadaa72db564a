//! `cessfs recover NAME`: a volume from its phrase and the network, on a machine that has neither.
//!
//! Order: ask the network before anything is written; put everything together beside the volumes' places, under a name that no
//! volume has; give it its place with one rename. So a recovery that fails or is killed leaves no volume, and what it leaves
//! the next one clears. Nothing is written to the network.

mod report;

use super::{Context, init};
use crate::config::{self, AtRestMode, StoreBackend};
use crate::exit::{Exit, Failure};
use crate::home::{self, VolumeDir, VolumeName};
use crate::moment;
use crate::network;
use crate::progress::Waiting;
use crate::secret::{Secret, Sources, read_phrase};
use crate::seen::{self, Shown};
use crate::survey::reach;
use crate::wiring::{self, OsEntropy};
use cessfs_crypto::{PackSeq, Phrase, SS58_PREFIX, VolumeId, VolumeKeys};
use cessfs_sync::chain::Pin;
use cessfs_sync::ledger::PackState;
use cessfs_sync::recovery::{
    Archive, ArchiveParts, At, Continuation, Found, NoPlan, Pack, Packs, Plan, Step, Survey, has_chunk, install,
    staged_deltas, survey,
};
use cessfs_sync::{Chain, FetchError, MetaStore, StoreError};
use cessfs_vfs::delta::frame::apply_delta;
use cessfs_vfs::restore;
use clap::Args;
use report::{Listed, Recovered};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bring a volume back from its recovery phrase alone
///
/// Reads the account's packs from the network, restores the tree as of the newest complete one (or of --at), and makes a volume
/// that can be mounted at once: contents are fetched when they are read. Another machine that still writes to this volume stops
/// sending once this one is mounted (but not with `-o ro`); what it sent meanwhile is beside the history, and no later recovery will
/// see it. Mount within an hour: until then such a machine deletes nothing that is needed here.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs recover photos --phrase-file ~/photos.phrase --rpc wss://t2-rpc.cess.network
  cessfs recover photos --phrase-file p --rpc ws://127.0.0.1:9944 --passphrase-file pw
  cessfs recover photos --phrase-file p --rpc wss://t2-rpc.cess.network --list
  cessfs recover last-week --phrase-file p --rpc wss://t2-rpc.cess.network --at 2026-11-15T08:00")]
pub struct RecoverArgs {
    /// The name it gets on this machine
    name: VolumeName,
    /// The recovery phrase
    #[arg(long, value_name = "FILE")]
    phrase_file: PathBuf,
    /// Address of a CESS node
    #[arg(long, value_name = "URL")]
    rpc: String,
    /// Passphrase that will open the volume on this machine [default: asked for on the terminal]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Key file that will open the volume on this machine, instead of a passphrase
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    key_file: Option<PathBuf>,
    /// Which volume, where the phrase has several: the first characters of its id, or its territory
    #[arg(long, value_name = "ID")]
    volume: Option<String>,
    /// Go back to this pack (a number), or to this time (UTC; `2026-11-22T19:30:00Z`, its end may be left out)
    #[arg(long, value_name = "TIME|PACK", value_parser = parse_at)]
    at: Option<At>,
    /// How the local cache rests on disk; `plain` is for disks that are encrypted already
    #[arg(long, value_enum, default_value_t)]
    at_rest: AtRestMode,
    /// The database of the metadata store; chosen once
    #[arg(long, value_enum, default_value_t)]
    store: StoreBackend,
    /// Accept an older state than this machine has seen: packs are left out of the list, or their metadata cannot be read
    #[arg(long)]
    allow_older: bool,
    /// Only print the points to go back to
    #[arg(long)]
    list: bool,
}

fn parse_at(text: &str) -> Result<At, String> {
    if let Ok(number) = text.parse() {
        return Ok(At::Pack(PackSeq(number)));
    }
    let time = moment::parse(text).map(At::Time);
    time.ok_or_else(|| "this is neither the number of a pack nor a time like 2026-11-22T19:30:00Z".to_owned())
}

/// Everything that is known before anything is written.
struct Source {
    chain: Arc<dyn Chain>,
    chain_name: String,
    genesis: [u8; 32],
    phrase: Phrase,
    id: VolumeId,
    territory: String,
    keys: VolumeKeys,
}

impl Source {
    fn account(&self) -> String {
        self.chain.account().to_ss58(SS58_PREFIX)
    }
}

/// What was put together, and what it lacks.
struct Outcome {
    packs: Packs,
    plan: Plan,
    continuation: Continuation,
    restored: restore::Restored,
}

/// Recovers the volume.
///
/// # Errors
/// [`Exit::Nothing`] when the account has no pack of this phrase; [`Exit::Partial`] when the volume was made but something is
/// missing.
pub fn run(args: &RecoverArgs, context: &Context) -> Result<(), Failure> {
    let clock = wiring::clock();
    config::check_rpc(&args.rpc)?;
    config::warn_of_rpc(&args.rpc);
    let volume = context.home.place(&args.name)?;
    if volume.path().exists() && !args.list {
        let what = format!("there is already a volume `{}`", args.name);
        return Err(Failure::new(Exit::Exists, what).hint(format!(
            "choose another name, or move {} away first",
            volume.path().display()
        )));
    }
    let phrase = read_phrase(&args.phrase_file)?;
    let secret = match args.list {
        true => None,
        false => Some(Sources::new(args.key_file.clone(), args.passphrase_file.clone()).for_init(&args.name)?),
    };
    let runtime = wiring::runtime()?;
    let _inside = runtime.enter();
    let waiting = Waiting::on("asking the chain");
    let (source, found) = runtime.block_on(find(args, phrase, &waiting))?;
    let archive = Archive::new(ArchiveParts {
        chain: source.chain.clone(),
        fragments: wiring::fragments(&args.rpc)?,
        clock: clock.clone(),
        entropy: Box::new(OsEntropy),
        keys: source.keys.clone(),
        tasks: runtime.handle().clone().into(),
    });
    let packs = runtime.block_on(archive.open(found, &|step| show(&waiting, step)));
    let Some(secret) = secret else {
        drop(waiting);
        Listed::of(&source, &packs).print(context.json);
        return Ok(());
    };
    refuse_older(args, volume.home(), &source, Shown::Listed(packs.newest()))?;

    let place = volume.under_construction();
    place.clear()?;
    let built = runtime.block_on(build(args, &place, &source, &secret, &archive, packs, &waiting));
    let outcome = match built {
        Ok(outcome) => outcome,
        Err(failure) => {
            place.clear()?;
            return Err(failure);
        }
    };
    place.move_to(&volume)?;
    let newest = newest_tree(&outcome);
    let remembered = match args.allow_older {
        true => seen::go_back(volume.home(), source.id, newest),
        false => seen::note(volume.home(), source.id, newest),
    };
    drop(waiting);
    runtime.shutdown_background();
    let recovered = Recovered::of(args.name.as_str(), &source, &outcome, clock.monotonic());
    recovered.print(context.json);
    remembered?;
    recovered.verdict()
}

/// Asks the chain what there is, and chooses the volume.
async fn find(args: &RecoverArgs, phrase: Phrase, waiting: &Waiting) -> Result<(Source, Vec<Found>), Failure> {
    let secret = phrase.secret();
    let chain = wiring::chain(&args.rpc, secret.account_key(), Pin::first_met())?;
    let info = reach(&args.rpc, chain.info()).await?;
    let mut survey = survey(chain.as_ref(), &secret.label_key(), &|step| show(waiting, step)).await?;
    let account = chain.account().to_ss58(SS58_PREFIX);
    let id = choose(args, &survey, &account, &info.name)?;
    let found = survey.take(id);
    let newest = found.iter().max_by_key(|found| found.label.seq);
    let source = Source {
        territory: newest.map(|found| found.territory.clone()).unwrap_or_default(),
        chain,
        chain_name: info.name,
        genesis: info.genesis,
        keys: secret.volume_keys(id),
        phrase,
        id,
    };
    Ok((source, found))
}

fn choose(args: &RecoverArgs, survey: &Survey, account: &str, chain: &str) -> Result<VolumeId, Failure> {
    let fits = |id: &[u8; 16], found: &[Found]| match &args.volume {
        None => true,
        Some(wanted) => {
            hex::encode(id).starts_with(&wanted.to_lowercase()) || found.iter().any(|found| found.territory == *wanted)
        }
    };
    let fitting: Vec<(&[u8; 16], &Vec<Found>)> = survey.volumes.iter().filter(|(id, found)| fits(id, found)).collect();
    match (fitting.as_slice(), survey.volumes.len()) {
        ([(id, _)], _) => Ok(VolumeId(**id)),
        ([], 0) => Err(Failure::new(
            Exit::Nothing,
            format!(
                "no pack of this phrase is on {chain}: account {account} was searched, it holds {} other files",
                survey.foreign
            ),
        )
        .hint("check the words and the --rpc address; what never reached the network cannot come back")),
        ([], _) => Err(Failure::new(
            Exit::NoVolume,
            format!("no volume of this phrase is called that; there are {}", names(survey)),
        )),
        _ => Err(Failure::new(
            Exit::Usage,
            format!("this phrase has several volumes: {}", names(survey)),
        )
        .hint("choose one with --volume")),
    }
}

/// `ID (12 packs, territory docs), …`
fn names(survey: &Survey) -> String {
    let name = |(id, found): (&[u8; 16], &Vec<Found>)| {
        let territory = found.first().map_or("", |found| &found.territory);
        format!("{} ({} packs, territory {territory})", hex::encode(id), found.len())
    };
    let names: Vec<String> = survey.volumes.iter().map(name).collect();
    names.join(", ")
}

pub(super) fn show(waiting: &Waiting, step: Step) {
    waiting.say(match step {
        Step::Files(done, all) => format!("looking at the account's files: {done} of {all}"),
        Step::Packs(done, all) => format!("reading directories of packs: {done} of {all}"),
    });
}

/// The network must not show less than this machine has seen there before (I13).
fn refuse_older(args: &RecoverArgs, home: &Path, source: &Source, shown: Shown) -> Result<(), Failure> {
    match args.allow_older {
        true => Ok(()),
        false => seen::refuse_older(home, source.id, &args.rpc, shown),
    }
}

/// The newest tree that this network has, also if an earlier point was asked for.
fn newest_tree(outcome: &Outcome) -> PackSeq {
    let newest = outcome.packs.plan(At::Newest);
    newest.map_or(outcome.plan.head, |plan| plan.head)
}

/// Puts the volume together in `place`.
async fn build(
    args: &RecoverArgs,
    place: &VolumeDir,
    source: &Source,
    secret: &Secret,
    archive: &Archive,
    mut packs: Packs,
    waiting: &Waiting,
) -> Result<Outcome, Failure> {
    place.create()?;
    let _lock = place.lock()?;
    let territory = source.territory.clone();
    let mut config = init::configuration(&args.rpc, territory, source.chain.as_ref(), args.at_rest);
    config.store.backend = args.store;
    let at = args.at.unwrap_or(At::Newest);
    let (plan, store) = loop {
        let plan = packs.plan(at).map_err(|e| no_plan(e, &packs))?;
        // An earlier point is what was asked for.
        if at == At::Newest {
            refuse_older(args, place.home(), source, Shown::Readable(plan.head))?;
        }
        let store = wiring::journal(place, &config, &source.keys)?;
        match replay(
            &plan,
            archive,
            &packs,
            store.as_ref(),
            (&place.staging(), &source.keys),
            waiting,
        )
        .await
        {
            Ok(()) => break (plan, store),
            Err(Stopped::Disk(error)) => return Err(error.into()),
            Err(Stopped::Unreadable(seq, why)) => {
                // Without its metadata the plan is another one; what was replayed so far may not be part of it.
                packs.lose_deltas(seq, why);
                drop(store);
                place.empty_journal()?;
            }
        }
    };
    waiting.say("looking the tree over");
    let continuation = Continuation {
        // Who goes back, or cannot have what is newest, may only want to look.
        claims: matches!(at, At::Newest) && plan.beyond.is_empty(),
        ..Continuation::after(&packs, &mut OsEntropy)
    };
    install(store.as_ref(), &packs, &plan, continuation)?;
    let restored = restore::finish(store.as_ref(), &source.keys, &|id| has_chunk(store.as_ref(), id))?;
    if let Some(told) = report::lost_history(&packs, &plan) {
        restore::note_lost_history(store.as_ref(), &told)?;
    }
    store.barrier()?;
    // The journal is closed before it is moved.
    drop(store);
    waiting.say("making the keys");
    let slots = init::key_slots(source.id, &source.phrase, secret)?;
    home::write_new(&place.keys(), slots.to_json().as_bytes())?;
    network::write(place, source.genesis)?;
    home::write_new(&place.config(), config.to_toml().as_bytes())?;
    Ok(Outcome {
        packs,
        plan,
        continuation,
        restored,
    })
}

/// Why a replay ended early.
pub(super) enum Stopped {
    /// The metadata of this pack cannot be read.
    Unreadable(PackSeq, String),
    /// The local disk failed.
    Disk(StoreError),
}

pub(super) async fn replay(
    plan: &Plan,
    archive: &Archive,
    packs: &Packs,
    store: &dyn MetaStore,
    (staging, keys): (&Path, &VolumeKeys),
    waiting: &Waiting,
) -> Result<(), Stopped> {
    for (number, seq) in plan.replay.iter().enumerate() {
        waiting.say(format!(
            "reading metadata: pack {} of {}",
            number + 1,
            plan.replay.len()
        ));
        if packs.good[seq].record.state == PackState::Sealed {
            replay_staged(&packs.good[seq], staging, keys, store)?;
            continue;
        }
        let read = archive.deltas(&packs.good[seq], |frame| {
            apply_delta([frame], store).map_err(FetchError::from)
        });
        match read.await {
            Ok(()) => {}
            // A frame that opened and is no delta: of a newer version, or of a writer gone mad. Disks fail otherwise.
            Err(FetchError::Store(StoreError::Corrupt(why))) => return Err(Stopped::Unreadable(*seq, why)),
            Err(FetchError::Store(error)) => return Err(Stopped::Disk(error)),
            Err(error) => return Err(Stopped::Unreadable(*seq, error.to_string())),
        }
    }
    Ok(())
}

/// A pack that this disk alone has.
fn replay_staged(pack: &Pack, staging: &Path, keys: &VolumeKeys, store: &dyn MetaStore) -> Result<(), Stopped> {
    let seq = pack.record.seq;
    for frame in staged_deltas(pack, staging, keys).map_err(|why| Stopped::Unreadable(seq, why))? {
        match apply_delta([frame], store) {
            Ok(()) => {}
            Err(StoreError::Corrupt(why)) => return Err(Stopped::Unreadable(seq, why)),
            Err(error) => return Err(Stopped::Disk(error)),
        }
    }
    Ok(())
}

pub(super) fn no_plan(error: NoPlan, packs: &Packs) -> Failure {
    let what = match error {
        NoPlan::BeforeFirst(first) => {
            format!(
                "the volume begins later: its first pack was sealed at {}",
                moment::format(first)
            )
        }
        other => other.to_string(),
    };
    match error {
        NoPlan::BeforeFirst(_) | NoPlan::NoSuchPack(_) => {
            Failure::new(Exit::Usage, what).hint("--list prints the points to go back to")
        }
        _ => {
            let first = packs.lost.iter().next();
            let why = first.map_or(String::new(), |(seq, lost)| format!("; pack {}: {}", seq.0, lost.why));
            Failure::new(
                Exit::Nothing,
                format!("{what} ({} packs cannot{why})", packs.lost.len()),
            )
            .hint("miners may be away for a while: try again later")
        }
    }
}
