//! A thousand requests that no browser writes.

use crate::client::{Served, get, post, read};
use crate::engine::{Known, input};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;
use vitrine_explore::server::Limits;

/// Numbers that follow from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.next() as u8).collect()
    }
}

/// Bodies that are nearly right.
const BODIES: &[&str] = &[
    "",
    "{",
    "null",
    "[[[[[[",
    "\"text\"",
    "{\"model\":0}",
    "{\"model\":0,\"text\":\"a\",\"ablate\":[],\"edges\":[]",
    "{\"model\":-1,\"text\":\"a\",\"ablate\":[],\"edges\":[]}",
    "{\"model\":0,\"text\":\"\\ud800\",\"ablate\":[],\"edges\":[]}",
    "{\"model\":0,\"text\":\"a\",\"ablate\":[[0]],\"edges\":[]}",
    "{\"model\":0,\"text\":\"a\",\"ablate\":[[9,9]],\"edges\":[]}",
    "{\"model\":0,\"text\":\"a\",\"ablate\":[],\"edges\":[{}]}",
    "{\"model\":0,\"text\":\"\\u0000\",\"ablate\":[],\"edges\":[],\"layer\":1e300,\"head\":0}",
    "{\"model\":0,\"text\":\"a\",\"text\":\"b\",\"ablate\":[],\"edges\":[]}",
    "{\"model\":0,\"text\":\"a\",\"ablate\":[],\"edges\":[],\"from\":7,\"count\":4294967296}",
];
const PATHS: &[&str] = &[
    "/",
    "/api/run",
    "/api/attention",
    "/api/lens",
    "/api/models",
    "/api/run?x=%zz",
    "*",
    "http://[::1",
    "/\u{fc}",
    "",
];
const METHODS: &[&str] = &["GET", "POST", "PUT", "OPTIONS", "CONNECT", "post", "G@T", "PRI"];
const HEADERS: &[&str] = &[
    "Content-Length: -1",
    "Content-Length: 5, 6",
    "Content-Length: 18446744073709551616",
    "Content-Length: 5\r\nContent-Length: 6",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip",
    "Transfer-Encoding: chunked\r\nContent-Length: 3",
    "Expect: 100-continue",
    "Upgrade: websocket\r\nConnection: upgrade",
    "Connection: close",
    "Host: twice",
    "Origin: http://evil.example",
    " folded: line",
    "No colon",
    ": no name",
    "Nul: \0",
    "X: \u{1f3ac}",
    "Content-Type: text/plain",
    "Range: bytes=0-",
];

/// One request.
fn malformed(random: &mut Random, server: &Served) -> Vec<u8> {
    let body = random.of(BODIES);
    let whole = server.bytes(random.of(&["GET", "POST"]), random.of(PATHS), "close", body);
    match random.below(7) {
        // Anything.
        0 => random.bytes(600),
        // Cut off.
        1 => whole[..random.below(whole.len())].to_vec(),
        // A few bytes are others.
        2 => {
            let mut bytes = whole;
            for _ in 0..1 + random.below(8) {
                let place = random.below(bytes.len());
                bytes[place] = random.next() as u8;
            }
            bytes
        }
        // Lines that are wrong.
        3 => {
            let lines: String = (0..random.below(5)).map(|_| format!("{}\r\n", random.of(HEADERS))).collect();
            let (method, path) = (random.of(METHODS), random.of(PATHS));
            let version = random.of(&["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", ""]);
            format!("{method} {path} {version}\r\nHost: {}\r\n{lines}\r\n{body}", server.address).into_bytes()
        }
        // A body that is no JSON by its own word.
        4 => {
            let text = server.bytes("POST", random.of(&PATHS[1..4]), "close", body);
            let kind = random.of(&["text/plain", "text/html", "json", "application/jsonp", "*/*", "\u{fc}"]);
            String::from_utf8_lossy(&text).replace("application/json", kind).into_bytes()
        }
        // A header that is too long, or too many.
        5 if random.below(4) == 0 => {
            let long = "a".repeat(40_000 + random.below(40_000));
            format!("GET / HTTP/1.1\r\nHost: {}\r\nX: {long}\r\n\r\n", server.address).into_bytes()
        }
        5 if random.below(3) == 0 => {
            let many = "X: y\r\n".repeat(90 + random.below(60));
            format!("GET / HTTP/1.1\r\nHost: {}\r\n{many}\r\n", server.address).into_bytes()
        }
        // The right lines, and a body that is not.
        _ => {
            let nested = "[".repeat(random.below(100_000));
            let garbage = String::from_utf8_lossy(&random.bytes(300)).into_owned();
            let bodies = [body, body, &nested, &garbage];
            server.bytes("POST", random.of(&PATHS[1..4]), "close", random.of(&bodies))
        }
    }
}

#[test]
fn a_thousand_malformed_requests_change_nothing() {
    const REQUESTS: usize = 1000;
    const THREADS: usize = 4;
    let server = Served::new(Known::default(), Limits::default());
    let statuses = Mutex::new(BTreeMap::<u16, usize>::new());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (server, statuses) = (&server, &statuses);
            scope.spawn(move || {
                let mut random = Random(2026 + thread as u64);
                for number in 0..REQUESTS / THREADS {
                    let bytes = malformed(&mut random, server);
                    let mut stream = server.connect();
                    // Some wait for more: the client gives up, which the server has to bear, too.
                    stream.set_read_timeout(Some(Duration::from_millis(40))).unwrap();
                    // It may have been closed before all was written.
                    let _ = stream.write_all(&bytes);
                    let status = read(&mut stream).map_or(0, |reply| reply.status);
                    assert!(status != 500, "{}", String::from_utf8_lossy(&bytes));
                    *statuses.lock().unwrap().entry(status).or_default() += 1;
                    if number % 50 == 0 {
                        assert_eq!(post(server, "/api/run", &input("a film")).status, 200);
                    }
                }
            });
        }
    });
    let statuses = statuses.into_inner().unwrap();
    println!("statuses of 1,000 malformed requests, 0 for a closed or waiting connection: {statuses:?}");
    assert_eq!(statuses.values().sum::<usize>(), REQUESTS);
    // They are of every kind.
    for status in [0, 400, 403, 404, 405, 415, 422, 431] {
        assert!(statuses.contains_key(&status), "no {status}: {statuses:?}");
    }
    assert_eq!(get(&server, "/").status, 200);
    let run = post(&server, "/api/run", &input("a film"));
    assert_eq!(run.json()["tokens"].as_array().unwrap().len(), 4);
}
