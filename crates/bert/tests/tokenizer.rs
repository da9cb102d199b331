//! Token ids against `transformers`, for texts that are unlike a review. Goldens: `goldens/make_goldens.py`.

use serde_json::Value;
use std::path::PathBuf;
use vitrine_bert::Tokenizer;

/// The folder of the model whose tokenizer made the goldens; a visible skip without it.
fn minilm() -> Option<PathBuf> {
    let shared = std::env::var_os("VITRINE_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let folder = shared.join("models/all-MiniLM-L6-v2");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} not found", folder.display());
    None
}

fn same_ids_as_transformers(tokenizer: &Tokenizer) {
    let goldens: Value = serde_json::from_str(include_str!("goldens/tokens.json")).unwrap();
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

#[test]
fn tokenizer_json_gives_the_ids_of_transformers() {
    let Some(folder) = minilm() else { return };
    same_ids_as_transformers(&Tokenizer::from_dir(&folder).unwrap());
}

#[test]
fn vocab_txt_gives_the_ids_of_transformers() {
    let Some(folder) = minilm() else { return };
    let copy = tempfile::tempdir().unwrap();
    for name in ["vocab.txt", "tokenizer_config.json"] {
        std::fs::copy(folder.join(name), copy.path().join(name)).unwrap();
    }
    same_ids_as_transformers(&Tokenizer::from_dir(copy.path()).unwrap());
    let vocabulary = std::fs::read_to_string(folder.join("vocab.txt")).unwrap();
    same_ids_as_transformers(&Tokenizer::from_vocabulary(&vocabulary).unwrap());
}
