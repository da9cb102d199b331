//! `vitrine explain attention`: where heads look.

use super::{Session, blocked_line, each, headline, piece, tokens_json, word};
use crate::args::{self, HeadName};
use crate::output::{self, Align, Outcome, line, table};
use serde_json::{Value, json};
use vitrine_explain::{Attention, ExplainError, HeadNumbers, Text};

/// Runs the command.
pub fn run(arguments: &args::Attention) -> Outcome {
    let session = Session::new(&arguments.model, None, &arguments.explained)?;
    let config = session.subject.config();
    if let Some(head) = arguments.head {
        let check = |what, index: usize, count| match index < count {
            true => Ok(()),
            false => Err(ExplainError::NoPart { what, index, count }),
        };
        check("layer", head.layer, config.num_hidden_layers)?;
        check("head", head.head, config.num_attention_heads)?;
    }
    each(&arguments.texts, |text| {
        let text = session.read(text)?;
        let blocks = session.blocks(&arguments.explained, &text)?;
        let attention = session.subject.attention(&text, &blocks)?;
        if arguments.explained.json {
            return output::json(&as_json(arguments, &session, &text, &attention));
        }
        if let Some(prediction) = &attention.prediction {
            line(headline(&session, prediction))?;
        }
        blocked_line(&blocks, &text).map_or(Ok(()), line)?;
        match arguments.head {
            Some(head) => print_map(head, &text, &attention),
            None => {
                print_layers(&text, &attention)?;
                print_heads(arguments.top, &text, &attention)?;
                print_rollout(arguments.top, &text, &attention)
            }
        }
    })
}

/// Layer and head of every head.
fn all_heads(attention: &Attention) -> impl Iterator<Item = (usize, usize)> {
    let heads = attention.heads();
    (0..attention.layers()).flat_map(move |layer| (0..heads).map(move |head| (layer, head)))
}

fn as_json(arguments: &args::Attention, session: &Session, text: &Text, attention: &Attention) -> Value {
    let size = attention.size();
    let heads: Vec<Value> = all_heads(attention)
        .map(|(layer, head)| {
            let mut object = json!(attention.numbers(layer, head));
            object["layer"] = json!(layer);
            object["head"] = json!(head);
            object
        })
        .collect();
    let mut object = json!({
        "text": text.text,
        "prediction": attention.prediction,
        "truncated": text.truncated,
        "tokens": tokens_json(text),
        "heads": heads,
        "rollout": attention.rollout()[..size],
        "resolved": session.resolved,
    });
    if let Some(HeadName { layer, head }) = arguments.head {
        let rows: Vec<&[f32]> = attention.map(layer, head).chunks(size).collect();
        object["map"] = json!({ "layer": layer, "head": head, "probabilities": rows });
    }
    object
}

/// The names of the first and the last token, which every text has.
fn ends(text: &Text) -> [String; 2] {
    [0, text.size() - 1].map(|place| format!("on {}", piece(&text.tokens[place].text)))
}

fn cells(numbers: &HeadNumbers) -> Vec<String> {
    let HeadNumbers { entropy, cls, sep, previous, next, same } = *numbers;
    [entropy, cls, sep, previous, next, same].map(|number| format!("{number:.3}")).to_vec()
}

fn print_layers(text: &Text, attention: &Attention) -> Outcome {
    let [first, last] = ends(text);
    let columns = [
        ("layer", Align::Right),
        ("entropy", Align::Right),
        (&first, Align::Right),
        (&last, Align::Right),
        ("previous", Align::Right),
        ("next", Align::Right),
        ("itself", Align::Right),
    ];
    let rows: Vec<Vec<String>> = (0..attention.layers())
        .map(|layer| {
            let heads: Vec<HeadNumbers> =
                (0..attention.heads()).map(|head| attention.numbers(layer, head)).collect();
            let mean = |of: fn(&HeadNumbers) -> f64| heads.iter().map(of).sum::<f64>() / heads.len() as f64;
            let mean = HeadNumbers {
                entropy: mean(|h| h.entropy),
                cls: mean(|h| h.cls),
                sep: mean(|h| h.sep),
                previous: mean(|h| h.previous),
                next: mean(|h| h.next),
                same: mean(|h| h.same),
            };
            [vec![layer.to_string()], cells(&mean)].concat()
        })
        .collect();
    line("mean of each layer's heads: entropy in nats, and the share of attention that goes to")?;
    line(table(&columns, &rows))
}

fn print_heads(top: usize, text: &Text, attention: &Attention) -> Outcome {
    let [first, last] = ends(text);
    let mut heads: Vec<(usize, usize, HeadNumbers)> =
        all_heads(attention).map(|(layer, head)| (layer, head, attention.numbers(layer, head))).collect();
    heads.sort_by(|a, b| a.2.entropy.total_cmp(&b.2.entropy));
    let rows: Vec<Vec<String>> = heads
        .iter()
        .take(top)
        .map(|(layer, head, numbers)| [vec![format!("{layer}.{head}")], cells(numbers)].concat())
        .collect();
    let columns = [
        ("head", Align::Right),
        ("entropy", Align::Right),
        (&first, Align::Right),
        (&last, Align::Right),
        ("previous", Align::Right),
        ("next", Align::Right),
        ("itself", Align::Right),
    ];
    line(format!(
        "\nthe {} most focused of {} heads; --head LAYER.HEAD shows one's map",
        rows.len(),
        heads.len()
    ))?;
    line(table(&columns, &rows))
}

fn print_rollout(top: usize, text: &Text, attention: &Attention) -> Outcome {
    let rollout = attention.rollout();
    let first: Vec<f64> = rollout[..attention.size()].to_vec();
    let mut words = text.by_word(&first);
    let count = words.len();
    words.sort_by(|a, b| b.1.total_cmp(&a.1));
    let rows: Vec<Vec<String>> = words
        .into_iter()
        .take(top)
        .map(|(tokens, share)| vec![format!("{share:.4}"), word(text, tokens)])
        .collect();
    let name = piece(&text.tokens[0].text);
    line(format!(
        "\nattention rollout of {name}: the share of it that comes from a word; {} of {count}",
        rows.len()
    ))?;
    line(table(&[("share", Align::Right), ("word", Align::Left)], &rows))
}

/// For each query the three keys that it attends to most.
fn print_map(HeadName { layer, head }: HeadName, text: &Text, attention: &Attention) -> Outcome {
    const KEYS: usize = 3;
    let size = attention.size();
    let rows: Vec<Vec<String>> = attention
        .map(layer, head)
        .chunks(size)
        .enumerate()
        .map(|(query, row)| {
            let mut keys: Vec<usize> = (0..size).collect();
            keys.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            let shown = keys
                .iter()
                .take(KEYS)
                .map(|&key| format!("{:.3} {} ({key})", row[key], piece(&text.tokens[key].text)));
            let shown = shown.collect::<Vec<_>>().join("  ");
            vec![query.to_string(), piece(&text.tokens[query].text), shown]
        })
        .collect();
    line(format!("head {layer}.{head}: what each token attends to most; --json has the whole map"))?;
    line(table(&[("token", Align::Right), ("", Align::Left), ("attends to", Align::Left)], &rows))
}
