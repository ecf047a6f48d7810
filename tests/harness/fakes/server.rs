//! The little of an HTTP server that a fake needs.
//!
//! A thread accepts, and each connection has one. All of them end when the
//! server is dropped.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::reply::{Cut, Hold};

/// How often somebody who waits looks whether that is still of use.
const LOOK: Duration = Duration::from_millis(2);

/// A request.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Method and path.
    pub(super) line: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// What is sent back.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Body,
    pub(super) hold: Option<Hold>,
    pub(super) cut: Option<Cut>,
    pub(super) piece_bytes: Option<usize>,
}

#[derive(Debug)]
pub(super) enum Body {
    Whole {
        content_type: &'static str,
        text: String,
    },
    Events(Vec<String>),
}

impl Response {
    pub(super) fn whole(status: u16, content_type: &'static str, text: String) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Body::Whole { content_type, text },
            hold: None,
            cut: None,
            piece_bytes: None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    abandoned: AtomicUsize,
    connections: Mutex<Vec<(TcpStream, JoinHandle<()>)>>,
}

impl Server {
    pub(super) fn start(answer: impl Fn(Incoming) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let accepting = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared, &Arc::new(answer))
        });
        Self {
            address,
            shared,
            accepting: Some(accepting),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn hang_up(&self) {
        let connections = &self.shared.connections;
        let connections = connections.lock().unwrap_or_else(PoisonError::into_inner);
        for (stream, _) in &*connections {
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    pub(super) fn abandoned(&self) -> usize {
        self.shared.abandoned.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            accepting.join().ok();
        }
        let connections = &self.shared.connections;
        let connections =
            std::mem::take(&mut *connections.lock().unwrap_or_else(PoisonError::into_inner));
        for (stream, thread) in connections {
            stream.shutdown(Shutdown::Both).ok();
            thread.join().ok();
        }
    }
}

fn accept<A>(listener: &TcpListener, shared: &Arc<Shared>, answer: &Arc<A>)
where
    A: Fn(Incoming) -> Response + Send + Sync + 'static,
{
    while let Ok((stream, _)) = listener.accept() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let handle = stream.try_clone().expect("a descriptor");
        let (shared_with, answer) = (Arc::clone(shared), Arc::clone(answer));
        let thread = std::thread::spawn(move || {
            let connection = Connection {
                stream: &stream,
                shared: &shared_with,
            };
            connection.serve(&*answer);
            stream.shutdown(Shutdown::Both).ok();
        });
        let connections = &shared.connections;
        let mut connections = connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|(_, thread)| !thread.is_finished());
        connections.push((handle, thread));
    }
}

/// Whoever asked left, or the server ends.
#[derive(Debug)]
struct Gone;

struct Connection<'a> {
    stream: &'a TcpStream,
    shared: &'a Shared,
}

impl Connection<'_> {
    /// One request after the other, until either side ends.
    fn serve(&self, answer: &impl Fn(Incoming) -> Response) {
        self.stream.set_nodelay(true).ok();
        let mut reader = BufReader::new(self.stream);
        while let Some(incoming) = read(&mut reader) {
            let response = answer(incoming);
            let cut = response.cut.is_some();
            if self.send(response).is_err() {
                if !self.shared.stop.load(Ordering::SeqCst) {
                    self.shared.abandoned.fetch_add(1, Ordering::SeqCst);
                }
                return;
            }
            if cut {
                return;
            }
        }
    }

    fn send(&self, response: Response) -> Result<(), Gone> {
        if let Some(hold) = response.hold.as_ref().filter(|hold| hold.after.is_none()) {
            self.wait(hold)?;
        }
        let mut head = format!(
            "HTTP/1.1 {} {}\r\n",
            response.status,
            reason(response.status)
        );
        for (name, value) in &response.headers {
            head.push_str(&[name, ": ", value, "\r\n"].concat());
        }
        let events = match response.body {
            Body::Whole { content_type, text } => {
                head.push_str(&["content-type: ", content_type, "\r\n"].concat());
                let length = text.len().to_string();
                head.push_str(&["content-length: ", &length, "\r\n\r\n", &text].concat());
                return self.write(head.as_bytes());
            }
            Body::Events(events) => events,
        };
        head.push_str("content-type: text/event-stream; charset=utf-8\r\n");
        head.push_str("cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n");
        self.write(head.as_bytes())?;
        let mut budget = match response.cut {
            Some(Cut::Bytes(bytes)) => bytes,
            _ => usize::MAX,
        };
        for at in 0..=events.len() {
            match &response.hold {
                Some(hold) if hold.after == Some(at) => self.wait(hold)?,
                _ => {}
            }
            if matches!(response.cut, Some(Cut::Events(events)) if events == at) {
                return Ok(());
            }
            let event = events.get(at).map(String::as_bytes).unwrap_or_default();
            let event = &event[..event.len().min(budget)];
            for piece in event.chunks(response.piece_bytes.unwrap_or(usize::MAX)) {
                if self.has_gone() {
                    return Err(Gone);
                }
                let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
                self.write(&chunk)?;
            }
            budget -= event.len();
            if budget == 0 {
                return Ok(());
            }
        }
        self.write(b"0\r\n\r\n")
    }

    fn write(&self, bytes: &[u8]) -> Result<(), Gone> {
        let mut stream = self.stream;
        stream.write_all(bytes).map_err(|_| Gone)
    }

    fn wait(&self, hold: &Hold) -> Result<(), Gone> {
        hold.gate.reach();
        while !hold.gate.wait(LOOK) {
            if self.has_gone() || self.shared.stop.load(Ordering::SeqCst) {
                return Err(Gone);
            }
        }
        Ok(())
    }

    /// Whether the other side has closed its end.
    fn has_gone(&self) -> bool {
        self.stream.set_nonblocking(true).ok();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).ok();
        match peeked {
            Ok(length) => length == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// The next request; `None` at the end, or if it is none.
fn read(reader: &mut impl BufRead) -> Option<Incoming> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    // What is asked after a `?` is of no use here.
    let path = path.split('?').next()?;
    let line = [method, " ", path].concat();
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(Some(0), |(_, value)| value.parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Incoming {
        line,
        headers,
        body,
    })
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        529 => "Overloaded",
        _ => "Status",
    }
}
