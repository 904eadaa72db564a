//! Telling systemd (sd_notify(3)): one datagram to the socket that `$NOTIFY_SOCKET` names.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The mount answers.
pub fn ready() {
    say("READY=1\nSTATUS=mounted");
}

/// The volume is still being opened: the start may take so much longer from now on.
pub fn working(longer: Duration) {
    say(&format!(
        "EXTEND_TIMEOUT_USEC={}\nSTATUS=opening the volume",
        longer.as_micros()
    ));
}

/// The mount is gone; what follows is writing out.
pub fn stopping() {
    say("STOPPING=1");
}

fn say(message: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(e) = send(socket.as_bytes(), message) {
        tracing::warn!("systemd cannot be told {message:?}: {e}");
    }
}

/// A name that starts with `@` is in the abstract namespace.
fn send(socket: &[u8], message: &str) -> std::io::Result<()> {
    let address = match socket.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(socket))?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_arrives() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str().as_bytes(), "READY=1").unwrap();
        let mut buffer = [0; 64];
        let n = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"READY=1");
        assert!(send(b"/does/not/exist", "READY=1").is_err());
    }
}
