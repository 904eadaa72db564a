//! `cessfs trash list|restore|empty NAME`.

use super::{Context, print_json};
use crate::control::client::{self, Client, unexpected};
use crate::control::{Event, Op, Reply, Trashed};
use crate::exit::{Exit, Failure};
use crate::home::{VolumeDir, VolumeName};
use crate::output;
use crate::progress::Waiting;
use crate::steps;
use crate::units;
use clap::{Args, Subcommand};
use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, open, renameat2};
use nix::sys::stat::{Mode, fstat, major, minor};
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Have deleted files back
///
/// Files that were deleted, or replaced by a rename, stay in the trash for a while (`[trash]` in volume.toml). It is also the
/// directory .cessfs/trash in the mount, which no listing shows: move a file out of it and it is restored.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs trash list photos
  cessfs trash restore photos 4711
  cessfs trash empty photos")]
pub struct TrashArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Tell what is in the trash, the oldest first
    #[command(after_help = "Examples:
  cessfs trash list photos
  cessfs trash list photos --json | jq -r '.[] | select(.size > 1000000) | .path'")]
    List {
        /// The volume
        name: VolumeName,
    },
    /// Put files back where they were
    #[command(after_help = "Examples:
  cessfs trash restore photos 4711 4712
  cessfs trash restore photos 4711 --to ~/Photos/found")]
    Restore {
        /// The volume
        name: VolumeName,
        /// Their numbers in the list
        #[arg(required = true)]
        ids: Vec<u64>,
        /// A directory inside the mount to put them into instead
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// Delete for good what is in the trash
    #[command(after_help = "Examples:
  cessfs trash empty photos
  cessfs trash empty photos 4711")]
    Empty {
        /// The volume
        name: VolumeName,
        /// Numbers in the list; none: everything
        ids: Vec<u64>,
    },
}

/// Asks the daemon; restores through the mount, so that the kernel knows of it.
///
/// # Errors
/// [`Exit::NotMounted`]; [`Exit::Exists`] when something has taken a file's old name.
pub fn run(args: &TrashArgs, context: &Context) -> Result<(), Failure> {
    match &args.what {
        What::List { name } => {
            let trash = list(&context.home.existing(name)?)?;
            if context.json {
                print_json(&trash);
            } else {
                trash.iter().for_each(print);
            }
            Ok(())
        }
        What::Restore { name, ids, to } => restore(&context.home.existing(name)?, ids, to.as_deref()),
        What::Empty { name, ids } => empty(&context.home.existing(name)?, ids, context),
    }
}

fn list(volume: &VolumeDir) -> Result<Vec<Trashed>, Failure> {
    let mut trash = Vec::new();
    let reply = Client::connect(volume)?.call(Op::TrashList, &mut |event| {
        if let Event::Trashed(entry) = event {
            trash.push(*entry);
        }
    })?;
    match reply {
        Reply::TrashListed => Ok(trash),
        other => Err(unexpected(&other)),
    }
}

fn print(entry: &Trashed) {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let hours = (now.as_secs() as i64 - entry.deleted).max(0) / 3600;
    let age = if hours < 48 {
        format!("{hours} h")
    } else {
        format!("{} d", hours / 24)
    };
    say!(
        "{:>8}  {age:>5} ago  {:>10}  {}",
        entry.id,
        units::bytes(entry.size),
        output::name(&entry.path)
    );
}

fn empty(volume: &VolumeDir, ids: &[u64], context: &Context) -> Result<(), Failure> {
    let waiting = Waiting::on("emptying");
    let reply = Client::connect(volume)?.call(Op::TrashEmpty { ids: ids.to_vec() }, &mut |_| ())?;
    drop(waiting);
    let Reply::TrashEmptied { files } = reply else {
        return Err(unexpected(&reply));
    };
    if context.json {
        print_json(&serde_json::json!({ "files": files }));
    } else {
        say!("deleted {files} files for good");
    }
    Ok(())
}

fn restore(volume: &VolumeDir, ids: &[u64], to: Option<&Path>) -> Result<(), Failure> {
    let mount = Mount::of(volume)?;
    let trash = list(volume)?;
    for id in ids {
        let entry = trash.iter().find(|entry| entry.id == *id).ok_or_else(|| {
            Failure::new(Exit::Failed, format!("the trash has no entry {id}"))
                .hint(format!("`cessfs trash list {}` tells the numbers", volume.name()))
        })?;
        let place = mount.place(entry, to)?;
        mount.move_back(OsString::from_vec(unhex(&entry.entry_hex)?), &place)?;
        say!("{}", output::name(&place.dir.join(&place.name).display().to_string()));
    }
    Ok(())
}

/// The mount that is restored into. Its users can have put symbolic links where a file's directories were, and root
/// restores what others deleted: so nothing is followed from the mount's root on.
struct Mount {
    path: PathBuf,
    root: OwnedFd,
}

/// Where an entry goes.
struct Place {
    /// Its directory, by name and as it was found.
    dir: PathBuf,
    fd: OwnedFd,
    name: OsString,
}

impl Mount {
    fn of(volume: &VolumeDir) -> Result<Mount, Failure> {
        let unmounted = || Failure::new(Exit::NotMounted, "the volume is not mounted");
        let status = client::status(volume)?;
        let path = PathBuf::from(status.mountpoint.ok_or_else(unmounted)?);
        let root = open_dir(&path).map_err(|e| Failure::disk(format!("cannot open {}", path.display()), &e.into()))?;
        let found = fstat(&root).map_err(|e| Failure::disk(format!("cannot look at {}", path.display()), &e.into()))?;
        // What the daemon serves, and not what has come to lie on the same path.
        let device = format!("{}:{}", major(found.st_dev), minor(found.st_dev));
        match status.device == Some(device) {
            true => Ok(Mount { path, root }),
            false => Err(unmounted()),
        }
    }

    fn root(&self) -> Result<OwnedFd, Failure> {
        let again = self.root.try_clone();
        again.map_err(|e| Failure::disk(format!("cannot open {}", self.path.display()), &e))
    }

    /// The entry's old path, whose directories are made again, or `to`.
    fn place(&self, entry: &Trashed, to: Option<&Path>) -> Result<Place, Failure> {
        let path = PathBuf::from(OsString::from_vec(unhex(&entry.path_hex)?));
        let name = path.file_name().map(OsStr::to_owned).ok_or_else(|| {
            let what = format!("the daemon sent a path without a name: {}", path.display());
            Failure::new(Exit::Failed, what)
        })?;
        if let Some(dir) = to {
            let fd = open_dir(dir).map_err(|e| match e {
                Errno::ENOENT => Failure::new(Exit::Usage, format!("there is no directory {}", dir.display()))
                    .hint(format!("`mkdir {}` makes it", output::word(dir))),
                e => Failure::disk(format!("cannot open {}", dir.display()), &e.into()),
            })?;
            let dir = dir.to_owned();
            return Ok(Place { dir, fd, name });
        }
        if !entry.path_known {
            let what = format!("it is not known where `{}` was", name.display());
            return Err(Failure::new(Exit::Failed, what).hint("say where to with --to DIR"));
        }
        let above = path.parent().unwrap_or(Path::new(""));
        let dir = self.path.join(above.strip_prefix("/").unwrap_or(above));
        let fd = steps::walk_making(self.root()?, above).map_err(|e| match e {
            Errno::ENOTDIR => Failure::new(
                Exit::Exists,
                format!(
                    "a file or a symbolic link has the name of a directory of {}",
                    dir.display()
                ),
            )
            .hint("move it away, or put the file elsewhere with --to DIR"),
            e => Failure::disk(format!("cannot make {}", dir.display()), &e.into()),
        })?;
        Ok(Place { dir, fd, name })
    }

    fn move_back(&self, entry: OsString, place: &Place) -> Result<(), Failure> {
        let gone = || {
            let what = format!("`{}` is no longer in the trash", entry.display());
            Failure::new(Exit::Failed, what)
        };
        let trash = steps::walk(self.root()?, Path::new(".cessfs/trash")).map_err(|e| match e {
            Errno::ENOENT => gone(),
            e => Failure::disk("cannot open the trash", &e.into()),
        })?;
        let to = place.dir.join(&place.name);
        let (from, name): (&OsStr, &OsStr) = (&entry, &place.name);
        renameat2(&trash, from, &place.fd, name, RenameFlags::RENAME_NOREPLACE).map_err(|e| match e {
            Errno::EEXIST => Failure::new(Exit::Exists, format!("{} exists", to.display()))
                .hint("move it away, or put the file elsewhere with --to DIR"),
            Errno::EXDEV => Failure::new(Exit::Usage, format!("{} is not in the same mount", to.display()))
                .hint("--to takes a directory inside the volume's mount"),
            Errno::ENOENT => gone(),
            Errno::EACCES | Errno::EPERM => {
                Failure::new(Exit::Permission, format!("you may not restore to {}", to.display()))
            }
            other => Failure::disk(format!("cannot restore {}", to.display()), &other.into()),
        })
    }
}

/// A directory that the caller names: links in its path are the caller's.
fn open_dir(dir: &Path) -> nix::Result<OwnedFd> {
    open(
        dir,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

fn unhex(text: &str) -> Result<Vec<u8>, Failure> {
    hex::decode(text).map_err(|e| Failure::new(Exit::Failed, format!("the daemon sent what is no hex: {e}")))
}
