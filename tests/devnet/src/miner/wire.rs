//! Sockets that can be cut.
//!
//! Closing a listener leaves its connections alive, and a client that keeps one would go on talking to a miner that is
//! supposed to be gone. Each connection here ends with an error at the moment the miner is stopped.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How long a listener waits where the process has no file descriptor left for another connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// A listener whose connections break when `cut` becomes true or its sender goes away.
pub struct CuttableListener {
    listener: TcpListener,
    cut: watch::Receiver<bool>,
}

impl CuttableListener {
    /// Puts `listener` under the control of `cut`.
    pub fn new(listener: TcpListener, cut: watch::Receiver<bool>) -> CuttableListener {
        CuttableListener { listener, cut }
    }
}

impl axum::serve::Listener for CuttableListener {
    type Io = CuttableStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // Small JSON answers must not wait for a delayed acknowledgement; a socket that refuses works too.
                    let _ = stream.set_nodelay(true);
                    return (CuttableStream::new(stream, self.cut.clone()), peer);
                }
                Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// One connection.
pub struct CuttableStream {
    stream: TcpStream,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_cut: bool,
}

impl CuttableStream {
    fn new(stream: TcpStream, mut cut: watch::Receiver<bool>) -> CuttableStream {
        let cut = Box::pin(async move {
            // An error means that the miner's switch is gone, and the miner with it.
            let _ = cut.wait_for(|cut| *cut).await;
        });
        CuttableStream {
            stream,
            cut,
            is_cut: false,
        }
    }

    /// The stream, as long as it is whole. The waker of `cx` also learns of the cut.
    fn whole(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut TcpStream>> {
        self.is_cut = self.is_cut || self.cut.as_mut().poll(cx).is_ready();
        if self.is_cut {
            Err(io::ErrorKind::ConnectionReset.into())
        } else {
            Ok(Pin::new(&mut self.stream))
        }
    }
}

impl AsyncRead for CuttableStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.whole(cx)?.poll_read(cx, buf)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.whole(cx)?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.whole(cx)?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.whole(cx)?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
