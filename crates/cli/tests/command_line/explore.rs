//! `vitrine explore` and `vitrine look`.

#[allow(dead_code, reason = "the tests of the page use the rest")]
#[path = "../../../explore/tests/browser/chromium.rs"]
mod chromium;

use self::chromium::Page;
use crate::common::{path, refuse, succeed, text, tiny, vitrine};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// `vitrine explore`, which serves.
struct Explorer {
    child: Child,
    /// What it printed: where the page is.
    url: String,
}

impl Explorer {
    fn new(more: &[&str]) -> Explorer {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vitrine"));
        command.args(["explore", "--port", "0"]).args(more).env("CUDA_VISIBLE_DEVICES", "");
        #[cfg(unix)]
        // SAFETY: `signal` may be called between fork and exec. A script's background job ignores Ctrl-C, and so would its children.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(&mut command, || {
                libc::signal(libc::SIGINT, libc::SIG_DFL);
                Ok(())
            });
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut url = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut url).expect("a line");
        Explorer { child, url: url.trim_end().to_owned() }
    }

    /// The answer to a request: its status and body.
    fn ask(&self, method: &str, at: &str, body: &str) -> (u16, Vec<u8>) {
        let host = self.url.strip_prefix("http://").expect("an address").split('/').next().expect("a host");
        let mut stream = TcpStream::connect(host).expect("it listens");
        let length = body.len();
        write!(stream, "{method} {at} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").expect("written");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("headers");
        let status = text(&answer[9..12]).parse().expect("a status");
        (status, answer[end + 4..].to_vec())
    }

    /// Ends it as Ctrl-C does; its exit code and standard error.
    #[cfg(unix)]
    fn interrupt(mut self) -> (Option<i32>, String) {
        // SAFETY: a signal to a child that has not been waited for.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGINT) };
        let mut said = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        (self.child.wait().expect("it ends").code(), said)
    }
}

impl Drop for Explorer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const TEXT: &str = "not bad at all";

fn predicted(model: &str) -> Value {
    serde_json::from_str(&succeed(&["predict", "--model", model, "--dtype", "f32", "--json", TEXT]))
        .expect("JSON")
}

#[cfg(unix)]
#[test]
fn the_page_is_served_says_what_predict_says_and_ends_with_ctrl_c() {
    let explorer = Explorer::new(&["--model", "embedded-imdb", "--text", TEXT]);
    assert!(explorer.url.ends_with("/#text=not%20bad%20at%20all"), "{}", explorer.url);
    assert_eq!(explorer.ask("GET", "/", "").0, 200);
    let (status, models) = explorer.ask("GET", "/api/models", "");
    let models: Value = serde_json::from_slice(&models).expect("JSON");
    assert_eq!((status, &models["models"][0]["name"]), (200, &json!("embedded-imdb")));
    assert_eq!(models["models"][0]["lens_head_of"], "embedded");
    let body = json!({"model": 0, "text": TEXT, "ablate": [], "edges": []}).to_string();
    let (status, run) = explorer.ask("POST", "/api/run", &body);
    let run: Value = serde_json::from_slice(&run).expect("JSON");
    assert_eq!(status, 200);
    let wanted = predicted("embedded-imdb");
    for class in 0..2 {
        let [got, wanted] = [&run["prediction"]["logits"][class], &wanted["logits"][class]];
        let (got, wanted) = (got.as_f64().expect("a number"), wanted.as_f64().expect("a number"));
        assert!((got - wanted).abs() < 1e-5, "{got} {wanted}");
    }
    assert_eq!(run["tokens"].as_array().expect("tokens").len(), wanted["tokens"]);
    // The port is taken.
    let port = explorer.url.split([':', '/']).nth(4).expect("a port").to_owned();
    refuse(2, &["explore", "--port", &port], &["--port", &port, "listens there already", "--port 0"]);
    let (code, said) = explorer.interrupt();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("Ctrl-C ends") && !said.contains("warning"), "{said}");
}

#[cfg(unix)]
#[test]
fn other_addresses_are_warned_of() {
    let explorer = Explorer::new(&["--model", tiny(), "--host", "0.0.0.0"]);
    assert!(explorer.url.starts_with("http://127.0.0.1:"), "{}", explorer.url);
    assert_eq!(explorer.ask("GET", "/api/models", "").0, 200);
    let (code, said) = explorer.interrupt();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("warning") && said.contains("anyone who reaches 0.0.0.0:"), "{said}");
    refuse(2, &["explore", "--host", "203.0.113.7", "--port", "0"], &["--host 203.0.113.7", "does not have"]);
}

/// The logit of the first class in the page, which stays with `address`, beside that of `vitrine predict`.
fn assert_shows(page: &mut Page, address: &str, wanted: &Value) {
    let logit = wanted["logits"][0].as_f64().expect("a number");
    let shown = page.text("#prediction tbody tr:nth-child(1) td:nth-child(4)").replace('\u{2212}', "-");
    assert_eq!(shown, format!("{logit:.3}"));
    assert_eq!(page.text("#attended"), format!("[CLS]{TEXT}[SEP]"));
    assert_eq!(page.console(), Vec::<String>::new());
    for url in page.requested() {
        assert!(url.starts_with(address) || url.starts_with("data:") || url.starts_with("blob:"), "{url}");
    }
}

#[test]
fn a_browser_shows_what_predict_says() {
    let Some(mut page) = Page::new(1280, 1500, false) else { return };
    let wanted = predicted("embedded-imdb");
    let explorer = Explorer::new(&["--text", TEXT]);
    page.open(&explorer.url);
    assert_shows(&mut page, &explorer.url[..explorer.url.find('#').expect("a text")], &wanted);
    drop((page, explorer));
    let Some(mut page) = Page::new(1280, 1500, true) else { return };
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("look.html");
    succeed(&["look", TEXT, "--output", path(&file)]);
    let address = format!("file://{}", file.display());
    page.open(&address);
    assert_shows(&mut page, &address, &wanted);
}

#[test]
fn look_writes_a_page_and_replaces_only_its_own() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("look.html");
    let out = ["--output", path(&file)];
    let said: Value =
        serde_json::from_str(&succeed(&[&["look", TEXT, "--json"], &out[..]].concat())).expect("JSON");
    let wanted = predicted("embedded-imdb");
    assert_eq!(
        (&said["models"][0]["label"], &said["models"][0]["tokens"]),
        (&wanted["label"], &wanted["tokens"])
    );
    let config = include_str!("../../assets/embedded-imdb/config.json");
    let config: Value = serde_json::from_str(config).expect("JSON");
    let heads = |name: &str| config[name].as_u64().expect("a number");
    let maps = heads("num_hidden_layers") * heads("num_attention_heads");
    assert_eq!((&said["maps"], &said["models"][0]["model"]), (&json!(maps), &json!("embedded-imdb")));
    let score =
        said["models"][0]["score"].as_f64().expect("a score") - wanted["score"].as_f64().expect("a score");
    assert!(score.abs() < 1e-6, "{score}");
    let page = std::fs::read_to_string(&file).expect("a page");
    assert_eq!(said["bytes"], page.len());
    assert!(
        !page.contains("http:")
            || page.matches("http:").count() == page.matches("http://www.w3.org/2000/svg").count()
    );
    // Two words are a model and a text; a model without a classifier has maps and no prediction.
    let printed = succeed(&[&["look", "embedded", "--compare", tiny(), TEXT], &out[..]].concat());
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!((lines[0], lines.last()), ("embedded: no classifier", Some(&path(&file))), "{printed}");
    assert!(std::fs::read_to_string(&file).expect("a page").contains("\"name\":\"embedded\""));
    // `explore --html` is the same page, but for how long it took.
    let other = folder.path().join("other.html");
    succeed(&["explore", "--model", "embedded", "--compare", tiny(), "--text", TEXT, "--html", path(&other)]);
    let untimed = |page: &Path| -> Vec<String> {
        let page = std::fs::read_to_string(page).expect("a page");
        let parts = page.split("\"milliseconds\":");
        parts
            .map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit() || ".e-".contains(c)).to_owned())
            .collect()
    };
    assert_eq!(untimed(&file).len(), 3, "a run of each model");
    assert!(untimed(&other) == untimed(&file), "another page");
    std::fs::write(&file, "mine").expect("written");
    refuse(2, &[&["look", TEXT], &out[..]].concat(), &["no page of `vitrine look`"]);
    assert_eq!(std::fs::read(&file).expect("a file"), b"mine");
}

#[test]
fn what_makes_no_sense_is_refused() {
    refuse(2, &["look"], &["TEXT"]);
    refuse(2, &["look", " ", "--output", "no-such.html"], &["text is empty"]);
    refuse(2, &["look", "a", "--model", "scratch"], &["random weights"]);
    refuse(1, &["look", "no-such-folder", "text", "--output", "no-such.html"], &["no-such-folder"]);
    refuse(2, &["look", "a", "b", "--model", "embedded"], &["--model"]);
    refuse(2, &["look", "a", "--output", "no/such/folder/x.html"], &["--output", "folder that is there"]);
    refuse(2, &["explore", "--html", "x.html"], &["--text"]);
    refuse(2, &["explore", "--html", "x.html", "--text", "a", "--port", "70"], &["--port"]);
    refuse(2, &["explore", "--host", "localhost.example"], &["--host"]);
    refuse(2, &["explore", "--port", "70000"], &["--port"]);
    let output = vitrine(&["explore", "--model", "no-such-folder", "--port", "0"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
}
