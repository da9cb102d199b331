//! Schedule and techniques of a run: from options to settings, and what is printed of them.

use crate::args::{ClassWeights, OptimizerName, ScheduleName, Train};
use crate::hub::base_of;
use crate::names::ModelName;
use crate::output::{Failure, Outcome, printable, thousands};
use std::io::ErrorKind;
use std::path::Path;
use vitrine_bert::{ModelConfig, StagedFiles};
use vitrine_nn::ParameterStore;
use vitrine_train::data::Dataset;
use vitrine_train::optimizer::groups::Groups;
use vitrine_train::schedule::{Schedule, ScheduleKind, Span};
use vitrine_train::techniques::{
    ClassificationLoss, FailedStep, Lora, OptimizerKind, REPLAY_FOLDER, ReplayedStep, SavedAdapter,
    Techniques, balanced_class_weights,
};
use vitrine_train::{TrainError, TrainSettings};

/// The folder of an adapter alone, in the output folder.
const ADAPTER_FOLDER: &str = "adapter";

/// Refuses an option that would have no effect.
fn goes_with(given: bool, option: &str, other: &str) -> Outcome {
    match given {
        true => Err(Failure::Usage(format!("{option} only counts with {other}; leave it out, or add that"))),
        false => Ok(()),
    }
}

/// The schedule, whose peak is `lr`.
pub fn schedule(arguments: &Train, lr: f64) -> Outcome<ScheduleKind> {
    let options = &arguments.schedule;
    let (polynomial, wsd) = (ScheduleName::Polynomial, ScheduleName::Wsd);
    if options.schedule != polynomial {
        goes_with(options.power.is_some(), "--power", "--schedule polynomial")?;
        goes_with(options.lr_end.is_some(), "--lr-end", "--schedule polynomial")?;
    }
    if options.schedule != wsd {
        goes_with(options.decay_steps.is_some(), "--decay-steps", "--schedule wsd")?;
        goes_with(options.decay_ratio.is_some(), "--decay-ratio", "--schedule wsd")?;
        goes_with(options.decay_shape.is_some(), "--decay-shape", "--schedule wsd")?;
        goes_with(options.min_lr_ratio.is_some(), "--min-lr-ratio", "--schedule wsd")?;
    }
    Ok(match options.schedule {
        ScheduleName::Linear => ScheduleKind::Linear,
        ScheduleName::Cosine => ScheduleKind::Cosine,
        ScheduleName::Constant => ScheduleKind::Constant,
        ScheduleName::Polynomial => {
            let lr_end = options.lr_end.unwrap_or(1e-7);
            if lr_end >= lr {
                return Err(Failure::Usage(format!(
                    "--lr-end {lr_end:e} is not below the peak learning rate {lr:e}; a polynomial schedule falls"
                )));
            }
            ScheduleKind::Polynomial { power: options.power.unwrap_or(1.0), end_ratio: lr_end / lr }
        }
        ScheduleName::Wsd => ScheduleKind::Wsd {
            decay: match (options.decay_steps, options.decay_ratio) {
                (Some(steps), _) => Span::Steps(steps),
                (None, ratio) => Span::Ratio(ratio.unwrap_or(0.1)),
            },
            decay_shape: options.decay_shape.map(Into::into).unwrap_or_default(),
            min_ratio: options.min_lr_ratio.unwrap_or(0.0),
        },
    })
}

/// The techniques, for training rows with these classes.
pub fn techniques(arguments: &Train, train: &Dataset, config: &ModelConfig) -> Outcome<Techniques> {
    let options = &arguments.techniques;
    let optimizer = match options.optimizer {
        OptimizerName::Adamw => {
            goes_with(options.momentum.is_some(), "--momentum", "--optimizer sgd")?;
            match OptimizerKind::default() {
                OptimizerKind::AdamW { beta1, beta2, eps } => OptimizerKind::AdamW {
                    beta1: options.adam_beta1.unwrap_or(beta1),
                    beta2: options.adam_beta2.unwrap_or(beta2),
                    eps: options.adam_epsilon.unwrap_or(eps),
                },
                other => other,
            }
        }
        OptimizerName::Sgd => {
            goes_with(options.adam_beta1.is_some(), "--adam-beta1", "--optimizer adamw")?;
            goes_with(options.adam_beta2.is_some(), "--adam-beta2", "--optimizer adamw")?;
            goes_with(options.adam_epsilon.is_some(), "--adam-epsilon", "--optimizer adamw")?;
            OptimizerKind::Sgd { momentum: options.momentum.unwrap_or(0.9) }
        }
    };
    let class_weights = match &options.class_weights {
        None => None,
        Some(ClassWeights::Given(weights)) => Some(weights.clone()),
        Some(ClassWeights::Balanced) => {
            Some(balanced_class_weights(&train.class_counts(), &train.label_names).map_err(refused)?)
        }
    };
    let lora = options.lora_rank.map(|rank| Lora {
        rank,
        alpha: options.lora_alpha.unwrap_or(16.0),
        targets: match options.lora_targets.is_empty() {
            true => config.family.query_value_modules().map(str::to_owned).to_vec(),
            false => options.lora_targets.clone(),
        },
    });
    Ok(Techniques {
        optimizer,
        layer_decay: options.layer_decay,
        freeze: options.freeze.clone(),
        reinit_layers: options.reinit_layers,
        loss: ClassificationLoss {
            label_smoothing: options.label_smoothing.unwrap_or(0.0),
            class_weights,
            distillation: arguments
                .distillation
                .distill_from
                .is_some()
                .then(|| arguments.distillation.settings()),
        },
        ema: options.ema,
        lora,
    })
}

/// A technique that does not fit is a wrong request; any other error is a failed run.
pub fn refused(error: TrainError) -> Failure {
    match error {
        TrainError::Technique { .. } => Failure::Usage(error.to_string()),
        error => error.into(),
    }
}

/// A line for the schedule, the groups of parameters, and each technique that is on.
pub fn lines(settings: &TrainSettings, rows: usize, groups: &Groups, config: &ModelConfig) -> Vec<String> {
    let (techniques, weight_decay) = (&settings.techniques, settings.weight_decay);
    let mut lines = vec![schedule_line(settings.schedule(rows), settings.lr)];
    let optimizer = match techniques.optimizer {
        OptimizerKind::AdamW { beta1, beta2, eps } => {
            format!("adamw (betas {beta1} and {beta2}, eps {eps:e})")
        }
        OptimizerKind::Sgd { momentum } => format!("sgd (momentum {momentum})"),
    };
    lines.push(format!(
        "optimizer {optimizer}; weight decay {weight_decay} on {} matrices ({} parameters), none on {} vectors: biases and \
         LayerNorm ({})",
        groups.decay.tensors,
        thousands(groups.decay.parameters),
        groups.no_decay.tensors,
        thousands(groups.no_decay.parameters)
    ));
    if groups.trained.parameters < groups.all.parameters {
        let (trained, all) = (groups.trained.parameters, groups.all.parameters);
        let frozen =
            groups.places.iter().filter(|group| group.trained == 0).map(|group| group.place.as_str());
        let frozen: Vec<&str> = frozen.collect();
        lines.push(format!(
            "{} of {} parameters are trained ({:.2} %){}{}",
            thousands(trained),
            thousands(all),
            100.0 * trained as f64 / all as f64,
            if frozen.is_empty() { "" } else { "; frozen: " },
            frozen.join(", ")
        ));
    }
    if let Some(lora) = &techniques.lora {
        lines.push(format!(
            "LoRA of rank {}, alpha {} on {}; merged into the saved model, and alone in {ADAPTER_FOLDER}/",
            lora.rank,
            lora.alpha,
            lora.targets.join(", ")
        ));
    }
    if techniques.layer_decay.is_some() {
        let factors = groups.places.iter().rev();
        let factors: Vec<String> =
            factors.map(|group| format!("{} {:.4}", group.place, group.lr_factor)).collect();
        lines.push(format!("learning rate, as a multiple of the schedule's: {}", factors.join(", ")));
    }
    if techniques.reinit_layers > 0 {
        let last = config.num_hidden_layers - 1;
        let layers = match techniques.reinit_layers {
            1 => format!("layer {last}"),
            count => format!("layers {} to {last}", last + 1 - count),
        };
        lines.push(format!("{layers} and the pooler start from random weights"));
    }
    if techniques.loss.label_smoothing > 0.0 {
        lines.push(format!(
            "label smoothing {}, in the loss of training alone",
            techniques.loss.label_smoothing
        ));
    }
    if let Some(weights) = &techniques.loss.class_weights {
        let names = config.label_names();
        let weights =
            names.iter().zip(weights).map(|(name, weight)| format!("{} {weight:.4}", printable(name)));
        let weights = weights.collect::<Vec<_>>().join(", ");
        lines.push(format!("class weights, in the loss of training alone: {weights}"));
    }
    if let Some(decay) = techniques.ema {
        let window = 1.0 / (1.0 - decay);
        let long = window > settings.total_steps(rows) as f64;
        lines.push(format!(
            "moving average of the weights, decay {decay} (about {window:.0} steps): it is evaluated and saved{}",
            if long { "; the run is shorter, so it holds much of the first steps' weights" } else { "" }
        ));
    }
    lines
}

/// The schedule for people.
fn schedule_line(schedule: Schedule, lr: f64) -> String {
    let Schedule { kind, total, warmup } = schedule;
    let shape = match kind {
        ScheduleKind::Polynomial { power, end_ratio } => {
            format!("polynomial of power {power} to {:.2e}", end_ratio * lr)
        }
        ScheduleKind::Wsd { decay, min_ratio, .. } => {
            let decay = decay.steps(total);
            let stable = total.saturating_sub(warmup + decay);
            format!("wsd, {stable} steps at the peak and {decay} of decay to {:.2e}", min_ratio * lr)
        }
        kind => kind.to_string(),
    };
    format!("learning rate {lr:.2e}, {shape}; {warmup} of {total} steps warm up")
}

/// What is left frozen at random weights can never become anything.
pub fn warnings(arguments: &Train, groups: &Groups) -> Option<String> {
    let frozen = groups.all.parameters - groups.trained.parameters;
    let (from_scratch, lora) =
        (arguments.model == ModelName::Scratch, arguments.techniques.lora_rank.is_some());
    (from_scratch && frozen > 0).then(|| {
        let option = if lora { "--lora-rank" } else { "--freeze" };
        format!(
            "the model starts from random weights, and {option} keeps {} of them as they are; name a pretrained one with \
             --model",
            thousands(frozen)
        )
    })
}

/// The adapters alone, before they are merged into the model.
pub fn adapter(
    techniques: &Techniques,
    arguments: &Train,
    parameters: &ParameterStore,
    config: &ModelConfig,
) -> Outcome<Option<SavedAdapter>> {
    let Some(lora) = &techniques.lora else { return Ok(None) };
    let base = match &arguments.model {
        ModelName::Scratch => None,
        ModelName::Path(path) => Some(base_of(path)),
        embedded => Some(embedded.to_string()),
    };
    Ok(Some(lora.export(parameters, config, base.as_deref())?))
}

/// Saves the adapters alone beside the model; what another run left in their place goes, and the step at which it broke.
pub fn save_adapter(adapter: Option<&SavedAdapter>, output: &Path) -> Outcome {
    const CONFIG: &str = "adapter_config.json";
    const WEIGHTS: &str = "adapter_model.safetensors";
    let folder = output.join(ADAPTER_FOLDER);
    remove(&output.join(REPLAY_FOLDER), &ReplayedStep::FILES)?;
    let Some(adapter) = adapter else { return remove(&folder, &[CONFIG, WEIGHTS]) };
    let mut files = StagedFiles::new(&folder)?;
    files.write_text(CONFIG, &adapter.config)?;
    files.write(WEIGHTS, |file| adapter.weights.write(file))?;
    Ok(files.commit()?)
}

/// Removes these files of a folder, and the folder if nothing else is in it.
fn remove(folder: &Path, names: &[&str]) -> Outcome {
    for name in names {
        let path = folder.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(Failure::Run(format!(
                    "{}: {error}; it is of another run, remove it",
                    path.display()
                )));
            }
            _ => {}
        }
    }
    // Refused, as it should be, where there are files of others in it.
    let _ = std::fs::remove_dir(folder);
    Ok(())
}

/// Saves a step that broke, and says how to look at it.
pub fn save_failed_step(failed: &FailedStep<'_>, output: &Path) -> String {
    let folder = output.join(REPLAY_FOLDER);
    let saved = || -> Result<(), TrainError> {
        let mut files = StagedFiles::new(&folder)?;
        failed.save(&mut files)?;
        Ok(files.commit()?)
    };
    match saved() {
        Ok(()) => format!("`vitrine replay {}` computes this step again", folder.display()),
        Err(error) => format!("the step could not be saved for vitrine replay: {error}"),
    }
}
