//! `vitrine explain patch`: where a model decides what differs between two texts.

use super::{Session, blocked_line, piece, tokens_json, watched};
use crate::args::{self, PatchedPart};
use crate::output::{self, Align, Failure, Outcome, line, printable, table};
use serde_json::json;
use vitrine_explain::{Patched, Patching, Text};

/// Tokens for which the table has columns.
const COLUMNS: usize = 16;

/// Runs the command.
pub fn run(arguments: &args::Patch) -> Outcome {
    let session = Session::new(&arguments.model, None, &arguments.explained)?;
    let (clean, corrupted) = (session.read(&arguments.clean)?, session.read(&arguments.corrupted)?);
    let blocks = session.blocks(&arguments.explained, &corrupted)?;
    let patched = match arguments.what {
        PatchedPart::Stream => Patched::Stream,
        PatchedPart::Attention => Patched::Attention,
        PatchedPart::FeedForward => Patched::FeedForward,
    };
    let work = |watch: &dyn Fn(usize, usize) -> bool| {
        session.subject.patch(&clean, &corrupted, &blocks, patched, watch)
    };
    let found = watched("patch", work).map_err(|failure| counted(failure, &clean, &corrupted))?;
    if arguments.explained.json {
        return output::json(&json!({
            "clean": { "text": clean.text, "tokens": tokens_json(&clean), "difference": found.clean },
            "corrupted": { "text": corrupted.text, "tokens": tokens_json(&corrupted), "difference": found.corrupted },
            "class": session.class_name(found.class),
            "against": session.class_name(found.against),
            "points": found.points,
            "recovered": found.recovered,
            "resolved": session.resolved,
        }));
    }
    blocked_line(&blocks, &corrupted).map_or(Ok(()), line)?;
    print(&session, (&clean, &corrupted), &found)
}

/// Where two texts have different numbers of tokens, with the tokens.
fn counted(failure: Failure, clean: &Text, corrupted: &Text) -> Failure {
    let pieces = |text: &Text| {
        text.tokens.iter().take(COLUMNS).map(|token| piece(&token.text)).collect::<Vec<_>>().join(" ")
    };
    match failure {
        Failure::Usage(message) if clean.size() != corrupted.size() => {
            Failure::Usage(format!("{message}: {} / {}", pieces(clean), pieces(corrupted)))
        }
        other => other,
    }
}

fn print(session: &Session, (clean, corrupted): (&Text, &Text), found: &Patching) -> Outcome {
    let [class, against] = [found.class, found.against].map(|class| printable(&session.class_name(class)));
    line(format!(
        "logit of {class} minus logit of {against}: {:+.4} for the first text, {:+.4} for the second",
        found.clean, found.corrupted
    ))?;
    line(
        "how much of that difference comes back when the second text is run with one value of the first: 0 none, 1 all",
    )?;
    // The tokens that matter most, in the order of the text.
    let most = |place: &usize| found.recovered.iter().fold(0.0f64, |most, row| most.max(row[*place].abs()));
    let mut places: Vec<usize> = (0..clean.size()).collect();
    places.sort_by(|a, b| most(b).total_cmp(&most(a)));
    places.truncate(COLUMNS);
    places.sort_unstable();
    let names: Vec<String> = places
        .iter()
        .map(|&place| {
            let [from, to] = [clean, corrupted].map(|text| piece(&text.tokens[place].text));
            if from == to { format!("{to} ({place})") } else { format!("{from}>{to} ({place})") }
        })
        .collect();
    let mut columns = vec![("value", Align::Left)];
    columns.extend(names.iter().map(|name| (name.as_str(), Align::Right)));
    let rows: Vec<Vec<String>> = found
        .points
        .iter()
        .zip(&found.recovered)
        .map(|(point, row)| {
            [point.clone()]
                .into_iter()
                .chain(places.iter().map(|&place| format!("{:+.2}", row[place])))
                .collect()
        })
        .collect();
    line(table(&columns, &rows))?;
    if places.len() < clean.size() {
        line(format!(
            "({} of {} tokens, those that bring most back; --json has all)",
            places.len(),
            clean.size()
        ))?;
    }
    Ok(())
}
