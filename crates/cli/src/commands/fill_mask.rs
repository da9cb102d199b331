//! `vitrine fill-mask`: what a masked language model expects in the place of a hidden word.

use super::resolve;
use crate::args::FillMask;
use crate::output::{self, Align, Failure, Outcome, line, note, printable, table, warn};
use serde::Serialize;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use vitrine_autograd::Tape;
use vitrine_bert::{Loaded, MaskedLm, TokenBatch, Tokenizer};
use vitrine_train::data::{LoadOptions, TextLines};

/// How other tokenizers write a mask: understood in every text.
const MASKS: [&str; 2] = ["[MASK]", "<mask>"];

/// One line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    text: &'a str,
    /// For each mask, in the text's order, the likeliest tokens.
    masks: Vec<Vec<Guess>>,
}

/// A token and its probability.
#[derive(Serialize)]
struct Guess {
    token: String,
    id: u32,
    score: f32,
    /// The text with this token in the place of the mask; the other masks stay.
    sequence: String,
}

/// Runs the command.
pub fn run(arguments: &FillMask) -> Outcome {
    let resolved = resolve(&arguments.compute)?;
    let Loaded { mut model, tokenizer, notes } = MaskedLm::load(&arguments.model.trained()?)?;
    notes.iter().for_each(warn);
    let Some((mask, mask_id)) = tokenizer.mask().map(|(token, id)| (token.to_owned(), id)) else {
        let message = format!("{}: its tokenizer has no mask token", arguments.model);
        return Err(Failure::Run(message));
    };
    model.to_device(resolved.place).and_then(|()| model.compute_in(resolved.compute))?;
    let fill = |text: &str| {
        let mut text = text.to_owned();
        for other in MASKS.iter().filter(|other| **other != mask) {
            text = text.replace(other, &mask);
        }
        let masks = guesses(&model, &tokenizer, &text, (&mask, mask_id), arguments.top_k)?;
        print(arguments, &text, masks)
    };
    match &arguments.texts[..] {
        [] => {}
        [only] if only == "-" => {}
        texts => return texts.iter().try_for_each(|text| fill(text)),
    }
    if io::stdin().is_terminal() {
        note(format!("reading texts with {mask} from standard input, one a line; Ctrl-D ends"));
    }
    let options = LoadOptions::default();
    let mut lines = TextLines::new(io::stdin().lock(), "standard input", &options);
    let mut any = false;
    loop {
        let texts = lines.ready(1)?;
        let [text] = &texts[..] else { break };
        any = true;
        fill(text)?;
    }
    if any {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "no text: give TEXT with {mask} in it, or texts on standard input, one a line"
    )))
}

/// For each mask of a text the `top_k` likeliest tokens.
fn guesses(
    model: &MaskedLm,
    tokenizer: &Tokenizer,
    text: &str,
    (mask, mask_id): (&str, u32),
    top_k: usize,
) -> Outcome<Vec<Vec<Guess>>> {
    let most = model.config().max_length();
    let encoding = tokenizer.encode(text, most)?;
    let rows: Arc<[u32]> =
        (0..encoding.ids.len() as u32).filter(|&row| encoding.ids[row as usize] == mask_id).collect();
    let written = text.matches(mask).count();
    if written == 0 {
        let message = format!(
            "no {mask} in the text: write it in the place of the word to guess, as in \"the movie was {mask}\""
        );
        return Err(Failure::Usage(message));
    }
    if rows.len() < written {
        return Err(Failure::Run(format!(
            "the text has {written} {mask}, of which {} lie within the model's {most} tokens; cut the text",
            rows.len()
        )));
    }
    let batch = TokenBatch::new([&encoding.ids[..]], None, model.config())?;
    let tape = Tape::inference();
    let probabilities = model.logits(&tape, &batch, &rows)?.softmax()?.value().to_vec::<f32>()?;
    let width = probabilities.len() / rows.len();
    let places = rows.iter().map(|&row| encoding.offsets[row as usize].clone());
    let all = probabilities.chunks(width).zip(places).map(|(scores, place)| {
        let known: Vec<u32> = (0..width as u32).filter(|&id| tokenizer.token(id).is_some()).collect();
        let mut ranked = known;
        ranked.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
        let guess = |id: u32| {
            let token = tokenizer.token(id).unwrap_or_default();
            let word = token.strip_prefix("##").unwrap_or(&token).replace('\u{120}', " ");
            // A piece of a word is written onto the word before it.
            let before =
                if token.starts_with("##") { text[..place.start].trim_end() } else { &text[..place.start] };
            let sequence = format!("{before}{}{}", word.trim_start(), &text[place.end..]);
            Guess { token, id, score: scores[id as usize], sequence }
        };
        ranked.into_iter().take(top_k).map(guess).collect()
    });
    Ok(all.collect())
}

fn print(arguments: &FillMask, text: &str, masks: Vec<Vec<Guess>>) -> Outcome {
    if arguments.json {
        return output::json(&Line { text, masks });
    }
    let several = masks.len() > 1;
    for (index, guesses) in masks.iter().enumerate() {
        if several {
            line(format!("mask {} of {}", index + 1, masks.len()))?;
        }
        let row = |guess: &Guess| {
            let sequence = printable(&guess.sequence).replace('\n', " ");
            vec![format!("{:.4}", guess.score), printable(&guess.token), sequence]
        };
        let rows: Vec<Vec<String>> = guesses.iter().map(row).collect();
        let columns = [("score", Align::Right), ("token", Align::Left), ("text", Align::Left)];
        line(table(&columns, &rows))?;
    }
    Ok(())
}
