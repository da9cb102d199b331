//! `vitrine claims`: what it prints, its page and its images, and misuse.

use super::common::{path, refuse, succeed, text, vitrine};
use serde_json::Value;
use std::fs;
use tempfile::TempDir;

#[test]
fn claims_are_listed_and_run() {
    let list = succeed(&["claims", "list", "--json"]);
    let ids: Vec<String> = list
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).expect("JSON")["id"].as_str().expect("an id").to_owned()
        })
        .collect();
    assert_eq!(ids, ["C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8"]);

    let folder = TempDir::new().expect("a temporary folder");
    let (page, plots) = (folder.path().join("claims.html"), folder.path().join("deep/plots"));
    let start =
        ["claims", "run", "C6", "C5", "--quick", "--data", "embedded", "--json", "--html", path(&page)];
    let output = vitrine(&[&start[..], &["--plots", path(&plots)]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let found: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(found.len(), 2);
    assert_eq!((&found[0]["id"], &found[0]["verdict"]), (&"C6".into(), &"not_supported".into()));
    let page = fs::read_to_string(page).expect("a page");
    assert!(page.contains("<article id=\"C5\"") && page.contains("<article id=\"C6\""));
    // An image for each plot, which needs nothing else.
    for claim in &found {
        for place in 0..claim["plots"].as_array().expect("plots").len() {
            let name = format!("{}-{place}.svg", claim["id"].as_str().expect("an id"));
            let image = fs::read_to_string(plots.join(&name)).expect("an image");
            assert!(image.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""), "{name}: {image}");
            let title = claim["plots"][place]["title"].as_str().expect("a title");
            assert!(image.contains(title) && image.contains("--paper"), "{name}");
            assert!(!image.contains("href") && !image.contains("NaN"), "{name}");
        }
    }
    assert_eq!(fs::read_dir(&plots).expect("a folder").count(), 2);
}

#[test]
fn misuse_of_claims() {
    refuse(2, &["claims", "run", "C9"], &["no claim C9", "C1, C2"]);
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("mine.txt");
    fs::write(&file, "mine").expect("a file");
    let run = |option, value| ["claims", "run", "C6", "--quick", "--data", "embedded", option, value];
    refuse(2, &run("--html", path(&file)), &["no report of vitrine"]);
    refuse(2, &run("--plots", path(&file)), &["--plots", "mine.txt"]);
    refuse(2, &run("--model", "embedded"), &["--model"]);
    assert_eq!(fs::read_to_string(&file).expect("a file"), "mine");
}
