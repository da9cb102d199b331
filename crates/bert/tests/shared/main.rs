//! What needs all-MiniLM-L6-v2 from `../shared`, beside `transformers` (goldens: `goldens/make_goldens.py`).

mod folder;
#[path = "../golden/mod.rs"]
mod golden;

use golden::{Golden, KEY_BIAS, assert_close, compare_with_autocast, gradients_by_key, largest};
use serde_json::Value;
use std::path::Path;
use vitrine_autograd::Tape;
use vitrine_bert::{ModelConfig, Observe, SequenceClassifier, Tokenizer, Weights};
use vitrine_tensor::Tensor;

const MINILM: &str = "models/all-MiniLM-L6-v2";

fn main() {
    folder::run(&[
        (
            "tokenizer_json_gives_the_ids_of_transformers",
            MINILM,
            tokenizer_json_gives_the_ids_of_transformers,
        ),
        ("vocab_txt_gives_the_ids_of_transformers", MINILM, vocab_txt_gives_the_ids_of_transformers),
        ("mixed_precision_is_as_exact_as_autocast", MINILM, mixed_precision_is_as_exact_as_autocast),
        ("minilm_equals_transformers", MINILM, minilm_equals_transformers),
    ]);
}

fn same_ids_as_transformers(tokenizer: &Tokenizer) {
    let goldens: Value = serde_json::from_str(include_str!("../goldens/tokens.json")).unwrap();
    let cases = goldens["cases"].as_array().unwrap();
    assert!(cases.len() > 15);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        for (field, limit) in [("ids", 100_000), ("ids_64", 64), ("ids_512", 512)] {
            let expected: Vec<u32> =
                case[field].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
            let encoding = tokenizer.encode(text, limit).unwrap();
            assert_eq!(encoding.ids, expected, "{} cut at {limit}", case["name"]);
            let whole = case["ids"].as_array().unwrap().len();
            assert_eq!(encoding.truncated, whole > limit, "{} cut at {limit}", case["name"]);
            assert_eq!(encoding.offsets.len(), expected.len());
            assert!(encoding.offsets.iter().all(|range| text.get(range.clone()).is_some()));
        }
    }
}

fn tokenizer_json_gives_the_ids_of_transformers(folder: &Path) {
    same_ids_as_transformers(&Tokenizer::from_dir(folder).unwrap());
}

fn vocab_txt_gives_the_ids_of_transformers(folder: &Path) {
    let copy = tempfile::tempdir().unwrap();
    for name in ["vocab.txt", "tokenizer_config.json"] {
        std::fs::copy(folder.join(name), copy.path().join(name)).unwrap();
    }
    same_ids_as_transformers(&Tokenizer::from_dir(copy.path()).unwrap());
    let vocabulary = std::fs::read_to_string(folder.join("vocab.txt")).unwrap();
    same_ids_as_transformers(&Tokenizer::from_vocabulary(&vocabulary).unwrap());
}

/// all-MiniLM-L6-v2, a real pretrained BERT of 6 layers, under the golden's head.
fn minilm(folder: &Path) -> (SequenceClassifier, Golden) {
    let config = ModelConfig::from_file(&folder.join("config.json")).unwrap();
    let golden = Golden::read("minilm.safetensors", Some(config.clone()));
    let weights = Weights::open(folder, &config.family.names).unwrap();
    let (mut model, report) = SequenceClassifier::from_weights(config, weights, Some(0)).unwrap();
    assert_eq!(report.new, ["classifier.weight", "classifier.bias"]);
    for (_, parameter) in model.parameters_mut().iter_mut() {
        if let Some((dims, values)) = golden.floats.get(&parameter.parts[0].key) {
            parameter.value = Tensor::from_slice(values, dims).unwrap();
        }
    }
    (model, golden)
}

fn mixed_precision_is_as_exact_as_autocast(folder: &Path) {
    let (mut model, golden) = minilm(folder);
    compare_with_autocast("autocast.json", &mut model, &golden.batch());
}

fn minilm_equals_transformers(folder: &Path) {
    let (model, golden) = minilm(folder);
    let batch = golden.batch();
    let tape = Tape::inference();
    let observe = Observe { hidden_states: true, ..Observe::default() };
    let observed = model.forward(&tape, &batch, &observe).unwrap();
    assert_close("logits", &observed.logits.value().to_vec::<f32>().unwrap(), golden.float("logits"), 1e-4);
    for (index, state) in observed.encoded.hidden_states.iter().enumerate() {
        let name = format!("hidden_states.{index}");
        let expected = golden.float(&name);
        assert_close(&name, &state.value().to_vec::<f32>().unwrap()[..expected.len()], expected, 1e-4);
    }
    let tape = Tape::recording();
    let loss = model.loss(&tape, &batch).unwrap();
    assert_close("loss", &[loss.value().item().unwrap() as f32], golden.float("loss"), 1e-4);
    let id = loss.id();
    let gradients = gradients_by_key(model.parameters(), &tape.backward(id, &[]).unwrap());
    for (key, gradient) in &gradients {
        let Some(index) = golden.integers.get(&format!("index.{key}")) else { panic!("no golden for {key}") };
        let most = golden.float(&format!("max.{key}"))[0];
        if let Some(layer) = key.strip_suffix("key.bias") {
            let limit = KEY_BIAS * golden.float(&format!("max.{layer}query.bias"))[0];
            assert!(largest(gradient) <= limit, "{key}: {} above {limit:e}", largest(gradient));
            continue;
        }
        for (&index, expected) in index.iter().zip(golden.float(&format!("grad.{key}"))) {
            let got = gradient[index as usize];
            assert!((got - expected).abs() <= 1e-4 * most, "{key}[{index}]: got {got}, expected {expected}");
        }
        let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt() as f32;
        assert_close(key, &[norm], golden.float(&format!("norm.{key}")), 1e-4);
    }
}
