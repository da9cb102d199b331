//! Every command with every model family.

use crate::common::{path, succeed};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use vitrine_bert::{Family, ModelConfig};

/// A folder with a small byte-level BPE, as RoBERTa's.
fn byte_level(folder: &Path) -> PathBuf {
    let goldens = include_str!("../../../bert/tests/goldens/byte_level.json");
    let goldens: Value = serde_json::from_str(goldens).expect("JSON");
    for (name, text) in goldens["cases"][0]["files"].as_object().expect("files by name") {
        std::fs::write(folder.join(name), text.as_str().expect("a text")).expect("a file is written");
    }
    folder.to_owned()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&succeed(arguments)).expect("one JSON object and nothing else")
}

#[test]
fn every_command_works_with_every_family() {
    let place = TempDir::new().expect("a temporary folder");
    let bpe = TempDir::new().expect("a temporary folder");
    let byte_level = byte_level(bpe.path());
    let runs = Family::all().iter().map(|family| (*family, None));
    let roberta = Family::named("roberta").expect("a family");
    for (number, (family, tokenizer)) in runs.chain([(roberta, Some(&byte_level))]).enumerate() {
        let at = |name: &str| place.path().join(format!("{number}-{name}"));
        let config = ModelConfig {
            vocab_size: 300,
            hidden_size: 32,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 64,
            max_position_embeddings: 40,
            ..ModelConfig::defaults(family)
        };
        std::fs::write(at("config.json"), config.to_json(&family.architecture("Model"))).expect("written");
        let (config, model, trained) = (at("config.json"), at("model"), at("trained"));
        let (config, model, trained) = (path(&config), path(&model), path(&trained));
        let mut init = vec!["init", "--config", config, "--output", model];
        if let Some(folder) = tokenizer {
            init.extend(["--tokenizer", path(folder)]);
        }
        succeed(&init);
        let base = family.names.base;
        assert!(
            succeed(&["inspect", "--model", model]).contains(&format!("{base}.embeddings.word_embeddings"))
        );

        let data = at("reviews.csv");
        std::fs::write(&data, "text,label\na good film,1\nbad,0\nfine,1\nnot the best,0\n").expect("written");
        let run = ["--data", path(&data), "--output", trained, "--epochs", "2", "--json"];
        let report = json(&[&["train", "--model", model], &run[..]].concat());
        assert!(report["train"]["final_loss"].as_f64().is_some_and(f64::is_finite), "{report}");
        let saved: Value =
            serde_json::from_slice(&std::fs::read(at("trained").join("config.json")).expect("saved"))
                .expect("JSON");
        assert_eq!(saved["model_type"], family.model_type);
        assert_eq!(saved["architectures"][0], family.architecture("ForSequenceClassification"));

        assert_eq!(json(&["eval", "--model", trained, "--data", path(&data), "--json"])["examples"], 4);
        assert!(json(&["predict", "--model", trained, "--json", "good"])["score"].is_number());
        let long = "word ".repeat(100);
        let cut = json(&["predict", "--model", trained, "--json", &long]);
        let positions = if family.model_type == "roberta" { 40 - padding(tokenizer) - 1 } else { 40 };
        assert_eq!((&cut["truncated"], &cut["tokens"]), (&true.into(), &positions.into()));
        assert!(succeed(&["trace", "--model", trained, "not bad"]).contains("attention"));
        for mode in ["train", "infer"] {
            let sizes = ["--mode", mode, "--batch", "2", "--seq", "8", "--steps", "1", "--warmup", "0"];
            let report = json(&[&["bench", "step", "--config", trained, "--json"], &sizes[..]].concat());
            assert!(report["seconds_per_step"].is_number(), "{report}");
        }
    }
}

/// The padding id: 0 in the embedded vocabulary, 1 in RoBERTa's.
fn padding(tokenizer: Option<&PathBuf>) -> usize {
    usize::from(tokenizer.is_some())
}
