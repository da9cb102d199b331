//! SVG files, and the page as one file.

use crate::chromium::Page;
use crate::expected::{assert_clean, cell, decimal, input, percent};
use crate::mock::{Server, answer, logit, map, models};
use serde_json::{Value, json};
use vitrine_explore::contract::{Answer, Snapshot};
use vitrine_explore::self_contained;

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
