//! One run of a sweep: the process, and what it left in its folder.

use super::{Plan, is_used, took};
use crate::interrupt::Interrupts;
use crate::output::{Failure, Outcome, is_quiet, is_verbose};
use serde::Serialize;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// How often a run is looked at, whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Bytes of a report that are read, at most.
const REPORT_LIMIT: u64 = 64 << 20;

/// How a run stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It has ended well.
    Finished,
    /// It has not been started.
    Waiting,
    /// It was started and is not at its end: interrupted, killed, or failed in an earlier sweep.
    Unfinished,
    /// It ended in this sweep with an error.
    Failed {
        /// How.
        why: String,
    },
}

impl State {
    /// What the folder says.
    pub fn of(folder: &Path) -> Self {
        let Some(report) = report(folder) else {
            return if is_used(folder) { State::Unfinished } else { State::Waiting };
        };
        match report.get("state").and_then(Value::as_str) {
            Some("finished") => State::Finished,
            // Written before runs had a state: there is a report only at the end.
            None if report.get("train").is_some_and(Value::is_object) => State::Finished,
            _ => State::Unfinished,
        }
    }
}

fn report(folder: &Path) -> Option<Value> {
    let path = folder.join("run.json");
    let is_small = |about: &fs::Metadata| about.is_file() && about.len() < REPORT_LIMIT;
    fs::metadata(&path).ok().filter(is_small)?;
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// A run and what it found.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub name: String,
    pub seed: u64,
    pub folder: PathBuf,
    #[serde(flatten)]
    state: StateField,
    pub accuracy: Option<f64>,
    pub f1: Option<f64>,
    pub seconds: Option<f64>,
    /// SHA-256 of the rows that it was evaluated on.
    pub test_hash: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct StateField {
    state: State,
}

impl Run {
    /// What a run left in its folder; nothing unless it has finished.
    pub fn look(folder: &Path, name: &str, seed: u64, state: State) -> Self {
        let report = report(folder).filter(|_| state == State::Finished).unwrap_or_default();
        let eval = |field: &str| report["eval"][field].as_f64();
        Run {
            name: name.to_owned(),
            seed,
            folder: folder.to_owned(),
            accuracy: eval("accuracy"),
            f1: eval("f1"),
            seconds: report["seconds_total"].as_f64(),
            test_hash: report["rows"]["test_hash"].as_str().map(str::to_owned),
            state: StateField { state },
        }
    }

    /// Whether it has ended well.
    pub fn is_finished(&self) -> bool {
        self.state.state == State::Finished
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let result = match &self.state.state {
            State::Finished => match (self.accuracy, self.f1) {
                (Some(accuracy), Some(f1)) => format!("accuracy {accuracy:.4}, f1 {f1:.4}"),
                _ => "finished, not evaluated".into(),
            },
            State::Waiting => "not started".into(),
            State::Unfinished => "not finished".into(),
            State::Failed { why } => format!("failed: {why}"),
        };
        let time = self.seconds.map_or(String::new(), |seconds| format!(", {}", took(seconds)));
        format!("{}: {result}{time}", self.name)
    }
}

/// Trains, and waits for the end. A signal that ends the sweep is passed on once, so that the run can save where it is.
pub fn start(
    plan: &Plan,
    setting: usize,
    seed: u64,
    folder: &Path,
    state: &State,
    interrupts: &Interrupts,
) -> Outcome<State> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::Run(format!("cannot find this program to start it again: {error}")))?;
    let mut command = Command::new(program);
    command.args(plan.arguments(setting, seed)).arg("--output").arg(folder);
    if *state != State::Waiting {
        command.arg("--resume");
    }
    if is_quiet() {
        command.arg("--quiet");
    } else if is_verbose() {
        command.arg("--verbose");
    }
    // Its results are read from its folder; standard output is for those of the sweep.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        // A group of its own: Ctrl-C at the terminal comes here, and is passed on. It would come twice otherwise.
        command.process_group(0);
        // SAFETY: no handler is installed; what is ignored here is ignored in the run, too. A terminal with `stty tostop` would
        // otherwise stop a run in the background when it says something, and the sweep would wait for ever.
        unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
    }
    let failed = |error: std::io::Error| Failure::Run(format!("cannot start a run: {error}"));
    let mut child = command.spawn().map_err(failed)?;
    let mut told = false;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if interrupts.seen() && !told {
            told = true;
            #[cfg(unix)]
            {
                // SAFETY: `kill` takes two numbers. The child has not been waited for, so its number is still its own.
                unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
            }
        }
        std::thread::sleep(LOOK_EVERY);
    };
    Ok(match (State::of(folder), status.success()) {
        (State::Finished, true) => State::Finished,
        _ if told => State::Unfinished,
        (_, true) => State::Failed { why: "it ended well and left no report".into() },
        (_, false) => State::Failed { why: how(status) },
    })
}

fn how(status: ExitStatus) -> String {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;
        match status.signal() {
            Some(libc::SIGKILL) => return "killed (signal 9), as the system does when memory lacks".into(),
            Some(signal) => return format!("ended by signal {signal}"),
            None => {}
        }
    }
    match status.code() {
        Some(code) => format!("exit code {code}; its error is above"),
        None => "no exit code".into(),
    }
}
