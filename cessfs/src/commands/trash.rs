//! `cessfs trash list|restore|empty NAME`.

use super::{Context, print_json};
use crate::control::client::{self, Client, unexpected};
use crate::control::{Event, Op, Reply, Trashed};
use crate::exit::{Exit, Failure};
use crate::home::{VolumeDir, VolumeName};
use crate::progress::Waiting;
use crate::units;
use clap::{Args, Subcommand};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
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
        entry.path
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
    let mountpoint = client::status(volume)?
        .mountpoint
        .ok_or_else(|| Failure::new(Exit::NotMounted, "the volume is not mounted"))?;
    let mountpoint = Path::new(&mountpoint);
    let trash = list(volume)?;
    for id in ids {
        let entry = trash.iter().find(|entry| entry.id == *id).ok_or_else(|| {
            Failure::new(Exit::Failed, format!("the trash has no entry {id}"))
                .hint(format!("`cessfs trash list {}` tells the numbers", volume.name()))
        })?;
        let place = place(entry, mountpoint, to)?;
        let bytes = unhex(&entry.entry_hex)?;
        let from = mountpoint.join(".cessfs/trash").join(OsString::from_vec(bytes));
        move_back(&from, &place)?;
        say!("{}", place.display());
    }
    Ok(())
}

/// Where an entry goes: to its old path, whose directories are made again, or into `to`.
fn place(entry: &Trashed, mountpoint: &Path, to: Option<&Path>) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(OsString::from_vec(unhex(&entry.path_hex)?));
    let name = path.file_name().unwrap_or(path.as_os_str());
    if let Some(dir) = to {
        return Ok(dir.join(name));
    }
    if !entry.path_known {
        let what = format!("it is not known where `{}` was", Path::new(name).display());
        return Err(Failure::new(Exit::Failed, what).hint("say where to with --to DIR"));
    }
    let below = path.as_os_str().as_bytes();
    let below = below.strip_prefix(b"/").unwrap_or(below);
    let place = mountpoint.join(Path::new(std::ffi::OsStr::from_bytes(below)));
    if let Some(dir) = place.parent() {
        std::fs::create_dir_all(dir).map_err(|e| Failure::disk(format!("cannot make {}", dir.display()), &e))?;
    }
    Ok(place)
}

fn move_back(from: &Path, to: &Path) -> Result<(), Failure> {
    use nix::errno::Errno;
    renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE).map_err(|e| match e {
        Errno::EEXIST => Failure::new(Exit::Exists, format!("{} exists", to.display()))
            .hint("move it away, or put the file elsewhere with --to DIR"),
        Errno::EXDEV => Failure::new(Exit::Usage, format!("{} is not in the same mount", to.display()))
            .hint("--to takes a directory inside the volume's mount"),
        Errno::ENOENT if from.symlink_metadata().is_ok() => {
            let dir = to.parent().unwrap_or(to);
            Failure::new(Exit::Usage, format!("there is no directory {}", dir.display()))
                .hint(format!("`mkdir {}` makes it", dir.display()))
        }
        Errno::ENOENT => Failure::new(Exit::Failed, format!("{} is no longer in the trash", from.display())),
        Errno::EACCES | Errno::EPERM => {
            Failure::new(Exit::Permission, format!("you may not restore to {}", to.display()))
        }
        other => Failure::disk(format!("cannot restore {}", to.display()), &other.into()),
    })
}

fn unhex(text: &str) -> Result<Vec<u8>, Failure> {
    hex::decode(text).map_err(|e| Failure::new(Exit::Failed, format!("the daemon sent what is no hex: {e}")))
}
