//! The model that is traced, of any kind: what it reads, what it answers, and what its loss is.

use crate::args::Trace;
use crate::output::{Failure, Outcome};
use std::sync::Arc;
use vitrine_autograd::{Tape, Var};
use vitrine_bert::{
    BaseModel, Checkpoint, Head, Loaded, MaskedLm, ModelConfig, SequenceClassifier, Source, Taps, TokenBatch,
    Tokenizer,
};
use vitrine_nn::ParameterStore;
use vitrine_train::pretrain::{Masking, Piece};

/// The share of words that are hidden from a masked language model, where the text has no mask; and the seed of the choice.
const HIDDEN: (f64, u64) = (0.15, 1);

/// What the weights are.
enum Kind {
    Encoder(BaseModel),
    Classifier(SequenceClassifier),
    /// An encoder under a classifier with random weights, for the loss.
    NewClassifier(SequenceClassifier),
    MaskedLm(MaskedLm),
}

/// A model with its tokenizer.
pub struct Subject {
    kind: Kind,
    pub tokenizer: Tokenizer,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// What one pass reads.
pub struct Input {
    pub batch: TokenBatch,
    /// The tokens as words, those that the model reads.
    pub tokens: Vec<String>,
    /// Whether the text was longer.
    pub truncated: bool,
    /// The rows that a masked language model guesses, and what stands there, if it was hidden here.
    rows: Arc<[u32]>,
    hidden: Option<Arc<[u32]>>,
}

/// What the loss takes for true.
pub struct Target {
    /// A class, or a token a row.
    ids: Arc<[u32]>,
    /// For people.
    pub what: String,
}

impl Subject {
    /// Reads a model as what its weights are. Where a loss is wanted, an encoder gets a new classifier of two classes.
    pub fn load(source: &Source, wants_loss: bool) -> Outcome<Self> {
        let read = |checkpoint: Checkpoint| match () {
            () if checkpoint.is_classifier() => {
                let Loaded { model, tokenizer, notes } = checkpoint.classifier(Head::Keep)?;
                Ok(Subject { kind: Kind::Classifier(model), tokenizer, notes })
            }
            () if checkpoint.is_masked_lm() => {
                let Loaded { model, tokenizer, notes } = checkpoint.masked_lm()?;
                Ok(Subject { kind: Kind::MaskedLm(model), tokenizer, notes })
            }
            () if wants_loss => {
                let names = ["0", "1"].map(str::to_owned);
                let Loaded { model, tokenizer, mut notes } =
                    checkpoint.classifier(Head::New { names: &names, seed: 0 })?;
                notes.push(
                    "an encoder has no loss; a new classifier of two classes, 0 and 1, stands on it".into(),
                );
                Ok(Subject { kind: Kind::NewClassifier(model), tokenizer, notes })
            }
            () => {
                let Loaded { model, tokenizer, notes } = checkpoint.base()?;
                Ok(Subject { kind: Kind::Encoder(model), tokenizer, notes })
            }
        };
        let (mut subject, finished) = Checkpoint::read(source, read)?;
        subject.notes.extend(finished);
        Ok(subject)
    }

    /// The sizes and settings.
    pub fn config(&self) -> &ModelConfig {
        match &self.kind {
            Kind::Encoder(model) => model.config(),
            Kind::Classifier(model) | Kind::NewClassifier(model) => model.config(),
            Kind::MaskedLm(model) => model.config(),
        }
    }

    /// The parameters.
    pub fn parameters(&self) -> &ParameterStore {
        match &self.kind {
            Kind::Encoder(model) => model.parameters(),
            Kind::Classifier(model) | Kind::NewClassifier(model) => model.parameters(),
            Kind::MaskedLm(model) => model.parameters(),
        }
    }

    /// The parameters, to be changed.
    pub fn parameters_mut(&mut self) -> &mut ParameterStore {
        match &mut self.kind {
            Kind::Encoder(model) => model.parameters_mut(),
            Kind::Classifier(model) | Kind::NewClassifier(model) => model.parameters_mut(),
            Kind::MaskedLm(model) => model.parameters_mut(),
        }
    }

    /// The classes of a trained classifier.
    pub fn classes(&self) -> Option<Vec<String>> {
        match &self.kind {
            Kind::Classifier(model) => Some(model.config().label_names()),
            _ => None,
        }
    }

    /// The text as the model reads it. A masked language model guesses at the masks that the text has, or at some words that are
    /// hidden from it as in pretraining.
    pub fn read(&self, text: &str) -> Outcome<Input> {
        let encoding = self.tokenizer.encode(text, self.config().max_length())?;
        let (mut ids, truncated) = (encoding.ids, encoding.truncated);
        let (mut rows, mut hidden): (Arc<[u32]>, _) = (Arc::from([]), None);
        if let Kind::MaskedLm(_) = self.kind {
            let mask = self.tokenizer.mask().map(|(_, id)| id);
            rows = (0..ids.len() as u32).filter(|&row| Some(ids[row as usize]) == mask).collect();
            if rows.is_empty() {
                let inner = ids[1..ids.len() - 1].to_vec();
                let masking = Masking::new(&self.tokenizer, HIDDEN.0, HIDDEN.1)?;
                if !masking.has_words(&inner) {
                    return Err(Failure::Usage(
                        "no word in the text that a masked language model could guess; give a text with words"
                            .into(),
                    ));
                }
                let piece = Piece { document: 0, start: 0, tokens: inner.len() as u32 };
                let (masked, places) = masking.hide(&inner, &piece, 0);
                hidden = Some(places.iter().map(|&place| ids[place as usize]).collect());
                (ids, rows) = (masked, places.into());
            }
        }
        let batch = TokenBatch::new([ids.as_slice()], None, self.config())?;
        let tokens = ids.iter().map(|&id| self.token(id)).collect();
        Ok(Input { batch, tokens, truncated, rows, hidden })
    }

    fn token(&self, id: u32) -> String {
        self.tokenizer.token(id).unwrap_or_else(|| format!("#{id}"))
    }

    /// Runs the model: its logits, or the hidden states `[T, C]` of an encoder.
    pub fn forward<'t>(&self, tape: &'t Tape, input: &Input) -> Outcome<Var<'t>> {
        Ok(match &self.kind {
            Kind::Encoder(model) => model.forward(tape, &input.batch, &Taps::new())?,
            Kind::Classifier(model) | Kind::NewClassifier(model) => model.logits(tape, &input.batch)?,
            Kind::MaskedLm(model) => model.logits(tape, &input.batch, &input.rows)?,
        })
    }

    /// The loss of these logits.
    pub fn loss<'t>(logits: &Var<'t>, target: &Target) -> Outcome<Var<'t>> {
        let _scope = logits.tape().scope("loss");
        Ok(logits.cross_entropy(&target.ids)?)
    }

    /// What the loss takes for true: what was asked for, else the hidden words, else what the model predicts.
    pub fn target(&self, arguments: &Trace, input: &Input, logits: &[f32]) -> Outcome<Target> {
        let width = logits.len() / input.rows.len().max(1);
        let best = |row: &[f32]| {
            let ranked = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)));
            ranked.unwrap_or(0) as u32
        };
        if let Kind::MaskedLm(_) = self.kind {
            let (ids, why): (Arc<[u32]>, _) = match (&arguments.label, &input.hidden) {
                (Some(word), _) => {
                    let id = self.tokenizer.id(word).ok_or_else(|| {
                        Failure::Usage(format!(
                            "--label {word}: this is no token of the model's vocabulary; name one, such as {}",
                            self.token(best(&logits[..width]))
                        ))
                    })?;
                    (input.rows.iter().map(|_| id).collect(), "as asked")
                }
                (None, Some(hidden)) => (Arc::clone(hidden), "hidden here"),
                (None, None) => {
                    (logits.chunks(width.max(1)).map(best).collect(), "predicted; --label names another")
                }
            };
            let words: Vec<String> = ids.iter().map(|&id| self.token(id)).collect();
            let what = format!("{} ({why})", words.join(", "));
            return Ok(Target { ids, what });
        }
        let names = self.config().label_names();
        let (class, why) = match &arguments.label {
            Some(asked) => (class(asked, &names)?, "as asked"),
            None if self.classes().is_none() => (0, "of the new classifier"),
            None => (best(logits), "predicted; --label names another"),
        };
        Ok(Target { ids: Arc::from([class]), what: format!("{} ({why})", names[class as usize]) })
    }

    /// The likeliest token of each row that was guessed: (row, token, probability).
    pub fn guesses(&self, input: &Input, logits: &[f32]) -> Vec<(u32, String, f64)> {
        let Kind::MaskedLm(_) = self.kind else { return Vec::new() };
        let width = (logits.len() / input.rows.len().max(1)).max(1);
        let guess = |(&row, logits): (&u32, &[f32])| {
            let best = (0..width).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0);
            let sum: f64 = logits.iter().map(|&x| f64::from(x - logits[best]).exp()).sum();
            (row, self.token(best as u32), 1.0 / sum)
        };
        input.rows.iter().zip(logits.chunks(width)).map(guess).collect()
    }
}

/// A class by its name, else by its number.
fn class(asked: &str, names: &[String]) -> Outcome<u32> {
    let found = names.iter().position(|name| name == asked);
    let numbered = || asked.parse::<usize>().ok().filter(|&number| number < names.len());
    found.or_else(numbered).map(|class| class as u32).ok_or_else(|| {
        const SHOWN: usize = 8;
        let more = if names.len() > SHOWN { ", .." } else { "" };
        let known = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        Failure::Usage(format!("--label {asked}: the model's classes are {known}{more}"))
    })
}
