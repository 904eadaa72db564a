//! The rules of `FileBank` and `StorageHandler` that a client lives by (facts 1.5), the dangerous ones among them: a second
//! declaration of an open deal is taken, resets it and locks space again.

use cessfs_crypto::AccountId;
use cessfs_sync::chain::{ChainError, Declaration, StoredFile, Territory, TerritoryState};
use cessfs_sync::fragment_store::Fid;
use cessfs_sync::limits::{COLUMNS, SEGMENT_CHARGE_BYTES};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A call that is, or shall be, in a block.
#[derive(Clone, Debug)]
pub enum Call {
    /// `upload_declaration` of the account.
    Declare(Arc<Declaration>),
    /// `delete_file` of the account.
    Delete(Fid),
    /// `transfer_report` of a miner.
    Report { fid: Fid, column: u8, miner: AccountId },
}

impl Call {
    /// The account signed it: it dies if it is not included in time, and may be lost.
    pub fn is_mortal(&self) -> bool {
        !matches!(self, Call::Report { .. })
    }
}

/// A declared pack that is no file yet.
#[derive(Clone, Debug)]
pub struct OpenDeal {
    pub declaration: Arc<Declaration>,
    pub reported: Vec<(u8, AccountId)>,
    /// Somebody else's, with another content under the same id.
    pub foreign: bool,
}

/// Everything the chain knows at one block.
#[derive(Clone, Debug)]
pub struct Pallet {
    pub account: AccountId,
    pub territory: Option<Territory>,
    pub deals: BTreeMap<Fid, Arc<OpenDeal>>,
    pub files: BTreeMap<Fid, Arc<StoredFile>>,
    /// Root paused the call.
    pub paused: bool,
    /// The account cannot pay a fee.
    pub broke: bool,
    /// Fids declared again while their deal was open or their file was there (F4).
    pub declared_twice: Vec<Fid>,
}

impl Pallet {
    pub fn apply(&mut self, call: &Call) -> Result<(), ChainError> {
        match call {
            Call::Declare(declaration) => self.declare(declaration),
            Call::Delete(fid) => self.delete(*fid),
            Call::Report { fid, column, miner } => {
                self.report(*fid, *column, *miner);
                Ok(())
            }
        }
    }

    fn declare(&mut self, declaration: &Arc<Declaration>) -> Result<(), ChainError> {
        if self.broke {
            return Err(ChainError::NoFunds("inability to pay some fees".into()));
        }
        if self.paused {
            return Err(ChainError::Paused("FileBank.upload_declaration".into()));
        }
        let fid = declaration.fid;
        let Some(territory) = self.territory.as_mut().filter(|t| t.name == declaration.territory) else {
            return Err(ChainError::NoTerritory(declaration.territory.clone()));
        };
        if territory.state != TerritoryState::Active {
            return Err(ChainError::TerritoryInactive(territory.name.clone()));
        }
        let charge = declaration.segments.len() as u128 * u128::from(SEGMENT_CHARGE_BYTES);
        if territory.remaining_bytes <= charge {
            return Err(ChainError::TerritoryFull(territory.name.clone()));
        }
        if self.files.contains_key(&fid) {
            self.declared_twice.push(fid);
            return Err(ChainError::Refused("FileBank.Existed".into()));
        }
        if self.deals.contains_key(&fid) {
            self.declared_twice.push(fid);
        }
        territory.remaining_bytes -= charge;
        territory.locked_bytes += charge;
        let deal = OpenDeal {
            declaration: declaration.clone(),
            reported: Vec::new(),
            foreign: false,
        };
        self.deals.insert(fid, Arc::new(deal));
        Ok(())
    }

    /// In any state of the territory, which gets its space back.
    fn delete(&mut self, fid: Fid) -> Result<(), ChainError> {
        if self.broke {
            return Err(ChainError::NoFunds("inability to pay some fees".into()));
        }
        let Some(file) = self.files.remove(&fid) else {
            return Err(ChainError::Refused("FileBank.NonExistent".into()));
        };
        let charge = file.segments.len() as u128 * u128::from(SEGMENT_CHARGE_BYTES);
        if let Some(territory) = &mut self.territory {
            territory.used_bytes = territory.used_bytes.saturating_sub(charge);
            territory.remaining_bytes += charge;
        }
        Ok(())
    }

    /// Each column and each miner once; the twelfth makes the file.
    fn report(&mut self, fid: Fid, column: u8, miner: AccountId) {
        let Some(deal) = self.deals.get_mut(&fid).filter(|deal| !deal.foreign) else {
            return;
        };
        if self
            .territory
            .as_ref()
            .is_none_or(|t| t.state == TerritoryState::Expired)
        {
            self.deals.remove(&fid);
            return;
        }
        if deal.reported.iter().any(|(c, m)| *c == column || *m == miner) {
            return;
        }
        Arc::make_mut(deal).reported.push((column, miner));
        if deal.reported.len() < COLUMNS {
            return;
        }
        let mut holders = [AccountId([0; 32]); COLUMNS];
        for (column, miner) in &deal.reported {
            holders[usize::from(*column)] = *miner;
        }
        let declaration = Declaration::clone(&deal.declaration);
        let charge = declaration.segments.len() as u128 * u128::from(SEGMENT_CHARGE_BYTES);
        if let Some(territory) = &mut self.territory {
            territory.locked_bytes = territory.locked_bytes.saturating_sub(charge);
            territory.used_bytes += charge;
        }
        let file = StoredFile {
            owners: vec![(self.account, declaration.label.into(), declaration.territory.into())],
            segments: declaration
                .segments
                .into_iter()
                .map(|hashes| (hashes, holders))
                .collect(),
            size: declaration.size,
            unavailable: Vec::new(),
        };
        self.deals.remove(&fid);
        self.files.insert(fid, Arc::new(file));
    }

    /// Somebody else declares a pending id, with another content: his deal takes the place of ours, whose space stays locked (F4).
    pub fn hijack(&mut self, fid: Fid) {
        if let Some(deal) = self.deals.get_mut(&fid) {
            let deal = Arc::make_mut(deal);
            deal.foreign = true;
            deal.reported.clear();
        }
    }

    /// The network's own repair gives a column of a file to another miner.
    pub fn move_column(&mut self, fid: Fid, from: AccountId, to: AccountId) {
        if let Some(file) = self.files.get_mut(&fid) {
            let segments = Arc::make_mut(file).segments.iter_mut();
            let holders = segments.flat_map(|(_, holders)| holders);
            holders
                .filter(|holder| **holder == from)
                .for_each(|holder| *holder = to);
        }
    }

    /// The territory is given up: its open deals go, the space they locked comes back with the next one.
    pub fn expire(&mut self) {
        self.deals.clear();
        if let Some(territory) = &mut self.territory {
            territory.locked_bytes = 0;
            territory.state = TerritoryState::Expired;
        }
    }
}
