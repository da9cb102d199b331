//! `vitrine explain attributions`: what each word adds to a class's logit.

use super::{Session, blocked_line, each, headline, tokens_json, watched, word};
use crate::args::{self, BaselineName, MethodName};
use crate::output::{self, Align, Failure, Outcome, Style, line, paint, printable, table, warn};
use serde_json::{Map, Value, json};
use std::io;
use vitrine_explain::{Attributions, Baseline, Blocks, Method, Steps, Text, Wanted};

/// Signs that stand for the largest value of a text.
const SIGNS: usize = 24;
/// Words that are drawn with colours above the table.
const DRAWN: usize = 600;

/// Runs the command.
pub fn run(arguments: &args::Attributions) -> Outcome {
    let session = Session::new(&arguments.model, None, &arguments.explained)?;
    each(&arguments.texts, |text| {
        let text = session.read(text)?;
        let blocks = session.blocks(&arguments.explained, &text)?;
        let (class, name) = session.class(arguments.class.as_deref(), &text)?;
        let wanted = wanted(arguments, class)?;
        let found =
            watched("attributions", |watch| session.subject.attribute(&text, &blocks, &wanted, watch))?;
        if arguments.explained.json {
            return output::json(&as_json(arguments, &session, &text, &name, &found));
        }
        print(arguments, &session, (&text, &blocks), &name, &found)
    })
}

fn wanted(arguments: &args::Attributions, class: usize) -> Outcome<Wanted> {
    let method = match arguments.method {
        MethodName::Integrated => Method::IntegratedGradients,
        MethodName::Gradient => Method::GradientXInput,
        MethodName::Occlusion => Method::Occlusion,
    };
    if arguments.steps.is_some() && method != Method::IntegratedGradients {
        return Err(Failure::Usage("--steps: only --method integrated takes steps".into()));
    }
    let baseline = match arguments.baseline {
        BaselineName::Pad => Baseline::Pad,
        BaselineName::Mask => Baseline::Mask,
        BaselineName::Zero => Baseline::Zero,
    };
    let steps = match arguments.steps {
        Some(steps) => Steps::Fixed(steps),
        None => Steps::Adaptive { tolerance: 0.01, most: arguments.most_steps },
    };
    Ok(Wanted { method, class, baseline, steps })
}

/// Everything, each token with its value.
fn as_json(
    arguments: &args::Attributions,
    session: &Session,
    text: &Text,
    class: &str,
    found: &Attributions,
) -> Value {
    let mut tokens = tokens_json(text);
    let each = tokens.as_array_mut().into_iter().flatten().zip(&found.values);
    each.for_each(|(token, value)| token["value"] = json!(value));
    let words: Vec<Value> = text
        .by_word(&found.values)
        .into_iter()
        .map(|(tokens, value)| json!({ "word": word(text, tokens.clone()), "from": tokens.start, "to": tokens.end - 1, "value": value }))
        .collect();
    let has_baseline = found.total.is_some() || arguments.method == MethodName::Occlusion;
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| drop(object.insert(name.into(), value));
    put("text", json!(text.text));
    put("method", json!(name_of(&arguments.method)));
    put("class", json!(class));
    put("logit", json!(found.logit));
    put("baseline", json!(has_baseline.then(|| name_of(&arguments.baseline))));
    put("total", json!(found.total));
    put("gap", json!(found.gap));
    put("steps", json!(found.steps));
    put("converged", json!(found.converged));
    put("truncated", json!(text.truncated));
    put("tokens", tokens);
    put("words", json!(words));
    put("resolved", json!(session.resolved));
    Value::Object(object)
}

fn name_of(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn print(
    arguments: &args::Attributions,
    session: &Session,
    (text, blocks): (&Text, &Blocks),
    class: &str,
    found: &Attributions,
) -> Outcome {
    if let Some(prediction) = session.subject.predict(text, blocks)? {
        line(headline(session, &prediction))?;
    }
    blocked_line(blocks, text).map_or(Ok(()), line)?;
    let words = text.by_word(&found.values);
    let largest = words.iter().fold(0.0f64, |most, word| most.max(word.1.abs()));
    if let Some(drawn) = coloured(text, &words, largest) {
        line(drawn)?;
    }
    line(summary(arguments, class, found))?;
    if !found.converged {
        warn(format!(
            "the values miss the logit's change by {:.1} % after {} steps; --most-steps {} takes more",
            100.0 * found.gap.unwrap_or(f64::INFINITY),
            found.steps.unwrap_or(0),
            4 * found.steps.unwrap_or(0)
        ));
    }
    let mut ranked = words.clone();
    ranked.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let rows: Vec<Vec<String>> = ranked
        .iter()
        .take(arguments.top)
        .map(|(tokens, value)| {
            let place = match tokens.len() {
                1 => tokens.start.to_string(),
                _ => format!("{}-{}", tokens.start, tokens.end - 1),
            };
            vec![place, word(text, tokens.clone()), format!("{value:+.4}"), signs(*value, largest)]
        })
        .collect();
    let columns =
        [("token", Align::Right), ("word", Align::Left), ("value", Align::Right), ("", Align::Left)];
    line(table(&columns, &rows))?;
    if rows.len() < words.len() {
        line(format!("({} of {} words; --top and --json show more)", rows.len(), words.len()))?;
    }
    Ok(())
}

fn summary(arguments: &args::Attributions, class: &str, found: &Attributions) -> String {
    let (class, baseline) = (printable(class), name_of(&arguments.baseline).to_uppercase());
    let logit = format!("the logit of {class}, {:.4}", found.logit);
    match (found.total, found.gap, found.steps) {
        (Some(total), gap, Some(steps)) => format!(
            "{logit}; {:.4} without words ({baseline} in their place): a change of {total:+.4}, of which the values miss {} in {steps} steps",
            found.logit - total,
            gap.map_or("all".to_owned(), |gap| format!("{:.2} %", 100.0 * gap)),
        ),
        _ if arguments.method == MethodName::Occlusion => {
            format!(
                "{logit}; how much lower it is with {baseline} in a word's place, each of its tokens alone"
            )
        }
        _ => format!("{logit}; its gradient by each word's embedding, times the embedding"),
    }
}

/// A bar of plus or minus signs.
fn signs(value: f64, largest: f64) -> String {
    let length = (SIGNS as f64 * value.abs() / largest).round();
    // NaN, of a text whose values are all zero, is no length.
    let sign = if value > 0.0 { "+" } else { "-" };
    sign.repeat(length as usize)
}

/// The text with words that speak for the class in blue and those against it in orange, stronger ones brighter; none where there are no
/// colours. Blue and orange are told apart by the colour-blind.
fn coloured(text: &Text, words: &[(std::ops::Range<usize>, f64)], largest: f64) -> Option<String> {
    let plain = "x";
    if paint(&io::stdout(), Style::Bold, plain) == plain || largest <= 0.0 {
        return None;
    }
    let part = |(tokens, value): &(std::ops::Range<usize>, f64)| {
        let word = word(text, tokens.clone());
        // Colours of the 6 x 6 x 6 cube of terminals with 256.
        let shades: [u8; 5] = if *value > 0.0 { [16, 17, 18, 20, 27] } else { [16, 52, 94, 130, 166] };
        match (4.0 * value.abs() / largest).round() as usize {
            0 => word,
            strength => format!("\x1b[97;48;5;{}m{word}\x1b[0m", shades[strength.min(4)]),
        }
    };
    Some(words.iter().take(DRAWN).map(part).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_grow_with_the_value() {
        assert_eq!(signs(2.0, 2.0), "+".repeat(SIGNS));
        assert_eq!(signs(-1.0, 2.0), "-".repeat(SIGNS / 2));
        assert_eq!(signs(0.0, 0.0), "");
    }
}
