//! `cessfs fsck NAME --rebuild`: a new journal for a volume whose journal does not open.
//!
//! Two sources, in this order. The damaged journal itself, on a copy, without the files that only help it start faster: if
//! then every record can be read and the tree is whole, nothing is lost. Else the network and the packs that were sealed here
//! and wait to be sent; what only the journal and the cache knew is then missing, and is listed.
//!
//! The new journal is put together beside the old one and takes its place in one exchange, so a rebuild that is killed leaves
//! either. Nothing is deleted: what was damaged is kept, and so is the cache that belongs to it.

use super::{Held, leave};
use crate::commands::recover::{self, Stopped};
use crate::commands::{Context, print_json};
use crate::config::AtRestMode;
use crate::exit::{Exit, Failure};
use crate::home::VolumeDir;
use crate::limits::JOURNAL_COPY_RECORDS;
use crate::network;
use crate::output;
use crate::progress::Waiting;
use crate::seen::{self, Shown};
use crate::survey::reach;
use crate::units;
use crate::wiring::{self, OsEntropy};
use cessfs_crypto::{PackSeq, VolumeKeys};
use cessfs_sync::check;
use cessfs_sync::ledger::PackState;
use cessfs_sync::recovery::{Archive, ArchiveParts, At, Continuation, Packs, has_chunk, install, survey, take_staged};
use cessfs_sync::{Batch, MetaStore, StoreError};
use cessfs_vfs::check::check_tree;
use cessfs_vfs::restore;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde::Serialize;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Files listed for people; JSON has all.
const LINES_MAX: usize = 20;

#[derive(Clone, Serialize)]
struct LostPack {
    seq: u64,
    why: String,
}

/// Content that was in the cache and may be newer than what came back.
#[derive(Clone, Serialize)]
struct LocalOnly {
    inode: u64,
    path: Option<String>,
    bytes: u64,
}

#[derive(Clone, Default, Serialize)]
struct Rebuilt {
    volume: String,
    source: &'static str,
    #[serde(serialize_with = "output::all_lossy")]
    kept: Vec<PathBuf>,
    files: u64,
    head: Option<u64>,
    staged_packs: Vec<u64>,
    lost_packs: Vec<LostPack>,
    local_only: Vec<LocalOnly>,
    findings: Vec<String>,
}

/// Rebuilds.
///
/// # Errors
/// [`Exit::Partial`] when something is missing. With [`Exit::Nothing`], neither journal nor network nor disk have the volume, and
/// with [`Exit::Refused`], the network shows an older state than was seen here, nothing was changed.
pub(super) fn run(held: &Held, allow_older: bool, context: &Context) -> Result<(), Failure> {
    let keys = held.secret.volume_keys(held.slots.volume());
    let waiting = Waiting::on("reading the journal");
    let mut report = Rebuilt {
        volume: held.dir.name().to_string(),
        source: "none",
        ..Rebuilt::default()
    };
    if !is_whole(&held.dir.journal(), held, &keys)? {
        let place = Place::make(&held.dir)?;
        if from_journal(held, &keys, &place)? {
            report.source = "journal";
            report.kept.push(place.exchange(&held.dir.journal(), "journal")?);
        } else {
            waiting.say("asking the network");
            from_network((held, &keys), allow_older, &place, &mut report, &waiting)?;
        }
        leave(&held.dir, &report.at_rest(held.config.at_rest))?;
    }
    drop(waiting);
    if context.json {
        print_json(&report);
    } else {
        report.print();
    }
    report.verdict()
}

/// The journal opens, every record of it can be read, an engine takes what it says of packs, and the tree in it is whole.
///
/// # Errors
/// [`Exit::Config`] when volume.toml says something else of it than it shows: that is no damage.
fn is_whole(journal: &Path, held: &Held, keys: &VolumeKeys) -> Result<bool, Failure> {
    let name = held.dir.name().as_str();
    let store = match wiring::journal_at(journal, name, &held.config, keys) {
        Ok(store) => store,
        Err(failure) if failure.exit == Exit::Config => return Err(failure),
        Err(_) => return Ok(false),
    };
    let every = each_page(store.as_ref(), |_| Ok(())).and_then(|_| check::opens(store.clone()));
    Ok(every.is_ok() && check_tree(store.as_ref(), keys).is_ok_and(|findings| findings.is_empty()))
}

fn each_page(
    store: &dyn MetaStore,
    mut visit: impl FnMut(Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let (mut from, mut records) = (Vec::new(), 0);
    loop {
        let page = store.scan(b"", &from, JOURNAL_COPY_RECORDS)?;
        let Some((last, _)) = page.last() else {
            return Ok(records);
        };
        from.clone_from(last);
        from.push(0);
        records += page.len() as u64;
        visit(page)?;
    }
}

/// Where the new journal grows, and the old one ends up.
struct Place {
    dir: PathBuf,
    beside: PathBuf,
}

impl Place {
    /// An empty directory beside the journal. What an earlier rebuild left there is either half a new journal or the whole of
    /// a damaged one; it is kept either way.
    fn make(volume: &VolumeDir) -> Result<Place, Failure> {
        let place = Place {
            dir: volume.path().join("journal.rebuild"),
            beside: volume.path().to_path_buf(),
        };
        if place.dir.exists() {
            let kept = place.free_name("journal");
            fs::rename(&place.dir, &kept).map_err(|e| cannot("keep", &place.dir, &e))?;
        }
        make_private(&place.dir)?;
        Ok(place)
    }

    /// `WHAT.damaged-N`, not taken yet.
    fn free_name(&self, what: &str) -> PathBuf {
        let name = |n: u64| self.beside.join(format!("{what}.damaged-{n}"));
        (1..)
            .map(name)
            .find(|path| !path.exists())
            .expect("there are many numbers")
    }

    /// An empty copy of `from`'s place, so that what is tried on it changes nothing.
    fn copy_of(&self, from: &Path) -> Result<PathBuf, Failure> {
        let to = self.beside.join("journal.try");
        if to.exists() {
            fs::remove_dir_all(&to).map_err(|e| cannot("remove", &to, &e))?;
        }
        make_private(&to)?;
        if from.exists() {
            copy_tree(from, &to).map_err(|e| cannot("copy", from, &e))?;
        }
        Ok(to)
    }

    /// Puts what was built in the place of `damaged`, in one step, and keeps that; says where.
    fn exchange(&self, damaged: &Path, what: &str) -> Result<PathBuf, Failure> {
        let kept = self.free_name(what);
        let failed = |e: std::io::Error| cannot("replace", damaged, &e);
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        exchange(&self.dir, damaged).map_err(failed)?;
        fs::rename(&self.dir, &kept).map_err(failed)?;
        File::open(&self.beside)
            .and_then(|dir| dir.sync_all())
            .map_err(failed)?;
        Ok(kept)
    }

    /// Puts an empty directory in the place of `full`, in one step; says where that is kept.
    fn empty(&self, full: &Path, what: &str) -> Result<PathBuf, Failure> {
        let kept = self.free_name(what);
        make_private(&kept)?;
        exchange(&kept, full).map_err(|e| cannot("set aside", full, &e))?;
        Ok(kept)
    }
}

fn exchange(new: &Path, old: &Path) -> std::io::Result<()> {
    if !old.exists() {
        return fs::create_dir(old).and_then(|()| exchange(new, old));
    }
    Ok(renameat2(AT_FDCWD, new, AT_FDCWD, old, RenameFlags::RENAME_EXCHANGE)?)
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::disk(format!("cannot {what} {}", path.display()), error)
}

fn make_private(path: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.map_err(|e| cannot("make", path, &e))
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Tries the damaged journal without what only helps it to start: true if the new one has every record of it.
fn from_journal(held: &Held, keys: &VolumeKeys, place: &Place) -> Result<bool, Failure> {
    let old = held.dir.journal();
    let name = held.dir.name().as_str();
    let spare: [fn(&str) -> bool; 3] = [
        |file| file == "conf",
        |file| file.starts_with("snap."),
        |file| file == "conf" || file.starts_with("snap."),
    ];
    let mut found = false;
    for spare in spare {
        let copy = place.copy_of(&old)?;
        let entries = fs::read_dir(&copy).map_err(|e| cannot("list", &copy, &e))?;
        for entry in entries.flatten() {
            if entry.file_name().to_str().is_some_and(spare) {
                fs::remove_file(entry.path()).map_err(|e| cannot("remove", &entry.path(), &e))?;
            }
        }
        if is_whole(&copy, held, keys)? {
            let old = wiring::journal_at(&copy, name, &held.config, keys)?;
            let new = wiring::journal_at(&place.dir, name, &held.config, keys)?;
            each_page(old.as_ref(), |page| {
                let mut batch = Batch::new();
                for (key, value) in page {
                    batch.put(key, value);
                }
                new.commit(batch)
            })?;
            new.barrier()?;
            found = true;
            break;
        }
    }
    let copy = place.beside.join("journal.try");
    fs::remove_dir_all(&copy).map_err(|e| cannot("remove", &copy, &e))?;
    Ok(found)
}

/// Builds from staged packs and the network, and sets the cache aside: what it holds belongs to the journal that is lost.
fn from_network(
    (held, keys): (&Held, &VolumeKeys),
    allow_older: bool,
    place: &Place,
    report: &mut Rebuilt,
    waiting: &Waiting,
) -> Result<(), Failure> {
    let runtime = wiring::runtime()?;
    let _inside = runtime.enter();
    let built = runtime.block_on(build((held, keys), allow_older, place, report, waiting));
    runtime.shutdown_background();
    let sealed_at_s = match built {
        Ok(sealed_at_s) => sealed_at_s,
        Err(failure) => {
            fs::remove_dir_all(&place.dir).map_err(|e| cannot("remove", &place.dir, &e))?;
            return Err(failure);
        }
    };
    report.source = "network";
    let cache = place.empty(&held.dir.cache(), "cache")?;
    report.kept.push(place.exchange(&held.dir.journal(), "journal")?);
    let store = wiring::journal(&held.dir, &held.config, keys)?;
    report.local_only = newer_content(&cache, sealed_at_s, store.as_ref()).map_err(|e| cannot("list", &cache, &e))?;
    report.kept.push(cache);
    Ok(())
}

async fn build(
    (held, keys): (&Held, &VolumeKeys),
    allow_older: bool,
    place: &Place,
    report: &mut Rebuilt,
    waiting: &Waiting,
) -> Result<u64, Failure> {
    let labels = held.secret.label_key();
    let chain = wiring::chain(&held.config.rpc, held.secret.account_key(), network::pin(&held.dir)?)?;
    reach(&held.config.rpc, chain.info()).await?;
    let mut survey = survey(chain.as_ref(), &labels, &|step| recover::show(waiting, step)).await?;
    let archive = Archive::new(ArchiveParts {
        chain,
        fragments: wiring::fragments(&held.config.rpc)?,
        clock: wiring::clock(),
        entropy: Box::new(OsEntropy),
        keys: keys.clone(),
        tasks: tokio::runtime::Handle::current().into(),
    });
    let found = survey.take(held.slots.volume());
    let mut packs = archive.open(found, &|step| recover::show(waiting, step)).await;
    let staging = held.dir.staging();
    let staged = take_staged(&mut packs, &staging, keys, &labels, &held.config.territory)?;
    report.staged_packs = staged.taken.iter().map(|seq| seq.0).collect();
    let (plan, store) = loop {
        let plan = packs.plan(At::Newest).map_err(|e| recover::no_plan(e, &packs))?;
        if !allow_older {
            seen::refuse_older(
                held.dir.home(),
                held.slots.volume(),
                &held.config.rpc,
                Shown::Readable(plan.head),
            )?;
        }
        let store = wiring::journal_at(&place.dir, held.dir.name().as_str(), &held.config, keys)?;
        match recover::replay(&plan, &archive, &packs, store.as_ref(), (&staging, keys), waiting).await {
            Ok(()) => break (plan, store),
            Err(Stopped::Disk(error)) => return Err(error.into()),
            Err(Stopped::Unreadable(seq, why)) => {
                packs.lose_deltas(seq, why);
                drop(store);
                fs::remove_dir_all(&place.dir).map_err(|e| cannot("empty", &place.dir, &e))?;
                make_private(&place.dir)?;
            }
        }
    };
    let continuation = Continuation {
        // It is where it was.
        claims: false,
        ..Continuation::after(&packs, &mut OsEntropy)
    };
    install(store.as_ref(), &packs, &plan, continuation)?;
    let restored = restore::finish(store.as_ref(), keys, &|id| has_chunk(store.as_ref(), id))?;
    store.barrier()?;
    drop(store);
    report.files = restored.files;
    report.head = Some(plan.head.0);
    report.findings = restored.findings;
    report.lost_packs = lost(&packs);
    let (home, id) = (held.dir.home(), held.slots.volume());
    // What is staged here is not on the network yet.
    let sent = |seq: &PackSeq| packs.good[seq].record.state >= PackState::Confirmed;
    let seen = packs.history(plan.head).into_iter().find(sent);
    let seen = seen.unwrap_or(PackSeq(0));
    match allow_older {
        true => seen::go_back(home, id, seen)?,
        false => seen::note(home, id, seen)?,
    }
    Ok(packs.good[&plan.head].record.sealed_at_s)
}

fn lost(packs: &Packs) -> Vec<LostPack> {
    let lost = packs.lost.iter().map(|(seq, lost)| LostPack {
        seq: seq.0,
        why: lost.why.clone(),
    });
    lost.collect()
}

/// Files of the old cache that were written after the tree that came back was sealed.
fn newer_content(cache: &Path, sealed_at_s: u64, store: &dyn MetaStore) -> std::io::Result<Vec<LocalOnly>> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    for dir in fs::read_dir(cache)?.flatten() {
        for file in fs::read_dir(dir.path())?.flatten() {
            let Some(inode) = file
                .file_name()
                .to_str()
                .and_then(|name| u64::from_str_radix(name, 16).ok())
            else {
                continue;
            };
            let metadata = file.metadata()?;
            if u64::try_from(metadata.mtime()).is_ok_and(|written| written + 1 >= sealed_at_s) && metadata.blocks() > 0
            {
                found.push(LocalOnly {
                    inode,
                    path: None,
                    bytes: metadata.blocks() * 512,
                });
            }
        }
    }
    found.sort_by_key(|file| file.inode);
    let inodes: Vec<u64> = found.iter().map(|file| file.inode).collect();
    let paths = restore::paths(store, &inodes).unwrap_or_default();
    for file in &mut found {
        file.path = paths.get(&file.inode).cloned();
    }
    Ok(found)
}

impl Rebuilt {
    /// What of it may rest on the disk: of a sealed volume no names.
    fn at_rest(&self, mode: AtRestMode) -> Rebuilt {
        let mut kept = self.clone();
        if mode != AtRestMode::Plain {
            kept.local_only.iter_mut().for_each(|file| file.path = None);
        }
        kept
    }

    fn print(&self) {
        match self.source {
            "none" => say!("the journal opens and is whole: there is nothing to rebuild"),
            "journal" => say!("every record of the damaged journal could be read: nothing is missing"),
            _ => {
                say!(
                    "rebuilt from the network and from {} packs staged on this disk: {} files, as of pack {}",
                    self.staged_packs.len(),
                    self.files,
                    self.head.unwrap_or(0)
                );
                say!("what was changed after that pack, and is not in it, is missing");
            }
        }
        for pack in &self.lost_packs {
            say!("pack {} cannot be read: {}", pack.seq, pack.why);
        }
        for finding in &self.findings {
            say!("{}", output::name(finding));
        }
        for file in self.local_only.iter().take(LINES_MAX) {
            let path = file.path.as_deref().unwrap_or("a file that the network never saw");
            let bytes = units::bytes(file.bytes);
            say!(
                "{} (inode {}): {bytes} in the cache that was kept may be newer",
                output::name(path),
                file.inode
            );
        }
        if self.local_only.len() > LINES_MAX {
            say!("… and {} more: --json lists them", self.local_only.len() - LINES_MAX);
        }
        for path in &self.kept {
            say!("kept: {}", path.display());
        }
    }

    fn verdict(&self) -> Result<(), Failure> {
        if self.source != "network" {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Partial,
            format!(
                "volume `{}` was rebuilt as the network and the staged packs have it",
                self.volume
            ),
        )
        .hint("it can be mounted; once nothing is missed any more, what was kept can be deleted"))
    }
}
