//! Checkpoints of a run: everything that it needs to go on as if it had never stopped.
//!
//! ```text
//! OUTPUT/checkpoints/step-00000050/model.safetensors       master weights by key, in their own dtype
//!                                  optimizer.safetensors   Optimizer::state, by name
//!                                  state.json              step, the run's own state, settings, lengths and SHA-256 of both files
//! ```
//!
//! A checkpoint is written into a folder `.step-00000050.PID.partial`, synced, and renamed: under its name it is complete.
//! `state.json` begins with the SHA-256 of its own text, so that one changed bit anywhere is noticed. Reading verifies all
//! sums before anything is used.
//!
//! Nothing about random numbers is kept: dropout, shuffling and masking are functions of (seed, step or epoch, place).
//!
//! Whoever makes a [`Checkpoints`] has the output folder to itself (`vitrine_bert::StagedFiles` locks it).

pub mod exact;
mod settings;
mod tensors;
#[cfg(test)]
mod tests;

pub use settings::{Difference, SettingsTable, differences};
pub use tensors::FileSum;

use crate::{Optimizer, Result, TrainError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use tensors::{Source, fault};
use vitrine_nn::ParameterStore;
use vitrine_tensor::cpu::parallel;
use vitrine_tensor::ops::movement::cat;
use vitrine_tensor::{DType, Device, Tensor};

/// The folder of checkpoints inside a run's output folder.
pub const CHECKPOINTS_FOLDER: &str = "checkpoints";
/// Master weights.
pub const MODEL_FILE: &str = "model.safetensors";
/// The optimizer's state.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
/// Everything else.
pub const STATE_FILE: &str = "state.json";

/// What `state.json` says it is.
const FORMAT: &str = "vitrine checkpoint 1";
/// The most bytes of a `state.json`.
const MAX_STATE: u64 = 16 << 20;
/// How a `state.json` begins; 64 hexadecimal digits follow, then `SUM_END`, then the text whose SHA-256 they are.
const SUM_START: &str = "{\"sha256\": \"";
const SUM_END: &str = "\",\n";

/// The checkpoints of one run.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
    settings: Map<String, Value>,
    /// The step of the checkpoint that this run has written or gone on from last.
    current: Option<usize>,
}

/// `state.json`, but for its first line.
#[derive(Serialize, Deserialize)]
struct StateFile<S> {
    format: String,
    vitrine: String,
    step: usize,
    /// The step of the checkpoint with the best model so far, which may be this one.
    best: Option<usize>,
    settings: Map<String, Value>,
    state: S,
    files: BTreeMap<String, FileSum>,
}

/// A checkpoint whose sums are right.
#[derive(Clone, Debug)]
pub struct Found<S> {
    /// Its folder.
    pub path: PathBuf,
    /// Optimizer steps before it.
    pub step: usize,
    /// What the run kept in it.
    pub state: S,
}

impl Checkpoints {
    /// The checkpoints in `output`, an output folder that no other run writes into: `keep` newest, at least one, and the best
    /// of each. `settings` are those on which the result depends. What killed runs left half-written is removed.
    ///
    /// # Errors
    /// `Read` when the folder is there and cannot be listed.
    pub fn new(output: &Path, keep: usize, settings: Map<String, Value>) -> Result<Self> {
        let checkpoints = Checkpoints {
            folder: output.join(CHECKPOINTS_FOLDER),
            keep: keep.max(1),
            settings,
            current: None,
        };
        for name in checkpoints.names()?.into_iter().filter(|name| name.ends_with(".partial")) {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_dir_all(checkpoints.folder.join(name));
        }
        Ok(checkpoints)
    }

    /// Where they are: `OUTPUT/checkpoints`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of the checkpoint after so many steps.
    pub fn path(&self, step: usize) -> PathBuf {
        self.folder.join(format!("step-{step:08}"))
    }

    /// The steps of all checkpoints that there are, damaged ones too, in ascending order.
    ///
    /// # Errors
    /// `Read` when the folder is there and cannot be listed.
    pub fn steps(&self) -> Result<Vec<usize>> {
        let step = |name: &String| name.strip_prefix("step-")?.parse().ok();
        let mut steps: Vec<usize> = self.names()?.iter().filter_map(step).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    fn names(&self) -> Result<Vec<String>> {
        let read = |source| TrainError::Read { path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(read)?,
        };
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        entries.map(name).collect::<io::Result<_>>().map_err(read)
    }

    /// Writes a checkpoint after `step` steps; `best` is the step of the one with the best model so far, if the run looks for
    /// one. Then older ones go: all but the `keep` newest and the best of each of these; also any of later steps, which belong
    /// to a future that damage has cut off. Nothing is written if the run has just written or read this very step.
    ///
    /// # Errors
    /// `WriteCheckpoint` naming the bytes needed; then the checkpoints before are as they were.
    pub fn save(
        &mut self,
        step: usize,
        parameters: &ParameterStore,
        optimizer: &dyn Optimizer,
        state: &impl Serialize,
        best: Option<usize>,
    ) -> Result<PathBuf> {
        let path = self.path(step);
        if self.current == Some(step) {
            return Ok(path);
        }
        let model: Vec<(String, Tensor)> =
            parameters.parts()?.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let optimizer = optimizer.state(parameters)?;
        let bytes = tensors::bytes_of(&model) + tensors::bytes_of(&optimizer);
        let partial = self.partial(step);
        let written = self.write(&partial, model, optimizer, step, state, best).and_then(|()| {
            // One of this name is damaged, or of a future that was cut off.
            self.remove(step)?;
            fs::rename(&partial, &path)?;
            sync(&self.folder)
        });
        if let Err(source) = written {
            let _ = fs::remove_dir_all(&partial);
            let last = self.current.map(|step| self.path(step));
            return Err(TrainError::WriteCheckpoint { path, bytes, last, source });
        }
        self.current = Some(step);
        self.rotate(step)?;
        Ok(path)
    }

    fn partial(&self, step: usize) -> PathBuf {
        self.folder.join(format!(".step-{step:08}.{}.partial", std::process::id()))
    }

    fn write(
        &self,
        folder: &Path,
        model: Vec<(String, Tensor)>,
        optimizer: Vec<(String, Tensor)>,
        step: usize,
        state: &impl Serialize,
        best: Option<usize>,
    ) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        fs::create_dir(folder)?;
        let files = BTreeMap::from([
            (MODEL_FILE.to_owned(), tensors::write(&folder.join(MODEL_FILE), model)?),
            (OPTIMIZER_FILE.to_owned(), tensors::write(&folder.join(OPTIMIZER_FILE), optimizer)?),
        ]);
        let text = serde_json::to_string_pretty(&StateFile {
            format: FORMAT.to_owned(),
            vitrine: env!("CARGO_PKG_VERSION").to_owned(),
            step,
            best,
            settings: self.settings.clone(),
            state,
            files,
        })?;
        let body = text.trim_start_matches('{').trim_start();
        let sum = tensors::hex(&Sha256::digest(body));
        let mut file = File::create(folder.join(STATE_FILE))?;
        file.write_all(format!("{SUM_START}{sum}{SUM_END}{body}").as_bytes())?;
        file.sync_all()?;
        sync(folder)
    }

    /// Removes a checkpoint so that a kill on the way does not leave half of one under its name.
    fn remove(&self, step: usize) -> io::Result<()> {
        let partial = self.folder.join(format!(".old-{step:08}.{}.partial", std::process::id()));
        match fs::rename(self.path(step), &partial) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            renamed => renamed.and_then(|()| fs::remove_dir_all(&partial)),
        }
    }

    fn rotate(&self, step: usize) -> Result<()> {
        let steps = self.steps()?;
        let newest: Vec<usize> =
            steps.iter().rev().copied().filter(|&there| there <= step).take(self.keep).collect();
        let best = |&step: &usize| read_state::<Value>(&self.path(step)).ok()?.best;
        let bests: Vec<usize> = newest.iter().filter_map(best).collect();
        for there in steps.into_iter().filter(|there| !newest.contains(there) && !bests.contains(there)) {
            self.remove(there).map_err(|source| TrainError::Write { path: self.path(there), source })?;
        }
        Ok(())
    }

    /// The newest checkpoint that is whole, and whose best model is whole too; and a line for each damaged one that is newer.
    ///
    /// # Errors
    /// `SettingsDiffer` when it was made with other settings; `Read` when the folder cannot be listed.
    pub fn newest<S: DeserializeOwned>(&mut self) -> Result<(Option<Found<S>>, Vec<String>)> {
        let mut notes = Vec::new();
        for step in self.steps()?.into_iter().rev() {
            match self.find(step) {
                Ok((found, _)) => {
                    self.current = Some(step);
                    return Ok((Some(found), notes));
                }
                Err(error @ TrainError::SettingsDiffer { .. }) => return Err(error),
                Err(error) => notes.push(format!("{error}; it is skipped")),
            }
        }
        Ok((None, notes))
    }

    fn find<S: DeserializeOwned>(&self, step: usize) -> Result<(Found<S>, Option<usize>)> {
        let (found, best) = self.at(step)?;
        if let Some(best) = best.filter(|&best| best != step) {
            let damaged = |error| TrainError::Checkpoint {
                path: self.path(step),
                why: format!("the best model that belongs to it is damaged ({error})"),
            };
            self.at::<Value>(best).map_err(damaged)?;
        }
        Ok((found, best))
    }

    /// The checkpoint after so many steps, verified, and the step of the best one that belongs to it.
    ///
    /// # Errors
    /// `Checkpoint` saying what is damaged; `SettingsDiffer`.
    pub fn at<S: DeserializeOwned>(&self, step: usize) -> Result<(Found<S>, Option<usize>)> {
        let path = self.path(step);
        let damaged = |why: String| TrainError::Checkpoint { path: path.clone(), why };
        let file: StateFile<Value> = read_state(&path).map_err(|error| damaged(error.to_string()))?;
        if file.step != step {
            return Err(damaged(format!("{STATE_FILE} is that of step {}", file.step)));
        }
        for name in [MODEL_FILE, OPTIMIZER_FILE] {
            let Some(expected) = file.files.get(name) else {
                return Err(damaged(format!("{STATE_FILE} does not name {name}")));
            };
            let sum = tensors::sum(&path.join(name)).map_err(|error| damaged(format!("{name}: {error}")))?;
            if sum.bytes != expected.bytes {
                return Err(damaged(format!("{name} has {} of {} bytes", sum.bytes, expected.bytes)));
            }
            if sum.sha256 != expected.sha256 {
                return Err(damaged(format!("{name} is damaged: its SHA-256 is not that in {STATE_FILE}")));
            }
        }
        let differences = differences(&file.settings, &self.settings);
        if !differences.is_empty() {
            return Err(TrainError::SettingsDiffer { path, differences });
        }
        let state = S::deserialize(file.state)
            .map_err(|error| damaged(format!("{STATE_FILE} is that of another kind of run: {error}")))?;
        Ok((Found { path, step, state }, file.best))
    }

    /// Removes all checkpoints: those of another run, or those of a finished one.
    ///
    /// # Errors
    /// `Write`.
    pub fn clear(&mut self) -> Result<()> {
        self.current = None;
        for step in self.steps()? {
            self.remove(step).map_err(|source| TrainError::Write { path: self.path(step), source })?;
        }
        // Refused, as it should be, where there are files of others in it.
        let _ = fs::remove_dir(&self.folder);
        Ok(())
    }
}

impl<S> Found<S> {
    /// Puts weights and optimizer state into a model of the same shape that stands on its device already, and makes its
    /// copies in the compute dtype anew. Names, shapes and dtypes are compared before anything is changed, and tensors are
    /// read one at a time.
    ///
    /// # Errors
    /// `Checkpoint` for the checkpoint of another model; `OptimizerState` for that of another optimizer.
    pub fn restore(&self, parameters: &mut ParameterStore, optimizer: &mut dyn Optimizer) -> Result<()> {
        self.restore_model(parameters)?;
        let mut source = self.open(OPTIMIZER_FILE)?;
        let names: Vec<String> = source.names().cloned().collect();
        let mut state = BTreeMap::new();
        for name in names {
            let tensor = source.read(&name).map_err(|error| self.damaged(OPTIMIZER_FILE, &error))?;
            state.insert(name, tensor);
        }
        optimizer.set_state(parameters, state)
    }

    /// Puts the weights into a model, as [`Found::restore`].
    ///
    /// # Errors
    /// `Checkpoint` for the checkpoint of another model.
    pub fn restore_model(&self, parameters: &mut ParameterStore) -> Result<()> {
        let mut source = self.open(MODEL_FILE)?;
        let mut unused: BTreeSet<String> = source.names().cloned().collect();
        for (_, parameter) in parameters.iter() {
            for (key, part) in parameter.split(&parameter.value)? {
                unused.remove(key);
                let other = |why: String| self.damaged(MODEL_FILE, &fault(why));
                match source.describe(key) {
                    None => return Err(other(format!("another model's: {key} is missing"))),
                    Some((dims, dtype)) if dims != part.dims() || dtype != Some(part.dtype()) => {
                        let (there, dims) = (part.dims(), dims.to_vec());
                        return Err(other(format!(
                            "another model's: {key} is {dims:?} there, {there:?} here"
                        )));
                    }
                    Some(_) => {}
                }
            }
        }
        if let Some(key) = unused.first() {
            return Err(self.damaged(MODEL_FILE, &fault(format!("another model's: {key} is of no use here"))));
        }
        for (_, parameter) in parameters.iter_mut() {
            let mut parts = Vec::with_capacity(parameter.parts.len());
            for part in &parameter.parts {
                parts.push(source.read(&part.key).map_err(|error| self.damaged(MODEL_FILE, &error))?);
            }
            let value = match parts.len() {
                1 => parts.remove(0),
                _ => cat(&parts.iter().collect::<Vec<_>>(), 0)?,
            };
            let device: Device = parameter.value.device();
            parameter.value = value.to_device(device)?;
            if let Some(copy) = &mut parameter.compute {
                *copy = parameter.value.to_dtype(copy.dtype())?;
            }
        }
        Ok(())
    }

    fn open(&self, name: &str) -> Result<Source> {
        Source::open(&self.path.join(name)).map_err(|error| self.damaged(name, &error))
    }

    fn damaged(&self, name: &str, error: &io::Error) -> TrainError {
        TrainError::Checkpoint { path: self.path.clone(), why: format!("{name}: {error}") }
    }
}

/// The SHA-256 of all values of a model by key: which weights a run begins with.
///
/// # Errors
/// Errors of the device.
pub fn fingerprint(parameters: &ParameterStore) -> Result<String> {
    let mut parts = parameters.parts()?;
    parts.sort_by_key(|&(key, _)| key);
    let sums = parallel::map(parts.chunks_mut(1), |_, part| -> Result<[u8; 32]> {
        let (key, value) = &part[0];
        let mut hash = Sha256::new();
        hash.update(format!("{key} {:?} {}\n", value.dims(), value.dtype()));
        let value = value.to_device(Device::Cpu)?.to_dtype(DType::F32)?;
        for piece in value.as_slice::<f32>()?.chunks(1 << 14) {
            let bytes: Vec<u8> = piece.iter().flat_map(|value| value.to_le_bytes()).collect();
            hash.update(&bytes);
        }
        Ok(hash.finalize().into())
    });
    let mut whole = Sha256::new();
    for sum in sums {
        whole.update(sum?);
    }
    Ok(tensors::hex(&whole.finalize()))
}

fn read_state<S: DeserializeOwned>(folder: &Path) -> io::Result<StateFile<S>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{STATE_FILE}: {error}"));
    let wrong = |why: &str| fault(format!("{STATE_FILE} {why}"));
    let path = folder.join(STATE_FILE);
    let found = fs::metadata(&path).map_err(named)?;
    if !found.is_file() || found.len() > MAX_STATE {
        return Err(wrong("is not the file of a checkpoint"));
    }
    let bytes = fs::read(&path).map_err(named)?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("is damaged: it is not UTF-8"))?;
    let parts = text.strip_prefix(SUM_START).and_then(|rest| rest.split_once(SUM_END));
    let Some((sum, body)) = parts else {
        return Err(wrong("is damaged: it does not begin with its SHA-256"));
    };
    if tensors::hex(&Sha256::digest(body)) != sum {
        return Err(wrong("is damaged: its SHA-256 is another than it says"));
    }
    let file: StateFile<S> = serde_json::from_str(&format!("{{{body}"))
        .map_err(|error| wrong(&format!("is no state: {error}")))?;
    if file.format != FORMAT {
        return Err(wrong(&format!("has the format {:?}; this program reads {FORMAT:?}", file.format)));
    }
    Ok(file)
}

fn sync(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some file systems, and some systems, cannot sync a folder.
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidInput) => Ok(()),
        synced => synced,
    }
}
