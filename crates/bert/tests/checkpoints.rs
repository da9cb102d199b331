//! Model folders as they are found: what is no model, configs beside weights, sizes that do not fit.

use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use vitrine_bert::{
    BaseModel, BertError, Checkpoint, Head, ModelConfig, SequenceClassifier, Tokenizer, load_any,
};

const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood\nbad\n";

fn small() -> ModelConfig {
    ModelConfig {
        vocab_size: 7,
        hidden_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 16,
        max_position_embeddings: 12,
        ..ModelConfig::default()
    }
}

/// A folder with a classifier of three classes.
fn classifier() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let names = ["bad", "so-so", "good"].map(str::to_owned);
    let model = SequenceClassifier::random(small().with_labels(&names), 3).unwrap();
    model.save(folder.path(), &Tokenizer::from_vocabulary(VOCABULARY).unwrap()).unwrap();
    folder
}

/// Changes fields of a folder's config.json; `null` removes one.
fn change(folder: &Path, fields: &Value) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for (field, value) in fields.as_object().unwrap() {
        let config = config.as_object_mut().unwrap();
        if value.is_null() {
            config.shift_remove(field)
        } else {
            config.insert(field.clone(), value.clone())
        };
    }
    fs::write(path, config.to_string()).unwrap();
}

/// Renames and leaves out tensors of a folder's weights.
fn rename(folder: &Path, new_name: impl Fn(&str) -> Option<String>) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensors: Vec<(String, TensorView)> =
        file.tensors().into_iter().filter_map(|(name, view)| Some((new_name(&name)?, view))).collect();
    fs::write(path, serialize(tensors, None).unwrap()).unwrap();
}

fn refused(folder: &Path) -> String {
    SequenceClassifier::load(folder).err().expect("refused").to_string()
}

#[test]
fn classes_are_those_of_transformers() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/config_cases.json");
    let goldens: Value = serde_json::from_str(&fs::read_to_string(goldens).unwrap()).unwrap();
    let cases = goldens["cases"].as_array().unwrap();
    assert!(cases.len() >= 20);
    for case in cases {
        let text = case["fields"].to_string();
        let config = ModelConfig::parse(&text, Path::new("config.json"));
        let classes = config.and_then(|config| {
            // A regression is transformers' to compute.
            if config.num_labels() != 1 {
                config.check_classifier()?;
            }
            Ok(json!(config.label_names()))
        });
        assert_eq!(classes.unwrap_or(Value::Null), case["classes"], "{text}");
    }
}

#[test]
fn what_is_no_model_folder_says_what_to_pass() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    let write = |path: &str, text: &str| {
        fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        fs::write(at(path), text).unwrap();
    };
    fs::create_dir(at("empty")).unwrap();
    write("cache/models--o--n/refs/main", "def");
    for hash in ["abc", "def"] {
        write(&format!("cache/models--o--n/snapshots/{hash}/config.json"), "{}");
    }
    for step in [500, 1000, 20] {
        write(&format!("trainer/checkpoint-{step}/config.json"), "{}");
    }
    write("trainer/trainer_state.json", "{}");
    write("above/model/config.json", "{}");
    write("several/a/config.json", "{}");
    write("several/b/config.json", "{}");
    write("peft/adapter_config.json", "{}");
    write("half/model.safetensors", "");
    write("ggml/model.gguf", "");
    write("notes/README.md", "");
    write("model/config.json", "{}");
    write("model/model.safetensors", "");
    write("lone.safetensors", "");
    for (path, words) in [
        ("missing/one", "no such folder; a model is a folder with"),
        ("empty", "the folder is empty"),
        ("cache/models--o--n", "models--o--n/snapshots/def"),
        ("cache", "models--o--n/snapshots/.."),
        ("trainer", "such as the last: "),
        ("trainer", "checkpoint-1000"),
        ("above", "one folder below: "),
        ("several", "(1 more)"),
        ("peft", "merge_and_unload"),
        ("half", "download it from where the weights came from"),
        ("ggml", "another program's format"),
        ("notes", "no config.json in it; a model is a folder"),
        ("model/model.safetensors", "pass the folder that it is in: "),
        ("model/config.json", "pass the folder that it is in: "),
        ("lone.safetensors", "this is a file; a model is a folder"),
    ] {
        let message = refused(&at(path));
        assert!(message.contains(words) && !message.contains('\n'), "{path}: {message}");
        assert!(message.starts_with(at(path).to_str().unwrap()), "{message}");
        assert_eq!(Checkpoint::open(&at(path)).err().unwrap().to_string(), message);
        assert_eq!(load_any(&at(path)).err().unwrap().to_string(), message);
    }
    for (name, words) in [
        ("bert-base-uncased", "vitrine fetch bert-base-uncased"),
        ("textattack/bert-base-uncased-imdb", "vitrine fetch textattack/bert-base-uncased-imdb"),
        ("https://huggingface.co/bert-base-uncased", "this is an address"),
        ("~/models/bert", "the shell leaves ~"),
        ("./bert", "no such folder; a model is"),
        ("no/such/folder", "no such folder; a model is"),
        ("bert.safetensors", "no such folder; a model is"),
        // A folder of this name is here, so its parts are paths.
        ("src/model", "no such folder; a model is"),
    ] {
        let message = refused(Path::new(name));
        assert!(message.contains(words) && !message.contains('\n'), "{name}: {message}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../../blobs/123", at("notes/config.json")).unwrap();
        let message = refused(&at("notes"));
        assert!(message.contains("a link to ../../blobs/123, where there is no file"), "{message}");
    }
}

#[test]
fn what_stands_in_the_place_of_a_config_is_named() {
    let folder = classifier();
    let config = folder.path().join("config.json");
    let mut text = fs::read_to_string(&config).unwrap();
    // Editors on Windows write one.
    fs::write(&config, format!("\u{feff}{text}")).unwrap();
    SequenceClassifier::load(folder.path()).unwrap();
    text.insert_str(1, &format!("\"padding\": \"{}\",", "x".repeat(17 << 20)));
    for (bytes, words) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 570\n"[..], "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>", "web page"),
        (b"{\"error\": \"Invalid username or password.\"}", "download failed"),
        (b"{\"hidden_size\": 8,", "line 1"),
        (b"", "EOF"),
        (b"[1, 2]", "expected a map"),
        (b"\xff\xfe{\x00}\x00", "byte 0 is not UTF-8"),
        (text.as_bytes(), "at most 16 MiB"),
    ] {
        fs::write(&config, bytes).unwrap();
        let message = refused(folder.path());
        assert!(message.contains(words) && !message.contains('\n'), "{message}");
        assert!(message.contains("config.json"), "{message}");
    }
    fs::remove_file(&config).unwrap();
    #[cfg(unix)]
    {
        assert!(std::process::Command::new("mkfifo").arg(&config).status().unwrap().success());
        assert!(refused(folder.path()).contains("config.json: this is a pipe or a device"));
    }
}

/// Shapes are compared before anything is allocated: each of these models would take terabytes.
#[test]
fn sizes_that_do_not_fit_cost_nothing() {
    let folder = classifier();
    let original = fs::read_to_string(folder.path().join("config.json")).unwrap();
    for (fields, words) in [
        (
            json!({"vocab_size": 1 << 24, "hidden_size": 1 << 16}),
            "needs [16777216, 65536], the file has [7, 8]",
        ),
        (json!({"hidden_size": 1 << 16, "num_hidden_layers": 4096}), "and 65512 more"),
        (json!({"intermediate_size": 1 << 18}), "needs [262144, 8]"),
        (json!({"num_hidden_layers": 4096, "intermediate_size": 1 << 18}), "missing     and"),
        (json!({"max_position_embeddings": 1 << 16}), "needs [65536, 8], the file has [12, 8]"),
        (json!({"type_vocab_size": 1 << 16}), "token_type_embeddings"),
        (json!({"num_labels": 65_536, "id2label": null, "label2id": null}), "65536 classes"),
    ] {
        fs::write(folder.path().join("config.json"), &original).unwrap();
        change(folder.path(), &fields);
        let started = std::time::Instant::now();
        let messages = [
            refused(folder.path()),
            Checkpoint::open(folder.path())
                .unwrap()
                .classifier(Head::KeepOrNew { names: &["a", "b", "c"].map(str::to_owned), seed: 1 })
                .err()
                .map_or(words.into(), |error| error.to_string()),
        ];
        for message in messages {
            assert!(message.contains(words) && message.lines().count() < 30, "{fields}: {message}");
        }
        assert!(started.elapsed().as_secs() < 20, "{fields}");
    }
}

#[test]
fn every_reader_shows_the_table_or_the_true_reason() {
    // No encoder under any name that is known: not "no classifier".
    let folder = classifier();
    let foreign = |name: &str| {
        name.replace("embeddings.", "emb.").replace("layer.", "block.").replace("pooler.", "pool.")
    };
    rename(folder.path(), |name| Some(foreign(name).replace("classifier", "score")));
    let table = refused(folder.path());
    assert!(table.contains("  missing     bert.embeddings.word_embeddings.weight"), "{table}");
    // Each kind of line is capped, in the order of the names.
    assert!(table.contains("config.json") && table.contains("  unexpected  bert.emb."), "{table}");
    assert!(load_any(folder.path()).err().unwrap().to_string().contains("  missing     bert."));
    // An encoder under a head of somebody's own.
    let folder = classifier();
    rename(folder.path(), |name| Some(name.replace("classifier", "fc")));
    let message = refused(folder.path());
    assert!(message.contains("no classifier in it, only an encoder (and fc.bias, fc.weight)"), "{message}");
    // A head without its bias.
    let folder = classifier();
    rename(folder.path(), |name| (name != "classifier.bias").then(|| name.to_owned()));
    assert!(refused(folder.path()).contains("  missing     classifier.bias"));
    // Any wrapper, and a prefix that nobody knows.
    let expected = classifier();
    let load = |folder: &Path| SequenceClassifier::load(folder).unwrap();
    let values = |folder: &Path| -> Vec<Vec<f32>> {
        load(folder).model.parameters().parts().unwrap().iter().map(|(_, v)| v.to_vec().unwrap()).collect()
    };
    for prefix in
        ["module.", "_orig_mod.", "model.", "module._orig_mod.model.", "student.", "bert.", "a.b.c."]
    {
        let folder = classifier();
        rename(folder.path(), |name| Some(format!("{prefix}{name}")));
        assert_eq!(values(folder.path()), values(expected.path()), "{prefix}");
        let notes = load(folder.path()).notes;
        let usual = ["module.", "_orig_mod.", "model.", "module._orig_mod.model."].contains(&prefix);
        assert!(if usual { notes.is_empty() } else { notes[0].contains(prefix) }, "{prefix}: {notes:?}");
    }
}

#[test]
fn a_head_of_another_kind_is_not_taken_for_a_classifier_of_texts() {
    let two = ["no", "yes"].map(str::to_owned);
    let fresh = |folder: &Path| {
        let checkpoint = Checkpoint::open(folder).unwrap();
        let loaded = checkpoint.classifier(Head::New { names: &two, seed: 0 }).unwrap();
        assert_eq!(loaded.model.config().label_names(), two);
        let again = tempfile::tempdir().unwrap();
        loaded.model.save(again.path(), &loaded.tokenizer).unwrap();
        SequenceClassifier::load(again.path()).unwrap();
    };
    for (fields, words) in [
        (json!({"problem_type": "regression"}), "problem_type"),
        (json!({"problem_type": "multi_label_classification"}), "problem_type"),
        (json!({"architectures": ["BertForTokenClassification"]}), "no classifier"),
        (json!({"architectures": ["BertForMultipleChoice"]}), "no classifier"),
        (json!({"id2label": {"0": "a", "1": "b"}}), "id2label"),
        (json!({"id2label": {"0": "a", "1": "b", "3": "c"}}), "id2label"),
        (json!({"id2label": null, "label2id": null, "num_labels": 2}), "num_labels"),
    ] {
        let folder = classifier();
        change(folder.path(), &fields);
        let message = refused(folder.path());
        assert!(message.contains(words) && !message.contains('\n'), "{fields}: {message}");
        load_any(folder.path()).unwrap();
        fresh(folder.path());
    }
    // A cross-encoder: one row.
    let folder = classifier();
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let cut = |name: &str, view: TensorView<'_>| match name {
        "classifier.weight" => (vec![1, 8], view.data()[..32].to_vec()),
        "classifier.bias" => (vec![1], view.data()[..4].to_vec()),
        _ => (view.shape().to_vec(), view.data().to_vec()),
    };
    let tensors: Vec<_> =
        file.tensors().into_iter().map(|(name, view)| (name.clone(), cut(&name, view))).collect();
    let views = tensors
        .iter()
        .map(|(name, (dims, bytes))| (name, TensorView::new(Dtype::F32, dims.clone(), bytes).unwrap()));
    let one_row = serialize(views, None).unwrap();
    fs::write(&path, one_row).unwrap();
    change(folder.path(), &json!({"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}));
    assert!(refused(folder.path()).contains("num_labels = 1"), "{}", refused(folder.path()));
    assert_eq!(load_any(folder.path()).unwrap().config().num_labels(), 1);
    fresh(folder.path());
    // Nothing said about classes: the weights say it.
    let folder = classifier();
    change(folder.path(), &json!({"id2label": null, "label2id": null}));
    let classes = Checkpoint::open(folder.path()).unwrap().classes().unwrap();
    assert_eq!(classes.unwrap(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
}

#[test]
fn what_only_training_uses_is_refused_only_there() {
    let folder = classifier();
    change(
        folder.path(),
        &json!({"hidden_dropout_prob": 1.5, "initializer_range": "0.02", "pad_token_id": -1}),
    );
    SequenceClassifier::load(folder.path()).unwrap();
    let names = ["bad", "so-so", "good"].map(str::to_owned);
    let refused =
        Checkpoint::open(folder.path()).unwrap().classifier(Head::KeepOrNew { names: &names, seed: 1 });
    let refused = refused.err().unwrap();
    assert!(matches!(refused, BertError::Config { field: "hidden_dropout_prob", .. }), "{refused}");
    assert!(refused.to_string().contains("config.json"), "{refused}");
    let config = ModelConfig { initializer_range: f64::NAN, ..small() };
    assert!(BaseModel::random(config, 1).is_err());
}
