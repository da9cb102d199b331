//! Token ids against `transformers`: for texts that are unlike a review (goldens: `goldens/make_goldens.py`), and for folders as
//! people have them (`goldens/make_tokenizers.py`).

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tempfile::TempDir;
use vitrine_bert::{ModelConfig, Tokenizer};

/// A model of 64 positions.
fn model() -> ModelConfig {
    ModelConfig { max_position_embeddings: 64, ..ModelConfig::default() }
}

#[derive(serde::Deserialize)]
struct Goldens {
    texts: Vec<String>,
    cases: Vec<Case>,
    refused: Vec<Refused>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    files: BTreeMap<String, String>,
    note: Vec<String>,
    ids: Vec<Vec<u32>>,
}

#[derive(serde::Deserialize)]
struct Refused {
    name: String,
    files: BTreeMap<String, String>,
    words: Vec<String>,
}

/// Goldens: `goldens/make_tokenizers.py` and `goldens/make_byte_level.py`.
fn folders() -> [Goldens; 2] {
    [include_str!("goldens/tokenizers.json"), include_str!("goldens/byte_level.json")]
        .map(|text| serde_json::from_str(text).unwrap())
}

fn folder(files: &BTreeMap<String, String>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn folders_give_the_ids_of_transformers_and_say_which_file_counts() {
    let all = folders();
    assert!(all[0].cases.len() > 40 && all[1].cases.len() > 10);
    for (goldens, case) in
        all.iter().flat_map(|goldens| goldens.cases.iter().map(move |case| (goldens, case)))
    {
        let tokenizer = Tokenizer::from_dir(folder(&case.files).path())
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        for (text, ids) in goldens.texts.iter().zip(&case.ids) {
            let encoding = tokenizer.encode(text, 512).unwrap();
            assert_eq!(encoding.ids, *ids, "{}: {text:?}", case.name);
            for range in encoding.offsets {
                assert!(text.get(range.clone()).is_some(), "{}: {range:?} of {text:?}", case.name);
            }
        }
        let notes = tokenizer.notes().join("\n");
        assert_eq!(notes.is_empty(), case.note.is_empty(), "{}: {notes}", case.name);
        assert!(case.note.iter().all(|word| notes.contains(word)), "{}: {notes}", case.name);
    }
}

#[test]
fn what_is_not_followed_is_refused_by_name() {
    let all = folders();
    assert!(all[0].refused.len() > 25 && all[1].refused.len() > 5);
    for case in all.iter().flat_map(|goldens| &goldens.refused) {
        let Err(error) = Tokenizer::from_dir(folder(&case.files).path()) else {
            panic!("{}: not refused", case.name)
        };
        let message = error.to_string();
        assert!(!message.contains('\n') && message.len() < 400, "{}: {message}", case.name);
        assert!(case.words.iter().all(|word| message.contains(word)), "{}: {message}", case.name);
    }
}

/// A saved folder is read as what it was by Vitrine, from `tokenizer.json` and from `vocab.txt`, and by the bare tokenizers
/// library. `goldens/check_tokenizers.py` does the same with `transformers`.
#[test]
fn saved_folders_give_the_same_ids() {
    let all = folders();
    let kept = std::env::var_os("VITRINE_SAVED").map(PathBuf::from);
    let cases = all.iter().flat_map(|goldens| goldens.cases.iter().map(move |case| (goldens, case)));
    for (number, (goldens, case)) in cases.enumerate() {
        let tokenizer = Tokenizer::from_dir(folder(&case.files).path()).unwrap();
        let files: BTreeMap<String, String> = tokenizer
            .files(&model())
            .into_iter()
            .map(|(name, text)| (name.to_owned(), text.into_owned()))
            .collect();
        let saved = folder(&files);
        let again =
            Tokenizer::from_dir(saved.path()).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        assert!(again.notes().is_empty(), "{}: {:?}", case.name, again.notes());
        let bare = tokenizers::Tokenizer::from_file(saved.path().join("tokenizer.json")).unwrap();
        assert!(bare.get_truncation().is_none() && bare.get_padding().is_none());
        for (text, ids) in goldens.texts.iter().zip(&case.ids) {
            assert_eq!(again.encode(text, 512).unwrap().ids, *ids, "{}", case.name);
            assert_eq!(bare.encode(text.as_str(), true).unwrap().get_ids(), ids, "{}", case.name);
        }
        let settings: Value = serde_json::from_str(&files["tokenizer_config.json"]).unwrap();
        if settings["tokenizer_class"] == "BertTokenizer" && files.contains_key("vocab.txt") {
            std::fs::remove_file(saved.path().join("tokenizer.json")).unwrap();
            let again =
                Tokenizer::from_dir(saved.path()).unwrap_or_else(|error| panic!("{}: {error}", case.name));
            for (text, ids) in goldens.texts.iter().zip(&case.ids) {
                assert_eq!(again.encode(text, 512).unwrap().ids, *ids, "{}, from vocab.txt", case.name);
            }
        }
        if let Some(kept) = &kept {
            let place = kept.join(number.to_string());
            std::fs::create_dir_all(&place).unwrap();
            for (name, text) in &files {
                std::fs::write(place.join(name), text).unwrap();
            }
            let config =
                r#"{"model_type": "bert", "vocab_size": 64, "hidden_size": 8, "num_attention_heads": 1}"#;
            std::fs::write(place.join("config.json"), config).unwrap();
            let ids = serde_json::json!({"name": case.name, "texts": goldens.texts, "ids": case.ids, "positions": 64});
            std::fs::write(place.join("ids.json"), ids.to_string()).unwrap();
        }
    }
}

/// Every length of a `tokenizer.json` is read or refused in one line, and so is each with a part that makes no sense.
#[test]
fn damaged_files_are_errors() {
    let [goldens, _] = folders();
    let case = goldens.cases.iter().find(|case| case.name == "cased, alone").unwrap();
    let text = &case.files["tokenizer.json"];
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("tokenizer.json");
    let refuse = |text: &str| {
        std::fs::write(&path, text).unwrap();
        if let Err(error) = Tokenizer::from_dir(place.path()) {
            assert!(!error.to_string().contains('\n'), "{error}");
            return true;
        }
        false
    };
    for (length, _) in text.char_indices() {
        assert!(refuse(&text[..length]));
    }
    let whole: Value = serde_json::from_str(text).unwrap();
    let odd = [
        Value::Null,
        1.into(),
        "x".into(),
        serde_json::json!([]),
        serde_json::json!({}),
        serde_json::json!({"type": "Sequence"}),
        serde_json::json!({"type": "Strip", "content": "", "start": -1}),
        serde_json::json!({"type": "Precompiled", "precompiled_charsmap": ""}),
        serde_json::json!({"type": "Replace", "pattern": {"Regex": "("}, "content": ""}),
        serde_json::json!({"type": "Metaspace", "replacement": "", "prepend_scheme": "always"}),
        serde_json::json!({"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}),
    ];
    for (field, _) in whole.as_object().unwrap() {
        for value in &odd {
            let mut damaged = whole.clone();
            damaged[field] = value.clone();
            refuse(&damaged.to_string());
        }
    }
}

/// Of texts of 20 MB no more is read than a few tokens need.
#[test]
fn long_texts_are_read_as_far_as_they_matter() {
    let vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nword\n##a\n!\n猫\n";
    let tokenizer = Tokenizer::from_vocabulary(vocabulary).unwrap();
    const SIZE: usize = 20_000_000;
    let of = |part: &str| part.repeat(SIZE / part.len());
    for (text, ids, last, truncated) in [
        (of("word "), vec![2, 6, 6, 3], 5..9, true),
        (of("a"), vec![2, 1, 3], 0..SIZE, false),
        (of("a") + " word", vec![2, 1, 6, 3], SIZE + 1..SIZE + 5, false),
        (of("é"), vec![2, 1, 3], 0..SIZE, false),
        (of("猫"), vec![2, 9, 9, 3], 3..6, true),
        (of("!"), vec![2, 8, 8, 3], 1..2, true),
        (of("\0") + "a", vec![2, 5, 3], SIZE..SIZE + 1, false),
        ("a".to_owned() + &of("\0") + "a", vec![2, 5, 7, 3], SIZE + 1..SIZE + 2, false),
        (of("\u{301}"), vec![2, 3], 0..0, false),
        (of(" "), vec![2, 3], 0..0, false),
        (of("[SEP]"), vec![2, 3, 3, 3], 5..10, true),
        (of("👩\u{200d}🚀"), vec![2, 1, 3], 0..SIZE / 11 * 11, false),
    ] {
        let encoding = tokenizer.encode(&text, 4).unwrap();
        let start: String = text.chars().take(3).collect();
        assert_eq!((encoding.ids.clone(), encoding.truncated), (ids, truncated), "{start:?}");
        let number = encoding.offsets.len() - 2;
        assert_eq!(encoding.offsets[number], last, "{start:?}");
    }
}
