//! What the page shows equals what the server says.

use crate::chromium::{ALT, Page, SHIFT};
use crate::expected::{TEXT, assert_clean, cell, decimal, input, percent, run_of, signed};
use crate::mock::{Server, attribution, effect, logit, map, models};
use serde_json::{Value, json};
use vitrine_explore::contract::Input;

#[test]
fn a_typed_text_and_a_clicked_head_show_the_served_numbers() {
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
    assert_clean(&page, &server.address);
}

#[test]
fn blocked_heads_and_edges_change_the_prediction_as_served() {
    let Some(mut page) = Page::new(1280, 1600, false) else { return };
    let server = Server::new(models(&[("tiny", 4, 4)]));
    page.open(&format!("{}#text={}&head=2.1", server.address, TEXT.replace(' ', "+")));
    let plain = input(TEXT, &[], &[]);
    // Blocked by Shift and a click: crossed out, and the prediction beside the one before.
    page.click("#grid button[data-layer=\"2\"][data-head=\"3\"]", SHIFT);
    page.wait("document.querySelector('#prediction .change')");
    page.rest();
    let blocked = input(TEXT, &[(2, 3)], &[]);
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
