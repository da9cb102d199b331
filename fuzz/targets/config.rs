//! `config.json`: read, and saved so that it can be read again.
#![no_main]

use std::path::Path;
use vitrine_bert::ModelConfig;
use vitrine_fuzz::{message, target};

target!(|data| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let origin = Path::new("config.json");
    match ModelConfig::parse(text, origin) {
        Ok(config) => {
            let saved = config.to_json("BertForSequenceClassification");
            let again = ModelConfig::parse(&saved, origin).expect("what was saved can be read");
            assert_eq!(again.num_labels(), config.num_labels());
            assert_eq!(again.label_names(), config.label_names());
        }
        Err(error) => message(&error),
    }
});
