//! What needs all-MiniLM-L6-v2 from `../shared`, beside `transformers` (goldens: `goldens/make_goldens.py`).

mod folder;
#[path = "../golden/mod.rs"]
mod golden;
#[path = "../tapped/mod.rs"]
mod tapped;

use golden::{Golden, KEY_BIAS, assert_close, compare_with_autocast, gradients_by_key, largest};
use serde_json::Value;
use std::path::Path;
use tapped::{golden_taps, numbers};
use vitrine_autograd::Tape;
use vitrine_bert::{
    BaseModel, LayerPoint, ModelConfig, Point, SequenceClassifier, Tap, Taps, TokenBatch, Tokenizer, Weights,
};
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
        ("taps_equal_transformers", MINILM, taps_equal_transformers),
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

/// Hidden states, attention maps and their gradients of ten texts, one of 512 tokens: the sampled entries of `goldens/make_taps.py`.
fn taps_equal_transformers(folder: &Path) {
    let config = ModelConfig::from_file(&folder.join("config.json")).unwrap();
    let layers = config.num_hidden_layers;
    let golden = Golden::read("minilm_taps.safetensors", Some(config.clone()));
    let weights = Weights::open(folder, &config.family.names).unwrap();
    let (model, _) = BaseModel::from_weights(config, weights).unwrap();
    let (ids, offsets) = (&golden.integers["ids"], &golden.integers["offsets"]);
    for (text, range) in offsets.windows(2).enumerate() {
        let ids = &ids[range[0] as usize..range[1] as usize];
        let batch = TokenBatch::new([ids], None, model.config()).unwrap();
        let compare = |name: &str, values: &[f32]| {
            let expected = &golden.float(name)[64 * text..64 * text + 64];
            let got: Vec<f32> = (0..64).map(|k| values[(1_000_003 * k + 17) % values.len()]).collect();
            assert_close(&format!("{name} of text {text}"), &got, expected, 1e-4);
            let norm = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt() as f32;
            let expected = golden.float(&format!("norm.{name}"))[text];
            assert_close(&format!("norm of {name} of text {text}"), &[norm], &[expected], 1e-4);
        };
        // As the fused kernel gives them, then with open heads and gradients.
        let mut taps = Taps::new();
        let (states, maps) = golden_taps(&mut taps, layers);
        model.forward(&Tape::inference(), &batch, &taps).unwrap();
        states
            .iter()
            .enumerate()
            .for_each(|(i, &state)| compare(&format!("hidden.{i}"), &numbers(&taps, state)));
        maps.iter()
            .enumerate()
            .for_each(|(i, &map)| compare(&format!("attention.{i}"), &numbers(&taps, map)));

        let mut taps = Taps::new();
        let point = |layer| Point::Layer(layer, LayerPoint::Probabilities);
        let maps: Vec<Tap> = (0..layers).map(|layer| taps.read_with_gradient(point(layer))).collect();
        let tape = Tape::recording();
        let last = model.forward(&tape, &batch, &taps).unwrap();
        let width = last.dims()[1];
        let dy: Vec<f32> =
            (0..last.value().numel()).map(|i| if i < width { (i as f32).cos() } else { 0.0 }).collect();
        let dy = Tensor::from_slice(&dy, last.dims()).unwrap();
        let id = last.id();
        drop(last);
        let gradients = tape.vjp(&[(id, dy)], &taps.ids()).unwrap();
        for (layer, &map) in maps.iter().enumerate() {
            compare(&format!("attention.{layer}"), &numbers(&taps, map));
            let gradient = taps.gradients(map, &gradients).unwrap()[0].to_vec::<f32>().unwrap();
            compare(&format!("gradient.{layer}"), &gradient);
        }
    }
}

fn minilm_equals_transformers(folder: &Path) {
    let (model, golden) = minilm(folder);
    let batch = golden.batch();
    let tape = Tape::inference();
    let mut taps = Taps::new();
    let (states, _) = golden_taps(&mut taps, model.config().num_hidden_layers);
    let observed = model.forward(&tape, &batch, &taps).unwrap();
    assert_close("logits", &observed.logits.value().to_vec::<f32>().unwrap(), golden.float("logits"), 1e-4);
    for (index, state) in states.into_iter().enumerate() {
        let name = format!("hidden_states.{index}");
        let expected = golden.float(&name);
        assert_close(&name, &numbers(&taps, state)[..expected.len()], expected, 1e-4);
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
