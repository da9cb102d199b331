//! A hub on 127.0.0.1 that speaks the protocol of huggingface.co, as far as it is used here: the description of a revision with sizes
//! and hashes, files by commit, redirects of large files to another server, ranges. Tests give it answers that go wrong.

use sha1::Digest;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The commit of every repository.
pub const COMMIT: &str = "86b5e0934494bd15c9632b12f734a8a67f723594";

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// Path and query.
    pub path: String,
    /// Headers, their names in small letters.
    pub headers: BTreeMap<String, String>,
}

impl Request {
    /// The first byte of `Range: bytes=N-`.
    pub fn from(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// An answer, and how it breaks.
#[derive(Clone, Default)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Headers besides Content-Length.
    pub headers: Vec<(String, String)>,
    /// The body that is announced.
    pub body: Vec<u8>,
    /// The connection is closed after so many bytes of it.
    pub cut: Option<usize>,
    /// The wait before the body.
    pub delay: Duration,
}

impl Reply {
    /// An answer without a body.
    pub fn status(status: u16, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Reply { status, headers: headers.collect(), ..Reply::default() }
    }

    /// A whole file.
    pub fn file(body: &[u8]) -> Self {
        Reply { status: 200, body: body.to_vec(), ..Reply::default() }
    }
}

/// A file of a repository.
#[derive(Clone)]
pub struct Stored {
    pub bytes: Vec<u8>,
    /// Whether it is in large file storage.
    pub lfs: bool,
}

/// What answers instead of the protocol: from the request and how many came before with the same path.
pub type Fault = Box<dyn Fn(&Request, usize) -> Option<Reply> + Send + Sync>;

/// What a server has.
#[derive(Default)]
pub struct Contents {
    /// `models/owner/name` or `datasets/owner/name`, then the path of a file.
    pub repositories: BTreeMap<String, BTreeMap<String, Stored>>,
    /// Where large files are: another server's address, or none for this one.
    pub large_files_at: Option<String>,
    pub fault: Option<Fault>,
}

impl Contents {
    /// Adds a repository; files that end in `.safetensors` or `.parquet` are large ones.
    pub fn with(mut self, repository: &str, files: &[(&str, &[u8])]) -> Self {
        let stored = files.iter().map(|(name, bytes)| {
            let lfs = name.ends_with(".safetensors") || name.ends_with(".parquet");
            ((*name).to_owned(), Stored { bytes: bytes.to_vec(), lfs })
        });
        self.repositories.insert(repository.to_owned(), stored.collect());
        self
    }

    pub fn failing(
        mut self,
        fault: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        self.fault = Some(Box::new(fault));
        self
    }
}

/// A running server; its threads end with the process.
pub struct Server {
    pub address: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(contents: Contents) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (contents, requests) = (Arc::new(contents), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (contents, requests) = (contents.clone(), requests.clone());
                std::thread::spawn(move || serve(&stream, &contents, &requests));
            }
        });
        Server { address, seen }
    }

    /// The requests that came.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("no thread panics").clone()
    }

    /// How many requests came for paths with this text in them.
    pub fn count(&self, part: &str) -> usize {
        self.seen().iter().filter(|request| request.path.contains(part)).count()
    }
}

fn serve(stream: &TcpStream, contents: &Contents, seen: &Mutex<Vec<Request>>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while let Some(first) = lines.next() {
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let headers = lines
            .by_ref()
            .take_while(|line| !line.is_empty())
            .filter_map(|line| {
                let (name, value) = line.split_once(':')?;
                Some((name.to_ascii_lowercase(), value.trim().to_owned()))
            })
            .collect();
        let request = Request { path, headers };
        let before = {
            let mut seen = seen.lock().expect("no thread panics");
            seen.push(request.clone());
            seen.iter().filter(|other| other.path == request.path).count() - 1
        };
        let reply = contents.fault.as_ref().and_then(|fault| fault(&request, before));
        let reply = reply.unwrap_or_else(|| answer(contents, &request));
        if !send(stream, &reply) {
            return;
        }
    }
}

/// Sends an answer; false if the connection ends with it.
fn send(mut stream: &TcpStream, reply: &Reply) -> bool {
    let Reply { status, headers, body, cut, delay } = reply;
    let mut head = format!("HTTP/1.1 {status} -\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !headers.iter().any(|(name, _)| name == "Content-Length" || name == "Transfer-Encoding") {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let sent = &body[..cut.unwrap_or(body.len()).min(body.len())];
    let written = stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| {
        std::thread::sleep(*delay);
        stream.write_all(sent)
    });
    if cut.is_some() || written.is_err() {
        let _ = stream.shutdown(std::net::Shutdown::Both);
        return false;
    }
    true
}

/// The answer of the protocol.
fn answer(contents: &Contents, request: &Request) -> Reply {
    let path = request.path.split('?').next().unwrap_or_default();
    if let Some(api) = path.strip_prefix("/api/") {
        let Some((repository, revision)) = api.split_once("/revision/") else {
            return Reply::status(404, &[]);
        };
        let Some(files) = contents.repositories.get(repository) else {
            return Reply::status(401, &[("X-Error-Code", "RepoNotFound")]);
        };
        return match ["main", COMMIT].contains(&revision) {
            true => Reply::file(description(repository, files).as_bytes()),
            false => Reply::status(404, &[("X-Error-Code", "RevisionNotFound")]),
        };
    }
    let (large, path) = match path.strip_prefix("/large/") {
        Some(path) => (true, path),
        None => (false, path.trim_start_matches('/')),
    };
    let Some((repository, rest)) = path.split_once("/resolve/") else { return Reply::status(404, &[]) };
    let key = if repository.starts_with("datasets/") {
        repository.to_owned()
    } else {
        format!("models/{repository}")
    };
    let (_, name) = rest.split_once('/').unwrap_or_default();
    let Some(file) = contents.repositories.get(&key).and_then(|files| files.get(name)) else {
        return Reply::status(404, &[("X-Error-Code", "EntryNotFound")]);
    };
    if file.lfs && !large {
        let at = contents.large_files_at.clone().unwrap_or_default();
        return Reply::status(302, &[("Location", &format!("{at}/large/{path}"))]);
    }
    part(&file.bytes, request.from())
}

/// A file from a byte on.
pub fn part(bytes: &[u8], from: Option<usize>) -> Reply {
    match from {
        None => Reply::file(bytes),
        Some(from) if from >= bytes.len() => {
            Reply::status(416, &[("Content-Range", &format!("bytes */{}", bytes.len()))])
        }
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Reply { body: bytes[from..].to_vec(), ..Reply::status(206, &[("Content-Range", &range)]) }
        }
    }
}

/// What `/api/models/NAME/revision/main?blobs=true` says.
pub fn description(repository: &str, files: &BTreeMap<String, Stored>) -> String {
    let siblings: Vec<String> = files
        .iter()
        .map(|(name, Stored { bytes, lfs })| {
            let size = bytes.len();
            let lfs = match lfs {
                true => format!(
                    r#", "lfs": {{"sha256": "{}", "size": {size}, "pointerSize": 134}}"#,
                    hex(&sha2::Sha256::digest(bytes))
                ),
                false => String::new(),
            };
            let blob = [format!("blob {size}\0").as_bytes(), bytes].concat();
            let blob = hex(&sha1::Sha1::digest(blob));
            format!(r#"{{"rfilename": "{name}", "size": {size}, "blobId": "{blob}"{lfs}}}"#)
        })
        .collect();
    format!(r#"{{"id": "{repository}", "sha": "{COMMIT}", "siblings": [{}]}}"#, siblings.join(", "))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
