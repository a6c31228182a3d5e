//! A gate in front of a server: it lets requests through, and to order answers with another status or shape
//! and quotes what the server answered, as error pages of real servers do.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What is answered instead of the server's reply, which is quoted in it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Quote {
    /// An error page with this status.
    Status(u16),
    /// 200, and a text that is not JSON.
    NotJson,
    /// 200, and JSON in which `data` is a text.
    OddShape,
}

/// A running gate. Its thread ends with the process.
pub(crate) struct Gate {
    url: String,
    orders: Arc<Mutex<VecDeque<Quote>>>,
    quoted_bytes: Arc<AtomicUsize>,
}

impl Gate {
    /// A gate in front of `http://host:port`.
    pub(crate) fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = server.trim_start_matches("http://").to_owned();
        let orders = Arc::new(Mutex::new(VecDeque::new()));
        let quoted_bytes = Arc::new(AtomicUsize::new(0));
        let (waiting, quoted) = (Arc::clone(&orders), Arc::clone(&quoted_bytes));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A broken connection is the client's or the server's matter.
                let _ = pass(client, &server, &waiting, &quoted);
            }
        });
        Self { url, orders, quoted_bytes }
    }

    /// Where the gate is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Orders replies for the next requests for cases.
    pub(crate) fn quote(&self, quotes: &[Quote]) {
        self.orders.lock().unwrap().extend(quotes);
    }

    /// How many orders were not served yet.
    pub(crate) fn waiting(&self) -> usize {
        self.orders.lock().unwrap().len()
    }

    /// Bytes of the server's replies that were quoted.
    pub(crate) fn quoted_bytes(&self) -> usize {
        self.quoted_bytes.load(Ordering::Relaxed)
    }
}

fn pass(
    mut client: TcpStream,
    server: &str,
    orders: &Mutex<VecDeque<Quote>>,
    quoted: &AtomicUsize,
) -> std::io::Result<()> {
    let Some(head) = head(&mut client)? else { return Ok(()) };
    let mut reply = Vec::new();
    let mut upstream = TcpStream::connect(server)?;
    upstream.write_all(plain(&head).as_bytes())?;
    upstream.read_to_end(&mut reply)?;
    let is_of_cases = head.starts_with("GET /api/v2/cases");
    let order = if is_of_cases { orders.lock().unwrap().pop_front() } else { None };
    if let Some(order) = order {
        let text = String::from_utf8_lossy(&reply);
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        quoted.fetch_add(body.len(), Ordering::Relaxed);
        reply = quote(order, body).into_bytes();
    }
    client.write_all(&reply)
}

fn quote(order: Quote, body: &str) -> String {
    let (status, body) = match order {
        Quote::Status(status) => {
            let text = serde_json::Value::from(format!("undefined method for #<Child {body}>"));
            (status, format!("{{\"errors\":[{{\"status\":{status},\"message\":{text}}}]}}"))
        }
        Quote::NotJson => (200, format!("Oops, while rendering {body}")),
        Quote::OddShape => (200, format!("{{\"data\":{}}}", serde_json::Value::from(body))),
    };
    let length = body.len();
    format!(
        "HTTP/1.1 {status} As Ordered\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// The head of a request that has no body.
fn head(client: &mut TcpStream) -> std::io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if bytes.len() > HEAD_BYTES_MAX || client.read(&mut byte)? == 0 {
            return Ok(None);
        }
        bytes.push(byte[0]);
    }
    Ok(String::from_utf8(bytes).ok())
}

/// The same request for a plain reply after which the connection ends.
fn plain(head: &str) -> String {
    let other = |line: &&str| {
        let line = line.to_lowercase();
        !line.starts_with("accept-encoding:") && !line.starts_with("connection:")
    };
    let lines = head.trim_end().split("\r\n").filter(other);
    let lines: String = lines.map(|line| format!("{line}\r\n")).collect();
    format!("{lines}Connection: close\r\n\r\n")
}
