//! `vitrine explain ablate`: what a prediction owes to each head, layer or edge.

use super::{Session, blocked_line, each, headline, piece, tokens_json, watched};
use crate::args::{self, AblatedPart};
use crate::output::{self, Align, Failure, Outcome, line, printable, table, thousands};
use serde_json::json;
use vitrine_explain::{
    Ablations, Blocks, EdgeAblations, ExplainError, LayerAblations, LayerChange, LayerPart, MOST_EDGES, Text,
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
        match arguments.what {
            AblatedPart::Heads => {
                let found =
                    watched("heads", |watch| session.subject.ablate_heads(&text, &blocks, class, watch))?;
                heads(arguments, &session, (&text, &blocks), &name, &found)
            }
            AblatedPart::Layers => {
                let found =
                    watched("layers", |watch| session.subject.ablate_layers(&text, &blocks, class, watch))?;
                layers(arguments, &session, (&text, &blocks), &name, &found)
            }
            AblatedPart::Edges => {
                let all = tokens(arguments, &text)?;
                let found = watched("edges", |watch| {
                    session.subject.ablate_edges(&text, &blocks, class, (&all, &all), watch)
                })?;
                edges(arguments, &session, (&text, &blocks), &name, &found)
            }
        }
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

fn head_of_output(session: &Session, text: &Text, blocks: &Blocks) -> Outcome {
    if let Some(prediction) = session.subject.predict(text, blocks)? {
        line(headline(session, &prediction))?;
    }
    blocked_line(blocks, text).map_or(Ok(()), line)
}

fn heads(
    arguments: &args::Ablate,
    session: &Session,
    (text, blocks): (&Text, &Blocks),
    class: &str,
    found: &Ablations,
) -> Outcome {
    if arguments.explained.json {
        return output::json(&json!({
            "text": text.text,
            "truncated": text.truncated,
            "class": class,
            "logit": found.logit,
            "changes": found.changes,
            "resolved": session.resolved,
        }));
    }
    head_of_output(session, text, blocks)?;
    let ranked = found.ranked();
    let rows: Vec<Vec<String>> = ranked
        .iter()
        .take(arguments.top)
        .map(|(layer, head, change)| {
            vec![format!("{layer}.{head}"), format!("{change:+.4}"), format!("{:.4}", found.logit + change)]
        })
        .collect();
    line(format!(
        "the logit of {}, {:.4}, when a head's output is zero; {} of {} heads",
        printable(class),
        found.logit,
        rows.len(),
        ranked.len()
    ))?;
    line(table(&[("head", Align::Right), ("change", Align::Right), ("logit", Align::Right)], &rows))
}

fn layers(
    arguments: &args::Ablate,
    session: &Session,
    (text, blocks): (&Text, &Blocks),
    class: &str,
    found: &LayerAblations,
) -> Outcome {
    if arguments.explained.json {
        return output::json(&json!({
            "text": text.text,
            "truncated": text.truncated,
            "class": class,
            "logit": found.logit,
            "parts": found.parts,
            "resolved": session.resolved,
        }));
    }
    head_of_output(session, text, blocks)?;
    let name = |part| match part {
        LayerPart::Attention => "attention",
        LayerPart::FeedForward => "feed-forward",
        LayerPart::Layer => "all of it",
    };
    let rows: Vec<Vec<String>> = found
        .parts
        .iter()
        .take(arguments.top)
        .map(|&LayerChange { layer, part, change }| {
            let logit = format!("{:.4}", found.logit + change);
            vec![layer.to_string(), name(part).to_owned(), format!("{change:+.4}"), logit]
        })
        .collect();
    line(format!(
        "the logit of {}, {:.4}, without a layer or a part of it; {} of {} parts",
        printable(class),
        found.logit,
        rows.len(),
        found.parts.len()
    ))?;
    let columns = [
        ("layer", Align::Right),
        ("left out", Align::Left),
        ("change", Align::Right),
        ("logit", Align::Right),
    ];
    line(table(&columns, &rows))
}

fn edges(
    arguments: &args::Ablate,
    session: &Session,
    (text, blocks): (&Text, &Blocks),
    class: &str,
    found: &EdgeAblations,
) -> Outcome {
    if arguments.explained.json {
        return output::json(&json!({
            "text": text.text,
            "truncated": text.truncated,
            "tokens": tokens_json(text),
            "class": class,
            "logit": found.logit,
            "edges": found.edges,
            "resolved": session.resolved,
        }));
    }
    head_of_output(session, text, blocks)?;
    let name = |place: usize| format!("{} ({place})", piece(&text.tokens[place].text));
    let rows: Vec<Vec<String>> = found
        .edges
        .iter()
        .take(arguments.top)
        .map(|edge| vec![name(edge.query), name(edge.key), format!("{:+.4}", edge.change)])
        .collect();
    line(format!(
        "the logit of {}, {:.4}, when a token cannot attend to another in any layer or head; {} of {} edges",
        printable(class),
        found.logit,
        rows.len(),
        found.edges.len()
    ))?;
    line(table(&[("from", Align::Left), ("to", Align::Left), ("change", Align::Right)], &rows))
}
