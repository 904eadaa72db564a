//! The command line's side of the door.

use super::{Reply, Request};
use crate::{limits::CONTROL_TIMEOUT, network::socket};
use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::net::UnixStream,
    path::Path,
};

/// Asks the devnet in `dir`.
///
/// # Errors
/// If none runs there, it does not answer, or it says no.
pub fn ask(dir: &Path, request: &Request) -> Result<Value> {
    let mut stream = match UnixStream::connect(socket(dir)) {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Err(anyhow!(
                "no devnet runs in {0}; start it: cessfs-devnet up --dir {0} --daemon",
                dir.display()
            ));
        }
        Err(e) => return Err(e).with_context(|| format!("cannot reach the devnet in {}", dir.display())),
    };
    stream.set_read_timeout(Some(CONTROL_TIMEOUT))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).context("the devnet hung up")?;
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .context("the devnet does not answer")?;
    match serde_json::from_str(&answer).context("the devnet hung up")? {
        Reply::Ok(value) => Ok(value),
        Reply::Error(reason) => Err(anyhow!(reason)),
    }
}

/// True if a devnet answers in `dir`.
pub fn is_running(dir: &Path) -> bool {
    ask(dir, &Request::Status).is_ok()
}
