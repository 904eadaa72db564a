//! A chain with the rules of `FileBank` that the pipeline lives by (facts 1.5), including the dangerous ones: a second
//! declaration of an open deal is taken, resets it and locks space again. What happens becomes final two blocks later.

use crate::chain::{
    Chain, ChainError, ChainInfo, Deal, Declaration, Head, Miner, Planck, StoredFile, Territory, TerritoryState,
};
use crate::clock::Clock;
use crate::fragment_store::{Fid, Sha256Hash};
use crate::limits::{COLUMNS, DECLARE_MORTAL_BLOCKS, SEGMENT_CHARGE_BYTES};
use crate::sim::SimClock;
use cessfs_crypto::AccountId;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

const BLOCK: Duration = Duration::from_secs(6);
const FINALITY_BLOCKS: u32 = 2;

/// What happens to one declaration.
#[derive(Clone, Debug)]
pub enum DeclareFault {
    /// It counts, but the answer is lost.
    ReplyLost,
    /// It is lost.
    Lost,
    /// The answer is lost, and it counts only so many blocks later.
    Late(u32),
    /// The chain refuses it.
    Refused(ChainError),
}

#[derive(Clone)]
struct SimDeal {
    born: u32,
    owner: AccountId,
    declaration: Declaration,
    /// Column, miner, height.
    reported: Vec<(u8, AccountId, u32)>,
}

#[derive(Default)]
struct State {
    deals: HashMap<Fid, SimDeal>,
    files: HashMap<Fid, (u32, StoredFile)>,
    /// Declarations that were taken, by fid: more than one is what F4 warns of.
    taken: HashMap<Fid, u32>,
    late: Vec<(u32, Declaration)>,
    /// Deletions that were taken: from this height on.
    deleted: HashMap<Fid, u32>,
    /// How often each deletion was asked for.
    delete_calls: HashMap<Fid, u32>,
    /// How often the answer to a deletion gets lost though it counts.
    lost_delete_replies: u32,
    faults: VecDeque<DeclareFault>,
    territory: Option<Territory>,
    /// A territory beside that one.
    other_territory: Option<Territory>,
    /// Files that are listed, and cannot be shown.
    hidden: Vec<Fid>,
    /// Files that are shown, and not listed.
    unlisted: Vec<Fid>,
    /// Deals that are nonsense.
    garbled: Vec<Fid>,
    /// Files that are.
    nonsense: Vec<Fid>,
    /// What [`Chain::note_final`] told.
    noted: u32,
    /// Nothing after this height becomes final.
    halted_at: Option<u32>,
    /// What the node says that is final, instead of what is.
    lie: Option<u32>,
    /// One question in so many for how far finality is has no answer; 0: none.
    unheard_one_in: u32,
    heights_asked: u32,
    /// The list of miners is not to be had, and this is known only after some time.
    no_list_after: Option<Duration>,
    lists_asked: u32,
    miners: Vec<Miner>,
    away: bool,
    fragment_count: u32,
}

/// See the module head.
pub struct SimChain {
    clock: Arc<SimClock>,
    account: AccountId,
    state: Mutex<State>,
}

impl SimChain {
    /// A chain with an Active territory `main` of 1 TiB.
    pub fn new(clock: Arc<SimClock>, account: AccountId) -> SimChain {
        let chain = SimChain {
            clock,
            account,
            state: Mutex::default(),
        };
        chain.state.lock().fragment_count = COLUMNS as u32;
        chain.set_territory(Some((1 << 40, TerritoryState::Active)));
        chain
    }

    /// Gives or takes the territory `main`: bytes remaining, and state.
    pub fn set_territory(&self, territory: Option<(u128, TerritoryState)>) {
        self.state.lock().territory = territory.map(|(remaining_bytes, state)| Territory {
            name: "main".into(),
            total_bytes: remaining_bytes,
            used_bytes: 0,
            locked_bytes: 0,
            remaining_bytes,
            start_block: 0,
            deadline_block: u32::MAX,
            state,
        });
    }

    /// Gives a territory beside `main`: bytes remaining, and state. Nothing is charged to it.
    pub fn set_other_territory(&self, name: &str, remaining_bytes: u128, state: TerritoryState) {
        let mut chain = self.state.lock();
        let main = chain.territory.clone().expect("there is a territory");
        chain.other_territory = Some(Territory {
            name: name.into(),
            remaining_bytes,
            state,
            ..main
        });
    }

    /// Whether the RPC can be reached.
    pub fn set_away(&self, away: bool) {
        self.state.lock().away = away;
    }

    /// What the chain says is its number of fragments per segment.
    pub fn set_fragment_count(&self, count: u32) {
        self.state.lock().fragment_count = count;
    }

    /// What happens to the next declarations, one each.
    pub fn fail_declarations(&self, faults: impl IntoIterator<Item = DeclareFault>) {
        self.state.lock().faults.extend(faults);
    }

    /// How often each fid was declared.
    pub fn declarations(&self) -> Vec<(Fid, u32)> {
        sorted(&self.state.lock().taken)
    }

    /// The answers to the next deletions are lost, though they count.
    pub fn lose_delete_replies(&self, count: u32) {
        self.state.lock().lost_delete_replies = count;
    }

    /// How often the deletion of each fid was asked for.
    pub fn deletions(&self) -> Vec<(Fid, u32)> {
        sorted(&self.state.lock().delete_calls)
    }

    /// The file was deleted at the best head.
    pub fn is_deleted(&self, fid: Fid) -> bool {
        let now = self.now();
        self.state.lock().deleted.get(&fid).is_some_and(|from| *from <= now)
    }

    /// Drops an open deal, as an expiring territory does.
    pub fn drop_deals(&self) {
        self.state.lock().deals.clear();
    }

    /// Somebody else declares a fid that is pending, with another content: his deal takes the place of ours.
    pub fn hijack(&self, fid: Fid) {
        let born = self.now();
        let mut state = self.settled();
        let deal = state.deals.get_mut(&fid).expect("it is pending");
        deal.owner = AccountId([0xBA; 32]);
        deal.born = born;
        deal.declaration.segments.truncate(1);
        deal.declaration.segments[0].fragments.reverse();
        deal.reported.clear();
    }

    /// Somebody declares a pending fid with text that is no hash: the deal that stands then cannot be read.
    pub fn garble(&self, fid: Fid) {
        self.hijack(fid);
        self.state.lock().garbled.push(fid);
    }

    /// A file is gone, and one that cannot be read stands under its id.
    pub fn replace_by_nonsense(&self, fid: Fid) {
        let mut state = self.state.lock();
        state.files.remove(&fid).expect("the chain has the file");
        state.nonsense.push(fid);
    }

    /// The height at which a file came to be stored.
    pub fn born(&self, fid: Fid) -> u32 {
        self.settled().files[&fid].0
    }

    /// From now on nothing becomes final any more; or everything again.
    pub fn halt(&self, halts: bool) {
        let height = self.height_of(Head::Finalized);
        self.state.lock().halted_at = halts.then_some(height);
    }

    /// One question in so many for how far finality is has no answer; 0: none.
    pub fn lose_heights(&self, one_in: u32) {
        self.state.lock().unheard_one_in = one_in;
    }

    /// Whoever asks for the miners hears after this time that there is no answer.
    pub fn withhold_miners(&self, after: Duration) {
        self.state.lock().no_list_after = Some(after);
    }

    /// How often the list of miners was asked for.
    pub fn lists_asked(&self) -> u32 {
        self.state.lock().lists_asked
    }

    /// What the node says to whoever asks how far finality is; `None`: the truth.
    pub fn lie(&self, height: Option<u32>) {
        self.state.lock().lie = height;
    }

    /// The height that an engine knew of from earlier.
    pub fn noted_final(&self) -> u32 {
        self.state.lock().noted
    }

    /// Shows deleted files again, as a node does that is late.
    pub fn undelete(&self) {
        self.state.lock().deleted.clear();
    }

    /// These files are listed, but not shown.
    pub fn hide(&self, fids: &[Fid]) {
        self.state.lock().hidden = fids.to_vec();
    }

    /// These files are shown, but not listed.
    pub fn unlist(&self, fids: &[Fid]) {
        self.state.lock().unlisted = fids.to_vec();
    }

    /// The territory was given up and bought again at this block: it begins anew, Active.
    pub fn buy_again(&self) {
        let now = self.now();
        let mut state = self.state.lock();
        let territory = state.territory.as_mut().expect("there is a territory");
        territory.start_block = now;
        territory.state = TerritoryState::Active;
        territory.remaining_bytes = 1 << 40;
    }

    /// Forgets every file and every open deal, as the chain does some time after a territory expired.
    pub fn purge(&self) {
        let mut state = self.state.lock();
        state.deals.clear();
        state.files.clear();
    }

    /// Fids stored at the best head.
    pub fn stored(&self) -> Vec<Fid> {
        let state = self.state.lock();
        let files = state.files.keys().filter(|fid| !state.deleted.contains_key(*fid));
        files.copied().collect()
    }

    /// Attributes one column of all files to another miner, as a repair among miners does.
    pub fn move_column(&self, column: usize, miner: AccountId) {
        for (_, file) in self.state.lock().files.values_mut() {
            for (_, holders) in &mut file.segments {
                holders[column] = miner;
            }
        }
    }

    /// Changes what the chain says of a miner; with `None` for an answer it is no longer listed.
    pub fn change_miner(&self, account: AccountId, change: impl FnOnce(Miner) -> Option<Miner>) {
        let mut state = self.state.lock();
        let at = state.miners.iter().position(|miner| miner.account == account);
        let miner = state.miners.remove(at.expect("the chain lists it"));
        let changed = change(miner);
        state.miners.extend(changed);
    }

    /// The chain says that these fragments (segment, column) of a file are not available.
    pub fn set_unavailable(&self, fid: Fid, fragments: &[(u32, u8)]) {
        let mut state = self.state.lock();
        let (_, file) = state.files.get_mut(&fid).expect("the chain has the file");
        file.unavailable = fragments.to_vec();
    }

    /// The territory comes to its end so many blocks from now.
    pub fn set_deadline(&self, blocks: u32) {
        let deadline = self.now() + blocks;
        let mut state = self.state.lock();
        let territory = state.territory.as_mut().expect("there is a territory");
        territory.deadline_block = deadline;
    }

    pub(super) fn register(&self, miner: Miner) {
        self.state.lock().miners.push(miner);
    }

    fn now(&self) -> u32 {
        100 + (self.clock.monotonic().as_millis() / BLOCK.as_millis()) as u32
    }

    fn height_of(&self, head: Head) -> u32 {
        match head {
            Head::Best => self.now(),
            Head::Finalized => {
                let halted_at = self.state.lock().halted_at;
                (self.now() - FINALITY_BLOCKS).min(halted_at.unwrap_or(u32::MAX))
            }
        }
    }

    /// The state with everything in it that has happened by now.
    fn settled(&self) -> parking_lot::MutexGuard<'_, State> {
        let now = self.now();
        let mut state = self.state.lock();
        let (landed, later) = state.late.drain(..).partition(|(height, _)| *height <= now);
        state.late = later;
        for (height, declaration) in landed {
            take(&mut state, self.account, declaration, height);
        }
        state
    }

    fn answer<T: Send + 'static>(&self, value: impl FnOnce(&State) -> T) -> BoxFuture<'static, Result<T, ChainError>> {
        let state = self.settled();
        let answer = match state.away {
            true => Err(ChainError::Away("no route".into())),
            false => Ok(value(&state)),
        };
        ready(answer).boxed()
    }

    /// The column that a fragment of an open deal belongs to.
    pub(super) fn column_of(&self, fid: Fid, fragment: Sha256Hash) -> Option<(u8, Vec<Sha256Hash>)> {
        let state = self.settled();
        let segments = &state.deals.get(&fid)?.declaration.segments;
        let column = segments
            .iter()
            .find_map(|segment| segment.fragments.iter().position(|hash| *hash == fragment))?;
        let all = segments.iter().map(|segment| segment.fragments[column]).collect();
        Some((column as u8, all))
    }

    /// `transfer_report`: each column and each miner once; the twelfth makes the file.
    pub(super) fn report(&self, fid: Fid, column: u8, miner: AccountId) {
        let now = self.now();
        let mut state = self.settled();
        let Some(deal) = state.deals.get_mut(&fid) else { return };
        if deal.reported.iter().any(|(c, m, _)| *c == column || *m == miner) {
            return;
        }
        deal.reported.push((column, miner, now));
        if deal.reported.len() < COLUMNS {
            return;
        }
        let mut holders = [AccountId([0; 32]); COLUMNS];
        for (column, miner, _) in &deal.reported {
            holders[usize::from(*column)] = *miner;
        }
        let declaration = deal.declaration.clone();
        let file = StoredFile {
            owners: vec![(self.account, declaration.label.into(), declaration.territory.into())],
            segments: declaration
                .segments
                .into_iter()
                .map(|hashes| (hashes, holders))
                .collect(),
            unavailable: Vec::new(),
            size: declaration.size,
        };
        state.files.insert(fid, (now, file));
    }
}

/// `upload_declaration` as the pallet does it: an open deal is overwritten.
fn take(state: &mut State, owner: AccountId, declaration: Declaration, height: u32) {
    let charge = declaration.segments.len() as u128 * u128::from(SEGMENT_CHARGE_BYTES);
    if let Some(territory) = &mut state.territory {
        territory.remaining_bytes = territory.remaining_bytes.saturating_sub(charge);
        territory.locked_bytes += charge;
    }
    *state.taken.entry(declaration.fid).or_default() += 1;
    let deal = SimDeal {
        born: height,
        owner,
        declaration: declaration.clone(),
        reported: Vec::new(),
    };
    state.deals.insert(declaration.fid, deal);
}

fn sorted(times: &HashMap<Fid, u32>) -> Vec<(Fid, u32)> {
    let mut times: Vec<_> = times.iter().map(|(fid, times)| (*fid, *times)).collect();
    times.sort();
    times
}

/// What is charged for the files there are.
fn used_bytes(state: &State) -> u128 {
    let there = state.files.iter().filter(|(fid, _)| !state.deleted.contains_key(*fid));
    let segments: usize = there.map(|(_, (_, file))| file.segments.len()).sum();
    segments as u128 * u128::from(SEGMENT_CHARGE_BYTES)
}

impl Chain for SimChain {
    fn account(&self) -> AccountId {
        self.account
    }

    fn info(&self) -> BoxFuture<'static, Result<ChainInfo, ChainError>> {
        self.answer(|state| ChainInfo {
            name: "simulated".into(),
            spec_version: 137,
            genesis: [0; 32],
            segment_count_max: 1000,
            fragment_count: state.fragment_count,
            existential_deposit: 1,
            unit_price: None,
            token_symbol: "TCESS".into(),
        })
    }

    fn balance(&self, _account: AccountId) -> BoxFuture<'static, Result<Planck, ChainError>> {
        self.answer(|_| 0)
    }

    fn note_final(&self, height: u32) {
        self.state.lock().noted = height;
    }

    fn height(&self, head: Head) -> BoxFuture<'static, Result<u32, ChainError>> {
        let height = self.height_of(head);
        {
            let mut state = self.state.lock();
            state.heights_asked += 1;
            if state.unheard_one_in > 0 && state.heights_asked.is_multiple_of(state.unheard_one_in) {
                return ready(Err(ChainError::Away("connection reset".into()))).boxed();
            }
        }
        self.answer(|state| state.lie.filter(|_| head == Head::Finalized).unwrap_or(height))
    }

    fn territory(&self, name: &str) -> BoxFuture<'static, Result<Option<Territory>, ChainError>> {
        self.answer(|state| {
            let mut known = state.territory.iter().chain(&state.other_territory);
            let territory = known.find(|territory| territory.name == name)?;
            Some(Territory {
                used_bytes: used_bytes(state),
                ..territory.clone()
            })
        })
    }

    fn mint_territory(&self, _name: &str, _gib: u32, _days: u32) -> BoxFuture<'static, Result<(), ChainError>> {
        ready(Err(ChainError::Refused("not simulated".into()))).boxed()
    }

    fn expand_territory(&self, _name: &str, _gib: u32) -> BoxFuture<'static, Result<(), ChainError>> {
        ready(Err(ChainError::Refused("not simulated".into()))).boxed()
    }

    fn renew_territory(&self, _name: &str, _days: u32) -> BoxFuture<'static, Result<(), ChainError>> {
        ready(Err(ChainError::Refused("not simulated".into()))).boxed()
    }

    fn miners(&self) -> BoxFuture<'static, Result<Vec<Miner>, ChainError>> {
        self.state.lock().lists_asked += 1;
        if let Some(after) = self.state.lock().no_list_after {
            let wait = self.clock.sleep(after);
            return wait.map(|()| Err(ChainError::Away("no answer".into()))).boxed();
        }
        self.answer(|state| state.miners.clone())
    }

    fn deal(&self, fid: Fid, head: Head) -> BoxFuture<'static, Result<Option<Deal>, ChainError>> {
        let height = self.height_of(head);
        if self.state.lock().garbled.contains(&fid) {
            return ready(Err(ChainError::Refused("the deal holds a hash that is not hex".into()))).boxed();
        }
        self.answer(|state| {
            let completed = state.files.get(&fid).is_some_and(|(born, _)| *born <= height);
            let deal = state.deals.get(&fid).filter(|deal| deal.born <= height && !completed)?;
            let seen = deal.reported.iter().filter(|(_, _, at)| *at <= height);
            Some(Deal {
                owner: deal.owner,
                label: deal.declaration.label.clone().into(),
                segments: deal.declaration.segments.clone(),
                reported: seen.map(|(column, miner, _)| (*column, *miner)).collect(),
            })
        })
    }

    fn file(&self, fid: Fid, head: Head) -> BoxFuture<'static, Result<Option<StoredFile>, ChainError>> {
        let height = self.height_of(head);
        if self.state.lock().nonsense.contains(&fid) {
            return ready(Err(ChainError::Refused("the file holds a hash that is not hex".into()))).boxed();
        }
        self.answer(|state| {
            let (_, file) = state.files.get(&fid).filter(|(born, _)| *born <= height)?;
            if state.hidden.contains(&fid) {
                return None;
            }
            let gone = state.deleted.get(&fid).is_some_and(|from| *from <= height);
            (!gone).then(|| file.clone())
        })
    }

    fn declare(&self, declaration: Declaration) -> BoxFuture<'static, Result<(), ChainError>> {
        let next = self.now() + 1;
        let mut state = self.settled();
        if state.away {
            return ready(Err(ChainError::Away("no route".into()))).boxed();
        }
        let away = |why: &str| Err(ChainError::Away(why.into()));
        let answer = match state.faults.pop_front() {
            None => {
                state.late.push((next, declaration));
                Ok(())
            }
            Some(DeclareFault::Lost) => away("broken pipe"),
            Some(DeclareFault::ReplyLost) => {
                state.late.push((next, declaration));
                away("connection reset")
            }
            Some(DeclareFault::Late(blocks)) => {
                assert!(blocks < DECLARE_MORTAL_BLOCKS, "a later one would be void");
                state.late.push((next + blocks, declaration));
                away("timed out")
            }
            Some(DeclareFault::Refused(error)) => Err(error),
        };
        let final_at = self.clock.sleep(BLOCK * (FINALITY_BLOCKS + 2));
        async move {
            if answer.is_ok() {
                final_at.await;
            }
            answer
        }
        .boxed()
    }

    fn delete(&self, fid: Fid) -> BoxFuture<'static, Result<(), ChainError>> {
        let next = self.now() + 1;
        let mut state = self.settled();
        if state.away {
            return ready(Err(ChainError::Away("no route".into()))).boxed();
        }
        *state.delete_calls.entry(fid).or_default() += 1;
        let final_at = self.clock.sleep(BLOCK * (FINALITY_BLOCKS + 2));
        let there = state.files.contains_key(&fid) && !state.deleted.contains_key(&fid);
        if !there {
            // It is in a block, and fails there.
            let refused = final_at.map(|()| Err(ChainError::Refused("FileBank.NonExistent".into())));
            return refused.boxed();
        }
        let charge = state.files[&fid].1.segments.len() as u128 * u128::from(SEGMENT_CHARGE_BYTES);
        state.deleted.insert(fid, next);
        if let Some(territory) = &mut state.territory {
            territory.remaining_bytes += charge;
        }
        let lost = state.lost_delete_replies > 0;
        state.lost_delete_replies = state.lost_delete_replies.saturating_sub(1);
        async move {
            if lost {
                return Err(ChainError::Away("connection reset".into()));
            }
            final_at.await;
            Ok(())
        }
        .boxed()
    }

    fn files(&self) -> BoxFuture<'static, Result<Vec<Fid>, ChainError>> {
        let height = self.height_of(Head::Finalized);
        self.answer(|state| {
            let born = state.files.iter().filter(|(_, (born, _))| *born <= height);
            let there = born.filter(|(fid, _)| state.deleted.get(fid).is_none_or(|from| *from > height));
            let fids = there.map(|(fid, _)| *fid);
            fids.filter(|fid| !state.unlisted.contains(fid)).collect()
        })
    }

    fn faucet(&self) -> BoxFuture<'static, Result<(), ChainError>> {
        ready(Err(ChainError::Refused("not simulated".into()))).boxed()
    }
}
