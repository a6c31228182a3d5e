//! A line between the program and a server, over TCP, that a test can cut and mend.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Bytes that are passed on at once.
const PIECE_BYTES: usize = 16 * 1024;

/// Time between two looks whether a silent line speaks again.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// A line. Its threads end with their connections, and with the process.
pub(crate) struct Line {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_cut: AtomicBool,
    is_silent: AtomicBool,
    /// Both ends of every connection since the last cut.
    open: Mutex<Vec<TcpStream>>,
}

impl Line {
    /// A line to `host:port`.
    pub(crate) fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (server, shared) = (server.to_owned(), Arc::new(Shared::default()));
        let kept = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is away is the client's matter: it sees the connection end.
                let _ = join(client, &server, &kept);
            }
        });
        Self { address, shared }
    }

    /// `host:port` of this end.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// The port of this end.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Ends all connections, and each new one at once.
    pub(crate) fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::SeqCst);
        for end in self.shared.open.lock().unwrap().drain(..) {
            end.shutdown(Shutdown::Both).ok();
        }
    }

    /// Lets connections stand and nothing through.
    pub(crate) fn silence(&self) {
        self.shared.is_silent.store(true, Ordering::SeqCst);
    }

    /// Lets everything through again.
    pub(crate) fn mend(&self) {
        self.shared.is_cut.store(false, Ordering::SeqCst);
        self.shared.is_silent.store(false, Ordering::SeqCst);
    }
}

fn join(client: TcpStream, server: &str, shared: &Arc<Shared>) -> std::io::Result<()> {
    let server = TcpStream::connect(server)?;
    for end in [&client, &server] {
        end.set_nodelay(true)?;
    }
    {
        // Under the lock, so that a cut misses no connection.
        let mut open = shared.open.lock().unwrap();
        if shared.is_cut.load(Ordering::SeqCst) {
            return Ok(());
        }
        open.extend([client.try_clone()?, server.try_clone()?]);
    }
    let ends = [(client.try_clone()?, server.try_clone()?), (server, client)];
    for (from, to) in ends {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            let _ = pass(&from, &to, &shared);
            from.shutdown(Shutdown::Both).ok();
            to.shutdown(Shutdown::Both).ok();
        });
    }
    Ok(())
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = from.read(&mut piece)?;
        if count == 0 {
            return Ok(());
        }
        while shared.is_silent.load(Ordering::SeqCst) {
            thread::sleep(LOOK_INTERVAL);
        }
        to.write_all(&piece[..count])?;
    }
}
