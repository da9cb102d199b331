//! `vitrine init`: a model of any size with random weights, as the start of training from scratch or of measurements.

use super::{check_memory, claim_output, named_config, weight_bytes};
use crate::args::Init;
use crate::interrupt::Interrupts;
use crate::output::{Failure, Outcome, next, note, quoted_path, thousands};
use vitrine_bert::{BaseModel, Tokenizer};
use vitrine_tensor::Device;
use vitrine_train::corpus;

/// Runs the command.
pub fn run(arguments: &Init) -> Outcome {
    let mut config = named_config("--config", &arguments.config)?;
    // Refused now, claimed for good when there is a model.
    drop(claim_output(&arguments.output, arguments.overwrite)?);
    let tokenizer = match &arguments.tokenizer {
        Some(name) => name.tokenizer()?,
        None => {
            let tokenizer = Tokenizer::from_vocabulary(&corpus::vocabulary())?;
            note(format!(
                "no --tokenizer: the vocabulary of the built-in reviews, {} tokens, is written, and the model has as many",
                thousands(tokenizer.vocabulary_size())
            ));
            config.vocab_size = tokenizer.vocabulary_size();
            // Where positions count from the padding id, it has to be this tokenizer's.
            config.position_padding = config.position_padding.and(tokenizer.id("[PAD]"));
            tokenizer
        }
    };
    tokenizer.notes().iter().for_each(note);
    if tokenizer.vocabulary_size() > config.vocab_size {
        return Err(Failure::Usage(format!(
            "the tokenizer has {} tokens and --config {} a vocabulary of {}; use another of the two",
            thousands(tokenizer.vocabulary_size()),
            arguments.config,
            thousands(config.vocab_size)
        )));
    }
    check_memory(Device::Cpu, weight_bytes(&config), || format!("a model of --config {}", arguments.config))?;
    let model = BaseModel::random(config, arguments.seed)?;
    let interrupts = Interrupts::watch();
    let mut files = claim_output(&arguments.output, arguments.overwrite)?;
    model.reserve_in(&mut files, &tokenizer)?;
    model.save_into(&mut files, &tokenizer)?;
    if interrupts.seen() {
        return Err(Failure::Run("interrupted: nothing was saved".into()));
    }
    files.commit()?;
    note(format!(
        "{} parameters, random with seed {}, saved in {}",
        thousands(model.parameters().numel()),
        arguments.seed,
        arguments.output.display()
    ));
    next("next:", format!("vitrine train --model {} --data DATA", quoted_path(&arguments.output)));
    Ok(())
}
