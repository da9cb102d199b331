//! A step that broke, in a folder: [`FailedStep`] writes it, [`ReplayedStep`] reads it and computes it again.
//!
//! The folder holds `config.json`, `weights.safetensors` (every parameter as it was before the step, adapters too, in F32), and
//! `step.json` (settings, token ids and labels, and what was found).

use super::Techniques;
use crate::non_finite::{self, Finding};
use crate::step::{MicroBatch, StepSettings};
use crate::{Result, TrainError};
use serde::{Deserialize, Serialize};
use std::path::Path;
use vitrine_bert::{CONFIG_FILE, ModelConfig, SequenceClassifier, StagedFiles, TokenBatch, read_text};
use vitrine_nn::SavedWeights;
use vitrine_tensor::{DType, Device, Tensor};

/// The weights of a saved step: not `model.safetensors`, for it may hold adapters, which no other program expects there.
const WEIGHTS: &str = "weights.safetensors";
/// The folder of a saved step in a run's output folder.
pub const REPLAY_FOLDER: &str = "replay";
/// Everything else of a saved step.
const STEP: &str = "step.json";
/// The longest `step.json` that is read: a batch of a thousand reviews is a few MiB.
const MOST: u64 = 1 << 30;

/// A step whose loss or gradient is not finite.
pub struct FailedStep<'a> {
    /// The model as it was before the step, and still is.
    pub model: &'a SequenceClassifier,
    /// The step's rows, a batch for each micro-batch.
    pub batches: &'a [TokenBatch],
    /// The step's settings.
    pub settings: &'a StepSettings,
    /// The run's techniques.
    pub techniques: &'a Techniques,
    /// What was found.
    pub finding: &'a Finding,
}

/// `step.json`.
#[derive(Serialize, Deserialize)]
struct SavedStep {
    /// What the layers' matrices are computed in.
    dtype: String,
    settings: StepSettings,
    techniques: Techniques,
    micro_batches: Vec<SavedBatch>,
    finding: String,
}

#[derive(Serialize, Deserialize)]
struct SavedBatch {
    sequences: Vec<Vec<u32>>,
    token_types: Vec<u32>,
    labels: Vec<u32>,
    /// What the teacher says, a row a sequence; none without one.
    #[serde(default, alias = "teacher_logits", skip_serializing_if = "Vec::is_empty")]
    teacher: Vec<f32>,
    /// Which sequences have a label; with a teacher only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    labelled: Vec<bool>,
}

impl FailedStep<'_> {
    /// Writes the step's files.
    ///
    /// # Errors
    /// `Io`, also for a full disk; errors of the device.
    pub fn save(&self, files: &mut StagedFiles) -> Result<()> {
        let copies = self.model.parameters().iter().find_map(|(_, parameter)| parameter.compute.as_ref());
        let saved = |batch: &TokenBatch| SavedBatch {
            sequences: batch.offsets().ranges().map(|range| batch.tokens().ids[range].to_vec()).collect(),
            token_types: batch.tokens().token_types.to_vec(),
            labels: batch.labels().map_or_else(Vec::new, |labels| labels.to_vec()),
            teacher: batch.teacher().map_or_else(Vec::new, |teacher| teacher.rows().to_vec()),
            labelled: batch.teacher().map_or_else(Vec::new, |teacher| teacher.labelled().to_vec()),
        };
        let step = SavedStep {
            dtype: copies.map_or(DType::F32, Tensor::dtype).to_string(),
            settings: *self.settings,
            techniques: self.techniques.clone(),
            micro_batches: self.batches.iter().map(saved).collect(),
            finding: self.finding.to_string(),
        };
        let config = self.model.config();
        files.write_text(
            CONFIG_FILE,
            &config.to_json(&config.family.architecture("ForSequenceClassification")),
        )?;
        let text = serde_json::to_string(&step)
            .map_err(|error| TrainError::Replay { path: STEP.into(), why: error.to_string() })?;
        files.write_text(STEP, &text)?;
        let weights = SavedWeights::new(self.model.parameters(), DType::F32)?.fetched()?;
        files.write(WEIGHTS, |file| weights.write(file))?;
        Ok(())
    }
}

/// A saved step, ready to be computed again.
pub struct ReplayedStep {
    /// The model with the weights of before the step, on the CPU.
    pub model: SequenceClassifier,
    /// What the layers' matrices were computed in.
    pub dtype: DType,
    /// What was found when it was saved.
    pub finding: String,
    /// The step's settings.
    pub settings: StepSettings,
    techniques: Techniques,
    batches: Vec<TokenBatch>,
}

impl ReplayedStep {
    /// The files of a saved step.
    pub const FILES: [&str; 3] = [CONFIG_FILE, STEP, WEIGHTS];

    /// Reads a saved step: its folder, the `step.json` in it, or the output folder of the run.
    ///
    /// # Errors
    /// `Io`; `Replay` for a file that is not one of these; `Config`, `Batch` and `Technique` where the files contradict each
    /// other.
    pub fn read(path: &Path) -> Result<Self> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let inside = path.join(REPLAY_FOLDER);
        let (folder, file) = match (path.is_dir(), inside.is_dir()) {
            (true, true) => (inside.as_path(), inside.join(STEP)),
            (true, false) => (path, path.join(STEP)),
            (false, _) => (parent, path.to_owned()),
        };
        if path.is_dir() && !file.exists() {
            let why =
                "no step is saved there; `vitrine train` saves one where a loss or gradient is not finite";
            return Err(TrainError::Replay { path: path.to_owned(), why: why.to_owned() });
        }
        let SavedStep { dtype, settings, techniques, micro_batches, finding } =
            serde_json::from_str(&read_text(&file, MOST)?).map_err(|error| {
                let why =
                    format!("not a saved step: {error}; name the replay folder of a run that ended with NaN");
                TrainError::Replay { path: file.clone(), why }
            })?;
        let dtype = match dtype.as_str() {
            "f32" => DType::F32,
            "bf16" => DType::BF16,
            other => {
                let why = format!("dtype `{other}` is neither f32 nor bf16");
                return Err(TrainError::Replay { path: file, why });
            }
        };
        if micro_batches.is_empty() {
            return Err(TrainError::Replay { path: file, why: "the step has no rows".into() });
        }
        let config = ModelConfig::from_file(&folder.join(CONFIG_FILE))?;
        let mut model = SequenceClassifier::random(config.clone(), 0)?;
        techniques.prepare(&mut model, 0)?;
        model.parameters_mut().read_from(&folder.join(WEIGHTS))?;
        let batches = micro_batches.iter().map(|saved| {
            let batch = TokenBatch::new(&saved.sequences, Some(&saved.labels), &config)?;
            let batch = batch.with_token_types(&saved.token_types, &config)?;
            match saved.labelled.is_empty() {
                true => Ok(batch),
                false => Ok(batch.with_teacher(&saved.teacher, &saved.labelled, &config)?),
            }
        });
        let batches = batches.collect::<Result<_>>()?;
        Ok(ReplayedStep { model, dtype, finding, settings, techniques, batches })
    }

    /// Its rows.
    pub fn rows(&self) -> usize {
        self.batches.iter().map(TokenBatch::sequences).sum()
    }

    /// Computes loss and gradients again, in `dtype` on a device, and finds what is not finite. Nothing is updated.
    ///
    /// # Errors
    /// Errors of the layers below.
    pub fn run(&mut self, dtype: DType, device: Device) -> Result<Finding> {
        self.model.to_device(device)?;
        self.model.compute_in(dtype)?;
        let loss = &self.techniques.loss;
        let parts: Vec<MicroBatch> = self.batches.iter().map(|batch| loss.micro_batch(batch)).collect();
        non_finite::find(
            &self.model,
            &parts,
            |model, tape, index| Ok(loss.of_batch(model, tape, &self.batches[index])?.0),
            &self.settings,
        )
    }
}
