//! `vitrine report`: one page about one run or several.

use crate::args::Report;
use crate::output::{Failure, Outcome, json, line};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use vitrine_bert::write_atomically;
use vitrine_report::{GENERATOR, REPORT_PAGE, Run, report};

/// What `--json` prints.
#[derive(Serialize)]
struct Written {
    report: PathBuf,
    runs: Vec<PathBuf>,
}

/// Refuses a path that a page cannot be written to; a page of somebody else is not replaced.
pub fn check_page(option: &str, path: &Path) -> Outcome {
    let shown = path.display();
    if path.is_dir() {
        let file = path.join(REPORT_PAGE);
        let message = format!("{option} {shown}: this is a folder; name a file such as {}", file.display());
        return Err(Failure::Usage(message));
    }
    if fs::read(path).is_ok_and(|there| !String::from_utf8_lossy(&there).contains(GENERATOR)) {
        return Err(Failure::Usage(format!(
            "{shown} is there and is no report of vitrine; name another file with {option}"
        )));
    }
    Ok(())
}

/// Runs the command.
pub fn run(arguments: &Report) -> Outcome {
    let runs: Vec<Run> = arguments
        .runs
        .iter()
        .map(|folder| Run::read(folder))
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::Run(error.to_string()))?;
    let path = match (&arguments.output, &arguments.runs[..]) {
        (Some(path), _) => path.clone(),
        (None, [only]) => only.join(REPORT_PAGE),
        (None, _) => PathBuf::from(REPORT_PAGE),
    };
    check_page("--output", &path)?;
    write_atomically(&path, report(&runs).as_bytes())?;
    if arguments.json {
        return json(&Written { report: path, runs: arguments.runs.clone() });
    }
    line(path.display())
}
