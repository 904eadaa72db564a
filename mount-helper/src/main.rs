//! `mount.cessfs`: what mount(8) runs for `-t cessfs`.
//!
//! `mount.cessfs SOURCE DIR [-sfnvw] [-r] [-o OPTIONS] [-t TYPE]` becomes `cessfs mount NAME DIR -o OPTIONS`, which returns
//! when the mount answers. `-o remount` is left to the kernel, for `ro`, `rw` and the like; mount(8) calls this program
//! `mount.fuse.cessfs` then. Knows nothing of volumes; options are checked where they are understood. Ends with mount(8)'s
//! codes: 0 mounted, 1 wrong usage, 32 not mounted.

mod arguments;

use arguments::{Invocation, Wrong};
use std::ffi::OsStr;
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
    let path = std::env::var_os("PATH").unwrap_or_default();
    let (places, arguments) = match invocation.to_remount() {
        Some(arguments) => (places_of_mount(&path), arguments),
        None => {
            let me = std::env::current_exe().ok();
            (places_of_cessfs(me.as_deref(), &path), invocation.to_arguments())
        }
    };
    let program = first_there(&places, Path::is_file);
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

/// Where `cessfs` is looked for: beside this program, where it is installed, in PATH. PATH comes last: it is the
/// caller's, and root may have got it from somebody.
fn places_of_cessfs(me: Option<&Path>, path: &OsStr) -> Vec<PathBuf> {
    let beside = me.and_then(Path::parent).map(|dir| dir.join("cessfs"));
    let mut places: Vec<PathBuf> = beside.into_iter().collect();
    places.extend(INSTALLED.map(PathBuf::from));
    places.extend(std::env::split_paths(path).map(|dir| dir.join("cessfs")));
    places
}

/// The same of mount(8), of which every system has one.
fn places_of_mount(path: &OsStr) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = vec!["/usr/bin/mount".into(), "/bin/mount".into()];
    places.extend(std::env::split_paths(path).map(|dir| dir.join("mount")));
    places
}

/// The first that is there; the first at all where none is, for the message.
fn first_there(places: &[PathBuf], is_there: impl Fn(&Path) -> bool) -> PathBuf {
    let found = places.iter().find(|place| place.is_absolute() && is_there(place));
    found.or(places.first()).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_comes_before_what_path_leads_to() {
        let path = OsStr::new("/tmp/evil:bin:/opt/bin");
        let found = |places: &[PathBuf], there: &[&str]| {
            let found = first_there(places, |place| there.iter().any(|name| place == Path::new(name)));
            found.display().to_string()
        };
        let cessfs = places_of_cessfs(Some(Path::new("/build/mount-cessfs")), path);
        let evil = "/tmp/evil/cessfs";
        assert_eq!(
            found(&cessfs, &[evil, "/build/cessfs", "/usr/bin/cessfs"]),
            "/build/cessfs"
        );
        assert_eq!(found(&cessfs, &[evil, "/usr/bin/cessfs"]), "/usr/bin/cessfs");
        assert_eq!(found(&cessfs, &["/opt/bin/cessfs", "bin/cessfs"]), "/opt/bin/cessfs");
        let mount = places_of_mount(path);
        assert_eq!(found(&mount, &["/tmp/evil/mount", "/bin/mount"]), "/bin/mount");
        assert_eq!(found(&mount, &["/opt/bin/mount"]), "/opt/bin/mount");
        assert_eq!(found(&mount, &[]), "/usr/bin/mount");
    }
}
