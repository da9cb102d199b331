//! `vitrine explain lens`: what the masked-language-model head would guess from each layer.

use super::{Session, blocked_line, each, piece, tokens_json};
use crate::args;
use crate::names::{ModelName, PRETRAINED};
use crate::output::{self, Align, Failure, Outcome, line, note, table};
use serde_json::json;
use vitrine_explain::{Guess, Lens, Text};

/// Tokens that are shown if none are asked for: each costs a product with the vocabulary in every layer.
const TOKENS: usize = 32;

/// Runs the command.
pub fn run(arguments: &args::Lens) -> Outcome {
    let model = arguments.model.clone().unwrap_or(ModelName::Embedded(PRETRAINED));
    let session = Session::new(&model, arguments.lens.as_ref(), &arguments.explained)?;
    each(&arguments.texts, |text| {
        let text = session.read(text)?;
        let blocks = session.blocks(&arguments.explained, &text)?;
        let rows = rows(arguments, &text);
        let lens = session.subject.lens(&text, &blocks, rows, arguments.top_k)?;
        let (from, layers) = match lens {
            Lens::Words { from, layers } => (from, layers),
            Lens::Unavailable { unavailable } => {
                return Err(Failure::Usage(format!("{unavailable}: --model embedded, or --lens embedded")));
            }
        };
        if arguments.explained.json {
            return output::json(&json!({
                "text": text.text,
                "truncated": text.truncated,
                "tokens": tokens_json(&text),
                "from": from,
                "layers": layers,
                "resolved": session.resolved,
            }));
        }
        blocked_line(&blocks, &text).map_or(Ok(()), line)?;
        print(&text, from, &layers)
    })
}

/// The tokens that are asked for, else the first ones, which is said.
pub(super) fn rows(arguments: &args::Lens, text: &Text) -> std::ops::Range<usize> {
    if let Some(range) = arguments.tokens {
        return range.from..range.to.saturating_add(1);
    }
    if text.size() > TOKENS {
        note(format!("the first {TOKENS} of {} tokens; --tokens chooses others", text.size()));
    }
    0..text.size().min(TOKENS)
}

/// What a table calls the depths of a model: the embeddings, then the layers.
pub(super) fn depths(count: usize) -> Vec<String> {
    let name = |depth: usize| match depth.checked_sub(1) {
        None => "embeddings".to_owned(),
        Some(layer) => format!("layer {layer}"),
    };
    (0..count).map(name).collect()
}

/// A row a token, a column a layer.
fn print(text: &Text, from: usize, layers: &[Vec<Vec<Guess>>]) -> Outcome {
    let names = depths(layers.len());
    let mut columns = vec![("token", Align::Right), ("", Align::Left)];
    columns.extend(names.iter().map(|name| (name.as_str(), Align::Left)));
    let mut rows = Vec::new();
    for place in 0..layers[0].len() {
        let most = layers.iter().map(|layer| layer[place].len()).max().unwrap_or(0);
        for rank in 0..most {
            let guess = |layer: &Vec<Vec<Guess>>| {
                layer[place]
                    .get(rank)
                    .map_or(String::new(), |guess| format!("{} {:.2}", piece(&guess.word), guess.probability))
            };
            let head = match rank {
                0 => [(from + place).to_string(), piece(&text.tokens[from + place].text)],
                _ => [String::new(), String::new()],
            };
            rows.push(head.into_iter().chain(layers.iter().map(guess)).collect());
        }
    }
    line("what the masked-language-model head would guess from each layer's states, with its probability")?;
    line(table(&columns, &rows))
}
