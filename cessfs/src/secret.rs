//! Where passphrases, key files and phrases come from. They are never taken from the command line or an environment
//! variable's value: both can be read by others.

mod terminal;
#[cfg(test)]
mod tests;

use crate::exit::{Exit, Failure};
use crate::home::{VolumeName, is_exposed};
use crate::limits;
use crate::output;
use crate::wiring::OsEntropy;
use cessfs_crypto::{CryptoError, KdfCost, KeySlots, Phrase, SlotKind, VolumeSecret};
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What opens a volume's key slots.
pub enum Secret {
    /// The passphrase's bytes, without a trailing newline.
    Passphrase(Zeroizing<Vec<u8>>),
    /// A key file's bytes.
    KeyFile(Zeroizing<Vec<u8>>),
}

impl Secret {
    /// Opens the slots.
    ///
    /// # Errors
    /// [`Exit::Secret`] when it does not fit.
    pub fn open(&self, slots: &KeySlots) -> Result<VolumeSecret, Failure> {
        let what = self.what();
        let opened = match self {
            Secret::Passphrase(bytes) => slots.open_passphrase(bytes),
            Secret::KeyFile(bytes) => slots.open_key_file(bytes),
        };
        opened.map_err(|e| match e {
            CryptoError::WrongSecret => Failure::new(Exit::Secret, format!("this {what} does not open the volume"))
                .hint("check that it belongs to this volume; `cessfs passphrase NAME --phrase-file FILE` sets a new one with the recovery phrase"),
            CryptoError::NoSlot(_) => Failure::new(Exit::Secret, format!("no {what} opens this volume"))
                .hint(format!("give {}", other_kind(slots))),
            other => other.into(),
        })
    }

    /// Makes this what opens the volume, instead of what did so far; the recovery phrase opens it all the same. A passphrase takes a
    /// second, on purpose.
    ///
    /// # Errors
    /// When it is too short or too long; the slots are as they were then.
    pub fn lock(&self, slots: &mut KeySlots, keys: &VolumeSecret) -> Result<(), Failure> {
        let (set, other) = match self {
            Secret::Passphrase(bytes) => (
                slots.set_passphrase(keys, bytes, KdfCost::DEFAULT, &mut OsEntropy),
                SlotKind::KeyFile,
            ),
            Secret::KeyFile(bytes) => (slots.set_key_file(keys, bytes, &mut OsEntropy), SlotKind::Passphrase),
        };
        set.map_err(|e| match e {
            CryptoError::Refused(what) => Failure::new(Exit::Secret, what).hint(match self {
                Secret::Passphrase(_) => "choose another passphrase",
                Secret::KeyFile(_) => "make one of random bytes: `head -c 64 /dev/urandom > FILE`",
            }),
            other => other.into(),
        })?;
        slots.remove(other);
        Ok(())
    }

    /// Which kind of slot it opens.
    pub fn kind(&self) -> SlotKind {
        match self {
            Secret::Passphrase(_) => SlotKind::Passphrase,
            Secret::KeyFile(_) => SlotKind::KeyFile,
        }
    }

    /// What people call it.
    pub fn what(&self) -> &'static str {
        match self {
            Secret::Passphrase(_) => "passphrase",
            Secret::KeyFile(_) => "key file",
        }
    }

    /// Writes it to the daemon's pipe.
    ///
    /// # Errors
    /// When the pipe is gone.
    pub fn send(&self, pipe: &mut dyn Write) -> std::io::Result<()> {
        let (kind, bytes) = match self {
            Secret::Passphrase(bytes) => (b'p', bytes),
            Secret::KeyFile(bytes) => (b'k', bytes),
        };
        pipe.write_all(&[kind])?;
        pipe.write_all(bytes)
    }

    /// Reads it from the pipe that [`Secret::send`] wrote.
    ///
    /// # Errors
    /// [`Exit::Secret`] when the pipe does not hold one.
    pub fn receive(pipe: &mut dyn Read) -> Result<Secret, Failure> {
        let broken = || Failure::new(Exit::Secret, "the secret did not arrive from the starting process");
        let mut bytes = Zeroizing::new(Vec::with_capacity(limits::KEY_FILE_BYTES_MAX + 1));
        pipe.take(limits::KEY_FILE_BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|_| broken())?;
        let (kind, rest) = bytes.split_first().ok_or_else(broken)?;
        let rest = Zeroizing::new(rest.to_vec());
        match kind {
            b'p' => Ok(Secret::Passphrase(rest)),
            b'k' => Ok(Secret::KeyFile(rest)),
            _ => Err(broken()),
        }
    }
}

/// Files a secret may come from, first match wins.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `-o key-file=` or `--key-file`.
    pub key_file: Option<PathBuf>,
    /// `-o passphrase-file=` or `--passphrase-file`.
    pub passphrase_file: Option<PathBuf>,
    /// `$CESSFS_PASSPHRASE_FILE`.
    pub environment: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY`, where systemd puts credentials.
    pub credentials: Option<PathBuf>,
    /// How the two files are given to this verb.
    pub given_as: GivenAs,
}

/// How a verb takes the name of a file with a secret.
#[derive(Clone, Copy, Debug, Default)]
pub enum GivenAs {
    /// `--key-file FILE`.
    #[default]
    Arguments,
    /// `--new-key-file FILE`.
    NewArguments,
    /// `-o key-file=FILE`.
    MountOptions,
}

impl GivenAs {
    fn advice(self) -> &'static str {
        match self {
            GivenAs::Arguments => "give `--passphrase-file FILE` or `--key-file FILE`, or set CESSFS_PASSPHRASE_FILE",
            GivenAs::NewArguments => "give `--new-passphrase-file FILE` or `--new-key-file FILE`",
            GivenAs::MountOptions => {
                "give `-o passphrase-file=FILE` or `-o key-file=FILE`, or set CESSFS_PASSPHRASE_FILE"
            }
        }
    }

    fn key_file(self) -> &'static str {
        match self {
            GivenAs::Arguments => "give `--key-file FILE`",
            GivenAs::NewArguments => "give `--new-key-file FILE`",
            GivenAs::MountOptions => "give `-o key-file=FILE`",
        }
    }
}

impl Sources {
    /// The given files, and what the environment names.
    pub fn new(key_file: Option<PathBuf>, passphrase_file: Option<PathBuf>) -> Sources {
        let path = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        Sources {
            key_file,
            passphrase_file,
            environment: path("CESSFS_PASSPHRASE_FILE"),
            credentials: path("CREDENTIALS_DIRECTORY"),
            given_as: GivenAs::Arguments,
        }
    }

    /// The same for mount options.
    pub fn of_mount(key_file: Option<PathBuf>, passphrase_file: Option<PathBuf>) -> Sources {
        Sources {
            given_as: GivenAs::MountOptions,
            ..Sources::new(key_file, passphrase_file)
        }
    }

    /// The first secret there is in a file, if any.
    ///
    /// # Errors
    /// When a named file cannot be read, is empty or too large.
    pub fn in_files(&self, volume: &VolumeName) -> Result<Option<Secret>, Failure> {
        if let Some(path) = &self.key_file {
            warn_if_exposed(path);
            let bytes = read_bounded(path, limits::KEY_FILE_BYTES_MAX, "key file")?;
            return Ok(Some(Secret::KeyFile(bytes)));
        }
        let credential = self
            .credentials
            .iter()
            .flat_map(|dir| [format!("cessfs-{volume}"), "cessfs-passphrase".to_owned()].map(|name| dir.join(name)));
        let named = self.passphrase_file.iter().chain(&self.environment).cloned();
        let mut found = named.chain(credential.filter(|path| path.exists()));
        let Some(path) = found.next() else { return Ok(None) };
        warn_if_exposed(&path);
        read_passphrase(&path).map(|bytes| Some(Secret::Passphrase(bytes)))
    }

    /// The secret that opens an existing volume: from a file, else, if a passphrase does open it, asked for on the terminal.
    ///
    /// # Errors
    /// [`Exit::Secret`] when there is none.
    pub fn for_mount(&self, volume: &VolumeName, slots: &KeySlots) -> Result<Secret, Failure> {
        if let Some(secret) = self.in_files(volume)? {
            return Ok(secret);
        }
        if !slots.kinds().any(|kind| kind == SlotKind::Passphrase) {
            let what = format!("volume `{volume}` is opened by a key file, and none was given");
            return Err(Failure::new(Exit::Secret, what).hint(self.given_as.key_file()));
        }
        self.ask(&format!("passphrase of volume `{volume}`: "))
            .map(Secret::Passphrase)
    }

    /// The secret that will open a new volume: from a file, else asked for twice.
    ///
    /// # Errors
    /// [`Exit::Secret`] when there is none or the two differ.
    pub fn for_init(&self, volume: &VolumeName) -> Result<Secret, Failure> {
        if let Some(secret) = self.in_files(volume)? {
            return Ok(secret);
        }
        let first = self.ask(&format!("new passphrase for volume `{volume}`: "))?;
        let second = self.ask("the same again: ")?;
        if *first != *second {
            return Err(Failure::new(Exit::Secret, "the two passphrases differ").hint("nothing happened; try again"));
        }
        Ok(Secret::Passphrase(first))
    }

    /// The files alone that were given, for a second secret of a verb: what the environment names is the first.
    pub fn of_new(key_file: Option<PathBuf>, passphrase_file: Option<PathBuf>) -> Sources {
        Sources {
            key_file,
            passphrase_file,
            given_as: GivenAs::NewArguments,
            ..Sources::default()
        }
    }

    fn ask(&self, prompt: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
        if !std::io::stdin().is_terminal() {
            let what = "no passphrase was given and there is no terminal to ask on";
            return Err(Failure::new(Exit::Secret, what).hint(self.given_as.advice()));
        }
        let typed = terminal::ask(prompt).map_err(|e| Failure::disk("cannot read from the terminal", &e))?;
        let ended = || Failure::new(Exit::Secret, "the terminal ended before a passphrase was typed");
        checked(
            typed.ok_or_else(|| ended().hint(self.given_as.advice()))?,
            "the passphrase",
        )
    }
}

/// What does open a volume, as `mount` and as other verbs take it.
fn other_kind(slots: &KeySlots) -> &'static str {
    match slots.kinds().any(|kind| kind == SlotKind::Passphrase) {
        true => "its passphrase: `--passphrase-file FILE`, or `-o passphrase-file=FILE` to mount",
        false => "its key file: `--key-file FILE`, or `-o key-file=FILE` to mount",
    }
}

fn read_passphrase(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut bytes = read_bounded(path, limits::PASSPHRASE_BYTES_MAX + 2, "passphrase file")?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    checked(bytes, &path.display().to_string())
}

fn checked(bytes: Zeroizing<Vec<u8>>, name: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if bytes.is_empty() {
        return Err(Failure::new(Exit::Secret, format!("{name} is empty")));
    }
    if bytes.len() > limits::PASSPHRASE_BYTES_MAX {
        let most = limits::PASSPHRASE_BYTES_MAX;
        return Err(Failure::new(Exit::Secret, format!("{name} has more than {most} bytes")));
    }
    Ok(bytes)
}

/// Reads a recovery phrase from a file.
///
/// # Errors
/// [`Exit::Secret`], naming the word that is wrong.
pub fn read_phrase(path: &Path) -> Result<Phrase, Failure> {
    warn_if_exposed(path);
    let bytes = read_bounded(path, limits::PHRASE_FILE_BYTES_MAX, "phrase file")?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Failure::new(Exit::Secret, format!("{} is not text", path.display())))?;
    // Some editors begin a text with a mark of its encoding, which nobody sees.
    Phrase::parse(text.trim_start_matches('\u{feff}')).map_err(|e| {
        Failure::from(e)
            .during(&path.display().to_string())
            .hint("a phrase has exactly 24 words of the BIP-39 English list, in their order")
    })
}

/// Opens the slots with the recovery phrase.
///
/// # Errors
/// [`Exit::Secret`] when it belongs to another volume.
pub fn open_with_phrase(slots: &KeySlots, phrase: &Phrase) -> Result<VolumeSecret, Failure> {
    slots.open_phrase(phrase).map_err(|e| match e {
        CryptoError::WrongSecret => Failure::new(Exit::Secret, "this recovery phrase is not the one of this volume")
            .hint("check that it belongs to this volume"),
        other => other.into(),
    })
}

fn read_bounded(path: &Path, most: usize, what: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let cannot = |e: std::io::Error| {
        Failure::new(Exit::Secret, format!("cannot read the {what} {}: {e}", path.display()))
            .hint("check the path, and who may read it")
    };
    let file = std::fs::File::open(path).map_err(cannot)?;
    // Reserved at once: a growing buffer would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > most {
        return Err(Failure::new(
            Exit::Secret,
            format!("the {what} {} has more than {most} bytes", path.display()),
        ));
    }
    if bytes.is_empty() {
        return Err(Failure::new(
            Exit::Secret,
            format!("the {what} {} is empty", path.display()),
        ));
    }
    Ok(bytes)
}

fn warn_if_exposed(path: &Path) {
    if is_exposed(path) {
        tell!(
            "warning: {} can be read by other users; `chmod 600 {}`",
            path.display(),
            output::word(path)
        );
    }
}
