//! A folder's tokenizer files, and a text. The input is `tokenizer.json`, `tokenizer_config.json`, `vocab.txt` and the text,
//! with a zero byte between each; an empty part is a file that is not there.
#![no_main]

use vitrine_bert::{ModelConfig, Tokenizer};
use vitrine_fuzz::{message, optional_file, scratch, target};

target!(|data| {
    let mut parts = data.splitn(4, |&byte| byte == 0);
    for name in ["tokenizer.json", "tokenizer_config.json", "vocab.txt"] {
        optional_file(name, parts.next().filter(|part| !part.is_empty()));
    }
    let text = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let tokenizer = match Tokenizer::from_dir(scratch()) {
        Ok(tokenizer) => tokenizer,
        Err(error) => return message(&error),
    };
    for text in [text.as_ref(), "a good film, not badly made", "猫 [SEP] \u{301}\u{200d}é"] {
        if let Ok(encoding) = tokenizer.encode(text, 16) {
            assert!((2..=16).contains(&encoding.ids.len()));
            assert_eq!(encoding.ids.len(), encoding.offsets.len());
            for range in encoding.offsets {
                assert!(text.get(range.clone()).is_some(), "{range:?} of {text:?}");
            }
        }
    }
    tokenizer.files(&ModelConfig::default());
});
