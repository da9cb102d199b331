//! The folder of a run: who may write into it, what stands in it while the run is at work, and where else the model goes if it
//! cannot be saved there.

use crate::args::Train;
use crate::output::{Failure, Outcome, warn};
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use vitrine_bert::{BertError, FolderProblem, StagedFiles, reserve_growth, unfinished_run};
use vitrine_train::TrainState;
use vitrine_train::checkpoint::CHECKPOINTS_FOLDER;

/// What happened, as one JSON object.
pub const REPORT_FILE: &str = "run.json";
/// A JSON object a step, and one an evaluation.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// Where the report and the metrics of an older model are while a run is at work that will replace it.
const PREVIOUS_FOLDER: &str = ".vitrine-previous";

/// Claims --output, or the first of runs/train-001, runs/train-002, .. that is free: another run that starts now gets another.
pub fn claim_output(arguments: &Train) -> Outcome<StagedFiles> {
    let Some(folder) = &arguments.output else { return claim_next() };
    let usage = |error: BertError| Failure::Usage(format!("--output {error}"));
    if arguments.checkpointing.resume {
        let files = StagedFiles::new(folder).map_err(usage)?;
        return match (report(folder), folder.join(CHECKPOINTS_FOLDER).is_dir()) {
            (None, false) if holds_something(folder) => Err(Failure::Usage(format!(
                "--output {}: the folder holds no run to go on with, and it is not empty; choose another",
                folder.display()
            ))),
            _ => Ok(files),
        };
    }
    if arguments.overwrite {
        return StagedFiles::new(folder).map_err(usage);
    }
    StagedFiles::in_empty_folder(folder).map_err(|error| match (&error, unfinished_run(folder)) {
        (BertError::Folder { why: FolderProblem::NotEmpty, .. }, Some(run)) => {
            Failure::Usage(format!("--output {}: {run}; or start over with --overwrite", folder.display()))
        }
        _ => usage(error),
    })
}

fn claim_next() -> Outcome<StagedFiles> {
    for n in 1..10_000 {
        match StagedFiles::in_empty_folder(&Path::new("runs").join(format!("train-{n:03}"))) {
            Err(BertError::Folder { .. }) => {}
            claimed => {
                return claimed.map_err(|error| {
                    Failure::Usage(format!("{error}; name a folder that can be written with --output"))
                });
            }
        }
    }
    Err(Failure::Usage("runs/ is full; name a folder with --output".into()))
}

/// Whether anything but hidden files is in a folder.
fn holds_something(folder: &Path) -> bool {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
}

/// The `run.json` in a folder, if it can be read.
pub fn report(folder: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(folder.join(REPORT_FILE)).ok()?).ok()
}

/// The report of a run that is finished, if a folder has one. Reports of former versions, which say no state, were written at
/// the end.
pub fn finished_report(folder: &Path) -> Option<Value> {
    report(folder)
        .filter(|report| matches!(report.get("state").map(Value::as_str), None | Some(Some("finished"))))
}

/// The files of a run that stand in its folder from its start: `metrics.jsonl`, and `run.json`, which [`StagedFiles::rewrite`]
/// writes.
pub struct LiveFiles {
    folder: PathBuf,
}

impl LiveFiles {
    /// The files of a run that goes on after `step` steps, or starts: `metrics.jsonl`, open at its end and with `room` bytes of
    /// the disk to grow into, and `run.json`.
    ///
    /// # Errors
    /// Those of the disk; then nothing of a run that would start here is left.
    pub fn begin(
        files: &StagedFiles,
        from: Option<&TrainState>,
        room: u64,
        report: &str,
    ) -> Outcome<(Self, File)> {
        let folder = files.folder();
        let path = folder.join(METRICS_FILE);
        let io = |source| BertError::Io { path: path.clone(), source };
        if from.is_none() {
            set_aside(folder).map_err(io)?;
        }
        let begin = || -> Result<File, BertError> {
            // First what says that this is a run: it may be killed at any moment.
            files.rewrite(REPORT_FILE, report)?;
            let (metrics, lacks) = open_metrics(&path, from.unwrap_or(&TrainState::default())).map_err(io)?;
            lacks.iter().for_each(warn);
            reserve_growth(&metrics, &path, room)?;
            Ok(metrics)
        };
        let (begun, live) = (begin(), LiveFiles { folder: folder.to_owned() });
        match begun {
            Ok(metrics) => Ok((live, metrics)),
            Err(error) => {
                if from.is_none() {
                    live.abandon();
                }
                Err(error.into())
            }
        }
    }

    /// The run has failed before there was anything to go on with: everything is as it was.
    pub fn abandon(self) {
        for name in [METRICS_FILE, REPORT_FILE] {
            // The error that led here is told; there is no better one.
            let _ = fs::remove_file(self.folder.join(name));
        }
        put_back(&self.folder);
    }

    /// The run's model is in its place: what stood there before is gone for good.
    pub fn finished(&self) {
        // What cannot be removed is in nobody's way.
        let _ = remove_folder(&self.folder.join(PREVIOUS_FOLDER));
    }
}

/// Makes room for a run that starts: the report and the metrics of a model that it will replace are set aside, those of a run
/// that did not finish go.
fn set_aside(folder: &Path) -> io::Result<()> {
    let previous = folder.join(PREVIOUS_FOLDER);
    let is_of_a_model = finished_report(folder).is_some();
    if is_of_a_model {
        remove_folder(&previous)?;
        fs::create_dir(&previous)?;
    }
    let gone = [METRICS_FILE, REPORT_FILE].into_iter().try_for_each(|name| {
        let path = folder.join(name);
        unless_missing(if is_of_a_model {
            fs::rename(&path, previous.join(name))
        } else {
            fs::remove_file(&path)
        })
    });
    if gone.is_err() {
        put_back(folder);
    }
    gone
}

/// `metrics.jsonl` of a run that has taken `step` steps, open at its end: lines of later ones are cut off. Also a remark, if
/// lines are missing.
fn open_metrics(path: &Path, state: &TrainState) -> io::Result<(File, Option<String>)> {
    let mut metrics = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let (step, (end, steps)) = (state.step, lines_until(&metrics, state)?);
    metrics.set_len(end)?;
    metrics.seek(SeekFrom::Start(end))?;
    let lacks = (steps < step).then(|| {
        format!("{}: lines of {} earlier steps are missing, and stay so", path.display(), step - steps)
    });
    Ok((metrics, lacks))
}

/// Gives the report and the metrics that were set aside their place again.
fn put_back(folder: &Path) {
    let previous = folder.join(PREVIOUS_FOLDER);
    for name in [METRICS_FILE, REPORT_FILE] {
        let _ = fs::rename(previous.join(name), folder.join(name));
    }
    let _ = fs::remove_dir(previous);
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    unless_missing(fs::remove_dir_all(folder))
}

fn unless_missing(gone: io::Result<()>) -> io::Result<()> {
    gone.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Where in `metrics.jsonl` the lines end that a run had written when it was in this state, and how many of them are of steps.
fn lines_until(metrics: &File, state: &TrainState) -> io::Result<(u64, usize)> {
    /// The longest line that is read.
    const MOST: u64 = 64 << 20;
    let mut reader = BufReader::new(metrics);
    let (mut end, mut steps, mut line) = (0, 0, Vec::new());
    loop {
        line.clear();
        io::Read::take(&mut reader, MOST).read_until(b'\n', &mut line)?;
        let whole = line.last() == Some(&b'\n');
        let parsed = serde_json::from_slice::<Value>(&line).ok().filter(|value| whole && value.is_object());
        let Some(value) = parsed else { return Ok((end, steps)) };
        let is_evaluation = value.get("eval").is_some() && state.evaluated != Some(state.step);
        let is_later = |there| there > state.step as u64 || (there == state.step as u64 && is_evaluation);
        if value.get("step").and_then(Value::as_u64).is_some_and(is_later) {
            return Ok((end, steps));
        }
        steps += usize::from(value.get("loss").is_some());
        end += line.len() as u64;
    }
}

/// Saves a trained model that cannot be saved where it should, beside that folder or in the system's temporary one, and says
/// where.
pub fn kept_elsewhere(output: &Path, save: impl Fn(&mut StagedFiles) -> Result<(), BertError>) -> String {
    let name = fs::canonicalize(output).ok().and_then(|path| Some(path.file_name()?.to_owned()));
    let name = name.or_else(|| Some(output.file_name()?.to_owned())).unwrap_or_else(|| "model".into());
    let beside = fs::canonicalize(output.join("..")).or_else(|_| fs::canonicalize(parent(output)));
    let mut reasons = Vec::new();
    for place in beside.into_iter().chain([std::env::temp_dir()]) {
        // Names that are taken are passed over, and then the reason is another one.
        for n in 1..1000 {
            let folder = place.join(format!("{}.kept-{n}", name.to_string_lossy()));
            let saved = StagedFiles::in_empty_folder(&folder).and_then(|mut files| save(&mut files));
            match saved {
                Ok(()) => {
                    return format!(
                        "the trained model is not lost: it is in {}, not evaluated; move that folder to its place",
                        folder.display()
                    );
                }
                Err(BertError::Folder { .. }) => {}
                Err(error) => {
                    reasons.push(error.to_string());
                    break;
                }
            }
        }
    }
    format!("the trained model is lost: no other place took it ({})", reasons.join("; "))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_later_steps_are_cut_off() {
        let folder = std::env::temp_dir().join(format!("vitrine-lines-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(METRICS_FILE);
        let lines = [
            "{\"step\":1,\"loss\":1}\n",
            "{\"step\":2,\"loss\":1}\n",
            "{\"step\":2,\"eval\":{}}\n",
            "{\"step\":3,\"lo",
        ];
        fs::write(&path, lines.concat()).unwrap();
        let left_by = |step, evaluated| {
            let (_, lacks) =
                open_metrics(&path, &TrainState { step, evaluated, ..TrainState::default() }).unwrap();
            (fs::read_to_string(&path).unwrap(), lacks.is_some())
        };
        let left = |step| left_by(step, Some(step));
        assert_eq!(left(5), (lines[..3].concat(), true));
        assert_eq!(left(2), (lines[..3].concat(), false));
        assert_eq!(left_by(2, Some(1)), (lines[..2].concat(), false), "it will be evaluated again");
        assert_eq!(left(1), (lines[0].to_owned(), false));
        assert_eq!(left(0), (String::new(), false));
        fs::remove_dir_all(folder).unwrap();
    }
}
