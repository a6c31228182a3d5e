//! A listener that bounds how many connections there are and how long each one lives.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// How many connections are open at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;

/// How long a connection lives, in seconds; a client that is slow on purpose holds its place no
/// longer than this.
const CONNECTION_SECONDS_MAX: u64 = 60;

/// Accepts up to [`CONNECTIONS_MAX`] connections at a time.
pub(super) struct Listener {
    inner: TcpListener,
    places: Arc<Semaphore>,
    life: Duration,
}

impl Listener {
    /// Listens, and says where: the two differ when the port asked for is 0.
    pub(super) async fn bind(listen: SocketAddr) -> io::Result<(Self, SocketAddr)> {
        let inner = TcpListener::bind(listen).await?;
        let address = inner.local_addr()?;
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let life = Duration::from_secs(CONNECTION_SECONDS_MAX);
        Ok((Self { inner, places, life }, address))
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let place = self.places.clone().acquire_owned().await.expect("nothing closes it");
        let (stream, from) = axum::serve::Listener::accept(&mut self.inner).await;
        let end = Box::pin(tokio::time::sleep(self.life));
        (Connection { stream, end, _place: place }, from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A connection that fails its reads and writes when its time is over.
pub(super) struct Connection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn in_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.in_time(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.in_time(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn only_so_many_connections_are_taken_at_once() {
        let (mut listener, address) =
            Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let mut clients = Vec::new();
        let mut taken = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            clients.push(TcpStream::connect(address).await.unwrap());
            taken.push(axum::serve::Listener::accept(&mut listener).await.0);
        }
        let _one_more = TcpStream::connect(address).await.unwrap();
        let mut next = Box::pin(axum::serve::Listener::accept(&mut listener));
        let waits = tokio::time::timeout(Duration::ZERO, &mut next).await;
        assert!(waits.is_err());
        taken.pop();
        next.await;
    }

    #[tokio::test]
    async fn a_silent_connection_ends() {
        let (mut listener, address) =
            Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        listener.life = Duration::ZERO;
        let _silent = TcpStream::connect(address).await.unwrap();
        let (mut connection, _) = axum::serve::Listener::accept(&mut listener).await;
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
