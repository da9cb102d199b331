//! `vitrine explain`: what is printed is what the library computes, and every method says what is wrong with its arguments.

use crate::common::{path, refuse, succeed, text, tiny, train, vitrine};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

const TEXT: &str = "a truly wonderful film";

/// A classifier of two layers of four heads, trained for a moment: its folder outlives the tests that share it.
fn classifier() -> &'static str {
    static MODEL: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("explained");
        train(&folder, &["--overwrite"]);
        folder
    });
    path(&MODEL)
}

fn json(arguments: &[&str]) -> Value {
    let mut all = vec!["explain", arguments[0], "--json"];
    all.extend(&arguments[1..]);
    serde_json::from_str(&succeed(&all)).expect("one JSON object")
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

#[test]
fn attributions_sum_to_the_change_of_the_logit() {
    let found = json(&["attributions", "--model", classifier(), TEXT]);
    let tokens = found["tokens"].as_array().expect("tokens");
    let values: Vec<f64> = tokens.iter().map(|token| token["value"].as_f64().expect("a number")).collect();
    let (sum, total) = (values.iter().sum::<f64>(), found["total"].as_f64().expect("a number"));
    assert!(found["converged"] == true && (sum - total).abs() <= 0.01 * total.abs(), "{found}");
    assert_eq!(found["baseline"], "pad");
    // Places are characters of the text.
    let words = found["words"].as_array().expect("words");
    let word = words.iter().find(|word| word["word"] == "wonderful").expect("the word");
    let (from, to) = (word["from"].as_u64().expect("a place"), word["to"].as_u64().expect("a place"));
    assert_eq!(tokens[from as usize]["start"], 8);
    assert_eq!(tokens[to as usize]["end"], 17);
    // Values are for the class that is predicted, and of another class if asked.
    let predicted: Value =
        serde_json::from_str(&succeed(&["predict", "--model", classifier(), "--json", TEXT])).expect("JSON");
    assert_eq!(found["class"], predicted["label"]);
    for (method, class) in [("gradient", "0"), ("occlusion", "negative")] {
        let found =
            json(&["attributions", "--model", classifier(), "--method", method, "--class", class, TEXT]);
        assert_eq!((&found["class"], &found["total"]), (&"negative".into(), &Value::Null), "{found}");
        let logit = predicted["logits"][0].as_f64().expect("a number");
        assert!((found["logit"].as_f64().expect("a number") - logit).abs() < 1e-4);
    }
    let printed = succeed(&["explain", "attributions", "--model", classifier(), "--top", "2", TEXT]);
    assert!(printed.contains("the values miss") && printed.contains("(2 of 6 words"), "{printed}");
}

#[test]
fn a_cap_on_the_steps_is_said() {
    let arguments =
        ["explain", "attributions", "--model", classifier(), "--steps", "1", "--baseline", "zero", TEXT];
    let output = vitrine(&arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let found = json(&arguments[1..]);
    let converged = found["converged"] == true;
    assert_eq!(found["steps"], 1);
    assert_eq!(text(&output.stderr).contains("after 1 step"), !converged, "{}", text(&output.stderr));
}

#[test]
fn texts_come_from_standard_input_too() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vitrine"))
        .args(["explain", "ablate", "--model", classifier(), "--json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    use std::io::Write;
    let mut input = child.stdin.take().expect("a pipe");
    writeln!(input, "{TEXT}\na dull film").expect("written");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    let lines = text(&output.stdout);
    let found: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(found.len(), 2);
    assert_eq!(found[1]["text"], "a dull film");
    refuse(2, &["explain", "ablate", "--model", classifier(), "-"], &["no text"]);
}

/// The change that `ablate` announces is the one that `--ablate` makes.
#[test]
fn an_ablated_head_changes_what_was_announced() {
    let model = classifier();
    let open = json(&["ablate", "--model", model, "--class", "positive", TEXT]);
    assert_eq!(open["changes"].as_array().expect("layers").len(), 2);
    let changes = numbers(&open["changes"][1]);
    assert_eq!(changes.len(), 4);
    let closed = json(&["ablate", "--model", model, "--class", "positive", "--ablate", "1.2", TEXT]);
    let logit = |found: &Value| found["logit"].as_f64().expect("a number");
    assert!((logit(&closed) - logit(&open) - changes[2]).abs() < 1e-4, "{open} {closed}");
    let printed = succeed(&["explain", "ablate", "--model", model, "--ablate", "1.2", "--top", "3", TEXT]);
    assert!(printed.contains("blocked: head 1.2") && printed.contains("3 of 8 heads"), "{printed}");
}

#[test]
fn ablated_layers_are_ranked() {
    let model = classifier();
    let found = json(&["ablate", "--what", "layers", "--model", model, "--class", "positive", TEXT]);
    let parts = found["parts"].as_array().expect("parts");
    assert_eq!(parts.len(), 6);
    let whole =
        parts.iter().find(|part| part["layer"] == 1 && part["part"] == "layer").expect("the last layer");
    let heads = json(&["ablate", "--model", model, "--class", "positive", TEXT]);
    assert_eq!(heads["logit"].as_f64().map(|x| x as f32), found["logit"].as_f64().map(|x| x as f32));
    let printed = succeed(&["explain", "ablate", "--what", "layers", "--model", model, "--top", "6", TEXT]);
    let change = format!("{:+.4}", whole["change"].as_f64().expect("a number"));
    assert!(printed.contains("6 of 6 parts") && printed.contains(&change), "{printed}");
    assert!(printed.contains("feed-forward") && printed.contains("all of it"), "{printed}");
}

#[test]
fn an_ablated_edge_changes_what_was_announced() {
    let model = classifier();
    let text = "not bad";
    let open = json(&["ablate", "--what", "edges", "--model", model, "--class", "1", text]);
    let tokens = open["tokens"].as_array().expect("tokens");
    let place = |name: &str| tokens.iter().position(|token| token["token"] == name).expect("a token");
    let (not, bad) = (place("not"), place("bad"));
    let edges = open["edges"].as_array().expect("edges");
    assert_eq!(edges.len(), tokens.len() * tokens.len());
    let edge = edges.iter().find(|edge| edge["query"] == bad && edge["key"] == not).expect("the edge");
    let logit = |found: &Value| found["logit"].as_f64().expect("a number");
    for block in ["bad:not".to_owned(), format!("{bad}:{not}")] {
        let closed = json(&["ablate", "--model", model, "--class", "1", "--block", &block, text]);
        let change = edge["change"].as_f64().expect("a number");
        assert!((logit(&closed) - logit(&open) - change).abs() < 1e-4, "{edge} {closed}");
    }
    let some =
        json(&["ablate", "--what", "edges", "--tokens", "1-2", "--model", model, "--class", "1", text]);
    assert_eq!(some["edges"].as_array().expect("edges").len(), 4);
    let map = ["attention", "--model", model, "--head", "0.1", "--block", "bad:not@0.1", text];
    let row = numbers(&json(&map)["map"]["probabilities"][bad]);
    assert!(row[not] == 0.0 && (row.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{row:?}");
    let printed = succeed(&["explain", "attention", "--model", model, text]);
    assert!(printed.contains("attention rollout of [CLS]"), "{printed}");
}

#[test]
fn the_lens_shows_what_fill_mask_guesses() {
    let masked = "a [MASK] film";
    let found = json(&["lens", "--tokens", "2", "--top-k", "3", masked]);
    let layers = found["layers"].as_array().expect("layers");
    let last = &layers[layers.len() - 1][0];
    let guesses: Value =
        serde_json::from_str(&succeed(&["fill-mask", "--dtype", "f32", "--top-k", "3", "--json", masked]))
            .expect("JSON");
    for rank in 0..3 {
        let guess = &guesses["masks"][0][rank];
        assert_eq!(last[rank]["word"], guess["token"]);
        let difference =
            last[rank]["probability"].as_f64().zip(guess["score"].as_f64()).map(|(a, b)| (a - b).abs());
        assert!(difference.is_some_and(|difference| difference < 1e-4), "{last} {guess}");
    }
    refuse(
        2,
        &["explain", "lens", "--model", "embedded-imdb", masked],
        &["no masked-language-model head", "--lens"],
    );
    let borrowed = succeed(&["explain", "lens", "--model", "embedded-imdb", "--lens", "embedded", masked]);
    assert!(borrowed.contains("layer 1"), "{borrowed}");
    refuse(
        2,
        &["explain", "lens", "--model", classifier(), "--lens", "embedded", masked],
        &["its head is for a width of"],
    );
    let backward = json(&["lens", "--backward", "--model", classifier(), "--class", "positive", TEXT]);
    let norms = numbers(&backward["norms"][2]);
    assert!(norms[0] > 0.0 && norms[1..].iter().all(|&norm| norm == 0.0), "{norms:?}");
    let printed = succeed(&["explain", "lens", "--backward", TEXT]);
    assert!(printed.contains("rises fastest"), "{printed}");
}

#[test]
fn patching_says_where_texts_differ() {
    let found = json(&["patch", "--model", "embedded-imdb", "the film was good", "the film was bad"]);
    let embeddings = numbers(&found["recovered"][0]);
    assert!((embeddings[4] - 1.0).abs() < 1e-3 && embeddings[0].abs() < 1e-3, "{embeddings:?}");
    let printed =
        succeed(&["explain", "patch", "--what", "attention", "the film was good", "the film was bad"]);
    assert!(printed.contains("good>bad (4)") && printed.contains("layer.1.attention.output"), "{printed}");
    refuse(2, &["explain", "patch", "a good film", "bad"], &["5 tokens and the second 3"]);
    refuse(2, &["explain", "patch", "a film", "a film"], &["nothing to recover"]);
}

#[test]
fn probes_and_drift_compare_layers() {
    let sizes = ["--samples", "60", "--test-samples", "40"];
    let found = json(&[&["probe", "--model", classifier()], &sizes[..]].concat());
    let probes = found["probes"].as_array().expect("probes");
    assert_eq!(probes.len(), 3 * 3);
    for probe in probes {
        let accuracy = probe["accuracy"].as_f64().expect("a number");
        let interval = numbers(&probe["interval"]);
        assert!(probe["converged"] == true && interval[0] <= accuracy && accuracy <= interval[1], "{probe}");
    }
    let again = json(&[&["probe", "--model", classifier()], &sizes[..]].concat());
    assert_eq!(found["probes"], again["probes"]);
    let printed = succeed(&[&["explain", "probe", "--model", classifier()], &sizes[..]].concat());
    assert!(printed.contains("mean of tokens") && printed.contains("layer 1"), "{printed}");

    let same = json(&["drift", "--from", classifier(), "--model", classifier(), "--samples", "20"]);
    assert_eq!(same["drift"]["relative"], 0.0);
    let alike = |found: &Value, depth: usize| found["cka"][depth]["mean"].as_f64().expect("a number");
    assert!((alike(&same, 2) - 1.0).abs() < 1e-6, "{same}");
    let moved = json(&["drift", "--from", tiny(), "--model", classifier(), "--samples", "20"]);
    assert!(moved["drift"]["relative"].as_f64().is_some_and(|moved| moved > 0.0), "{moved}");
    assert!(alike(&moved, 2) < 1.0 && alike(&moved, 2) > 0.0);
    let printed = succeed(&["explain", "drift", "--samples", "20"]);
    assert!(printed.contains("only embedded has cls.predictions"), "{printed}");
    refuse(2, &["explain", "probe", "--samples", "1"], &["two classes"]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let attributions = |more: &[&str], words: &[&str]| {
        refuse(2, &[&["explain", "attributions", "--model", classifier()], more, &[TEXT]].concat(), words);
    };
    attributions(&["--class", "neutral"], &["the classes negative, positive"]);
    attributions(&["--class", "7"], &["no class 7"]);
    attributions(&["--ablate", "2.0"], &["no layer 2"]);
    attributions(&["--ablate", "0.4"], &["no head 4"]);
    attributions(&["--ablate", "0"], &["LAYER.HEAD"]);
    attributions(&["--block", "bad:film"], &["no token is \"bad\"", "wonderful"]);
    attributions(&["--block", "99:1"], &["no token 99"]);
    attributions(&["--block", "1"], &["QUERY:KEY"]);
    attributions(&["--method", "gradient", "--steps", "5"], &["only --method integrated"]);
    attributions(&["--steps", "99999"], &["1 to 4096"]);
    attributions(&["--max-length", "2"], &["--max-length 2"]);
    refuse(2, &["explain", "attributions", "--model", "embedded", TEXT], &["no classifier in it"]);
    refuse(
        2,
        &["explain", "ablate", "--model", classifier(), "--block", "film:a", "a film is a film"],
        &["is at 2, 5"],
    );
    let long = "film ".repeat(140);
    refuse(2, &["explain", "ablate", "--what", "edges", &long], &["20,164 edges", "--tokens"]);
    refuse(2, &["explain", "ablate", "--what", "edges", "--tokens", "1-9", "a film"], &["no token 9"]);
    refuse(2, &["explain", "ablate", "--tokens", "1-2", "a film"], &["only --what edges"]);
    refuse(2, &["explain", "attention", "--head", "4.0", TEXT], &["no layer 4"]);
    refuse(2, &["explain", "lens", "--tokens", "90", TEXT], &["no token 90"]);
    refuse(2, &["explain", "lens", "--class", "1", TEXT], &["--backward"]);
}
