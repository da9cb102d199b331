//! `vitrine explain lens --backward`: how a class's logit would change with the states of each layer.

use super::lens::{depths, rows};
use super::{Session, blocked_line, each, headline, piece, tokens_json};
use crate::args;
use crate::names::{CLASSIFIER, ModelName};
use crate::output::{self, Align, Outcome, line, printable, table};
use serde_json::json;
use vitrine_explain::{BackwardLens, Text};

/// Runs the command.
pub fn run(arguments: &args::Lens) -> Outcome {
    let model = arguments.model.clone().unwrap_or(ModelName::Embedded(CLASSIFIER));
    let session = Session::new(&model, None, &arguments.explained)?;
    each(&arguments.texts, |text| {
        let text = session.read(text)?;
        let blocks = session.blocks(&arguments.explained, &text)?;
        let (class, name) = session.class(arguments.class.as_deref(), &text)?;
        let rows = rows(arguments, &text);
        let found = session.subject.backward_lens(&text, &blocks, class, rows, arguments.top_k)?;
        if arguments.explained.json {
            return output::json(&json!({
                "text": text.text,
                "truncated": text.truncated,
                "tokens": tokens_json(&text),
                "class": name,
                "logit": found.logit,
                "norms": found.norms,
                "cosines": found.cosines,
                "from": found.from,
                "words": found.words,
                "resolved": session.resolved,
            }));
        }
        if let Some(prediction) = session.subject.predict(&text, &blocks)? {
            line(headline(&session, &prediction))?;
        }
        blocked_line(&blocks, &text).map_or(Ok(()), line)?;
        print(&text, &name, &found)
    })
}

fn print(text: &Text, class: &str, found: &BackwardLens) -> Outcome {
    let names = depths(found.norms.len());
    let columns = |first: &'static str| {
        let mut columns = vec![("token", Align::Right), (first, Align::Left)];
        columns.extend(names.iter().map(|name| (name.as_str(), Align::Right)));
        columns
    };
    let count = found.words[0].len();
    let head = |place: usize| [place.to_string(), piece(&text.tokens[place].text)].into_iter();
    let places = || found.from..found.from + count;
    line(format!(
        "the gradient of the logit of {} with respect to each layer's states: its length, and in brackets its cosine with the state",
        printable(class)
    ))?;
    let numbers = places().map(|place| {
        let cells = found.norms.iter().zip(&found.cosines);
        let cells = cells.map(|(norms, cosines)| format!("{:.3} ({:+.2})", norms[place], cosines[place]));
        head(place).chain(cells).collect()
    });
    line(table(&columns(""), &numbers.collect::<Vec<Vec<String>>>()))?;
    line(
        "\nthe words along whose embedding the logit rises fastest, and by how much for a step of length 1",
    )?;
    let mut rows: Vec<Vec<String>> = Vec::new();
    for place in places() {
        for rank in 0..found.words[0][place - found.from].len() {
            let cell = |layer: &Vec<Vec<vitrine_explain::Direction>>| {
                let word = &layer[place - found.from][rank];
                // A gradient of zero has no direction.
                if word.rise == 0.0 {
                    "-".to_owned()
                } else {
                    format!("{} {:+.2}", piece(&word.word), word.rise)
                }
            };
            let cells = found.words.iter().map(cell);
            rows.push(match rank {
                0 => head(place).chain(cells).collect(),
                _ => [String::new(), String::new()].into_iter().chain(cells).collect(),
            });
        }
    }
    line(table(&columns(""), &rows))
}
