//! Saves a model and its logits beside it, for `tests/goldens/check_saved.py`: a masked language model with its logits for every
//! token, anything else as a classifier (with a new head where it has none).
//!
//! `cargo run --release -p vitrine-bert --example save_logits -- MODEL_DIR OUTPUT_DIR`

use std::path::Path;
use vitrine_autograd::{Tape, Var};
use vitrine_bert::{
    Checkpoint, Head, Loaded, MaskedLm, ModelConfig, SequenceClassifier, TokenBatch, Tokenizer,
    write_atomically,
};

const TEXTS: [&str; 4] =
    ["This movie was absolutely fantastic!", "Not bad.", "Café naïve, 我喜欢 [SEP] film 👍", ""];

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, model, output] = arguments.as_slice() else { return Err("usage: MODEL_DIR OUTPUT_DIR".into()) };
    let (model, output) = (Path::new(model), Path::new(output));
    let open = || Checkpoint::open(model);
    let names = ["negative", "positive"].map(str::to_owned);
    let masked_lm = if open()?.classes()?.is_none() { open()?.masked_lm().ok() } else { None };
    let notes = match masked_lm {
        Some(Loaded { model, tokenizer, notes }) => {
            model.save(output, &tokenizer)?;
            save(output, &tokenizer, model.config(), |tape, batch| masked_logits(&model, tape, batch))?;
            notes
        }
        None => {
            let head = Head::KeepOrNew { names: &names, seed: 42 };
            let loaded: Loaded<SequenceClassifier> = open()?.classifier(head)?;
            let (model, tokenizer) = (&loaded.model, &loaded.tokenizer);
            model.save(output, tokenizer)?;
            save(output, tokenizer, model.config(), |tape, batch| Ok(model.logits(tape, batch)?))?;
            loaded.notes
        }
    };
    notes.iter().for_each(|note| println!("{note}"));
    Ok(())
}

/// Logits of every token over the vocabulary: `[T, V]`.
fn masked_logits<'t>(model: &MaskedLm, tape: &'t Tape, batch: &TokenBatch) -> Result<Var<'t>> {
    let rows = (0..batch.len() as u32).collect();
    Ok(model.logits(tape, batch, &rows)?)
}

/// Writes `logits.json`: for each text its ids, and its logits in row-major order.
fn save(
    output: &Path,
    tokenizer: &Tokenizer,
    config: &ModelConfig,
    logits: impl for<'t> Fn(&'t Tape, &TokenBatch) -> Result<Var<'t>>,
) -> Result<()> {
    let mut cases = Vec::new();
    for text in TEXTS {
        let ids = tokenizer.encode(text, 512)?.ids;
        let batch = TokenBatch::new([&ids], None, config)?;
        let tape = Tape::inference();
        let logits = logits(&tape, &batch)?.value().to_vec::<f32>()?;
        cases.push(serde_json::json!({"text": text, "ids": ids, "logits": logits}));
    }
    Ok(write_atomically(&output.join("logits.json"), &serde_json::to_vec(&cases)?)?)
}
