//! What is refused, with which status and line.

use crate::client::{Served, get, post, request};
use crate::engine::{Known, input};
use serde_json::{Value, json};
use vitrine_explore::engine::{MOST_EDGES, MOST_TEXT};
use vitrine_explore::server::Limits;

/// The body of a run, changed.
fn with(changes: Value) -> Value {
    let mut body = input("not bad");
    let Value::Object(changes) = changes else { panic!("{changes} is no object") };
    body.as_object_mut().unwrap().extend(changes);
    body
}

#[test]
fn what_a_model_has_not_is_refused_in_one_line() {
    let server = Served::new(Known::default(), Limits::default());
    let edge = |layer: Value, head: Value| {
        with(json!({"edges": [{"layer": layer, "head": head, "query": 0, "key": 1}]}))
    };
    let attribute = |changes: Value| {
        let mut body = with(json!({"method": "integrated_gradients", "class": 0, "baseline": "pad"}));
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        body
    };
    let cases = [
        ("/api/run", with(json!({"model": 2})), 422, "no model 2"),
        ("/api/run", with(json!({"text": " \n"})), 422, "The text is empty. Type a sentence."),
        ("/api/run", with(json!({"text": "a".repeat(MOST_TEXT + 1)})), 422, "200001 bytes"),
        ("/api/run", with(json!({"ablate": [[2, 0]]})), 422, "no head 2.0 in known"),
        ("/api/run", with(json!({"ablate": [[0, 3]]})), 422, "no head 0.3"),
        ("/api/run", with(json!({"ablate": vec![[0, 0]; 7]})), 422, "7 heads are blocked"),
        ("/api/run", edge(json!(2), Value::Null), 422, "no head 2.0"),
        ("/api/run", edge(Value::Null, json!(9)), 422, "no head 0.9"),
        (
            "/api/run",
            with(
                json!({"edges": vec![json!({"layer": 0, "head": 0, "query": 0, "key": 0}); MOST_EDGES + 1]}),
            ),
            422,
            "1001 edges",
        ),
        (
            "/api/run",
            with(json!({"edges": [{"layer": 0, "head": 0, "query": 40, "key": 0}]})),
            422,
            "No edge 40 to 0.",
        ),
        ("/api/run", with(json!({"ablate": [[-1, 0]]})), 400, "invalid value"),
        ("/api/run", with(json!({"model": 1e99})), 400, "cannot be read"),
        ("/api/run", json!({}), 400, "missing field"),
        ("/api/run", json!([]), 400, "cannot be read"),
        ("/api/attention", with(json!({"layer": 0, "head": 3})), 422, "no head 0.3"),
        ("/api/attention", with(json!({"layer": 18446744073709551615u64, "head": 3})), 422, "no head"),
        ("/api/attributions", attribute(json!({"class": 2})), 422, "no class 2 in known"),
        ("/api/attributions", attribute(json!({"model": 1})), 422, "bare has no classifier"),
        ("/api/attributions", attribute(json!({"method": "occlusion"})), 422, "no method occlusion"),
        ("/api/attributions", attribute(json!({"method": "magic"})), 400, "unknown variant"),
        ("/api/attributions", attribute(json!({"baseline": null})), 422, "pad, mask or zero"),
        ("/api/attributions", attribute(json!({"method": "gradient_x_input"})), 422, "has no baseline"),
        ("/api/lens", with(json!({"from": 0, "count": 33})), 422, "1 to 32 tokens"),
        ("/api/lens", with(json!({"from": 0, "count": 0})), 422, "1 to 32 tokens"),
        ("/api/ablations", with(json!({"model": 1, "class": 0})), 422, "no classifier"),
    ];
    for (path, body, status, words) in cases {
        let reply = post(&server, path, &body);
        assert_eq!(reply.status, status, "{path} {words}: {}", reply.line());
        assert!(reply.line().contains(words), "{}", reply.line());
    }
}

#[test]
fn paths_methods_kinds_and_sizes_have_their_statuses() {
    let server = Served::new(Known::default(), Limits::default());
    for path in
        ["/no-such", "/api", "/api/runs", "//", "/../Cargo.toml", "/%2e%2e/Cargo.toml", "/page/main.js"]
    {
        assert_eq!(get(&server, path).status, 404, "{path}");
        assert_eq!(get(&server, path).line(), "There is no such path.");
    }
    let reply = get(&server, "/api/run");
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")), "{}", reply.line());
    assert_eq!(post(&server, "/api/models", &json!({})).status, 405);
    let body = input("not bad").to_string();
    let plain = server.bytes("POST", "/api/run", "close", &body);
    let changed = |from: &str, to: &str| {
        let text = String::from_utf8(plain.clone()).unwrap();
        assert!(text.contains(from), "{from}");
        request(&mut server.connect(), text.replace(from, to).as_bytes())
    };
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
        let reply = changed("Content-Type: application/json", &format!("Content-Type: {kind}"));
        assert_eq!(reply.status, 415, "{kind}: {}", reply.line());
    }
    let spelled = changed("Content-Type: application/json", "Content-Type: Application/JSON; charset=utf-8");
    assert_eq!(spelled.status, 200);
    let length = format!("Content-Length: {}", body.len());
    let reply = changed(&length, "Content-Length: 99999999999");
    assert_eq!(reply.status, 413, "before a byte of it is read: {}", reply.line());
    // In pieces, nobody knows how large it will be.
    let piece = "a".repeat(60_000);
    let pieces = format!("{:x}\r\n{piece}\r\n", piece.len()).repeat(30);
    let reply = changed(&format!("{length}\r\n"), "Transfer-Encoding: chunked\r\n");
    assert_eq!(reply.status, 400, "a body is no chunk");
    let head = String::from_utf8(server.bytes("POST", "/api/run", "close", "")).unwrap();
    let head = head.replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let reply = request(&mut server.connect(), format!("{head}{pieces}0\r\n\r\n").as_bytes());
    assert_eq!(reply.status, 413, "{}", reply.line());
}

#[test]
fn other_hosts_and_origins_are_refused() {
    let server = Served::new(Known::default(), Limits::default());
    let runs = server.bytes("POST", "/api/run", "close", &input("not bad").to_string());
    let page = server.bytes("GET", "/", "close", "");
    let port = server.address.port();
    let own = format!("127.0.0.1:{port}");
    let (localhost, evil) = (format!("localhost:{port}"), format!("evil.example:{port}"));
    for bytes in [&runs, &page] {
        let text = String::from_utf8(bytes.clone()).unwrap();
        let sent = |text: String| request(&mut server.connect(), text.as_bytes());
        assert_eq!(sent(text.replace(&own, &localhost)).status, 200);
        let rebound = sent(text.replace(&own, &evil));
        assert_eq!(rebound.status, 403);
        assert!(rebound.line().contains(&format!("http://{own}/")), "{}", rebound.line());
        for origin in ["null", "http://evil.example", &format!("http://{localhost}")] {
            let reply = sent(text.replace(&format!("Origin: http://{own}"), &format!("Origin: {origin}")));
            assert_eq!(reply.status, 403, "{origin}");
        }
        let without = sent(text.replace(&format!("Origin: http://{own}\r\n"), ""));
        assert_eq!(without.status, 200, "a program that is no browser");
        assert_eq!(sent(text.replace(&format!("Host: {own}\r\n"), "")).status, 403);
        assert_eq!(
            sent(text.replace(&format!("Host: {own}"), &format!("Host: {own}\r\nHost: {own}"))).status,
            403
        );
    }
}
