//! Where pretraining starts: its texts, its tokenizer and its model.

use super::super::{Resolved, claim_output, named_config};
use crate::args::Pretrain;
use crate::hub::resolve_data;
use crate::names::ModelName;
use crate::output::{Align, Failure, Outcome, detail, note, table, thousands};
use crate::progress::{Progress, duration};
use crate::report;
use std::time::Instant;
use vitrine_bert::{AnyModel, Checkpoint, Loaded, MaskedLm, ModelConfig, Tokenizer, load_any};
use vitrine_train::checkpoint::CHECKPOINTS_FOLDER;
use vitrine_train::data::{LoadOptions, Purpose, read_pretraining_texts};
use vitrine_train::pretrain::{Adopted, Documents, HiddenTeacher, Masking, PretrainData, adopt};

/// The size of a vocabulary where none is given.
const VOCABULARY: usize = 8000;

/// The weight of a teacher's hidden states where none is given. `embedded` with MiniLM begins with a squared distance of 1.17 (at most 4), and
/// with 3.97 nats of hidden words: the teacher counts more at first.
const HIDDEN_WEIGHT: f64 = 10.0;

/// What pretraining starts with.
pub struct Start {
    pub model: MaskedLm,
    pub tokenizer: Tokenizer,
    pub data: PretrainData,
    pub notes: Vec<String>,
    /// Dropout of hidden states and of attention that the saved model's config has.
    pub dropout: (f64, f64),
}

/// Refuses an output folder that cannot be used, before anything is read.
pub fn fits_output(arguments: &Pretrain) -> Outcome {
    let output = &arguments.output;
    if arguments.resume || arguments.overwrite {
        return claim_output(output, true).map(drop);
    }
    if output.join(CHECKPOINTS_FOLDER).is_dir() {
        return Err(Failure::Usage(format!(
            "--output {}: an unfinished run has left checkpoints there; --resume goes on from them, --overwrite starts afresh",
            output.display()
        )));
    }
    claim_output(output, false).map(drop)
}

/// The arguments with the place of its files for each name of the hub.
pub fn located(arguments: &Pretrain) -> Outcome<Pretrain> {
    let mut located = arguments.clone();
    for model in [&mut located.init_from, &mut located.distill_from].into_iter().flatten() {
        *model = model.located()?;
    }
    for data in &mut located.data {
        *data = resolve_data(data, Purpose::Pretraining)?;
    }
    Ok(located)
}

/// Reads everything.
pub fn start(arguments: &Pretrain, resolved: &Resolved) -> Outcome<Start> {
    let from = arguments.init_from.as_ref().map(ModelName::trained).transpose()?;
    let source = from.as_ref().map(load_any).transpose()?;
    let mut config = match (&arguments.config, &source) {
        (Some(name), _) => named_config("--config", name)?,
        (None, Some(source)) => ModelConfig {
            num_hidden_layers: arguments
                .init_layers
                .as_ref()
                .map_or(source.config().num_hidden_layers, Vec::len),
            ..source.config().clone()
        },
        (None, None) => ModelConfig::bert_mini(),
    };
    if let (Some(chosen), Some(source)) = (&arguments.init_layers, &source) {
        let layers = source.config().num_hidden_layers;
        if let Some(none) = chosen.iter().find(|layer| **layer >= layers) {
            return Err(Failure::Usage(format!(
                "--init-layers: there is no layer {none}: --init-from has {layers}, 0 to {}",
                layers.saturating_sub(1)
            )));
        }
    }
    if arguments.prune_vocab.is_some() && arguments.init_from.is_none() && arguments.tokenizer.is_none() {
        return Err(Failure::Usage(
            "--prune-vocab: name the vocabulary's model with --init-from or --tokenizer; --vocab-size makes a new one".into(),
        ));
    }
    // Before minutes go into a vocabulary.
    report::max_length(Some(arguments.max_length), &config)?;
    let options = LoadOptions { text_column: arguments.text_column.clone(), ..LoadOptions::default() };
    let (mut texts, mut notes) = (Vec::new(), Vec::new());
    for path in &arguments.data {
        let (more, remarks) = read_pretraining_texts(path, &options)?;
        notes.extend(remarks);
        texts.extend(more);
    }
    let source_tokenizer = from.as_ref().map(Tokenizer::from_dir).transpose()?;
    let tokenizer = match (&arguments.tokenizer, arguments.vocab_size, &source_tokenizer) {
        (Some(name), _, _) => name.tokenizer()?,
        (None, None, Some(tokenizer)) => tokenizer.clone(),
        (None, size, _) => {
            let started = Instant::now();
            let size = size.unwrap_or(VOCABULARY);
            let tokenizer = Tokenizer::train(&texts, size)?;
            let made = tokenizer.vocabulary_size();
            note(format!(
                "a vocabulary of {} tokens made in {}",
                thousands(made),
                duration(started.elapsed().as_secs_f64())
            ));
            if made < size {
                notes.push(format!(
                    "{} tokens were asked for and {} made: nothing else occurs twice in the texts",
                    thousands(size),
                    thousands(made)
                ));
            }
            tokenizer
        }
    };
    let tokenizer = match arguments.prune_vocab {
        Some(size) => {
            let pruned = tokenizer.pruned(&texts, size)?;
            let (kept, all) = (pruned.vocabulary_size(), tokenizer.vocabulary_size());
            note(format!("{} of the {} tokens of the vocabulary are kept", thousands(kept), thousands(all)));
            pruned
        }
        None => tokenizer,
    };
    notes.extend_from_slice(tokenizer.notes());
    // A checkpoint may have rows that its tokenizer has no token for.
    let own = source.as_ref().filter(|_| {
        [arguments.vocab_size, arguments.prune_vocab] == [None; 2] && arguments.tokenizer.is_none()
    });
    config.vocab_size = own.map_or(0, |source| source.config().vocab_size).max(tokenizer.vocabulary_size());
    config.position_padding = config.position_padding.and(tokenizer.id("[PAD]").or(tokenizer.id("<pad>")));
    let dropout = (config.hidden_dropout_prob, config.attention_probs_dropout_prob);
    (config.hidden_dropout_prob, config.attention_probs_dropout_prob) =
        (arguments.dropout, arguments.dropout);

    super::super::check_memory(vitrine_tensor::Device::Cpu, super::super::weight_bytes(&config), || {
        "a model of this --config".into()
    })?;
    let mut model = MaskedLm::random(config, arguments.seed)?;
    if let (Some(source), Some(theirs)) = (&source, &source_tokenizer) {
        take_over(&mut model, &tokenizer, source, theirs, arguments.init_layers.as_deref())?;
    }
    let masking = Masking::new(&tokenizer, arguments.mask_share, arguments.seed)?;
    let mut progress = Progress::new("tokenize", texts.len());
    let documents =
        Documents::new(&texts, &tokenizer, arguments.held_out, &mut |done| progress.set(done, String::new))?;
    drop(progress);
    let mut data = PretrainData::new(documents, masking, arguments.max_length)?;
    if let Some(teacher) = teacher(arguments, model.config(), &tokenizer, resolved)? {
        data = data.with_teacher(teacher);
    }
    if data.dropped() > 0 {
        let dropped = thousands(data.dropped());
        notes.push(format!(
            "{dropped} pieces have no token of the vocabulary but special ones, and are left out"
        ));
    }
    Ok(Start { model, tokenizer, data, notes, dropout })
}

/// The model of `--distill-from`, where it will compute.
fn teacher(
    arguments: &Pretrain,
    student: &ModelConfig,
    tokenizer: &Tokenizer,
    resolved: &Resolved,
) -> Outcome<Option<HiddenTeacher>> {
    let Some(name) = &arguments.distill_from else { return Ok(None) };
    let (Loaded { mut model, tokenizer: theirs, notes }, finished) =
        Checkpoint::read(name.trained()?, Checkpoint::base)?;
    notes.iter().chain(&finished).for_each(detail);
    model.to_device(resolved.place)?;
    model.compute_in(resolved.compute)?;
    let weight = arguments.distill_hidden.unwrap_or(HIDDEN_WEIGHT);
    let teacher = HiddenTeacher::new(model, &theirs, student, tokenizer, arguments.max_length, weight)?;
    note(format!(
        "hidden states of {name} count, too ({} parameters, weight {weight})",
        thousands(teacher.model().parameters().numel())
    ));
    Ok(Some(teacher))
}

/// Takes over what fits of another model, and says what that is.
fn take_over(
    model: &mut MaskedLm,
    tokenizer: &Tokenizer,
    source: &AnyModel,
    theirs: &Tokenizer,
    layers: Option<&[usize]>,
) -> Outcome {
    let adopted = adopt(model, tokenizer, source, theirs, layers)?;
    if adopted.iter().all(|tensor| tensor.taken == 0) {
        let (config, other) = (model.config(), source.config());
        return Err(Failure::Run(format!(
            "--init-from: nothing of that model fits: it is a {} of width {}, and the new one a {} of width {}",
            other.family.model_type, other.hidden_size, config.family.model_type, config.hidden_size
        )));
    }
    // A line for the tensors of one kind, such as all those of a layer.
    let mut rows: Vec<(String, Vec<&Adopted>)> = Vec::new();
    for tensor in &adopted {
        let name = group(&tensor.key);
        match rows.last_mut().filter(|(last, _)| *last == name) {
            Some((_, tensors)) => tensors.push(tensor),
            None => rows.push((name, vec![tensor])),
        }
    }
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(name, tensors)| {
            let of = |count: fn(&Adopted) -> usize| tensors.iter().map(|tensor| count(tensor)).sum::<usize>();
            let (taken, all) = (of(|tensor| tensor.taken), of(|tensor| tensor.rows));
            let why = tensors.iter().find_map(|tensor| tensor.why).unwrap_or_default();
            vec![name, thousands(taken), thousands(all - taken), why.to_owned()]
        })
        .collect();
    let columns =
        [("part", Align::Left), ("rows taken", Align::Right), ("new", Align::Right), ("why", Align::Left)];
    note(table(&columns, &rows));
    Ok(())
}

/// A layer's name for the tensors of a layer; else the tensor's own.
fn group(key: &str) -> String {
    let parts: Vec<&str> = key.split('.').collect();
    match parts.iter().position(|part| part.parse::<usize>().is_ok()) {
        Some(layer) => parts[..=layer].join("."),
        None => key.to_owned(),
    }
}
