//! `vitrine trace`: its numbers beside those of the library, of central differences and of closed forms.

use crate::common::{path, refuse, succeed, text, tiny, vitrine};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use tempfile::TempDir;
use vitrine_autograd::{Gradients, Tape};
use vitrine_bert::{Loaded, SequenceClassifier, TokenBatch};
use vitrine_tensor::{DType, Tensor};

const TEXT: &str = "a good film";

fn traced(arguments: &[&str]) -> Value {
    let all = [&["trace", "--json"], arguments].concat();
    serde_json::from_str(&succeed(&all)).expect("one JSON object")
}

fn ops(traced: &Value) -> &[Value] {
    traced["ops"].as_array().expect("a list")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.contiguous().unwrap().to_dtype(DType::F64).unwrap().to_vec().unwrap()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

#[track_caller]
fn assert_near(what: &str, got: f64, expected: f64, tolerance: f64) {
    assert!(
        (got - expected).abs() <= tolerance * expected.abs().max(1e-9),
        "{what}: {got}, expected {expected}"
    );
}

/// The tiny model, and the batch of the text with this label.
fn library(label: u32) -> (SequenceClassifier, TokenBatch) {
    let Loaded { model, tokenizer, .. } = SequenceClassifier::load_with(
        Path::new(tiny()),
        vitrine_bert::Head::New { names: &["0".to_owned(), "1".to_owned()], seed: 0 },
    )
    .expect("a model");
    let ids = tokenizer.encode(TEXT, model.config().max_length()).expect("a text").ids;
    let batch = TokenBatch::new([ids], Some(&[label]), model.config()).expect("a batch");
    (model, batch)
}

fn gradients(model: &SequenceClassifier, batch: &TokenBatch) -> Gradients {
    let tape = Tape::recording();
    let loss = model.loss(&tape, batch).expect("a loss").id();
    tape.backward(loss, &[]).expect("gradients")
}

#[test]
fn statistics_are_those_of_the_values() {
    let traced = traced(&["--model", tiny(), "--values", "--backward", TEXT]);
    let (model, batch) = library(0);
    let tape = Tape::recording().keeping_values();
    model.loss(&tape, &batch).expect("a loss");
    let nodes = tape.nodes();
    let expected: Vec<_> = nodes.iter().filter(|node| !node.inputs.is_empty()).collect();
    assert_eq!(ops(&traced).len(), expected.len());
    for (op, node) in ops(&traced).iter().zip(expected) {
        let (values, numbers) = (&op["values"], numbers(node.value().expect("a value")));
        let path = op["path"].as_str().expect("a path");
        let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
        let most = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert_near(path, number(&values["min"]), least, 1e-12);
        assert_near(path, number(&values["max"]), most, 1e-12);
        assert_near(path, number(&values["mean"]), numbers.iter().sum::<f64>() / numbers.len() as f64, 1e-9);
        assert_near(path, number(&values["norm"]), norm(&numbers), 1e-12);
        assert_eq!(values["zeros"].as_u64(), Some(numbers.iter().filter(|&&x| x == 0.0).count() as u64));
        assert_eq!(values["non_finite"].as_u64(), Some(0), "{path}");
        assert_near(path, number(&values["first"][0][0]), numbers[0], 1e-12);
        assert_eq!(op["scope"].as_str(), Some(&*node.scope), "{path}");
    }
}

#[test]
fn gradient_norms_are_those_of_the_tape_of_differences_and_of_the_closed_form() {
    for label in ["0", "1"] {
        let traced = traced(&["--model", tiny(), "--backward", "--label", label, TEXT]);
        let (mut model, batch) = library(label.parse().expect("a number"));
        let expected = gradients(&model, &batch);
        let rows = traced["parameters"].as_array().expect("a list");
        let mut seen = 0;
        for (id, parameter) in model.parameters().iter() {
            for (key, gradient) in parameter.split(expected.parameter(id).expect("a gradient")).unwrap() {
                let row = rows.iter().find(|row| row["key"] == key).expect(key);
                let norm = norm(&numbers(&gradient));
                // The keys' bias has nothing but rounding, which depends on how sums are cut.
                if !key.ends_with("key.bias") {
                    assert_near(key, number(&row["gradient_norm"]), norm, 1e-5);
                }
                seen += 1;
            }
        }
        assert_eq!(seen, rows.len());

        // dlogits = softmax - onehot, and the loss is -ln of the label's probability.
        let of = |path: &str| ops(&traced).iter().find(|op| op["path"] == path).expect(path);
        let probability = (-number(&traced["loss"])).exp();
        let logits = number(&of("classifier.linear")["gradient_norm"]);
        assert_near("logits", logits, 2f64.sqrt() * (1.0 - probability), 1e-4);
        assert_near("loss", number(&of("loss.cross_entropy")["gradient_norm"]), 1.0, 0.0);

        // The slope along a gradient is its norm: of the weight of the first layer's feed-forward network, in F64.
        *model.parameters_mut() = model.parameters().to_dtype(DType::F64).unwrap();
        let gradients = gradients(&model, &batch);
        let key = "bert.encoder.layer.0.intermediate.dense.weight";
        let id = model.parameters().iter().find(|(_, p)| p.parts[0].key == key).expect(key).0;
        let gradient = numbers(gradients.parameter(id).expect(key));
        let expected = norm(&gradient);
        let before = numbers(&model.parameters().get(id).value);
        let mut loss_at = |step: f64| {
            let moved: Vec<f64> =
                before.iter().zip(&gradient).map(|(w, g)| w + step * g / expected).collect();
            let value = &mut model.parameters_mut().get_mut(id).value;
            *value = Tensor::from_slice(&moved, value.dims()).unwrap();
            model.loss(&Tape::inference(), &batch).unwrap().value().item().unwrap()
        };
        let slope = (loss_at(1e-4) - loss_at(-1e-4)) / 2e-4;
        let row = rows.iter().find(|row| row["key"] == key).expect(key);
        assert_near("central difference", number(&row["gradient_norm"]), slope, 1e-4);
    }
}

#[test]
fn a_pass_stops_at_a_part_and_knows_near_names() {
    let all = traced(&["--model", tiny(), TEXT]);
    for (scope, names) in [
        ("layer.1.attention", &["linear", "attention", "linear.2", "dropout_add_layer_norm"][..]),
        ("encoder.layer.1.attention.linear.2", &[""][..]),
        ("embeddings", &["embed_layer_norm"]),
    ] {
        let stopped = traced(&["--model", tiny(), "--break", scope, TEXT]);
        let paths: Vec<&str> = ops(&stopped).iter().map(|op| op["path"].as_str().expect("a path")).collect();
        assert_eq!(paths.len(), names.len(), "{scope}: {paths:?}");
        assert!(paths.iter().zip(names).all(|(path, name)| path.ends_with(name)), "{scope}: {paths:?}");
        // What is read is what the operation before has made.
        for read in ops(&stopped).iter().flat_map(|op| op["reads"].as_array().expect("a list")) {
            assert!(number(&read["values"]["norm"]) >= 0.0 && read["name"].as_str().is_some(), "{read}");
        }
        assert!(ops(&stopped).len() < ops(&all).len());
    }
    let shown = succeed(&["trace", "--model", tiny(), "--break", "layer.1.attention", "--backward", TEXT]);
    for words in
        ["softmax(softmax_scale * Q K^T)) V", "ops/attention/mod.rs:", "[CLS]", "gradient of the result"]
    {
        assert!(shown.contains(words), "{words} is not in\n{shown}");
    }
    for (wrong, near) in
        [("layer.1.atention", "layer.1.attention"), ("layer.9", "layer.0"), ("poler", "pooler")]
    {
        refuse(
            2,
            &["trace", "--model", tiny(), "--backward", "--break", wrong, TEXT],
            &["--break", wrong, near],
        );
    }
    refuse(2, &["trace", "--model", tiny(), "--break", "", TEXT], &["--break"]);
}

#[test]
fn an_audit_names_what_is_frozen_and_unused() {
    let audit = |more: &[&str]| -> Vec<Value> {
        let arguments = [&["--model", tiny(), "--audit", TEXT], more].concat();
        traced(&arguments)["audit"].as_array().expect("a list").clone()
    };
    let found = |rows: &[Value], finding: &str| rows.iter().filter(|row| row["finding"] == finding).count();
    let whole = audit(&[]);
    assert_eq!((found(&whole, "frozen"), found(&whole, "no gradient")), (0, 0));
    assert_eq!(found(&whole, "some rows"), 3, "words, positions and token types that are not in the text");
    let frozen = audit(&["--freeze", "embeddings,0"]);
    assert_eq!(found(&frozen, "frozen"), 5 + 16);
    assert_eq!(whole.len(), frozen.len());
    let shown = succeed(&["trace", "--model", tiny(), "--audit", "--freeze", "0", TEXT]);
    assert!(shown.contains("softmax does not see") && shown.contains("it is not trained"), "{shown}");
    refuse(2, &["trace", "--model", tiny(), "--audit", "--freeze", "7", TEXT], &["--freeze", "layer 7"]);
}

/// Whether every element that is opened is closed, in order.
fn assert_nests(page: &str) {
    const VOID: [&str; 5] = ["meta", "link", "line", "circle", "br"];
    let style = page.find("<style>").expect("a style")..page.find("</style>").expect("its end");
    let mut open: Vec<&str> = Vec::new();
    for (at, _) in page.match_indices('<').filter(|(at, _)| !style.contains(at) || *at == style.start) {
        let tag = &page[at + 1..at + page[at..].find('>').expect("a tag ends")];
        let name = tag.trim_start_matches('/').split([' ', '>']).next().expect("a name");
        match tag {
            _ if tag.starts_with('!') || VOID.contains(&name) => {}
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "at {at}"),
            _ => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_page_has_every_operation_once_and_loads_nothing() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("trace.html");
    let text = "a <b>good</b> film & \"more\"";
    let printed = succeed(&["trace", "--model", tiny(), "--html", path(&file), text]);
    assert!(printed.contains("trace.html"), "{printed}");
    let page = std::fs::read_to_string(&file).expect("a page");
    assert_nests(&page);
    let traced = traced(&["--model", tiny(), "--backward", text]);
    let paths: BTreeSet<&str> = ops(&traced).iter().map(|op| op["path"].as_str().expect("a path")).collect();
    assert_eq!(paths.len(), ops(&traced).len(), "every path is one operation's");
    for path in &paths {
        assert_eq!(page.matches(&format!("id=\"op-{path}\"")).count(), 1, "{path}");
    }
    assert_eq!(page.matches("<details class=\"op\"").count(), paths.len());
    for op in ops(&traced) {
        let place = format!("{}:{}", op["file"].as_str().expect("a file"), op["line"]);
        assert!(
            page.contains(&place)
                && page.contains(
                    op["formula"].as_str().expect("one").split(['<', '&', '>']).next().expect("one")
                ),
            "{place}"
        );
    }
    assert!(!page.contains("<b>good") && page.contains("default-src 'none'"));
    for outside in ["http:", "https:", "src=", "@import", "<script"] {
        assert!(!page.contains(outside), "{outside}");
    }

    // A page may be written again; another file is not replaced.
    succeed(&["trace", "--model", tiny(), "--html", path(&file), TEXT]);
    std::fs::write(&file, "mine").expect("written");
    refuse(
        2,
        &["trace", "--model", tiny(), "--html", path(&file), TEXT],
        &["--html", "no report of vitrine"],
    );
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), "mine");
    refuse(2, &["trace", "--model", tiny(), "--html", path(folder.path()), TEXT], &["--html", "folder"]);
}

#[test]
fn models_without_a_classifier_are_traced() {
    // tiny() has an encoder and, from `init`, a masked language model's head or none; the embedded model is one that has it.
    let guessed = traced(&["--model", "embedded", "--backward", "the movie was [MASK]"]);
    let guesses = guessed["guesses"].as_array().expect("a list");
    assert_eq!((guesses.len(), guesses[0]["row"].as_u64()), (1, Some(4)));
    assert!(number(&guesses[0]["score"]) > 0.0);
    // The loss for the likeliest word is -ln of its probability.
    assert_near("loss", (-number(&guessed["loss"])).exp(), number(&guesses[0]["score"]), 1e-5);
    let hidden = traced(&["--model", "embedded", "--backward", "the movie was good"]);
    assert!(hidden["target"].as_str().is_some_and(|target| target.contains("hidden here")), "{hidden}");
    assert!(ops(&hidden).iter().any(|op| op["scope"] == "predictions"));
    let asked = traced(&["--model", "embedded", "--label", "bad", "the movie was [MASK]"]);
    assert!(number(&asked["loss"]) > number(&guessed["loss"]));
    refuse(
        2,
        &["trace", "--model", "embedded", "--label", "no such word", "[MASK]"],
        &["--label", "vocabulary"],
    );
    refuse(2, &["trace", "--model", "embedded", ""], &["no word"]);
    refuse(2, &["trace", "--label", "9", TEXT], &["--label 9", "negative, positive"]);

    let encoder = vitrine(&["trace", "--model", tiny(), TEXT]);
    assert!(encoder.status.success() && text(&encoder.stdout).contains("encoder.layer.1"));
    let encoder = vitrine(&["trace", "--model", tiny(), "--backward", TEXT]);
    assert!(text(&encoder.stderr).contains("a new classifier"), "{}", text(&encoder.stderr));
}
