//! The real server with the embedded models: what the page shows equals what the library computes.

use crate::chromium::{Page, SHIFT};
use crate::expected::{assert_clean, cell, decimal, signed};
use serde_json::json;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use vitrine_explain::{Blocks, Lens, Method, Subject, Wanted};
use vitrine_explore::server::{Limits, serve};
use vitrine_explore::{ModelEngine, record, self_contained};

const TEXT: &str = "This film was not bad at all.";

/// A model of the folder that the command line embeds.
fn subject(name: &str) -> Subject {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/assets");
    let mut subject = Subject::load(&assets.join(name)).unwrap();
    if name == "embedded-imdb" {
        subject.borrow_head(&assets.join("embedded")).unwrap();
    }
    subject
}

fn engine(names: &[&str]) -> ModelEngine {
    let mut engine = ModelEngine::new();
    for name in names {
        let borrowed = (*name == "embedded-imdb").then(|| "embedded".to_owned());
        engine.add((*name).to_owned(), subject(name), borrowed);
    }
    engine
}

/// A server that runs as long as this value lives.
struct Server {
    address: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn new(names: &'static [&'static str]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let stopped = || stopped.load(Ordering::SeqCst);
            serve(listener, &engine(names), &Limits::default(), &stopped).unwrap();
        });
        Server { address, stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

/// The percentage and the logit of "positive" in a model's table.
fn positive(page: &mut Page, model: usize) -> (String, String) {
    let row = format!("#prediction .model:nth-child({model}) tbody tr:nth-child(2)");
    (page.text(&format!("{row} td:nth-child(3)")), page.text(&format!("{row} td:nth-child(4)")))
}

/// The same of the library.
fn computed(subject: &Subject, blocks: &Blocks) -> (String, String) {
    let said = subject.predict(&subject.read(TEXT).unwrap(), blocks).unwrap().unwrap();
    (format!("{} %", decimal(100.0 * said.probabilities[1], 1)), decimal(said.logits[1], 3))
}

#[test]
fn a_typed_text_and_a_blocked_head_show_what_the_library_computes() {
    let Some(mut page) = Page::new(1280, 1500, false) else { return };
    let server = Server::new(&["embedded-imdb"]);
    let subject = subject("embedded-imdb");
    page.open(&server.address);
    page.type_into("#text", "Another text first.");
    page.type_into("#text", TEXT);
    page.wait("document.querySelector('#attributions .tokens').textContent.includes('not bad at all')");
    page.rest();
    assert_eq!(positive(&mut page, 1), computed(&subject, &Blocks::none()));
    let text = subject.read(TEXT).unwrap();
    let attention = subject.attention(&text, &Blocks::none()).unwrap();

    // A head by a click, and a cell of its map.
    page.click("#grid button[data-layer=\"1\"][data-head=\"1\"]", 0);
    page.wait("document.getElementById('zoom-title').textContent === 'Head 1.1'");
    page.rest();
    let size = attention.size();
    for (query, key) in [(0, 0), (4, 5), (size - 1, size - 1)] {
        let (x, y) = cell(&mut page, 0, query, key);
        page.point(x, y);
        let value = decimal(attention.map(1, 1)[query * size + key], 3);
        let readout = page.text("#zoom-readout");
        assert!(readout.ends_with(&format!(": {value}")), "{readout}, not {value}");
    }
    // Attributions of the predicted class, by each method.
    let class = attention.prediction.as_ref().unwrap().class();
    let methods = [
        ("integrated_gradients", Method::IntegratedGradients),
        ("gradient_x_input", Method::GradientXInput),
        ("occlusion", Method::Occlusion),
    ];
    for (name, method) in methods {
        page.value(&format!("(() => {{ const s = document.getElementById('method'); s.value = '{name}'; s.dispatchEvent(new Event('change')); }})()"));
        page.rest();
        let wanted =
            subject.attribute(&text, &Blocks::none(), &Wanted::new(method, class), &|_, _| true).unwrap();
        for (i, value) in wanted.values.iter().enumerate() {
            let label = page.attribute(&format!("#attributions [data-token=\"{i}\"]"), "aria-label");
            let value = signed(*value as f32, 3);
            assert!(label.ends_with(&format!(": {value}")), "{name}: {label}, not {value}");
        }
        if let Some(gap) = wanted.gap {
            assert!(
                wanted.converged
                    && page.text("#attributions").contains(&format!("{} %", decimal(100.0 * gap as f32, 2)))
            );
        }
    }
    // A head blocked by Shift and a click: the prediction is that of the library with this head ablated.
    page.click("#grid button[data-layer=\"1\"][data-head=\"0\"]", SHIFT);
    page.wait("document.querySelector('#prediction .change')");
    page.rest();
    let blocks = Blocks { heads: vec![(1, 0)], edges: Vec::new() };
    let blocked = computed(&subject, &blocks);
    assert_eq!(positive(&mut page, 1), blocked);
    assert_ne!(blocked, computed(&subject, &Blocks::none()), "this head does something");
    // And an edge beside it, in all layers and heads.
    page.leave();
    page.open(&format!("{}#text={}&ablate=1.0&edges=*.*.5.4", server.address, TEXT.replace(' ', "+")));
    let edges = vec![vitrine_explain::Edge { layer: None, head: None, query: 5, key: 4 }];
    assert_eq!(positive(&mut page, 1), computed(&subject, &Blocks { edges, ..blocks }));
    assert_clean(&page, &server.address);
}

#[test]
fn heads_are_ordered_by_effect_and_the_lens_is_the_librarys() {
    let Some(mut page) = Page::new(1280, 1500, false) else { return };
    let server = Server::new(&["embedded-imdb"]);
    let subject = subject("embedded-imdb");
    let text = subject.read(TEXT).unwrap();
    let class = subject.predict(&text, &Blocks::none()).unwrap().unwrap().class();
    page.open(&format!(
        "{}#text={}&sort=effect&lens=1&token=5&head=1.0",
        server.address,
        TEXT.replace(' ', "+")
    ));
    let ablated = subject.ablate_heads(&text, &Blocks::none(), class, &|_, _| true).unwrap();
    let (layer, head, change) = ablated.ranked()[0];
    assert_eq!(
        page.text("#grid [role=gridcell] button span"),
        format!("{layer}.{head}{}", signed(change, 2)),
        "the head that does most is first"
    );
    assert!(
        page.text("#facts").contains("the lens looks through that of embedded"),
        "{}",
        page.text("#facts")
    );
    let Lens::Words { layers, .. } = subject.lens(&text, &Blocks::none(), 0..text.size(), 1).unwrap() else {
        panic!("the head of embedded was borrowed")
    };
    for (layer, row) in layers.iter().rev().enumerate() {
        for (token, guesses) in row.iter().enumerate() {
            let cell = format!("#lens tbody tr:nth-child({}) td:nth-child({})", layer + 1, token + 2);
            assert_eq!(
                page.text(&cell),
                format!("{}{}", guesses[0].word, decimal(guesses[0].probability, 2))
            );
        }
    }
    page.screenshot("explore-phrase");
    page.key("d");
    page.rest();
    page.screenshot("explore-dark");
    assert_clean(&page, &server.address);
}

#[test]
fn of_512_tokens_everything_is_drawn() {
    let Some(mut page) = Page::new(1280, 1500, false) else { return };
    let server = Server::new(&["embedded-imdb"]);
    let words = "the film was not bad but its plot drifted while a young cast made every scene feel honest";
    let text = words.split(' ').cycle().take(540).collect::<Vec<_>>().join(" ");
    // Integrated gradients of 512 tokens take hundreds of passes.
    page.open(&format!("{}#method=gradient_x_input", server.address));
    let mut all = Vec::new();
    for end in ["!", "?", "."] {
        let text = format!("{text} {end}");
        page.value(&format!(
            "{{ globalThis.begun = performance.now(); const field = document.getElementById('text'); field.value = {}; field.dispatchEvent(new Event('input')); }}",
            json!(text)
        ));
        // The maps of all heads and that of one; attributions come later.
        page.wait(&format!("(tokens => tokens.length === 512 && tokens.at(-2).textContent === '{end}')([...document.querySelectorAll('#attended .token')])"));
        let drawn = page.value("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r((performance.now() - begun) / 1000))))");
        let status = page.text("#status");
        page.rest();
        let rest = page.value("(performance.now() - begun) / 1000");
        all.push(drawn.as_f64().unwrap());
        println!(
            "512 tokens of embedded-imdb: {:.2} s from the last key until all heads are drawn, {:.2} s with attributions ({status})",
            drawn.as_f64().unwrap(),
            rest.as_f64().unwrap()
        );
    }
    // The target is 2 s; on a machine that others use, this only tells a page that hangs from one that does not.
    let best = all.into_iter().fold(f64::INFINITY, f64::min);
    assert!(best < 20.0, "{best} s");
    let config = subject("embedded-imdb").config().clone();
    let heads = config.num_hidden_layers * config.num_attention_heads;
    assert_eq!(page.count("#grid canvas"), heads as u64);
    // This model reads the first quarter and the end, so what it does not read stands between tokens.
    let cut = "(cut => Number(cut.previousSibling.dataset.token) < 200 && Number(cut.nextSibling.dataset.token) < 200)(document.querySelector('#attended .cut'))";
    assert_eq!(page.value(cut), true);
    page.screenshot_of("explore-512-tokens", "#attention .columns", 0.6);
    assert_clean(&page, &server.address);
}

#[test]
fn before_and_after_fine_tuning_are_side_by_side() {
    let Some(mut page) = Page::new(1280, 1500, false) else { return };
    let server = Server::new(&["embedded", "embedded-imdb"]);
    let [before, after] = ["embedded", "embedded-imdb"].map(subject);
    page.open(&format!("{}#text={}&head=1.1&model=1", server.address, TEXT.replace(' ', "+")));
    assert!(page.text("#prediction .model:nth-child(1)").contains("has no classifier"));
    assert_eq!(positive(&mut page, 2), computed(&after, &Blocks::none()));
    let maps = [&before, &after].map(|subject| {
        let text = subject.read(TEXT).unwrap();
        subject.attention(&text, &Blocks::none()).unwrap().map(1, 1).to_vec()
    });
    let size = page.count("#attended .token") as usize;
    let (x, y) = cell(&mut page, 2, 5, 4);
    page.point(x, y);
    let [a, b] = maps.map(|map| map[5 * size + 4]);
    let readout = page.text("#zoom-readout");
    let wanted = format!(
        "embedded {}, embedded-imdb {}, difference {}",
        decimal(a, 3),
        decimal(b, 3),
        signed(b - a, 3)
    );
    assert!(readout.ends_with(&wanted), "{readout}, not {wanted}");
    page.screenshot("explore-comparison");
    assert_clean(&page, &server.address);
}

#[test]
fn a_recorded_page_shows_the_same_without_a_server() {
    let Some(mut page) = Page::new(1280, 1500, false) else { return };
    let recorded = record(&engine(&["embedded-imdb"]), TEXT).unwrap();
    let subject = subject("embedded-imdb");
    let (layers, heads) = (subject.config().num_hidden_layers, subject.config().num_attention_heads);
    assert_eq!((recorded.maps, recorded.heads), (layers * heads, layers * heads));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("look.html");
    std::fs::write(&file, self_contained(&recorded.snapshot)).unwrap();
    let address = format!("file://{}", file.display());
    page.open(&address);
    assert_eq!(positive(&mut page, 1), computed(&subject, &Blocks::none()));
    // Everything that a reader may choose is there: each head, method, baseline, class, the lens, the order by effect.
    for head in ["0.0", "0.3", "1.2"] {
        let (layer, number) = head.split_once('.').unwrap();
        page.click(&format!("#grid button[data-layer=\"{layer}\"][data-head=\"{number}\"]"), 0);
        page.rest();
        assert_eq!(page.text("#zoom-title"), format!("Head {head}"));
    }
    let choices = [
        ("method", &["gradient_x_input", "occlusion", "integrated_gradients"][..]),
        ("baseline", &["mask", "zero", "pad"]),
        ("class", &["0", "1", ""]),
        ("sort", &["effect", "entropy"]),
    ];
    for (id, values) in choices {
        for value in values {
            page.value(&format!("(() => {{ const s = document.getElementById('{id}'); s.value = '{value}'; s.dispatchEvent(new Event('change')); }})()"));
            page.rest();
            let errors = page.value(
                "[...document.querySelectorAll('.error')].filter(e => !e.hidden).map(e => e.textContent)",
            );
            assert_eq!(errors, json!([]), "{id} {value}");
        }
    }
    page.click("#lens summary", 0);
    page.wait("document.querySelector('#lens td')");
    assert_eq!(page.count("#lens tbody tr"), layers as u64 + 1);
    assert_clean(&page, &address);
}
