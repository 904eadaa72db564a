//! Running our own binaries.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A binary of this workspace: the one in `CESSFS_BIN_DIR` if it is there, else the one built beside the test that asks.
pub fn binary(name: &str) -> Result<PathBuf> {
    let chosen = std::env::var_os("CESSFS_BIN_DIR").map(|dir| PathBuf::from(dir).join(name));
    if let Some(path) = chosen.filter(|path| path.is_file()) {
        return Ok(path);
    }
    let me = std::env::current_exe()?;
    let near = me.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    near.into_iter()
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is not built; run `cargo build --workspace` first"))
}

/// A program that `scripts/setup --test` installs with cargo; `None` if it has not been.
pub fn installed(name: &str) -> Option<PathBuf> {
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(cargo.map(|home| home.join("bin")));
    dirs.map(|dir| dir.join(name)).find(|program| program.is_file())
}

/// A command for one of our binaries, without a terminal.
pub fn command(name: &str) -> Result<Command> {
    let mut command = Command::new(binary(name)?);
    command
        .stdin(Stdio::null())
        .env_remove("CESSFS_HOME")
        .env_remove("CESSFS_PASSPHRASE_FILE");
    Ok(command)
}

/// Runs to the end; the output whatever the exit code.
pub fn output(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("cannot run {command:?}"))
}

/// Runs to the end; stdout, or an error with everything it said.
pub fn succeed(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{command:?} ended with {}\nstdout: {stdout}\nstderr: {stderr}",
            output.status
        );
    }
    Ok(stdout)
}

/// Runs to the end and expects failure; exit code and stderr.
pub fn fail(command: &mut Command) -> Result<(i32, String)> {
    let output = output(command)?;
    if output.status.success() {
        bail!(
            "{command:?} succeeded, but should have failed: {}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    Ok((
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}

/// Empties the kernel's page, dentry and inode caches, so that what is read next comes from below.
pub fn drop_kernel_caches() -> Result<()> {
    nix::unistd::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("drop_caches needs root")
}
