//! The server beside an engine of known answers: who is refused, what is malformed, who is slow, and the end.

mod client;
mod engine;
mod malformed;
mod patience;
mod refusals;

use client::{Served, get, post, request};
use engine::{Known, input};
use serde_json::json;
use vitrine_explore::contract::Run;
use vitrine_explore::server::Limits;
use vitrine_explore::{CONTENT_SECURITY_POLICY, FILES};

#[test]
fn the_page_is_served_under_its_policy_and_answers_are_the_engines() {
    let server = Served::new(Known::default(), Limits::default());
    for (name, mime, bytes) in FILES {
        for path in [format!("/{name}"), "/".to_owned()] {
            if path == "/" && *name != "index.html" {
                continue;
            }
            let answer = get(&server, &path);
            assert_eq!((answer.status, answer.header("content-type")), (200, Some(*mime)), "{path}");
            assert_eq!(answer.header("content-security-policy"), Some(CONTENT_SECURITY_POLICY));
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
            assert!(answer.body == *bytes, "{path}");
        }
    }
    let models = get(&server, "/api/models").json();
    assert_eq!(models["models"][0]["name"], "known");
    let answer = post(&server, "/api/run", &input("a film"));
    assert_eq!(answer.status, 200);
    let run: Run = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(run.tokens.len(), 4);
    assert_eq!(answer.header("content-security-policy"), Some(CONTENT_SECURITY_POLICY));
    // A connection is used again.
    let mut stream = server.connect();
    for _ in 0..3 {
        let answer = request(
            &mut stream,
            &server.bytes("POST", "/api/run", "keep-alive", &input("a film").to_string()),
        );
        assert_eq!(answer.json()["tokens"].as_array().unwrap().len(), 4);
    }
}

#[test]
fn a_panic_and_a_failure_are_answers() {
    let server = Served::new(Known::default(), Limits::default());
    let failed = post(&server, "/api/run", &input("fail"));
    assert_eq!((failed.status, failed.line()), (500, "It failed.".to_owned()));
    let panicked = post(&server, "/api/run", &input("panic"));
    assert_eq!(panicked.status, 500);
    assert!(panicked.line().starts_with("internal: "), "{}", panicked.line());
    assert_eq!(post(&server, "/api/run", &json!(input("a film"))).status, 200);
}
