use super::*;
use crate::ModelConfig;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nnot\nbad\n##ly\n!\ncafe\n猫\n";

/// A model of 64 positions.
fn model() -> ModelConfig {
    ModelConfig { max_position_embeddings: 64, ..ModelConfig::default() }
}

#[test]
fn a_vocabulary_is_enough() {
    let tokenizer = Tokenizer::from_vocabulary(VOCABULARY).unwrap();
    let encoding = tokenizer.encode("NOT badly!", 16).unwrap();
    assert_eq!(encoding.ids, [2, 5, 6, 7, 8, 3]);
    assert_eq!(encoding.offsets, [0..0, 0..3, 4..7, 7..9, 9..10, 0..0]);
    assert_eq!(tokenizer.encode("Café猫 [SEP] dog", 16).unwrap().ids, [2, 9, 10, 3, 1, 3]);
    assert_eq!(tokenizer.encode("", 16).unwrap().ids, [2, 3]);
    assert_eq!(tokenizer.vocabulary_size(), 11);
}

#[test]
fn long_texts_are_cut_and_say_so() {
    let tokenizer = Tokenizer::from_vocabulary(VOCABULARY).unwrap();
    let cut = tokenizer.encode("not bad not bad", 5).unwrap();
    assert_eq!((cut.ids, cut.truncated), (vec![2, 5, 6, 5, 3], true));
    assert!(!tokenizer.encode("not bad not", 5).unwrap().truncated);
    assert!(matches!(tokenizer.encode("not", 2), Err(BertError::MaxLength { .. })));
}

#[test]
fn batches_equal_single_texts() {
    let tokenizer = Tokenizer::from_vocabulary(VOCABULARY).unwrap();
    let texts: Vec<String> = (0..50).map(|n| "not bad! ".repeat(n)).collect();
    let batch = tokenizer.encode_batch(&texts, 40).unwrap();
    assert_eq!(batch.len(), 50);
    for (text, encoding) in texts.iter().zip(&batch) {
        assert_eq!(*encoding, tokenizer.encode(text, 40).unwrap());
    }
}

#[test]
fn saved_files_build_the_same_tokenizer() {
    let tokenizer = Tokenizer::from_vocabulary(VOCABULARY).unwrap();
    for left_out in ["", TOKENIZER_FILE] {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in tokenizer.files(&model()) {
            if name != left_out {
                std::fs::write(folder.path().join(name), text.as_bytes()).unwrap();
            }
        }
        let again = Tokenizer::from_dir(folder.path()).unwrap();
        assert_eq!(again.encode("NOT café", 9).unwrap(), tokenizer.encode("NOT café", 9).unwrap());
        assert_eq!(again.files(&model()).len(), 4);
    }
}

#[test]
fn settings_beside_the_file_win() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in Tokenizer::from_vocabulary(VOCABULARY).unwrap().files(&model()) {
        std::fs::write(folder.path().join(name), text.as_bytes()).unwrap();
    }
    std::fs::write(folder.path().join(TOKENIZER_CONFIG_FILE), r#"{"do_lower_case": false}"#).unwrap();
    let cased = Tokenizer::from_dir(folder.path()).unwrap();
    assert_eq!(cased.encode("NOT not", 9).unwrap().ids, [2, 1, 5, 3]);
}

#[test]
fn a_damaged_file_is_an_error_not_a_fallback() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(VOCABULARY_FILE), VOCABULARY).unwrap();
    std::fs::write(folder.path().join(TOKENIZER_FILE), "{\"version\": ").unwrap();
    let message = Tokenizer::from_dir(folder.path()).err().unwrap().to_string();
    assert!(message.contains("tokenizer.json"), "{message}");
    let message = Tokenizer::from_vocabulary("[PAD]\n[UNK]\nword\n").err().unwrap().to_string();
    assert!(!message.contains('\n'), "{message}");
}

/// What texts and vocabularies are made of: all that the cutting of long texts has to be right about.
const ODD: &[&str] = &[
    "a",
    "b",
    "ab",
    "B",
    "zz",
    "_",
    "'",
    "not",
    "bad",
    "new",
    "york",
    "New York",
    "new york",
    " ",
    "  ",
    "\n",
    "\t",
    "\u{a0}",
    "\u{3000}",
    "\0",
    "\u{1}",
    "\u{200b}",
    "\u{85}",
    "\u{b}",
    "\u{fffd}",
    "\u{feff}",
    "é",
    "e\u{301}",
    "\u{301}",
    "\u{316}",
    "\u{302e}",
    "\u{334}",
    "\u{338}",
    "<",
    ">",
    "=",
    "猫",
    "虎",
    "\u{f900}",
    "[",
    "]",
    "!",
    "。",
    "<x>",
    "[A]",
    "Zz",
    "\u{fb01}",
    "½",
    "⑴",
    "㏂",
    "´",
    "가",
    "\u{1100}\u{1161}",
    "İ",
    "ß",
    "Σ",
    "😀",
    "👩\u{200d}🚀",
    "กำ",
    "\u{e000}",
    "[SEP]",
    "[MASK]",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

/// Sets of added tokens: content, then what is true of it (l, r: strips there; s: single word; n: normalized).
const ADDED: &[&[(&str, &str)]] = &[
    &[],
    &[("<x>", ""), ("[A]", "lr")],
    &[("new york", "n")],
    &[("New York", ""), ("ab", "n")],
    &[("Zz", "s"), ("[A]", "l")],
    &[("zz", "sn"), ("é!", "n"), ("<x>", "r")],
    &[("  ", ""), ("a b", "nlr")],
    &[("ab", "r"), ("!", "ln"), ("猫", "n")],
    &[("]", "s"), ("_", "sn")],
];

fn pipelines() -> Vec<(Value, Value)> {
    let bert = |lowercase: bool, cjk: bool, clean: bool| {
        json!({"type": "BertNormalizer", "clean_text": clean, "handle_chinese_chars": cjk, "strip_accents": null,
            "lowercase": lowercase})
    };
    let sequence = |names: &[&str]| {
        let parts: Vec<Value> = names.iter().map(|name| json!({"type": name})).collect();
        json!({"type": "Sequence", "normalizers": parts})
    };
    let split = || json!({"type": "BertPreTokenizer"});
    let punctuation = json!({"type": "Punctuation", "behavior": "Isolated"});
    vec![
        (bert(true, true, true), split()),
        (bert(false, true, true), split()),
        (bert(false, false, true), split()),
        (bert(true, false, false), json!({"type": "WhitespaceSplit"})),
        (Value::Null, split()),
        (sequence(&["NFD", "Lowercase", "StripAccents"]), split()),
        (sequence(&["NFC", "Lowercase"]), split()),
        (sequence(&["NFKC"]), json!({"type": "Whitespace"})),
        (
            sequence(&["NFKD"]),
            json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, punctuation]}),
        ),
        (sequence(&["NFD"]), split()),
    ]
}

fn odd_tokenizer(pipeline: usize, added: usize) -> Tokenizer {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let words = [
        "a", "b", "##a", "##b", "not", "bad", "new", "york", "猫", "##猫", "e", "é", "!", "f", "##i", "1",
        "가",
    ];
    let vocabulary: serde_json::Map<String, Value> = special
        .iter()
        .chain(&words)
        .enumerate()
        .map(|(id, token)| ((*token).to_owned(), id.into()))
        .collect();
    let next = vocabulary.len();
    let mut tokens: Vec<Value> = special
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    let mut own = next;
    for (token, is) in ADDED[added] {
        let id = vocabulary.get(*token).cloned().unwrap_or_else(|| {
            own += 1;
            (own - 1).into()
        });
        tokens.push(
            json!({"id": id, "content": token, "single_word": is.contains('s'), "lstrip": is.contains('l'),
            "rstrip": is.contains('r'), "normalized": is.contains('n'), "special": false}),
        );
    }
    let (normalizer, pre_tokenizer) = pipelines().swap_remove(pipeline);
    let text = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": tokens, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary},
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(TOKENIZER_FILE), text.to_string()).unwrap();
    let tokenizer = Tokenizer::from_dir(folder.path()).unwrap();
    assert!(tokenizer.cutter.is_some());
    tokenizer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn pieces_of_a_text_have_its_tokens(
        (pipeline, added) in (0..pipelines().len(), 0..ADDED.len()),
        parts in vec((0..ODD.len(), prop_oneof![4 => Just(1usize), 1 => 2..60usize]), 0..40),
        piece in 1..60usize,
        max_length in 3..30usize,
    ) {
        let tokenizer = odd_tokenizer(pipeline, added);
        let text: String = parts.iter().map(|&(part, times)| ODD[part].repeat(times)).collect();
        let whole = tokenizer.encode_in_pieces(&text, usize::MAX, usize::MAX, usize::MAX).unwrap();
        let pieces = tokenizer.encode_in_pieces(&text, usize::MAX, piece, usize::MAX).unwrap();
        prop_assert_eq!(&pieces, &whole, "{:?}", text);
        let cut = tokenizer.encode_in_pieces(&text, max_length, usize::MAX, usize::MAX).unwrap();
        let pieces = tokenizer.encode_in_pieces(&text, max_length, piece, usize::MAX).unwrap();
        prop_assert_eq!(&pieces, &cut, "{:?}", text);
        prop_assert_eq!(cut.truncated, whole.ids.len() > max_length);
    }
}

#[test]
fn what_is_cut_out_of_a_long_text() {
    assert_eq!(Truncation::HeadTail.head(510), 128);
    assert_eq!((Truncation::HeadTail.head(1020), Truncation::HeadTail.head(4)), (256, 1));
    assert_eq!((Truncation::Head.head(510), Truncation::Tail.head(510)), (510, 0));
    assert!(Truncation::HeadTail.head(usize::MAX) < usize::MAX / 3);

    let tokenizer = Tokenizer::from_vocabulary(VOCABULARY).unwrap();
    let words = ["not", "bad", "new", "york", "!"];
    let text: String = (0..4000).map(|n| words[n * n % 7 % words.len()].to_owned() + " ").collect();
    for text in [&text[..], "", "not bad", "not bad new york ! not"] {
        let whole = tokenizer.encode(text, usize::MAX).unwrap();
        let content = 1..whole.ids.len() - 1;
        for max_length in [3, 4, 8, 9, 130, 4000] {
            for truncation in Truncation::ALL {
                let cut = tokenizer.clone().with_truncation(truncation);
                // Pieces of a few bytes, and one of all.
                for piece in [16, pieces::PIECE] {
                    let found = cut.encode_in_pieces(text, max_length, piece, pieces::LIMIT).unwrap();
                    let room = max_length - 2;
                    let rows: Vec<usize> = if content.len() <= room {
                        (0..whole.ids.len()).collect()
                    } else {
                        let head = truncation.head(room);
                        let last = content.end - (room - head);
                        (0..=head).chain(last..whole.ids.len()).collect()
                    };
                    let ids: Vec<u32> = rows.iter().map(|&row| whole.ids[row]).collect();
                    let offsets: Vec<_> = rows.iter().map(|&row| whole.offsets[row].clone()).collect();
                    assert_eq!(found.ids, ids, "{truncation} {max_length}");
                    assert_eq!(found.offsets, offsets, "{truncation} {max_length}");
                    assert_eq!(found.truncated, content.len() > room);
                }
            }
        }
    }
}

#[test]
fn a_folder_remembers_its_truncation() {
    let tokenizer = Tokenizer::from_vocabulary(VOCABULARY).unwrap();
    let read = |files: Vec<(&'static str, std::borrow::Cow<'_, str>)>| {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in &files {
            std::fs::write(folder.path().join(name), text.as_bytes()).unwrap();
        }
        (Tokenizer::from_dir(folder.path()).unwrap(), folder)
    };
    for truncation in Truncation::ALL {
        let (again, folder) = read(tokenizer.clone().with_truncation(truncation).files(&model()));
        assert_eq!(again.truncation(), truncation);
        // Tail is what transformers calls left; a changed mind leaves nothing behind.
        let config = std::fs::read_to_string(folder.path().join(TOKENIZER_CONFIG_FILE)).unwrap();
        assert_eq!(config.contains("\"truncation_side\": \"left\""), truncation == Truncation::Tail);
        let (again, _folder) = read(again.with_truncation(Truncation::Head).files(&model()));
        assert_eq!(again.truncation(), Truncation::Head);
    }
    for (setting, word) in [("truncation_side", "5"), ("vitrine_truncation", "\"middle\"")] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(VOCABULARY_FILE), VOCABULARY).unwrap();
        let config = format!("{{\"{setting}\": {word}}}");
        std::fs::write(folder.path().join(TOKENIZER_CONFIG_FILE), config).unwrap();
        let message = Tokenizer::from_dir(folder.path()).err().unwrap().to_string();
        assert!(message.contains(setting) && !message.contains('\n'), "{message}");
    }
}
