//! What `recover` tells: in JSON for scripts, in lines for people, and as an exit code.

use super::{Outcome, Source};
use crate::commands::print_json;
use crate::exit::{Exit, Failure};
use crate::{moment, output, units};
use cessfs_crypto::PackSeq;
use cessfs_sync::recovery::{Packs, Plan};
use serde::Serialize;
use std::time::Duration;

/// Files and packs that are named in lines for people; JSON has more.
const LINES_MAX: usize = 20;

/// A pack that no four miners give.
#[derive(Serialize)]
struct LostPack {
    seq: u64,
    fid: String,
    segments: u32,
    why: String,
}

#[derive(Serialize)]
struct MissingFile {
    path: String,
    inode: u64,
    chunks: u64,
    missing_chunks: u64,
}

/// What `recover --json` prints.
#[derive(Serialize)]
pub struct Recovered {
    volume: String,
    id: String,
    account: String,
    chain: String,
    territory: String,
    epoch: u32,
    head: u64,
    sealed_at: String,
    packs: usize,
    replayed: usize,
    files: u64,
    bytes: u64,
    seconds: f64,
    lost_packs: Vec<LostPack>,
    unreachable_packs: Vec<u64>,
    missing_files: Vec<MissingFile>,
    missing_file_count: u64,
    findings: Vec<String>,
}

#[derive(Serialize)]
struct Point {
    pack: u64,
    sealed_at: String,
    complete: bool,
    whole: bool,
}

/// What `recover --list --json` prints.
#[derive(Serialize)]
pub struct Listed {
    id: String,
    account: String,
    territory: String,
    points: Vec<Point>,
    lost_packs: Vec<LostPack>,
}

fn lost_packs(packs: &Packs) -> Vec<LostPack> {
    let gone = packs.lost.iter().map(|(seq, lost)| LostPack {
        seq: seq.0,
        fid: hex::encode(lost.fid.0),
        segments: lost.segments,
        why: lost.why.clone(),
    });
    let unread = packs.good.iter().filter_map(|(seq, pack)| {
        Some(LostPack {
            seq: seq.0,
            fid: hex::encode(pack.record.encoded.as_ref()?.fid.0),
            segments: pack.record.segments,
            why: format!("only its metadata: {}", pack.deltas_lost.as_ref()?),
        })
    });
    let twins = packs.twins.iter().flat_map(|(seq, fids)| {
        fids.iter().map(|fid| LostPack {
            seq: seq.0,
            fid: hex::encode(fid.0),
            segments: packs.good.get(seq).map_or(0, |pack| pack.record.segments),
            why: "two copies of the volume's directory each sealed a pack of this number; the other one counts"
                .to_owned(),
        })
    });
    gone.chain(unread).chain(twins).collect()
}

impl Listed {
    pub(super) fn of(source: &Source, packs: &Packs) -> Listed {
        let point = |point: cessfs_sync::recovery::Point| Point {
            pack: point.seq.0,
            sealed_at: moment::format(point.sealed_at_s),
            complete: point.complete,
            whole: point.whole,
        };
        Listed {
            id: hex::encode(source.id.0),
            account: source.account(),
            territory: source.territory.clone(),
            points: packs.points().into_iter().map(point).collect(),
            lost_packs: lost_packs(packs),
        }
    }

    /// Prints it.
    pub fn print(&self, json: bool) {
        if json {
            return print_json(self);
        }
        say!("volume    {}, territory {}", self.id, self.territory);
        say!("account   {}", self.account);
        for point in &self.points {
            let note = match (point.complete, point.whole) {
                (true, true) => "",
                (true, false) => "  its files may miss content: packs before it were deleted or lost",
                (false, _) => "  cannot be restored: a pack before it is missing",
            };
            say!("{:>16}  {}{note}", point.pack, point.sealed_at);
        }
        for lost in &self.lost_packs {
            say!("lost      pack {}: {}", lost.seq, lost.why);
        }
    }
}

impl Recovered {
    pub(super) fn of(name: &str, source: &Source, outcome: &Outcome, took: Duration) -> Recovered {
        let Outcome {
            packs,
            plan,
            continuation,
            restored,
        } = outcome;
        let file = |file: &cessfs_vfs::restore::MissingFile| MissingFile {
            path: file.path.clone(),
            inode: file.ino,
            chunks: file.chunks,
            missing_chunks: file.missing,
        };
        let absent = plan.missing.iter().filter(|seq| !packs.lost.contains_key(seq));
        let absent = absent.filter(|seq| !packs.good.contains_key(seq)).map(|seq| LostPack {
            seq: seq.0,
            fid: String::new(),
            segments: 0,
            why: "the account does not list it".to_owned(),
        });
        Recovered {
            volume: name.to_owned(),
            id: hex::encode(source.id.0),
            account: source.account(),
            chain: source.chain_name.clone(),
            territory: source.territory.clone(),
            epoch: continuation.epoch,
            head: plan.head.0,
            sealed_at: moment::format(packs.good[&plan.head].record.sealed_at_s),
            packs: packs.good.len(),
            replayed: plan.replay.len(),
            files: restored.files,
            bytes: restored.bytes,
            seconds: took.as_secs_f64(),
            lost_packs: lost_packs(packs).into_iter().chain(absent).collect(),
            unreachable_packs: plan.beyond.iter().map(|seq| seq.0).collect(),
            missing_files: restored.missing.iter().map(file).collect(),
            missing_file_count: restored.missing_files,
            findings: restored.findings.clone(),
        }
    }

    /// Prints it.
    pub fn print(&self, json: bool) {
        if json {
            return print_json(self);
        }
        say!("volume    {}", self.volume);
        say!("account   {}", self.account);
        say!("territory {}", self.territory);
        say!("restored  as of pack {}, sealed at {}", self.head, self.sealed_at);
        say!(
            "holds     {} files, {} in {} packs",
            self.files,
            units::bytes(self.bytes),
            self.packs
        );
        for lost in self.lost_packs.iter().take(LINES_MAX) {
            say!("lost      pack {}: {}", lost.seq, lost.why);
        }
        if !self.unreachable_packs.is_empty() {
            say!(
                "lost      the changes of {} later packs, which need one that is missing",
                self.unreachable_packs.len()
            );
        }
        for file in self.missing_files.iter().take(LINES_MAX) {
            say!(
                "missing   {}: {} of {} chunks",
                output::name(&file.path),
                file.missing_chunks,
                file.chunks
            );
        }
        for finding in self.findings.iter().take(LINES_MAX) {
            say!("broken    {}", output::name(finding));
        }
        tell!("`cessfs mount {} DIR` mounts it ({:.1} s)", self.volume, self.seconds);
    }

    /// Success, or what is missing in one sentence.
    ///
    /// # Errors
    /// [`Exit::Partial`].
    pub fn verdict(&self) -> Result<(), Failure> {
        let mut lacks = Vec::new();
        let mut count = |number: u64, what: &str| {
            if number > 0 {
                lacks.push(format!("{number} {what}"));
            }
        };
        count(self.lost_packs.len() as u64, "packs cannot be read");
        count(self.unreachable_packs.len() as u64, "later packs build on one of those");
        count(self.missing_file_count, "files miss content");
        count(self.findings.len() as u64, "invariants of the tree are broken");
        if lacks.is_empty() {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Partial,
            format!("the volume is back, but not whole: {}", lacks.join(", ")),
        )
        .hint("miners may be away for a while: a later recovery under another name may find more"))
    }
}

/// What is lost of the volume's history, in a sentence that `status` keeps telling; `None` if nothing is.
pub fn lost_history(packs: &Packs, plan: &Plan) -> Option<String> {
    if plan.missing.is_empty() && plan.beyond.is_empty() {
        return None;
    }
    let numbers = |seqs: &[PackSeq]| {
        let shown: Vec<String> = seqs.iter().take(LINES_MAX).map(|seq| seq.0.to_string()).collect();
        let more = if seqs.len() > LINES_MAX { ", …" } else { "" };
        format!("{}{more}", shown.join(", "))
    };
    let as_of = moment::format(packs.good[&plan.head].record.sealed_at_s);
    let mut told = format!(
        "this volume was recovered as of pack {}, sealed at {as_of}: the metadata of {} later packs ({}) could not be read",
        plan.head.0,
        plan.missing.len(),
        numbers(&plan.missing),
    );
    if !plan.beyond.is_empty() {
        told += &format!(
            ", and {} after them build on it ({})",
            plan.beyond.len(),
            numbers(&plan.beyond)
        );
    }
    Some(told + "; names and attributes changed in them are as they were before")
}
