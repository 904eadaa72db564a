//! `mount.cessfs`: what mount(8) runs for `-t cessfs`.
//!
//! `mount.cessfs SOURCE DIR [-sfnvw] [-r] [-o OPTIONS] [-t TYPE]` becomes `cessfs mount NAME DIR -o OPTIONS`, which returns
//! when the mount answers. `-o remount` is left to the kernel, for `ro`, `rw` and the like; mount(8) calls this program
//! `mount.fuse.cessfs` then. Knows nothing of volumes; options are checked where they are understood. Ends with mount(8)'s
//! codes: 0 mounted, 1 wrong usage, 32 not mounted.

mod arguments;

use arguments::{Invocation, Wrong};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// mount(8): incorrect invocation.
const EXIT_USAGE: u8 = 1;
/// mount(8): mount failure.
const EXIT_FAILED: u8 = 32;
/// `cessfs`: the command line, or an option, is wrong (docs/CLI_ABI.md).
const CESSFS_USAGE: [i32; 2] = [2, 6];

fn main() -> ExitCode {
    let invocation = match Invocation::parse(std::env::args_os().skip(1)) {
        Ok(invocation) => invocation,
        Err(Wrong(what)) => {
            eprintln!("mount.cessfs: {what}");
            eprintln!("usage: mount.cessfs NAME DIR [-sfnvwr] [-o OPTIONS]");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if invocation.fake {
        return ExitCode::SUCCESS;
    }
    let (program, arguments) = match invocation.to_remount() {
        Some(arguments) => (PathBuf::from("mount"), arguments),
        None => (find_cessfs(), invocation.to_arguments()),
    };
    let status = match Command::new(&program).args(arguments).status() {
        Ok(status) => status,
        Err(e) => {
            eprintln!("mount.cessfs: cannot run {}: {e}", program.display());
            return ExitCode::from(EXIT_FAILED);
        }
    };
    match status.code() {
        Some(0) => ExitCode::SUCCESS,
        Some(code) if CESSFS_USAGE.contains(&code) => ExitCode::from(EXIT_USAGE),
        _ => ExitCode::from(EXIT_FAILED),
    }
}

/// Where the package puts it, and who builds it himself.
const INSTALLED: [&str; 2] = ["/usr/bin/cessfs", "/usr/local/bin/cessfs"];

/// Beside this program, then in PATH, then where it is installed: mount(8) runs helpers with little in PATH.
fn find_cessfs() -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|me| me.parent().map(|dir| dir.join("cessfs")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|dir| dir.join("cessfs"));
    let installed = INSTALLED.iter().map(PathBuf::from);
    let is_program = |path: &PathBuf| path.is_absolute() && Path::is_file(path);
    let mut found = beside.into_iter().chain(in_path).chain(installed).filter(is_program);
    found.next().unwrap_or_else(|| PathBuf::from(INSTALLED[0]))
}
