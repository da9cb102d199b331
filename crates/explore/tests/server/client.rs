//! A server on a thread, and a client that writes what it likes.

use crate::engine::Known;
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use vitrine_explore::server::{Limits, serve};

/// The longest that a test waits for an answer. Machines are shared.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that runs.
pub struct Served {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Served {
    /// On a free port of this machine.
    pub fn new(engine: Known, limits: Limits) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || serve(listener, &engine, &limits, &|| stopped.load(Ordering::SeqCst));
        Served { address, stop, thread: Some(std::thread::spawn(run)) }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A request as a browser writes it.
    pub fn bytes(&self, method: &str, path: &str, connection: &str, body: &str) -> Vec<u8> {
        let kind = if method == "POST" { "Content-Type: application/json\r\n" } else { "" };
        let (host, length) = (self.address, body.len());
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n{kind}Content-Length: {length}\r\nConnection: {connection}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    /// Ends the server; how long that took.
    pub fn end(&mut self) -> Duration {
        let started = std::time::Instant::now();
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server does not panic").unwrap();
        }
        started.elapsed()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(each, _)| each.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The line of an error.
    pub fn line(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.head);
        let line = self.json()["error"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned();
        assert!(!line.is_empty() && !line.contains('\n'), "{line:?}");
        line
    }
}

/// Reads one answer; none if the connection ends before, or nothing comes for as long as the stream waits.
pub fn read(stream: &mut TcpStream) -> Option<Reply> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        let head = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = head {
            let head = String::from_utf8(bytes[..end].to_vec()).expect("headers are text");
            let line = head.lines().next().unwrap_or_default();
            let status = line.strip_prefix("HTTP/1.").and_then(|line| line.get(2..5)?.parse().ok());
            let mut reply =
                Reply { status: status.unwrap_or_else(|| panic!("{head}")), head, body: Vec::new() };
            let length: usize = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                reply.body = bytes[end + 4..end + 4 + length].to_vec();
                return Some(reply);
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// Writes and reads on a stream.
pub fn request(stream: &mut TcpStream, bytes: &[u8]) -> Reply {
    stream.write_all(bytes).unwrap();
    read(stream).expect("an answer")
}

pub fn get(server: &Served, path: &str) -> Reply {
    request(&mut server.connect(), &server.bytes("GET", path, "close", ""))
}

pub fn post(server: &Served, path: &str, body: &Value) -> Reply {
    request(&mut server.connect(), &server.bytes("POST", path, "close", &body.to_string()))
}
