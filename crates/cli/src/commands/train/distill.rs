//! `--distill-from`: a teacher whose logits and hidden states a student learns from, and texts without labels for which only the teacher counts.

use crate::args::Train;
use crate::commands::Resolved;
use crate::interrupt::Interrupts;
use crate::output::{Failure, Outcome, detail, note, thousands, warn};
use crate::progress::{Progress, duration};
use crate::report;
use std::collections::HashSet;
use std::time::Instant;
use vitrine_bert::{Loaded, ModelConfig, SequenceClassifier, Tokenizer};
use vitrine_train::data::batching::EvalBatch;
use vitrine_train::data::{self, Dataset, Example, classes};
use vitrine_train::techniques::{teacher_layers, teacher_rows};
use vitrine_train::{LogitsKey, TokenizedDataset, TrainError};

/// A teacher that has been read.
pub struct Teacher<'a> {
    arguments: &'a Train,
    model: SequenceClassifier,
    tokenizer: Tokenizer,
    /// The teacher's class for each of the student's.
    classes: Vec<u32>,
    /// The teacher's layer for each of the student's, if hidden states count.
    layers: Vec<usize>,
    /// It reads as many tokens as the student, within its own positions.
    max_length: usize,
    key: LogitsKey,
}

/// The texts without labels, except those that are among the rows of the run; and a remark on these.
pub fn unlabelled(arguments: &Train, known: &[&Dataset]) -> Outcome<Option<(Dataset, Vec<String>)>> {
    let paths = &arguments.distillation.unlabelled;
    if paths.is_empty() {
        return Ok(None);
    }
    let options = data::LoadOptions {
        text_column: arguments.columns.text_column.clone(),
        ..data::LoadOptions::default()
    };
    let mut seen: HashSet<String> =
        known.iter().flat_map(|rows| &rows.examples).map(|row| row.text.trim().to_owned()).collect();
    let (mut rows, mut notes, mut left_out) = (Dataset::default(), Vec::new(), 0);
    for path in paths {
        let (texts, remarks) = data::read_pretraining_texts(path, &options)?;
        notes.extend(remarks);
        for text in texts {
            match seen.insert(text.trim().to_owned()) {
                true => rows.examples.push(Example { text, label: 0 }),
                false => left_out += 1,
            }
        }
    }
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    rows.source = names.join(", ");
    if rows.is_empty() {
        return Err(Failure::Run(format!(
            "--unlabelled {}: no texts that are not rows of the run",
            rows.source
        )));
    }
    notes.push(format!(
        "{} rows without labels from {}{}",
        thousands(rows.len()),
        rows.source,
        match left_out {
            0 => String::new(),
            count => format!("; {} more are rows of the run or were there before", thousands(count)),
        }
    ));
    Ok(Some((rows, notes)))
}

impl<'a> Teacher<'a> {
    /// Reads the teacher, whose classes have to be those of the student; `rows` are what it will look at.
    pub fn read(
        arguments: &'a Train,
        student: &ModelConfig,
        max_length: usize,
        resolved: &Resolved,
        rows: &[&Dataset],
    ) -> Outcome<Option<Self>> {
        let Some(teacher) = &arguments.distillation.distill_from else { return Ok(None) };
        let Loaded { model, tokenizer, notes } = SequenceClassifier::load(&teacher.trained()?)?;
        notes.iter().for_each(warn);
        let (names, known) = (student.label_names(), model.config().label_names());
        let classes = classes::align(&names, &known).filter(|_| names.len() == known.len());
        let Some((classes, _)) = classes else {
            let list = |names: &[String]| names.join(", ");
            return Err(Failure::Run(format!(
                "--distill-from {teacher}: its classes ({}) are not those of the data ({})",
                list(&known),
                list(&names)
            )));
        };
        let mut layers = Vec::new();
        if arguments.distillation.settings().hidden > 0.0 {
            let (own, other) = (student.hidden_size, model.config().hidden_size);
            if own != other {
                return Err(Failure::Run(format!(
                    "--distill-hidden: the states of --distill-from {teacher} have {other} numbers and those of --model {own}; \
                     without that option only logits are compared"
                )));
            }
            layers = teacher_layers(student.num_hidden_layers, model.config().num_hidden_layers);
        }
        let max_length = max_length.min(report::max_length(None, model.config())?);
        let hashes: Vec<String> = rows.iter().map(|rows| rows.sha256()).collect();
        let key =
            LogitsKey::new(&model, &tokenizer, max_length, resolved.compute, &classes, &layers, &hashes)?;
        Ok(Some(Teacher { arguments, model, tokenizer, classes, layers, max_length, key }))
    }

    /// What its logits are a function of.
    pub fn key(&self) -> &LogitsKey {
        &self.key
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let settings = self.arguments.distillation.settings();
        format!(
            "distillation from {} ({} parameters): weight {}, temperature {}, weight of hidden states {}, {} tokens of a text",
            self.arguments.distillation.distill_from.as_ref().map_or_else(String::new, ToString::to_string),
            thousands(self.model.parameters().numel()),
            settings.weight,
            settings.temperature,
            settings.hidden,
            self.max_length
        )
    }

    /// The student's tokens with what the teacher says of the same rows, from the cache or computed now.
    pub fn attach(
        mut self,
        tokens: TokenizedDataset,
        rows: &Dataset,
        unlabelled: Option<&Dataset>,
        resolved: &Resolved,
        interrupts: &Interrupts,
    ) -> Outcome<TokenizedDataset> {
        let started = Instant::now();
        let width = self.classes.len() + self.layers.len() * self.model.config().hidden_size;
        let options = &self.arguments.tokens;
        let cache = options.cache();
        if let Some(logits) = cache.as_ref().and_then(|cache| cache.logits(&self.key, tokens.len() * width)) {
            detail(format!("the teacher's logits of {} rows: from the cache", thousands(tokens.len())));
            return Ok(tokens.with_teacher(logits, width)?);
        }
        let read = |rows: &Dataset| report::tokenized(rows, &self.tokenizer, self.max_length, options);
        let mut as_read = read(rows)?;
        if let Some(more) = unlabelled {
            as_read = as_read.with_unlabelled(&read(more)?);
        }
        self.model.to_device(resolved.place)?;
        self.model.compute_in(resolved.compute)?;
        let all = tokens.len();
        let mut bar = Progress::new("teacher", all);
        let mut progress = |done: usize| {
            bar.set(done, || format!("{:.0} %", 100.0 * done as f64 / all as f64));
            match interrupts.seen() {
                true => Err(TrainError::Interrupted { step: 0, total: 0, checkpoint: None }),
                false => Ok(()),
            }
        };
        let batch = EvalBatch::default();
        let logits = teacher_rows(&self.model, &as_read, &self.classes, &self.layers, batch, &mut progress);
        drop(bar);
        let logits = logits.map_err(|error| match error {
            TrainError::Interrupted { .. } => Failure::Run(
                "interrupted while the teacher was at work: nothing is trained or saved yet".into(),
            ),
            error => crate::commands::explained(
                error,
                &self.model,
                self.max_length,
                (batch.rows(self.max_length), "the teacher does not fit beside the student;"),
            ),
        })?;
        note(format!(
            "the teacher's logits of {} rows in {}",
            thousands(all),
            duration(started.elapsed().as_secs_f64())
        ));
        if let Some(cache) = cache
            && let Err(error) = cache.keep_logits(&self.key, &logits)
        {
            detail(format!("the teacher's logits are not kept: {error}"));
        }
        Ok(tokens.with_teacher(logits, width)?)
    }
}
