//! Who still has a mount that was taken away: it was bound to another place, or copied into another mount namespace. Its daemon serves it
//! until it is gone there, too.

use super::{FS_TYPE, MountEntry, mounts, parse_line};
use crate::limits::HOLDERS_TOLD;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The rest of a sentence that begins with "unmounted, but"; none when nobody has a mount of this device.
pub fn still_held(device: &str) -> Option<String> {
    let is_it = |mount: &MountEntry| mount.device() == device && mount.fs_type == FS_TYPE;
    let places = mounts()
        .unwrap_or_default()
        .into_iter()
        .filter(is_it)
        .map(|mount| mount.dir);
    sentence(&places.collect::<Vec<_>>(), &elsewhere(&is_it))
}

/// Processes of other mount namespaces with such a mount; those that this user may look at.
fn elsewhere(is_it: &dyn Fn(&MountEntry) -> bool) -> Vec<u32> {
    let own = namespace("self".as_ref());
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = processes
        .map(|entry| entry.file_name())
        .filter(|name| namespace(name).is_some_and(|theirs| Some(theirs) != own))
        .filter(|name| {
            let text = std::fs::read(Path::new("/proc").join(name).join("mountinfo")).unwrap_or_default();
            text.split(|b| *b == b'\n')
                .filter_map(parse_line)
                .any(|mount| is_it(&mount))
        })
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}

fn namespace(pid: &std::ffi::OsStr) -> Option<OsString> {
    let link = std::fs::read_link(Path::new("/proc").join(pid).join("ns/mnt"));
    link.ok().map(PathBuf::into_os_string)
}

fn sentence(places: &[PathBuf], pids: &[u32]) -> Option<String> {
    let mut who = Vec::new();
    if !places.is_empty() {
        let named: Vec<String> = places
            .iter()
            .take(HOLDERS_TOLD)
            .map(|dir| dir.display().to_string())
            .collect();
        who.push(format!(
            "it is still mounted on {}{}",
            named.join(", "),
            more(places.len())
        ));
    }
    if !pids.is_empty() {
        let (noun, verb) = if pids.len() == 1 {
            ("process", "has")
        } else {
            ("processes", "have")
        };
        let named: Vec<String> = pids.iter().take(HOLDERS_TOLD).map(u32::to_string).collect();
        let (named, more) = (named.join(", "), more(pids.len()));
        who.push(format!(
            "{noun} {named}{more} still {verb} it in another mount namespace"
        ));
    }
    (!who.is_empty()).then(|| format!("{}: the volume is free when it is gone there, too", who.join(", and ")))
}

fn more(of: usize) -> String {
    match of.saturating_sub(HOLDERS_TOLD) {
        0 => String::new(),
        n => format!(" and {n} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_what_is_not_there() {
        assert_eq!(still_held("4095:1048575"), None);
        assert!(elsewhere(&|_| false).is_empty());
    }

    #[test]
    fn the_sentence() {
        assert_eq!(sentence(&[], &[]), None);
        assert!(
            sentence(&[], &[7])
                .unwrap()
                .starts_with("process 7 still has it in another")
        );
        let many: Vec<u32> = (1..=10).collect();
        let said = sentence(&["/mnt/a".into()], &many).unwrap();
        let expected =
            "it is still mounted on /mnt/a, and processes 1, 2, 3, 4, 5, 6, 7, 8 and 2 more still have it in ";
        assert!(said.starts_with(expected), "{said}");
    }
}
