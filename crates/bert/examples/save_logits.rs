//! Saves a classifier with a new head, and its logits beside it, for `tests/goldens/check_saved.py`.
//!
//! `cargo run --release -p vitrine-bert --example save_logits -- MODEL_DIR OUTPUT_DIR`

use std::path::Path;
use vitrine_autograd::Tape;
use vitrine_bert::{Checkpoint, Head, TokenBatch, write_atomically};

const TEXTS: [&str; 4] =
    ["This movie was absolutely fantastic!", "Not bad.", "Café naïve, 我喜欢 [SEP] film 👍", ""];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, model, output] = arguments.as_slice() else { return Err("usage: MODEL_DIR OUTPUT_DIR".into()) };
    let names = ["negative", "positive"].map(str::to_owned);
    let loaded =
        Checkpoint::open(Path::new(model))?.classifier(Head::KeepOrNew { names: &names, seed: 42 })?;
    let tokenizer = &loaded.tokenizer;
    loaded.model.save(Path::new(output), tokenizer)?;
    let mut cases = Vec::new();
    for text in TEXTS {
        let ids = tokenizer.encode(text, 512)?.ids;
        let batch = TokenBatch::new([&ids], None, loaded.model.config())?;
        let logits = loaded.model.logits(&Tape::inference(), &batch)?.value().to_vec::<f32>()?;
        cases.push(serde_json::json!({"text": text, "ids": ids, "logits": logits}));
    }
    write_atomically(&Path::new(output).join("logits.json"), &serde_json::to_vec_pretty(&cases)?)?;
    loaded.notes.iter().for_each(|note| println!("{note}"));
    Ok(())
}
