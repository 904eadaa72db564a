//! Which packs to replay: the newest history, or an older point of it, as far as it is complete.

use super::Packs;
use cessfs_crypto::PackSeq;
use std::collections::BTreeSet;

/// Which point to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// As far as there is anything.
    Newest,
    /// After this pack.
    Pack(PackSeq),
    /// After the last pack sealed at or before this time (seconds since 1970, by the writer's clock).
    Time(u64),
}

/// What to replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The point that is restored.
    pub head: PackSeq,
    /// Packs whose deltas are needed, oldest first; the first is a checkpoint or the volume's first pack.
    pub replay: Vec<PackSeq>,
    /// Packs that come after `head` in its history and cannot be replayed, newest first: one of them, or one before them, is
    /// missing.
    pub beyond: Vec<PackSeq>,
    /// The packs that are missing before those.
    pub missing: Vec<PackSeq>,
}

/// A pack as a point to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its number.
    pub seq: PackSeq,
    /// When it was sealed, by the writer's clock.
    pub sealed_at_s: u64,
    /// Its tree can be read: all metadata it builds on is there.
    pub complete: bool,
    /// All its contents are there too, for certain. Not so when packs from before it were deleted since, unless a later
    /// checkpoint that it is, or comes after, was what allowed that; which content is missing is known when it is restored.
    pub whole: bool,
}

/// Why there is nothing to replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoPlan {
    /// No pack can be read, or none with all that it builds on.
    #[error("no pack of this volume can be read with everything it builds on")]
    NothingComplete,
    /// The account has no such pack.
    #[error("this volume has no pack {}", .0.0)]
    NoSuchPack(PackSeq),
    /// The volume is younger.
    #[error("this volume begins later: its first pack was sealed at {0} (seconds since 1970)")]
    BeforeFirst(u64),
}

impl Packs {
    /// Packs that can be replayed: each with everything back to a checkpoint or to the first, and that known without a doubt.
    fn complete(&self) -> BTreeSet<PackSeq> {
        let mut complete = BTreeSet::new();
        // Oldest first: what a pack continues from has a lower number, its footer says so.
        for (seq, pack) in &self.good {
            if pack.deltas_lost.is_some() {
                continue;
            }
            let continues = complete.contains(&pack.previous) && !self.twins.contains_key(&pack.previous);
            if pack.is_checkpoint() || pack.previous.0 == 0 || continues {
                complete.insert(*seq);
            }
        }
        complete
    }

    /// The history that ends with `tip`, newest first, and the packs missing in it. Where one is missing, what it continued
    /// from is not known: the newest before it is taken.
    fn line(&self, tip: PackSeq) -> (Vec<PackSeq>, Vec<PackSeq>) {
        let (mut line, mut missing) = (Vec::new(), Vec::new());
        let mut at = tip;
        while at.0 > 0 {
            match self.good.get(&at) {
                Some(pack) => {
                    line.push(at);
                    at = pack.previous;
                }
                None => {
                    missing.push(at);
                    at = self.good.range(..at).next_back().map_or(PackSeq(0), |(seq, _)| *seq);
                }
            }
        }
        (line, missing)
    }

    /// The packs of the history that ends with `head`, newest first.
    pub fn history(&self, head: PackSeq) -> Vec<PackSeq> {
        self.line(head).0
    }

    /// The points of the newest history, oldest first. Numbers of later epochs are higher, so its end is the highest.
    pub fn points(&self) -> Vec<Point> {
        let complete = self.complete();
        let (line, missing) = self.line(self.newest());
        // Packs are deleted only after a checkpoint later than them, at most the newest, told a tree that does not need them.
        let is_start = |seq: &&PackSeq| complete.contains(*seq) && self.good[*seq].is_checkpoint();
        let start = line.iter().find(is_start).copied();
        let first_gone = missing.iter().min().copied();
        let whole = |seq: PackSeq| {
            let has_all = start.is_some_and(|start| seq >= start) || first_gone.is_none_or(|gone| seq < gone);
            has_all && self.lost.range(..=seq).next().is_none()
        };
        let point = |seq: &PackSeq| Point {
            seq: *seq,
            sealed_at_s: self.good[seq].record.sealed_at_s,
            complete: complete.contains(seq),
            whole: complete.contains(seq) && whole(*seq),
        };
        line.iter().rev().map(point).collect()
    }

    /// What to replay to get to `at`.
    ///
    /// # Errors
    /// There is no such point, or nothing complete at or before it.
    pub fn plan(&self, at: At) -> Result<Plan, NoPlan> {
        let tip = match at {
            At::Pack(seq) if !self.good.contains_key(&seq) && !self.lost.contains_key(&seq) => {
                return Err(NoPlan::NoSuchPack(seq));
            }
            At::Pack(seq) => seq,
            At::Newest | At::Time(_) => self.newest(),
        };
        let (mut line, mut missing) = self.line(tip);
        if let At::Time(time) = at {
            let sealed_at = |seq: &PackSeq| self.good[seq].record.sealed_at_s;
            let first = line.last().map(sealed_at).ok_or(NoPlan::NothingComplete)?;
            let newest = line.iter().position(|seq| sealed_at(seq) <= time);
            line.drain(..newest.ok_or(NoPlan::BeforeFirst(first))?);
            missing.retain(|seq| *seq < line[0]);
        }
        let complete = self.complete();
        let found = line.iter().position(|seq| complete.contains(seq));
        let found = found.ok_or(NoPlan::NothingComplete)?;
        let head = line[found];
        let mut replay = Vec::new();
        let mut next = head;
        loop {
            replay.push(next);
            let pack = &self.good[&next];
            if pack.is_checkpoint() || pack.previous.0 == 0 {
                break;
            }
            next = pack.previous;
        }
        replay.reverse();
        missing.retain(|seq| *seq > head);
        let unread = |seq: &&PackSeq| self.good[*seq].deltas_lost.is_some();
        missing.extend(line[..found].iter().filter(unread));
        let unclear = |seq: &&PackSeq| self.twins.contains_key(*seq);
        missing.extend(line[..=found].iter().skip(1).filter(unclear));
        Ok(Plan {
            head,
            replay,
            beyond: line[..found].to_vec(),
            missing,
        })
    }
}
