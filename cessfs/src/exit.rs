//! Exit codes and the one error the command line knows: what happened, and what to do about it.
//!
//! The numbers are ABI (docs/CLI_ABI.md): scripts compare them, so a number is never given a second meaning, and a
//! retired one stays reserved.

use cessfs_crypto::CryptoError;
use cessfs_sync::chain::ChainError;
use cessfs_sync::upkeep::UpkeepError;
use cessfs_sync::{FetchError, StoreError};
use cessfs_vfs::VfsError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// What the process tells its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Something else; the message says what.
    Failed = 1,
    /// The command line itself is wrong (clap uses the same number).
    Usage = 2,
    /// No volume of that name.
    NoVolume = 3,
    /// The volume, or a file that would be overwritten, exists already.
    Exists = 4,
    /// No passphrase, phrase or key file, or one that does not open the volume.
    Secret = 5,
    /// `volume.toml` or an option is wrong.
    Config = 6,
    /// The mount point is missing, not a directory, not empty, or in use.
    Mountpoint = 7,
    /// Another daemon holds the volume, or the mount is busy.
    Busy = 8,
    /// No daemon answers for this volume or directory.
    NotMounted = 9,
    /// The RPC endpoint does not answer.
    ChainAway = 10,
    /// The account has too little TCESS; stdout says which account and how much.
    NoFunds = 11,
    /// The territory is missing, full, frozen or expired.
    Territory = 12,
    /// The chain is not one this version knows; nothing was written.
    Shape = 13,
    /// `--timeout` ran out; what was asked for goes on in the background.
    Timeout = 14,
    /// The local disk failed or is full.
    Disk = 15,
    /// `doctor` found something that must be repaired.
    Doctor = 16,
    /// The operating system does not allow it.
    Permission = 17,
    /// The chain or a miner refused.
    Refused = 18,
    /// Nothing of this phrase is on the network.
    Nothing = 19,
    /// Done, but not everything is there: what is missing was listed.
    Partial = 20,
    /// `fsck` found something that is not put right.
    Damaged = 21,
    /// Ended by a signal the user sent.
    Interrupted = 130,
}

impl Exit {
    /// Every code, in order: docs/CLI_ABI.md is checked against it.
    #[cfg(test)]
    pub const ALL: [Exit; 23] = [
        Exit::Ok,
        Exit::Failed,
        Exit::Usage,
        Exit::NoVolume,
        Exit::Exists,
        Exit::Secret,
        Exit::Config,
        Exit::Mountpoint,
        Exit::Busy,
        Exit::NotMounted,
        Exit::ChainAway,
        Exit::NoFunds,
        Exit::Territory,
        Exit::Shape,
        Exit::Timeout,
        Exit::Disk,
        Exit::Doctor,
        Exit::Permission,
        Exit::Refused,
        Exit::Nothing,
        Exit::Partial,
        Exit::Damaged,
        Exit::Interrupted,
    ];

    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// Why a command failed: a code for scripts, a sentence for people, and advice where there is any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Exit code.
    pub exit: Exit,
    /// What happened.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without advice.
    pub fn new(exit: Exit, what: impl Into<String>) -> Failure {
        Failure {
            exit,
            what: what.into(),
            hint: None,
        }
    }

    /// Adds advice (replacing what was there).
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Puts the surrounding action in front of the message.
    #[must_use]
    pub fn during(mut self, action: &str) -> Failure {
        self.what = format!("{action}: {}", self.what);
        self
    }

    /// Names the path that was asked about, of a failure which is about that.
    #[must_use]
    pub fn about(self, path: &Path) -> Failure {
        match self.exit {
            Exit::NotMounted | Exit::Timeout => self,
            _ => self.during(&path.display().to_string()),
        }
    }

    /// An I/O error on the local disk, with what was being done.
    pub fn disk(action: impl fmt::Display, error: &std::io::Error) -> Failure {
        let failure = Failure::new(
            match error.kind() {
                std::io::ErrorKind::PermissionDenied => Exit::Permission,
                _ => Exit::Disk,
            },
            format!("{action}: {error}"),
        );
        match error.kind() {
            std::io::ErrorKind::StorageFull => failure.hint("free some space on this disk and try again"),
            _ => failure,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

impl From<ChainError> for Failure {
    fn from(error: ChainError) -> Failure {
        let what = error.to_string();
        match error {
            ChainError::Away(_) => {
                Failure::new(Exit::ChainAway, what).hint("check the network and the `rpc` address in volume.toml")
            }
            ChainError::NoFunds(_) => Failure::new(Exit::NoFunds, what).hint("send TCESS to the volume's account"),
            ChainError::TerritoryFull(_) => {
                Failure::new(Exit::Territory, what).hint("`cessfs territory expand NAME --gib N` buys more space")
            }
            ChainError::TerritoryInactive(_) => {
                Failure::new(Exit::Territory, what).hint("`cessfs territory renew NAME --days N` pays for more days")
            }
            ChainError::NoTerritory(_) => Failure::new(Exit::Territory, what).hint("`cessfs territory mint NAME` buys one"),
            ChainError::Paused(_) => Failure::new(Exit::Refused, what).hint("try again when the chain allows it"),
            ChainError::Shape(_) => {
                Failure::new(Exit::Shape, what).hint(
                    "nothing was written; look for a newer cessfs, or check `rpc`: a volume stays on the network that its chain.json \
                     names",
                )
            }
            _ => Failure::new(Exit::Refused, what),
        }
    }
}

/// What to do about a disk that is full.
pub const FREE_SOME_SPACE: &str = "free some space on this disk and try again";

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let failure = Failure::new(Exit::Disk, error.to_string());
        match error {
            StoreError::Dropped(_) => Failure::new(Exit::Failed, error.to_string())
                .hint("`cessfs repair NAME` sends again what this machine has of it, and names what it has not"),
            StoreError::Full => failure.hint(FREE_SOME_SPACE),
            StoreError::Poisoned => failure.hint("unmount and mount again; `cessfs doctor` looks at the disk"),
            _ => failure,
        }
    }
}

impl From<UpkeepError> for Failure {
    fn from(error: UpkeepError) -> Failure {
        match error {
            UpkeepError::Store(e) => e.into(),
            UpkeepError::Chain(e) => e.into(),
            UpkeepError::Blocked(_) => Failure::new(Exit::Refused, error.to_string())
                .hint("nothing is lost; it goes on by itself when the reason is gone"),
            UpkeepError::NoRoom => Failure::new(Exit::Failed, error.to_string())
                .hint("what was begun goes on by itself; `cessfs status` says what the backlog waits for"),
            other => Failure::new(Exit::Failed, other.to_string()),
        }
    }
}

impl From<VfsError> for Failure {
    fn from(error: VfsError) -> Failure {
        match error {
            VfsError::Store(e) => e.into(),
            VfsError::Fetch(FetchError::Store(e)) => e.into(),
            VfsError::Disk(_) | VfsError::NoSpace(_) => Failure::new(Exit::Disk, error.to_string()),
            other => Failure::new(Exit::Failed, other.to_string()),
        }
    }
}

impl From<CryptoError> for Failure {
    fn from(error: CryptoError) -> Failure {
        let what = error.to_string();
        match error {
            CryptoError::Phrase(_) | CryptoError::WrongSecret | CryptoError::NoSlot(_) => {
                Failure::new(Exit::Secret, what)
            }
            _ => Failure::new(Exit::Failed, what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_documented() {
        let abi = include_str!("../../docs/CLI_ABI.md");
        let mut seen = std::collections::BTreeSet::new();
        for exit in Exit::ALL {
            assert!(seen.insert(exit.code()), "{exit:?} reuses a number");
            let row = format!("| {} | `{exit:?}` |", exit.code());
            assert!(abi.contains(&row), "docs/CLI_ABI.md has no row {row:?}");
        }
    }

    #[test]
    fn chain_errors_map_to_their_codes() {
        let cases = [
            (ChainError::Away("x".into()), Exit::ChainAway),
            (ChainError::NoFunds("x".into()), Exit::NoFunds),
            (ChainError::TerritoryFull("x".into()), Exit::Territory),
            (ChainError::NoTerritory("x".into()), Exit::Territory),
            (ChainError::Shape("x".into()), Exit::Shape),
            (ChainError::Refused("x".into()), Exit::Refused),
        ];
        for (error, exit) in cases {
            assert_eq!(Failure::from(error.clone()).exit, exit, "{error:?}");
        }
    }
}
