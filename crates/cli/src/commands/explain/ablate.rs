//! `vitrine explain ablate`: what a prediction owes to each head, layer or edge.

use super::{Session, blocked_line, each, headline, piece, tokens_json, watched};
use crate::args::{self, AblatedPart};
use crate::output::{self, Align, Failure, Outcome, line, printable, table, thousands};
use serde_json::{Value, json};
use vitrine_explain::{
    Ablations, Blocks, EdgeAblations, EdgeChange, ExplainError, LayerAblations, LayerChange, LayerPart,
    MOST_EDGES, Text,
};

/// Runs the command.
pub fn run(arguments: &args::Ablate) -> Outcome {
    if arguments.tokens.is_some() && arguments.what != AblatedPart::Edges {
        return Err(Failure::Usage("--tokens: only --what edges takes tokens".into()));
    }
    let session = Session::new(&arguments.model, None, &arguments.explained)?;
    each(&arguments.texts, |text| {
        let text = session.read(text)?;
        let blocks = session.blocks(&arguments.explained, &text)?;
        let (class, name) = session.class(arguments.class.as_deref(), &text)?;
        let subject = &session.subject;
        let found = match arguments.what {
            AblatedPart::Heads => {
                heads(&watched("heads", |watch| subject.ablate_heads(&text, &blocks, class, watch))?)
            }
            AblatedPart::Layers => {
                layers(&watched("layers", |watch| subject.ablate_layers(&text, &blocks, class, watch))?)
            }
            AblatedPart::Edges => {
                let all = tokens(arguments, &text)?;
                let between = (&all[..], &all[..]);
                let edge = |watch: &dyn Fn(usize, usize) -> bool| {
                    subject.ablate_edges(&text, &blocks, class, between, watch)
                };
                edges(&text, &watched("edges", edge)?)
            }
        };
        show(arguments, &session, (&text, &blocks), &name, found)
    })
}

/// The tokens whose edges are ablated.
fn tokens(arguments: &args::Ablate, text: &Text) -> Outcome<Vec<usize>> {
    let size = text.size();
    if let Some(range) = arguments.tokens {
        if range.to >= size {
            return Err(ExplainError::NoToken { index: range.to, count: size }.into());
        }
        return Ok((range.from..=range.to).collect());
    }
    if size * size > MOST_EDGES {
        return Err(Failure::Usage(format!(
            "the text has {} edges between its {size} tokens, and each costs a run; choose some with --tokens, such as 1-{}",
            thousands(size * size),
            MOST_EDGES.isqrt()
        )));
    }
    Ok((0..size).collect())
}

/// What was found of one text.
struct Found {
    /// What only this kind of ablation has in `--json`.
    json: Value,
    /// The line above the table, without how many of how many rows it shows.
    caption: String,
    /// What the rows are.
    unit: &'static str,
    columns: Vec<(&'static str, Align)>,
    /// All of them, the largest change first.
    rows: Vec<Vec<String>>,
}

fn show(
    arguments: &args::Ablate,
    session: &Session,
    (text, blocks): (&Text, &Blocks),
    class: &str,
    found: Found,
) -> Outcome {
    let Found { json, caption, unit, columns, rows } = found;
    if arguments.explained.json {
        let mut object = json!({ "text": text.text, "truncated": text.truncated, "class": class });
        object.as_object_mut().into_iter().for_each(|object| {
            object.extend(json.as_object().cloned().unwrap_or_default());
            object.insert("resolved".into(), json!(session.resolved));
        });
        return output::json(&object);
    }
    if let Some(prediction) = session.subject.predict(text, blocks)? {
        line(headline(session, &prediction))?;
    }
    blocked_line(blocks, text).map_or(Ok(()), line)?;
    let shown = &rows[..rows.len().min(arguments.top)];
    line(format!("the logit of {}, {caption}; {} of {} {unit}", printable(class), shown.len(), rows.len()))?;
    line(table(&columns, shown))
}

fn heads(found: &Ablations) -> Found {
    let row = |(layer, head, change): (usize, usize, f32)| {
        vec![format!("{layer}.{head}"), format!("{change:+.4}"), format!("{:.4}", found.logit + change)]
    };
    Found {
        json: json!({ "logit": found.logit, "changes": found.changes }),
        caption: format!("{:.4}, when a head's output is zero", found.logit),
        unit: "heads",
        columns: vec![("head", Align::Right), ("change", Align::Right), ("logit", Align::Right)],
        rows: found.ranked().into_iter().map(row).collect(),
    }
}

fn layers(found: &LayerAblations) -> Found {
    let name = |part| match part {
        LayerPart::Attention => "attention",
        LayerPart::FeedForward => "feed-forward",
        LayerPart::Layer => "all of it",
    };
    let row = |&LayerChange { layer, part, change }: &LayerChange| {
        let logit = format!("{:.4}", found.logit + change);
        vec![layer.to_string(), name(part).to_owned(), format!("{change:+.4}"), logit]
    };
    Found {
        json: json!({ "logit": found.logit, "parts": found.parts }),
        caption: format!("{:.4}, without a layer or a part of it", found.logit),
        unit: "parts",
        columns: vec![
            ("layer", Align::Right),
            ("left out", Align::Left),
            ("change", Align::Right),
            ("logit", Align::Right),
        ],
        rows: found.parts.iter().map(row).collect(),
    }
}

fn edges(text: &Text, found: &EdgeAblations) -> Found {
    let name = |place: usize| format!("{} ({place})", piece(&text.tokens[place].text));
    let row = |edge: &EdgeChange| vec![name(edge.query), name(edge.key), format!("{:+.4}", edge.change)];
    Found {
        json: json!({ "tokens": tokens_json(text), "logit": found.logit, "edges": found.edges }),
        caption: format!("{:.4}, when a token cannot attend to another in any layer or head", found.logit),
        unit: "edges",
        columns: vec![("from", Align::Left), ("to", Align::Left), ("change", Align::Right)],
        rows: found.edges.iter().map(row).collect(),
    }
}
