//! `vitrine explain`: methods that say what a model does with a text. Each has a file; what they share stands here.

mod ablate;
mod attention;
mod attributions;
mod backward;
mod drift;
mod lens;
mod patch;
mod probe;

use super::{Resolved, resolve};
use crate::args::{EdgeName, Explain, Explained};
use crate::names::ModelName;
use crate::output::{Failure, Outcome, Style, note, paint, printable, warn};
use crate::progress::Progress;
use crate::report;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};
use vitrine_explain::{Blocks, Edge, ExplainError, Prediction, Subject, Text};
use vitrine_train::data::{LoadOptions, TextLines};

/// Work that ends before that shows no bar.
const UNSEEN: Duration = Duration::from_secs(2);

impl From<ExplainError> for Failure {
    fn from(error: ExplainError) -> Self {
        match error.is_usage() {
            true => Failure::Usage(error.to_string()),
            false => Failure::Run(error.to_string()),
        }
    }
}

/// Runs the command.
pub fn run(command: &Explain) -> Outcome {
    match command {
        Explain::Attributions(arguments) => attributions::run(arguments),
        Explain::Attention(arguments) => attention::run(arguments),
        Explain::Lens(arguments) if arguments.backward => backward::run(arguments),
        Explain::Lens(arguments) => lens::run(arguments),
        Explain::Ablate(arguments) => ablate::run(arguments),
        Explain::Patch(arguments) => patch::run(arguments),
        Explain::Probe(arguments) => probe::run(arguments),
        Explain::Drift(arguments) => drift::run(arguments),
    }
}

/// A model that is ready, and how its texts are read.
struct Session {
    subject: Subject,
    max_length: usize,
    resolved: Resolved,
}

impl Session {
    fn new(model: &ModelName, lens: Option<&ModelName>, explained: &Explained) -> Outcome<Session> {
        let resolved = resolve(&explained.compute)?;
        let mut subject = Subject::load(&model.trained()?)?;
        subject.notes().iter().for_each(warn);
        if let Some(lens) = lens {
            subject.borrow_head(&lens.trained()?)?;
        }
        let max_length = report::max_length(explained.max_length, subject.config())?;
        if let Some(asked) = explained.truncate {
            let is_trained = subject.classes().is_some();
            report::truncating(subject.tokenizer().clone(), Some(asked), is_trained);
            subject.set_truncation(asked);
        }
        subject.prepare(resolved.place, resolved.compute)?;
        Ok(Session { subject, max_length, resolved })
    }

    /// A text as the model reads it; what was cut off is said.
    fn read(&self, text: &str) -> Outcome<Text> {
        let text = self.subject.read_at_most(text, self.max_length)?;
        if text.truncated > 0 {
            let read = report::read_tokens(self.subject.tokenizer(), text.size());
            warn(format!("only {read} of this text were read, and {} were cut off", text.truncated));
        }
        Ok(text)
    }

    /// What is blocked, its tokens found in this text.
    fn blocks(&self, explained: &Explained, text: &Text) -> Outcome<Blocks> {
        let heads = explained.ablate.iter().map(|name| (name.layer, name.head)).collect();
        let edge = |name: &EdgeName| -> Outcome<Edge> {
            let (query, key) = (token(&name.query, text)?, token(&name.key, text)?);
            Ok(Edge { layer: name.layer, head: name.head, query, key })
        };
        let blocks = Blocks { heads, edges: explained.block.iter().map(edge).collect::<Outcome<_>>()? };
        blocks.check(&self.subject, text.size())?;
        Ok(blocks)
    }

    /// The class that is asked for, else the one that is predicted with nothing blocked; and its name.
    fn class(&self, asked: Option<&str>, text: &Text) -> Outcome<(usize, String)> {
        let Some(asked) = asked else {
            self.subject.check_class(0)?;
            let prediction = self.subject.predict(text, &Blocks::none())?;
            let class = prediction.map_or(0, |prediction| prediction.class());
            return Ok((class, self.class_name(class)));
        };
        let names = self.subject.classes().unwrap_or_default();
        let class = names.iter().position(|name| name == asked).or_else(|| asked.parse().ok());
        let Some(class) = class else {
            self.subject.check_class(0)?;
            let names: Vec<String> = names.iter().map(|name| printable(name)).collect();
            return Err(Failure::Usage(format!(
                "--class {asked}: this model has the classes {}; give a name or a number from 0 on",
                names.join(", ")
            )));
        };
        self.subject.check_class(class)?;
        Ok((class, self.class_name(class)))
    }

    fn class_name(&self, class: usize) -> String {
        self.subject.classes().and_then(|names| names.get(class).cloned()).unwrap_or_default()
    }
}

/// The place of a token that is named by number or by its piece.
fn token(name: &str, text: &Text) -> Outcome<usize> {
    if let Ok(place) = name.parse::<usize>() {
        return match place < text.size() {
            true => Ok(place),
            false => Err(ExplainError::NoToken { index: place, count: text.size() }.into()),
        };
    }
    let found: Vec<usize> = (0..text.size()).filter(|&place| text.tokens[place].text == name).collect();
    match found[..] {
        [place] => Ok(place),
        [] => {
            let pieces: Vec<String> =
                text.tokens.iter().take(40).map(|token| printable(&token.text)).collect();
            Err(Failure::Usage(format!("--block: no token is {name:?}; the text has {}", pieces.join(" "))))
        }
        _ => {
            let places: Vec<String> = found.iter().map(ToString::to_string).collect();
            Err(Failure::Usage(format!(
                "--block: {name:?} is at {}; give the number of the one that is meant",
                places.join(", ")
            )))
        }
    }
}

/// Does something with each text of the command line, or of standard input, a text a line.
fn each(texts: &[String], explain: impl Fn(&str) -> Outcome) -> Outcome {
    match texts {
        [] => {}
        [only] if only == "-" => {}
        texts => return texts.iter().try_for_each(|text| explain(text)),
    }
    if io::stdin().is_terminal() {
        note("reading texts from standard input, one a line; Ctrl-D ends");
    }
    let options = LoadOptions::default();
    let mut lines = TextLines::new(io::stdin().lock(), "standard input", &options);
    let mut any = false;
    loop {
        let texts = lines.ready(1)?;
        let [text] = &texts[..] else { break };
        any = true;
        explain(text)?;
    }
    match any {
        true => Ok(()),
        false => Err(Failure::Usage("no text: give TEXT, or texts on standard input, one a line".to_owned())),
    }
}

/// Does work that can be watched, with a bar on a terminal.
fn watched<T>(
    name: &'static str,
    work: impl FnOnce(&dyn Fn(usize, usize) -> bool) -> vitrine_explain::Result<T>,
) -> Outcome<T> {
    let (started, bar): (_, RefCell<Option<(usize, Progress)>>) = (Instant::now(), RefCell::new(None));
    let watch = |done: usize, of: usize| {
        if started.elapsed() < UNSEEN {
            return true;
        }
        let mut bar = bar.borrow_mut();
        // Work that goes on with more steps gets a new bar.
        if bar.as_ref().is_none_or(|(known, _)| *known != of) {
            *bar = Some((of, Progress::new(name, of)));
        }
        if let Some((_, progress)) = &mut *bar {
            progress.set(done, String::new);
        }
        true
    };
    let done = work(&watch);
    crate::progress::clear();
    Ok(done?)
}

/// A piece of a word as people read it: without the mark of what goes on with a word, or of a space before.
fn piece(text: &str) -> String {
    printable(&text.replace('\u{120}', " ")).replace('\n', " ")
}

/// Some tokens in a row as they stand in the text; of added tokens their names.
fn word(text: &Text, tokens: std::ops::Range<usize>) -> String {
    let bytes = text.bytes(tokens.clone());
    match text.text.get(bytes) {
        Some(word) if !word.is_empty() => printable(word).replace('\n', " "),
        _ => text.tokens[tokens].iter().map(|token| piece(&token.text)).collect(),
    }
}

/// A prediction on one line: the class, its probability, and every logit.
fn headline(session: &Session, prediction: &Prediction) -> String {
    let class = prediction.class();
    let logits: Vec<String> = prediction
        .logits
        .iter()
        .enumerate()
        .map(|(class, logit)| format!("{} {logit:.3}", printable(&session.class_name(class))))
        .collect();
    format!(
        "{} {:.4}  (logits: {})",
        paint(&io::stdout(), Style::Bold, &printable(&session.class_name(class))),
        prediction.probabilities[class],
        logits.join(", ")
    )
}

/// What is blocked, on one line; none if nothing is.
fn blocked_line(blocks: &Blocks, text: &Text) -> Option<String> {
    let heads = blocks.heads.iter().map(|(layer, head)| format!("head {layer}.{head}"));
    let edges = blocks.edges.iter().map(|edge| {
        let name = |place: usize| format!("{} ({place})", piece(&text.tokens[place].text));
        let place = match (edge.layer, edge.head) {
            (None, None) => String::new(),
            (layer, head) => format!(
                " in layer {}, head {}",
                layer.map_or("all".into(), |layer| layer.to_string()),
                head.map_or("all".into(), |head| head.to_string())
            ),
        };
        format!("{} -> {}{place}", name(edge.query), name(edge.key))
    });
    let all: Vec<String> = heads.chain(edges).collect();
    (!all.is_empty()).then(|| format!("blocked: {}", all.join(", ")))
}

/// Tokens as JSON; places count characters, as Python does.
fn tokens_json(text: &Text) -> Value {
    let places = text.characters();
    let token = |(token, (start, end)): (&vitrine_explain::Token, &(usize, usize))| json!({ "token": token.text, "id": token.id, "start": start, "end": end, "special": token.special });
    text.tokens.iter().zip(&places).map(token).collect()
}
