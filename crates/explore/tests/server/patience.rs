//! Clients that are slow, too many, or gone; and the end of the server.

use crate::client::{Served, get, post, read, request};
use crate::engine::{Known, input};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use vitrine_explore::server::Limits;

const SHORT: Duration = Duration::from_millis(400);

/// Limits that a test can wait for.
fn short() -> Limits {
    Limits { header_time: SHORT, body_time: SHORT, write_time: SHORT, ..Limits::default() }
}

/// Sends these bytes one at a time for as long as the other side takes them; how long that was.
fn dribble(stream: &mut TcpStream, bytes: &[u8]) -> Duration {
    let started = Instant::now();
    stream.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    let mut buffer = [0; 4096];
    for byte in bytes.iter().cycle() {
        let closed = match stream.read(&mut buffer) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => {
                !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
            }
        };
        if closed || stream.write_all(&[*byte]).is_err() {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "nobody ends this connection");
    }
    started.elapsed()
}

#[test]
fn slow_headers_and_slow_bodies_lose_their_connection() {
    let server = Served::new(Known::default(), short());
    // Slow loris: a header that never ends.
    let mut slow = server.connect();
    slow.write_all(format!("GET / HTTP/1.1\r\nHost: {}\r\n", server.address).as_bytes()).unwrap();
    let took = dribble(&mut slow, b"X: y\r\n");
    assert!(took >= SHORT / 2, "{took:?}");
    // Nothing at all.
    let mut silent = server.connect();
    assert!(read(&mut silent).is_none());
    // A body that takes long is told so.
    let mut slow = server.connect();
    let whole = server.bytes("POST", "/api/run", "keep-alive", &input(&"a ".repeat(5000)).to_string());
    slow.write_all(&whole[..300]).unwrap();
    let reply = read(&mut slow).expect("an answer");
    assert_eq!((reply.status, reply.line()), (408, "The request took too long to arrive.".to_owned()));
    // Also one of which a byte comes now and then.
    let mut slow = server.connect();
    slow.write_all(&whole[..300]).unwrap();
    dribble(&mut slow, b"a");
    // A connection that was of use and is no more.
    let mut idle = server.connect();
    let page = server.bytes("GET", "/style.css", "keep-alive", "");
    assert_eq!(request(&mut idle, &page).status, 200);
    assert!(read(&mut idle).is_none(), "the server closes what is idle");
    assert_eq!(get(&server, "/").status, 200);
}

#[test]
fn a_reader_that_takes_nothing_loses_its_connection() {
    let server = Served::new(Known::default(), Limits { connections: 1, ..short() });
    let mut body = input("large");
    body["layer"] = json!(0);
    body["head"] = json!(0);
    let mut deaf = server.connect();
    deaf.write_all(&server.bytes("POST", "/api/attention", "keep-alive", &body.to_string())).unwrap();
    // The only connection is taken; the next one is served when it has ended.
    assert_eq!(get(&server, "/").status, 200);
    // Who reads gets all of it: 12 MB as base64.
    assert_eq!(
        post(&server, "/api/attention", &body).body.len(),
        "{\"size\":1500,\"probabilities\":\"\"}".len() + 12_000_000
    );
}

#[test]
fn more_connections_than_there_are_places_wait_and_are_served() {
    let server = Served::new(Known::default(), Limits { connections: 8, ..short() });
    let silent: Vec<TcpStream> = (0..40).map(|_| server.connect()).collect();
    assert_eq!(get(&server, "/").status, 200);
    drop(silent);
}

#[test]
fn one_request_is_computed_at_a_time_and_too_many_are_refused() {
    let known = Known::default();
    let server = Served::new(known.clone(), Limits { queue: 2, ..Limits::default() });
    let replies: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let thread = scope.spawn(|| post(&server, "/api/run", &input("slow text")));
                std::thread::sleep(Duration::from_millis(10));
                thread
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (served, refused): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 200);
    assert!(served.len() >= 3 && refused.len() >= 3, "{} and {}", served.len(), refused.len());
    for reply in refused {
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
        assert!(reply.line().contains("busy"), "{}", reply.line());
    }
    assert_eq!(post(&server, "/api/run", &input("a film")).status, 200);
}

#[test]
fn a_quick_request_does_not_wait_for_a_long_one() {
    let known = Known::default();
    let server = Served::new(known.clone(), Limits::default());
    let mut body = input("slow");
    body.as_object_mut()
        .unwrap()
        .extend([("method".into(), json!("gradient_x_input")), ("class".into(), json!(0))]);
    let mut long = server.connect();
    long.write_all(&server.bytes("POST", "/api/attributions", "keep-alive", &body.to_string())).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    assert_eq!(post(&server, "/api/run", &input("a film")).status, 200);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(known.overtaken.load(Ordering::SeqCst), 0, "the long one goes on");
}

#[test]
fn what_nobody_waits_for_is_not_computed() {
    let known = Known::default();
    let server = Served::new(known.clone(), Limits::default());
    let mut body = input("slow");
    body.as_object_mut()
        .unwrap()
        .extend([("method".into(), json!("gradient_x_input")), ("class".into(), json!(0))]);
    // One computes until it is overtaken, three wait; all four clients go.
    let mut first = server.connect();
    first.write_all(&server.bytes("POST", "/api/attributions", "keep-alive", &body.to_string())).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let mut others: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
    for other in &mut others {
        other.write_all(&server.bytes("POST", "/api/attributions", "keep-alive", &body.to_string())).unwrap();
    }
    std::thread::sleep(Duration::from_millis(200));
    drop(others);
    std::thread::sleep(Duration::from_millis(100));
    drop(first);
    assert_eq!(post(&server, "/api/run", &input("a film")).status, 200);
    // An attribution that nobody waits for is looked at once the first has ended.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(known.overtaken.load(Ordering::SeqCst), 1, "the other three never began");
    assert_eq!(known.runs.load(Ordering::SeqCst), 1);
}

#[test]
fn the_server_ends_while_it_computes_and_while_connections_are_open() {
    let known = Known::default();
    let mut server = Served::new(known.clone(), Limits::default());
    let mut body = input("slow");
    body.as_object_mut()
        .unwrap()
        .extend([("method".into(), json!("gradient_x_input")), ("class".into(), json!(0))]);
    let mut idle = server.connect();
    let mut waiting = server.connect();
    waiting.write_all(&server.bytes("POST", "/api/attributions", "keep-alive", &body.to_string())).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let took = server.end();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(known.overtaken.load(Ordering::SeqCst), 1);
    assert!(read(&mut idle).is_none());
    if let Some(reply) = read(&mut waiting) {
        assert_eq!(reply.status, 503);
    }
    assert!(TcpStream::connect(server.address).is_err(), "nobody listens any more");
}
