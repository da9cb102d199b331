//! Links, the keyboard, errors, and models that lack something.

use crate::chromium::Page;
use crate::expected::{TEXT, assert_clean};
use crate::mock::{Server, models};
use serde_json::json;

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
    page.screenshot("keys");
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
