//! The page in headless Chromium, with a server of known numbers. Skipped, visibly, where there is no Chromium (the Debian package
//! `chromium`); set `VITRINE_CHROMIUM` to one. With `VITRINE_SCREENSHOTS=DIR`, pictures of the page are written there.

mod chromium;
mod mock;

use chromium::{ALT, Page, SHIFT};
use mock::{Server, answer, attribution, effect, logit, map, models};
use serde_json::{Value, json};
use vitrine_explore::contract::{Answer, Edge, Input, Run, Snapshot};
use vitrine_explore::self_contained;

const TEXT: &str = "This film was not bad at all.";

fn input(text: &str, ablate: &[(usize, usize)], edges: &[Edge]) -> Input {
    Input { model: 0, text: text.to_owned(), ablate: ablate.to_vec(), edges: edges.to_vec() }
}

/// A number as the page writes it: with a real minus, and zero without one.
fn decimal(value: f32, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let zero = text.parse::<f64>().unwrap() == 0.0;
    if zero { text.replace('-', "") } else { text.replace('-', "−") }
}

/// The same with its sign.
fn signed(value: f32, digits: usize) -> String {
    let text = decimal(value, digits);
    let plus = value > 0.0 && text.parse::<f64>().is_ok_and(|value| value > 0.0);
    if plus { format!("+{text}") } else { text }
}

fn percent(input: &Input) -> f32 {
    100.0 / (1.0 + (-2.0 * logit(input)).exp())
}

/// The run that the server gives for an input.
fn run_of(models: &vitrine_explore::contract::Models, input: &Input) -> Run {
    serde_json::from_value(answer(models, "/api/run", &json!(input)).unwrap()).unwrap()
}

/// The page's requests stayed with its server, and nothing was complained of.
fn assert_clean(page: &Page, address: &str) {
    assert_eq!(page.console(), Vec::<String>::new());
    for url in page.requested() {
        assert!(url.starts_with(address) || url.starts_with("data:") || url.starts_with("blob:"), "{url}");
    }
}

/// Where a cell of a map is in the window.
fn cell(page: &mut Page, map: usize, query: usize, key: usize) -> (f64, f64) {
    page.value("document.getElementById('maps').scrollIntoView({ block: 'start' })");
    let script = format!(
        "(() => {{ const c = document.querySelectorAll('canvas.map')[{map}]; const r = c.getBoundingClientRect(); \
         const [left, top, cell, query, key] = ['left', 'top', 'cell', 'query', 'key'].map(name => Number(c.dataset[name])); \
         return [r.left + left + cell * ({key} - key + 0.5), r.top + top + cell * ({query} - query + 0.5)]; }})()"
    );
    let place = page.value(&script);
    (place[0].as_f64().unwrap(), place[1].as_f64().unwrap())
}

#[test]
fn a_typed_text_a_clicked_head_and_a_blocked_one_show_the_served_numbers() {
    let Some(mut page) = Page::new(1280, 1600, false) else { return };
    let models = models(&[("tiny", 4, 4)]);
    let server = Server::new(models.clone());
    page.open(&server.address);
    page.type_into("#text", "A 😀 fantastically good film, not bad.");
    page.wait("document.querySelector('#attributions .token[data-token=\"1\"]').textContent === 'A'");
    page.rest();
    let plain = input("A 😀 fantastically good film, not bad.", &[], &[]);
    let run = run_of(&models, &plain);
    assert_eq!(
        page.text("#prediction tbody tr:nth-child(2) td:nth-child(3)"),
        format!("{} %", decimal(percent(&plain), 1))
    );
    assert_eq!(page.text("#prediction tbody tr:nth-child(2) td:nth-child(4)"), decimal(logit(&plain), 3));
    assert_eq!(page.count("#attributions .token"), run.tokens.len() as u64);
    // Tokens stand at their characters, also behind a character of two UTF-16 units; the pieces of a word are marked.
    assert_eq!(page.text("#attributions .tokens"), "[CLS]A 😀 fantastically good film, not bad.[SEP]");
    assert_eq!(page.text("#attributions .continues"), "cally");
    let sign = logit(&plain).signum();
    for (i, token) in run.tokens.iter().enumerate() {
        let label = page.attribute(&format!("#attributions [data-token=\"{i}\"]"), "aria-label");
        let wanted = if token.special { decimal(0.0, 3) } else { signed(sign * attribution(token), 3) };
        assert!(label.ends_with(&format!(": {wanted}")), "{label}, not {wanted}");
    }

    // A head, chosen by a click, and a cell under the pointer.
    page.click("#grid button[data-layer=\"2\"][data-head=\"1\"]", 0);
    page.wait("document.getElementById('zoom-title').textContent === 'Head 2.1'");
    page.rest();
    let size = run.tokens.len();
    let values = map(&plain, 2, 1);
    for (query, key) in [(0, 0), (3, 5), (size - 1, size - 1)] {
        let (x, y) = cell(&mut page, 0, query, key);
        page.point(x, y);
        let [a, b] = [query, key].map(|i| format!("token {i} “{}”", run.tokens[i].text));
        assert_eq!(
            page.text("#zoom-readout"),
            format!("{a} → {b}: {}", decimal(values[query * size + key], 3))
        );
    }
    // The colours of the small maps have the order of the served numbers: the larger, the darker.
    let order = "(() => { const c = document.querySelector('#grid button[data-layer=\"2\"][data-head=\"1\"] canvas'); \
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; \
        return Array.from({ length: c.width * c.height }, (_, i) => 0.2126 * d[4 * i] + 0.7152 * d[4 * i + 1] + 0.0722 * d[4 * i + 2]); })()";
    let lightness: Vec<f64> = serde_json::from_value(page.value(order)).unwrap();
    let served = &run.overview.data.0[9 * size * size..][..size * size];
    assert_eq!(lightness.len(), served.len());
    let mut cells: Vec<(u8, f64)> = served.iter().copied().zip(lightness).collect();
    cells.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
    assert!(
        cells
            .windows(2)
            .all(|pair| pair[1].1 <= pair[0].1 && (pair[0].0 != pair[1].0 || pair[0].1 == pair[1].1))
    );
    assert!(cells[0].1 > cells[cells.len() - 1].1 + 60.0, "{cells:?}");

    // Blocked by Shift and a click: crossed out, and the prediction beside the one before.
    page.click("#grid button[data-layer=\"2\"][data-head=\"3\"]", SHIFT);
    page.wait("document.querySelector('#prediction .change')");
    page.rest();
    let blocked = input(&plain.text, &[(2, 3)], &[]);
    assert_eq!(page.count("#grid .blocked"), 1);
    assert_eq!(
        page.text("#prediction tbody tr:nth-child(2) td:nth-child(3)"),
        format!("{} %", decimal(percent(&blocked), 1))
    );
    let points = format!("{} points", signed(percent(&blocked) - percent(&plain), 1));
    assert_eq!(page.text("#prediction tbody tr:nth-child(2) .change"), points);
    assert_eq!(page.text("#prediction tbody tr:nth-child(2) td:nth-child(6)"), signed(effect(0, 2, 3), 3));
    // An edge, and the same in all heads; then all are taken away.
    for (query, key, modifiers, all) in [(2, 3, SHIFT, None), (2, 4, ALT, Some(()))] {
        let (x, y) = cell(&mut page, 0, query, key);
        page.click_at(x, y, modifiers);
        page.rest();
        let last = server
            .requests
            .lock()
            .unwrap()
            .iter()
            .rev()
            .find(|(path, _)| path == "/api/run")
            .unwrap()
            .1
            .clone();
        let (layer, head) = if all.is_some() { (Value::Null, Value::Null) } else { (2.into(), 1.into()) };
        let edges = last["edges"].as_array().unwrap();
        assert_eq!(edges.last().unwrap(), &json!({"layer": layer, "head": head, "query": query, "key": key}));
    }
    assert_eq!(page.count("#changes button"), 3);
    page.click("#clear", 0);
    page.wait("!document.querySelector('#changes button') && !document.querySelector('#prediction .change')");
    page.rest();
    assert_clean(&page, &server.address);
}

#[test]
fn heads_are_ordered_tokens_are_chosen_and_the_lens_is_read() {
    let Some(mut page) = Page::new(1280, 1600, false) else { return };
    let models = models(&[("tiny", 4, 4)]);
    let server = Server::new(models.clone());
    page.open(&format!("{}#text={}&head=1.2&token=4", server.address, TEXT.replace(' ', "+")));
    let plain = input(TEXT, &[], &[]);
    let run = run_of(&models, &plain);
    let size = run.tokens.len();
    let values = map(&plain, 1, 2);
    for i in 0..size {
        let label = page.attribute(&format!("#attended [data-token=\"{i}\"]"), "aria-label");
        assert!(label.ends_with(&decimal(values[4 * size + i], 3)), "{label}");
    }
    page.screenshot("phrase");
    let heads = |page: &mut Page| -> Vec<(usize, usize)> {
        let list = page.value(
            "[...document.querySelectorAll('#grid button')].map(b => [+b.dataset.layer, +b.dataset.head])",
        );
        serde_json::from_value(list).unwrap()
    };
    let choose = |page: &mut Page, id: &str, value: &str| {
        page.value(&format!("(() => {{ const s = document.getElementById('{id}'); s.value = '{value}'; s.dispatchEvent(new Event('change')); }})()"));
        page.rest();
    };
    let by = |of: &dyn Fn(usize, usize) -> f64| {
        let mut heads: Vec<_> = (0..4).flat_map(|layer| (0..4).map(move |head| (layer, head))).collect();
        heads.sort_by(|&(a, b), &(c, d)| of(c, d).total_cmp(&of(a, b)));
        heads
    };
    choose(&mut page, "sort", "sep");
    assert_eq!(heads(&mut page), by(&|layer, head| run.heads[layer][head].sep));
    choose(&mut page, "sort", "entropy");
    assert_eq!(heads(&mut page), by(&|layer, head| run.heads[layer][head].entropy));
    choose(&mut page, "sort", "effect");
    assert_eq!(heads(&mut page), by(&|layer, head| f64::from(effect(0, layer, head).abs())));
    let paper = "getComputedStyle(document.body).backgroundColor";
    let light = page.value(paper);
    page.key("d");
    assert_ne!(page.value(paper), light, "dark by a key");
    page.key("d");
    assert_eq!(page.value(paper), light);
    page.key("v");
    page.rest();
    // Lines of the chosen token only, one for each share that can be seen.
    let visible = values[4 * size..][..size].iter().filter(|value| **value >= 0.01).count();
    assert_eq!(page.count("#maps svg.lines line"), visible as u64);
    page.click("#lens summary", 0);
    page.wait("document.querySelector('#lens td')");
    page.rest();
    assert_eq!(page.count("#lens tbody tr"), 5, "the embeddings and four layers");
    assert_eq!(page.count("#lens tbody tr:first-child td"), size as u64);
    assert!(page.text("#lens tbody tr:first-child td:nth-child(7)").starts_with("bad"));
    page.click("#attribution-table summary", 0);
    page.wait("document.querySelector('#attribution-table tbody tr')");
    assert_eq!(
        page.text("#attribution-table tbody tr:nth-child(6) td.n:last-child"),
        signed(logit(&plain).signum() * -1.25, 4)
    );
    assert_clean(&page, &server.address);
}

#[test]
fn a_link_restores_the_page_and_says_what_it_cannot() {
    let Some(mut page) = Page::new(1280, 1600, false) else { return };
    let server = Server::new(models(&[("tiny", 4, 4)]));
    page.open(&server.address);
    page.type_into("#text", "not “bad” & 100 % #fine?");
    page.wait("document.querySelector('#attributions .tokens').textContent.includes('fine')");
    page.rest();
    page.value("document.activeElement.blur()");
    // The keyboard alone: arrows choose, x blocks, b blocks the edge under the map's cursor, v draws lines.
    page.value("document.querySelector('#grid button[tabindex=\"0\"]').focus()");
    for key in ["ArrowDown", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"] {
        page.key(key);
    }
    assert_eq!(
        page.value("document.activeElement.dataset.layer + '.' + document.activeElement.dataset.head"),
        "2.1"
    );
    page.key("x");
    page.rest();
    page.value("document.querySelector('canvas.map').focus()");
    for key in ["ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown"] {
        page.key(key);
    }
    assert!(
        page.text("#zoom-readout").starts_with("token 1 “not” → token 2 “"),
        "{}",
        page.text("#zoom-readout")
    );
    page.key("b");
    page.rest();
    page.key("Enter");
    page.key("s");
    page.rest();
    page.wait("location.hash.includes('sort=entropy') && location.hash.includes('token=1')");
    let hash = page.value("location.hash").as_str().unwrap().to_owned();
    for part in ["head=2.1", "ablate=2.1", "edges=2.1.1.2"] {
        assert!(hash.contains(part), "{hash}");
    }
    let shown = "['text', 'zoom-title', 'zoom-facts', 'prediction', 'changes', 'attended', 'attributions', 'grid'] \
        .map(id => document.getElementById(id).value ?? document.getElementById(id).innerText)";
    let before = page.value(shown);
    page.leave();
    page.open(&format!("{}{hash}", server.address));
    assert_eq!(page.value(shown), before);
    assert_eq!(page.value("location.hash"), hash.as_str());
    // Help has every key, and goes with Escape.
    page.key("?");
    page.wait("document.getElementById('help').open");
    assert!(page.count("#help-table kbd") > 10);
    page.click("#help-close", 0);
    page.wait("!document.getElementById('help').open");
    assert_clean(&page, &server.address);
    // What the model has not is left out, and said. Names that no page has change nothing.
    page.leave();
    page.open(&format!(
        "{}#text=a&head=9.9&ablate=1.1,7.0,x&sort=colour&edges=1.2&lens=yes&%zz",
        server.address
    ));
    assert_eq!(page.text("#zoom-title"), "Head 0.0");
    let notice = page.text("#notice");
    assert!(
        ["head 9.9", "ablate=1.1,7.0,x", "sort colour", "edges=1.2"].iter().all(|part| notice.contains(part)),
        "{notice}"
    );
}

#[test]
fn errors_are_a_line_and_a_newer_text_wins() {
    let Some(mut page) = Page::new(1280, 900, false) else { return };
    let server = Server::new(models(&[("tiny", 2, 2)]));
    page.open(&server.address);
    page.type_into("#text", "slow but first");
    page.wait("document.documentElement.getAttribute('aria-busy') === 'true'");
    assert_eq!(
        page.count("section.stale"),
        4,
        "what belongs to another text is not shown as if it were this one's"
    );
    page.type_into("#text", "quick and last");
    page.wait("document.querySelector('#attributions .tokens').textContent.includes('quick')");
    std::thread::sleep(std::time::Duration::from_millis(1200));
    page.rest();
    assert_eq!(page.text("#attended"), "[CLS]quick and last[SEP]");
    assert_eq!(page.count("section.stale"), 0);
    assert!(page.aborted() > 0, "the overtaken request was aborted");
    page.type_into("#text", " ");
    page.wait("!document.querySelector('#sentence .error').hidden");
    assert_eq!(page.text("#sentence .error"), "The text is empty. Type a sentence.");
    assert_eq!(page.count("section.stale"), 4, "no result is shown for it");
    // A link with an edge outside of the text: the line, and a button that takes the edge away.
    page.leave();
    page.open(&format!("{}#text=short&edges=*.*.40.1", server.address));
    assert_eq!(page.text("#sentence .error"), "The edge 40 to 1 is outside of the text's 3 tokens.");
    page.click("#changes button", 0);
    page.wait("document.querySelector('#sentence .error').hidden");
    page.rest();
    assert_eq!(page.text("#attended"), "[CLS]short[SEP]");
    // The server is gone, and comes back.
    let network =
        |offline| json!({"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
    page.call("Network.emulateNetworkConditions", &network(true));
    page.type_into("#text", "nobody");
    page.wait("!document.querySelector('#sentence .error').hidden");
    assert_eq!(
        page.text("#sentence .error"),
        "The server does not answer. Is `vitrine explore` still running?"
    );
    page.call("Network.emulateNetworkConditions", &network(false));
    page.type_into("#text", "somebody");
    page.wait("document.getElementById('attended').textContent === '[CLS]somebody[SEP]'");
    assert_eq!(page.value("document.querySelector('#sentence .error').hidden"), true);
}

#[test]
fn models_of_different_shapes_are_compared_where_both_have_the_head() {
    let Some(mut page) = Page::new(1280, 1600, false) else { return };
    let server = Server::new(models(&[("deep", 6, 12), ("small", 2, 4)]));
    page.open(&format!("{}#text={}&head=5.11&ablate=1.3,5.0", server.address, TEXT.replace(' ', "+")));
    assert_eq!(page.count("#maps canvas"), 1, "one model has this head");
    let blocked = |model: usize| {
        let requests = server.requests.lock().unwrap();
        let sent =
            requests.iter().rev().find(|(path, body)| path == "/api/attributions" && body["model"] == model);
        sent.unwrap().1["ablate"].clone()
    };
    assert_eq!((blocked(0), blocked(1)), (json!([[1, 3], [5, 0]]), json!([[1, 3]])));
    page.key("m");
    page.rest();
    assert_eq!(page.count("#grid canvas"), 8);
    assert_eq!(page.text("#zoom-facts"), "small: no head 5.11.");
    // The Tab key reaches the first head, and a click chooses one that both have.
    assert_eq!(page.count("#grid button[tabindex='0']"), 1);
    page.click("#grid button[data-layer='1'][data-head='0']", 0);
    page.wait("document.querySelectorAll('#maps canvas').length === 3");
    page.rest();
    assert_clean(&page, &server.address);
}

#[test]
fn of_512_tokens_all_heads_are_drawn_within_two_seconds() {
    let Some(mut page) = Page::new(1280, 1600, false) else { return };
    let server = Server::new(models(&[("base", 12, 12)]));
    page.open(&server.address);
    let words = "the film was not bad but its plot drifted while a young cast made every scene feel honest"
        .split(' ');
    let text = words.cycle().take(540).collect::<Vec<_>>().join(" ");
    let body = |text: &str| json!(input(text, &[], &[]));
    let mut best = f64::INFINITY;
    let mut drawing = f64::INFINITY;
    // Each time another text, so that nothing is cached; the best of three, because machines are shared.
    for end in ["!", "?", "."] {
        let text = format!("{text} {end}");
        server.prepare("/api/run", &body(&text));
        page.value(&format!(
            "{{ globalThis.begun = performance.now(); const field = document.getElementById('text'); field.value = {}; field.dispatchEvent(new Event('input')); }}",
            json!(text)
        ));
        page.wait("document.querySelectorAll('#attended .token').length === 512 && document.getElementById('text').value.endsWith(document.querySelector('#attended .cut').textContent)");
        page.rest();
        let seconds = page.value("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r((performance.now() - begun) / 1000))))");
        best = best.min(seconds.as_f64().unwrap());
        drawing = drawing.min(page.attribute("#grid", "data-milliseconds").parse().unwrap());
    }
    println!(
        "512 tokens, 12 x 12 heads: {best:.2} s from the last key, of which all small maps take {drawing:.0} ms"
    );
    assert!(best < 2.0, "{best:.2} s from the last key, the 0.3 s of typing included");
    assert!(drawing < 100.0, "{drawing:.0} ms for the heads alone");
    assert!(
        page.text("#status").contains("512 tokens") && page.text("#status").contains("tokens are cut off"),
        "{}",
        page.text("#status")
    );
    assert_eq!(page.count("#grid canvas"), 144);
    let (x, y) = cell(&mut page, 0, 300, 301);
    page.point(x, y);
    assert!(page.text("#zoom-readout").starts_with("token 300 “"), "{}", page.text("#zoom-readout"));
    page.screenshot("512-tokens");
    // Magnified around that cell, the map has labels, and other cells can be read.
    page.key("z");
    assert_eq!(page.text("#magnify"), "Whole map");
    let (x, y) = cell(&mut page, 0, 299, 305);
    page.point(x, y);
    assert!(
        page.text("#zoom-readout").contains("token 299 “")
            && page.text("#zoom-readout").contains("→ token 305 “")
    );
    page.value("document.querySelector('canvas.map').focus()");
    for _ in 0..20 {
        page.key("ArrowRight");
    }
    assert!(page.text("#zoom-readout").contains("→ token 325 “"), "the part follows the cursor");
    assert_eq!(page.value("document.querySelector('canvas.map').dataset.key"), "290");
    page.screenshot("512-tokens-magnified");
    assert_clean(&page, &server.address);
}

#[test]
fn two_models_are_side_by_side_with_their_difference() {
    let Some(mut page) = Page::new(1280, 1600, false) else { return };
    let models = models(&[("before", 6, 12), ("after", 6, 12)]);
    let server = Server::new(models);
    page.open(&format!("{}#text={}&head=3.4&ablate=1.2", server.address, TEXT.replace(' ', "+")));
    let [before, after] = [0, 1].map(|model| Input { model, ..input(TEXT, &[(1, 2)], &[]) });
    for (i, input) in [&before, &after].into_iter().enumerate() {
        let selector =
            format!("#prediction .model:nth-child({}) tbody tr:nth-child(2) td:nth-child(3)", i + 1);
        assert_eq!(page.text(&selector), format!("{} %", decimal(percent(input), 1)));
    }
    assert_eq!(page.count("#maps canvas"), 3);
    let size = page.count("#attended .token") as usize;
    let [a, b] = [&before, &after].map(|input| map(input, 3, 4)[4 * size + 5]);
    let (x, y) = cell(&mut page, 2, 4, 5);
    page.point(x, y);
    let readout = page.text("#zoom-readout");
    assert!(
        readout.ends_with(&format!(
            "before {}, after {}, difference {}",
            decimal(a, 3),
            decimal(b, 3),
            signed(b - a, 3)
        )),
        "{readout}"
    );
    page.key("m");
    page.rest();
    assert_eq!(page.text("#overview-title"), "Heads of after");
    page.screenshot("comparison");
    assert_clean(&page, &server.address);
}

/// Lightness alone orders the colours, so that any kind of colour vision reads them: away from the paper in one direction.
fn assert_scales(page: &mut Page, dark: bool) {
    let scale = |page: &mut Page, name: &str| -> Vec<f64> {
        let words: Vec<u32> = serde_json::from_value(
            page.value(&format!("import('/colors.js').then(m => Array.from(m.{name}()))")),
        )
        .unwrap();
        let part = |word: u32, shift: u32| f64::from(word >> shift & 255);
        words.iter().map(|&w| 0.2126 * part(w, 0) + 0.7152 * part(w, 8) + 0.0722 * part(w, 16)).collect()
    };
    let leaves_the_paper = |values: &[f64]| {
        values.windows(2).all(|pair| if dark { pair[1] > pair[0] - 1.0 } else { pair[1] < pair[0] + 1.0 })
            && (values[values.len() - 1] - values[0]).abs() > 80.0
    };
    let sequential = scale(page, "sequentialWords");
    assert!(leaves_the_paper(&sequential), "{sequential:?}");
    let mut diverging = scale(page, "divergingWords");
    assert!(leaves_the_paper(&diverging[128..]), "{diverging:?}");
    diverging.reverse();
    assert!(leaves_the_paper(&diverging[128..]), "{diverging:?}");
}

#[test]
fn a_phone_has_no_sideways_scroll_and_night_is_dark() {
    let models =
        models(&[("base", 12, 12), ("another-model-with-a-name-that-is-much-too-long-for-a-phone", 12, 12)]);
    let server = Server::new(models);
    for dark in [false, true] {
        let Some(mut page) = Page::new(390, 844, dark) else { return };
        page.open(&format!(
            "{}#text={}&head=3.4&ablate=1.2&lens=1&token=4",
            server.address,
            TEXT.replace(' ', "+")
        ));
        for view in ["map", "lines"] {
            // A phone's window grows with what does not fit into it.
            let out = "[...document.body.querySelectorAll('*')].filter(e => !e.closest('.scroll, svg') && e.getBoundingClientRect().right > 390) \
                .map(e => `${e.tagName} ${e.id} ${e.className}`)";
            assert_eq!(page.value(out), json!([]), "{view}");
            assert_eq!(page.value("innerWidth"), 390);
            assert!(page.value("document.documentElement.scrollWidth").as_u64().unwrap() <= 390);
            page.screenshot(&format!("phone-{view}{}", if dark { "-dark" } else { "" }));
            page.key("v");
            page.rest();
        }
        let bright = "(name => { const [r, g, b] = getComputedStyle(document.body)[name].match(/[\\d.]+/g).map(Number); return (r + g + b) / 765; })";
        let [paper, ink] = ["backgroundColor", "color"]
            .map(|name| page.value(&format!("{bright}('{name}')")).as_f64().unwrap());
        let (low, high) = if dark { (paper, ink) } else { (ink, paper) };
        assert!(low < 0.2 && high > 0.85, "paper {paper}, ink {ink}, dark {dark}");
        assert_scales(&mut page, dark);
        assert_eq!(
            page.value("getComputedStyle(document.querySelector('main > section')).transitionDuration"),
            "0s",
            "less motion, as asked"
        );
        page.resize(1280, 1600);
        page.screenshot(if dark { "dark" } else { "light" });
        assert_clean(&page, &server.address);
    }
}

#[test]
fn saved_svg_files_are_well_formed_and_hold_the_text() {
    let Some(mut page) = Page::new(1280, 1600, false) else { return };
    let server = Server::new(models(&[("tiny", 2, 2)]));
    let text = "A <b>film</b> & \"not bad\" \u{1}🎬 ]]>";
    page.open(&server.address);
    page.type_into("#text", text);
    page.wait("document.querySelector('#attributions .tokens').textContent.includes('🎬')");
    page.rest();
    // The file is caught where the page hands it to the browser.
    page.value("URL.createObjectURL = blob => { globalThis.file = blob.text(); return 'data:,'; }; HTMLAnchorElement.prototype.click = () => {}");
    let parsed = "globalThis.file.then(text => { const d = new DOMParser().parseFromString(text, 'image/svg+xml'); \
        return [d.querySelector('parsererror') === null, d.documentElement.localName, d.querySelectorAll('rect').length, \
        [...d.querySelectorAll('text')].map(t => t.textContent).join(' '), /https?:/.test(text.replace('http://www.w3.org/2000/svg', ''))]; })";
    page.click("#map-svg", 0);
    let map = page.value(parsed);
    let tokens = page.count("#attended .token");
    assert_eq!(
        (&map[0], &map[1], &map[2]),
        (&true.into(), &"svg".into(), &(tokens * tokens + 1).into()),
        "{map}"
    );
    page.key("v");
    page.rest();
    page.click("#map-svg", 0);
    let lines = page.value(parsed);
    assert_eq!((&lines[0], &lines[2]), (&true.into(), &1.into()), "{lines}");
    assert_eq!(lines[3].as_str().unwrap().matches("🎬").count(), 2);
    page.click("#text-svg", 0);
    let attributed = page.value(parsed);
    assert_eq!(
        (&attributed[0], &attributed[2], &attributed[4]),
        (&true.into(), &(tokens + 1).into(), &false.into()),
        "{attributed}"
    );
    let words = attributed[3].as_str().unwrap();
    assert!(["<", "film", "🎬", "not", "\u{fffd}"].iter().all(|part| words.contains(part)), "{words}");
    assert_clean(&page, &server.address);
}

#[test]
fn a_saved_page_opens_from_a_file_and_loads_nothing() {
    let Some(mut page) = Page::new(1280, 1600, false) else { return };
    let models = models(&[("tiny", 4, 4)]);
    let text = "This <b>film</b> was </script> & 100 % not+bad 🎬.";
    let plain = input(text, &[], &[]);
    let mut answers = vec![Answer::new("/api/models", Value::Null, &models).unwrap()];
    let class = usize::from(logit(&plain) > 0.0);
    let mut record = |path: &str, more: Value| {
        let mut body = json!(plain);
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        answers.push(Answer::new(path, &body, answer(&models, path, &body).unwrap()).unwrap());
    };
    record("/api/run", json!({}));
    for head in 0..4 {
        record("/api/attention", json!({"layer": 0, "head": head}));
    }
    record("/api/attributions", json!({"method": "integrated_gradients", "class": class, "baseline": "pad"}));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.html");
    std::fs::write(&file, self_contained(&Snapshot::of_text(text, answers))).unwrap();
    let address = format!("file://{}", file.display());
    page.open(&address);
    assert_eq!(page.text("#attributions .tokens"), format!("[CLS]{text}[SEP]"));
    assert_eq!(
        page.text("#prediction tbody tr:nth-child(2) td:nth-child(3)"),
        format!("{} %", decimal(percent(&plain), 1))
    );
    page.click("#grid button[data-layer=\"0\"][data-head=\"3\"]", 0);
    page.wait("document.getElementById('zoom-title').textContent === 'Head 0.3'");
    page.rest();
    let size = page.count("#attended .token") as usize;
    let (x, y) = cell(&mut page, 0, 2, 3);
    page.point(x, y);
    assert!(page.text("#zoom-readout").ends_with(&decimal(map(&plain, 0, 3)[2 * size + 3], 3)));
    // What the file has not is said, and the rest stays.
    page.click("#grid button[data-layer=\"3\"][data-head=\"3\"]", 0);
    page.wait("!document.querySelector('#attention > .error').hidden");
    assert!(page.text("#attention > .error").contains("`vitrine explore`"));
    assert_clean(&page, &address);
}

#[test]
fn a_model_without_a_classifier_shows_its_maps() {
    let Some(mut page) = Page::new(1280, 900, false) else { return };
    let server = Server::new(models(&[("bare", 2, 2)]));
    page.open(&format!("{}#text=not+bad&lens=1", server.address));
    assert!(page.text("#prediction").contains("has no classifier"));
    assert!(page.text("#attributions").contains("no logit to attribute"));
    assert_eq!(page.text("#lens .error"), "This model's file has no masked-LM head.");
    assert_eq!(page.count("#grid canvas"), 4);
    assert_clean(&page, &server.address);
}
