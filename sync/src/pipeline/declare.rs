//! Declaring -> Placing: the one step that must not happen twice (F4, I2).
//!
//! ```text
//! ask chain --File--> Stored        ask chain --Deal--> Placing
//!     | nothing
//!     | intent in the journal and not yet void? wait
//!     v
//! a checkpoint waits until every pack before it is Confirmed, or Doubted
//!     v
//! nobody writes in a newer epoch (I10), territory has room, twelve miners answer (F5)
//!     v
//! journal the intent, barrier
//!     v
//! declare --definite refusal--> intent withdrawn, blocked
//!     | done, or unknown
//!     v
//! ask chain again: only its answer leads on
//! ```

use super::Pipeline;
use super::reconcile::{OnChain, foreign, is_far_above};
use super::refusals::Call;
use crate::chain::{ChainError, Declaration, Head, Territory, TerritoryState};
use crate::ledger::{Blocked, Column, Durable, Intent, PackRecord, PackState};
use crate::limits::{COLUMNS, DECLARE_MORTAL_BLOCKS, SEGMENT_CHARGE_BYTES, SPARE_MINERS, fragment_bytes};
use crate::rules::{Rule, holds};
use cessfs_crypto::{AccountId, PackKind};
use std::collections::HashSet;

impl Pipeline {
    pub(super) async fn declare(&self, pack: &PackRecord) -> Result<(), Blocked> {
        let height = match self.reconcile(pack).await? {
            OnChain::File(file) => return self.enter_stored(pack, &file).await,
            OnChain::Deal { deal, .. } => {
                self.enter_placing(pack, &deal).await?;
                self.builder.wake_sealer();
                return Ok(());
            }
            OnChain::Nothing { height } => height,
        };
        self.assert_void(pack, height).await?;
        self.await_earlier(pack).await;
        if !self.is_declaring(pack) {
            return Ok(());
        }
        let now = self.clock.monotonic();
        self.refusals.check(Call::Declare, pack.seq, now)?;
        self.check_fence().await?;
        self.check_shape(pack).await?;
        let territory = self.check_territory(pack).await?;
        let miners = self.choose_miners(pack).await?;
        let intent = Intent {
            height,
            attempt: pack.intent.map_or(0, |intent| intent.attempt) + 1,
        };
        let intend = move |pack: &mut PackRecord| {
            pack.intent = Some(intent);
            pack.territory = territory;
            pack.columns = miners.map(|miner| Column {
                miner: Some(miner),
                delivered: false,
            });
        };
        if !holds(Rule::Intent) {
            let mut unwritten = pack.clone();
            intend(&mut unwritten);
            return self.submit_declaration(&unwritten).await;
        }
        let pack = self.advance(pack.seq, Durable::Now, intend).await?;
        self.submit_declaration(&pack).await
    }

    /// No declaration of this pack can be alive: none is journaled, or its era is over. The best head is asked too, because
    /// what stands there will most likely be final soon.
    async fn assert_void(&self, pack: &PackRecord, now: u32) -> Result<(), Blocked> {
        if let Some(intent) = pack.intent.filter(|_| holds(Rule::Era)) {
            if is_far_above(intent.height, now) {
                let recorded = intent.height;
                return Err(Blocked::Astray { recorded, now });
            }
            let since = self.unsigned_since(pack, intent, now).await?;
            let until = since.saturating_add(DECLARE_MORTAL_BLOCKS);
            if now <= until {
                return Err(Blocked::Undecided { now, until });
            }
        }
        let fid = pack.encoded().fid;
        let best = self.chain.deal(fid, Head::Best).await.map_err(foreign)?.is_some()
            || self.chain.file(fid, Head::Best).await.map_err(foreign)?.is_some();
        match best {
            true => Err(Blocked::Undecided {
                now,
                until: now.saturating_add(1),
            }),
            false => Ok(()),
        }
    }

    /// A finalized height after which no declaration of this pack was signed any more. The intent's own height would not
    /// do: the chain's client signs when its turn comes, for whatever head is final then. So the count starts at the first
    /// look after the client gave up, or after the process that had asked it died.
    async fn unsigned_since(&self, pack: &PackRecord, intent: Intent, now: u32) -> Result<u32, Blocked> {
        if !self.quiet.lock().insert(pack.seq) {
            return Ok(intent.height);
        }
        let height = now.max(intent.height);
        self.advance(pack.seq, Durable::Eventually, move |pack| {
            pack.intent = Some(Intent { height, ..intent });
        })
        .await?;
        Ok(height)
    }

    /// It was not doubted meanwhile, with a pack of which it names content.
    fn is_declaring(&self, pack: &PackRecord) -> bool {
        let now = self.ledger.get(pack.seq).map(|pack| pack.state);
        now == Some(PackState::Declaring)
    }

    /// Packs may overtake each other: what is on the network is then read as far as nothing is missing. A checkpoint would be
    /// read whatever is missing before it, and names chunks of those packs. So it goes out when they all gave back what is in them.
    /// A doubted one is not waited for: this checkpoint was sealed when everything in that had moved into packs before it, or is
    /// doubted, too.
    async fn await_earlier(&self, pack: &PackRecord) {
        if pack.kind != PackKind::Checkpoint || !holds(Rule::Order) {
            return;
        }
        loop {
            let version = self.ledger.version();
            let unconfirmed = self.ledger.unconfirmed();
            let mut earlier = unconfirmed.iter().take_while(|earlier| earlier.seq < pack.seq);
            if !self.is_declaring(pack) || earlier.all(|earlier| earlier.state >= PackState::Doubted) {
                return;
            }
            self.ledger.changed_since(version).await;
        }
    }

    /// F1: write only to a chain whose constants are the ones this code was written for.
    async fn check_shape(&self, pack: &PackRecord) -> Result<(), Blocked> {
        let info = match self.info.get() {
            Some(info) => info,
            None => {
                let asked = self.chain.info().await?;
                self.info.get_or_init(|| asked)
            }
        };
        if info.fragment_count as usize != COLUMNS {
            return Err(Blocked::Shape(format!("{} fragments per segment", info.fragment_count)));
        }
        if info.segment_count_max < pack.segments {
            return Err(Blocked::Shape(format!("at most {} segments", info.segment_count_max)));
        }
        Ok(())
    }

    /// The territory to charge: the one that was configured when the pack was sealed, and if that is gone, or takes nothing of this size, the
    /// one that is configured now. Otherwise such packs would hold every place among those on their way, for ever.
    async fn check_territory(&self, pack: &PackRecord) -> Result<String, Blocked> {
        let own = self.chain.territory(&pack.territory).await?;
        let configured = self.builder.config.territory.as_str();
        let found = match own {
            Some(own) if pack.territory == configured || check_room(&own, pack.segments).is_ok() => Some(own),
            _ => self.chain.territory(configured).await?,
        };
        let Some(territory) = found else {
            return Err(Blocked::NoTerritory(configured.into()));
        };
        self.builder.note_territory(&territory);
        check_room(&territory, pack.segments)?;
        Ok(territory.name)
    }

    /// Twelve miners that are willing now, chosen at random: a deal cannot be called back (F5).
    async fn choose_miners(&self, pack: &PackRecord) -> Result<[AccountId; COLUMNS], Blocked> {
        let room = u64::from(pack.segments) * fragment_bytes() as u64;
        let mut willing = self
            .miners
            .willing(room, COLUMNS + SPARE_MINERS, &HashSet::new())
            .await?;
        willing.truncate(COLUMNS);
        let found = willing.len();
        let chosen: Result<[AccountId; COLUMNS], _> = willing.try_into();
        chosen.map_err(|_| Blocked::FewMiners {
            willing: found as u32,
            wanted: COLUMNS as u32,
        })
    }

    async fn submit_declaration(&self, pack: &PackRecord) -> Result<(), Blocked> {
        assert!(pack.intent.is_some(), "I2: no declaration without a journaled intent");
        let declaration = Declaration {
            fid: pack.encoded().fid,
            segments: pack.encoded().segments.clone(),
            label: pack.label.clone(),
            territory: pack.territory.clone(),
            size: u128::from(pack.body_bytes()),
        };
        self.quiet.lock().remove(&pack.seq);
        let answer = self.chain.declare(declaration).await;
        let now = self.clock.monotonic();
        self.refusals.note(Call::Declare, pack.seq, now, &answer);
        match answer {
            // Done: the driver comes here again and finds the deal.
            Ok(()) => Ok(()),
            Err(ChainError::Away(why)) => Err(Blocked::ChainAway(why)),
            Err(refused) => {
                self.advance(pack.seq, Durable::Eventually, |pack| pack.intent = None)
                    .await?;
                Err(refused.into())
            }
        }
    }
}

/// The territory takes a pack of so many segments.
fn check_room(territory: &Territory, segments: u32) -> Result<(), Blocked> {
    let name = &territory.name;
    if territory.state != TerritoryState::Active {
        return Err(Blocked::TerritoryInactive(format!("{name} is {:?}", territory.state)));
    }
    let needed = u128::from(segments) * u128::from(SEGMENT_CHARGE_BYTES);
    // Strictly more than needed must remain (facts 1.5).
    if territory.remaining_bytes <= needed {
        return Err(Blocked::TerritoryFull(format!(
            "{name} has {} bytes left, the pack needs more than {needed}",
            territory.remaining_bytes
        )));
    }
    Ok(())
}
