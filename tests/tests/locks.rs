//! Locks: the kernel keeps them for this mount, which is the only one of its volume. Everything a local filesystem does
//! with `flock`, with record locks and with open-file-description locks, between processes.

use anyhow::Result;
use cessfs_tests::modes::{bash, on_each_mount};

/// Each test is a function of two processes; prints `ok NAME` for each.
const PROGRAM: &str = include_str!("locks/locks.py");

const TESTS: [&str; 9] = [
    "records_exclude_each_other_by_range",
    "readers_share",
    "a_waiter_gets_the_lock_when_it_is_free",
    "a_circle_of_waiters_is_refused",
    "closing_any_descriptor_releases_record_locks",
    "death_releases",
    "flock_excludes_and_is_of_the_open_file",
    "a_waiter_for_flock_gets_it",
    "locks_of_open_files_exclude_and_outlive_other_closes",
];

#[test]
fn between_processes() -> Result<()> {
    on_each_mount(&[], |mount| {
        let program = tempfile::NamedTempFile::new()?;
        std::fs::write(program.path(), PROGRAM)?;
        let said = bash(mount.path(), &format!("python3 {}", program.path().display()))?;
        let passed: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("ok ")).collect();
        assert_eq!(passed, TESTS, "{said}");
        Ok(())
    })
}

#[test]
fn the_flock_command() -> Result<()> {
    on_each_mount(&[], |mount| {
        let said = bash(
            mount.path(),
            "touch lock
             flock lock sh -c 'flock -n lock true && echo both || echo one at a time'
             (flock 9; sleep 0.5; echo first) 9>lock &
             sleep 0.2; flock lock echo second; wait",
        )?;
        assert_eq!(said, "one at a time\nfirst\nsecond\n");
        Ok(())
    })
}
