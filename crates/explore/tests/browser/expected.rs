//! Numbers as the page writes them, and what holds after every test.

use crate::chromium::Page;
use crate::mock::{answer, logit};
use serde_json::json;
use vitrine_explore::contract::{Edge, Input, Models, Run};

/// A text of most tests.
pub const TEXT: &str = "This film was not bad at all.";

/// A request of model 0.
pub fn input(text: &str, ablate: &[(usize, usize)], edges: &[Edge]) -> Input {
    Input { model: 0, text: text.to_owned(), ablate: ablate.to_vec(), edges: edges.to_vec() }
}

/// A number as the page writes it: with a real minus, and zero without one.
pub fn decimal(value: f32, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let zero = text.parse::<f64>().unwrap() == 0.0;
    if zero { text.replace('-', "") } else { text.replace('-', "−") }
}

/// The same with its sign.
pub fn signed(value: f32, digits: usize) -> String {
    let text = decimal(value, digits);
    let plus = value > 0.0 && text.parse::<f64>().is_ok_and(|value| value > 0.0);
    if plus { format!("+{text}") } else { text }
}

/// The probability of "positive".
pub fn percent(input: &Input) -> f32 {
    100.0 / (1.0 + (-2.0 * logit(input)).exp())
}

/// The run that the server gives for an input.
pub fn run_of(models: &Models, input: &Input) -> Run {
    serde_json::from_value(answer(models, "/api/run", &json!(input)).unwrap()).unwrap()
}

/// The page's requests stayed with its server, and nothing was complained of.
pub fn assert_clean(page: &Page, address: &str) {
    assert_eq!(page.console(), Vec::<String>::new());
    for url in page.requested() {
        assert!(url.starts_with(address) || url.starts_with("data:") || url.starts_with("blob:"), "{url}");
    }
}

/// Where a cell of a map is in the window.
pub fn cell(page: &mut Page, map: usize, query: usize, key: usize) -> (f64, f64) {
    page.value("document.getElementById('maps').scrollIntoView({ block: 'start' })");
    let script = format!(
        "(() => {{ const c = document.querySelectorAll('canvas.map')[{map}]; const r = c.getBoundingClientRect(); \
         const [left, top, cell, query, key] = ['left', 'top', 'cell', 'query', 'key'].map(name => Number(c.dataset[name])); \
         return [r.left + left + cell * ({key} - key + 0.5), r.top + top + cell * ({query} - query + 0.5)]; }})()"
    );
    let place = page.value(&script);
    (place[0].as_f64().unwrap(), place[1].as_f64().unwrap())
}
