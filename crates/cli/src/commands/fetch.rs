//! `vitrine fetch`: downloads models and data sets ahead, and prints where they are.

use crate::args::Fetch;
use crate::hub::{Fetched, Wanted, fetch};
use crate::output::{self, Outcome, bytes, note};
use crate::progress::duration;
use serde::Serialize;
use std::time::Instant;
use vitrine_hub::{Hub, RepoId, Result};
use vitrine_train::data::Purpose;

/// One line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    kind: &'static str,
    revision: &'a str,
    commit: &'a str,
    path: String,
    files: Vec<File<'a>>,
    bytes: u64,
    downloaded_bytes: u64,
}

#[derive(Serialize)]
struct File<'a> {
    name: &'a str,
    bytes: u64,
}

/// Runs the command.
pub fn run(arguments: &Fetch) -> Outcome {
    let wanted = match arguments.dataset {
        true => Wanted::Data(arguments.subset.as_deref(), Purpose::Labelled),
        false => Wanted::Model,
    };
    // A slip in the last name shows before the first is downloaded.
    let ids = arguments.names.iter().map(|name| RepoId::parse(wanted.kind(), name));
    let ids = ids.collect::<Result<Vec<RepoId>>>()?;
    let hub = Hub::from_env()?;
    for id in &ids {
        let started = Instant::now();
        let fetched = fetch(&hub, id, wanted, true)?;
        print(arguments, id, &fetched, started.elapsed().as_secs_f64())?;
    }
    Ok(())
}

fn print(arguments: &Fetch, id: &RepoId, fetched: &Fetched, seconds: f64) -> Outcome {
    let total: u64 = fetched.files.iter().map(|(_, size)| size).sum();
    let path = fetched.path.display().to_string();
    if arguments.json {
        return output::json(&Line {
            name: &id.name,
            kind: id.kind.word(),
            revision: &id.revision,
            commit: &fetched.id.revision,
            path,
            files: fetched.files.iter().map(|(name, bytes)| File { name, bytes: *bytes }).collect(),
            bytes: total,
            downloaded_bytes: fetched.lacked,
        });
    }
    let there = match fetched.lacked {
        0 => "all of it was there already".to_owned(),
        lacked => format!("{} downloaded in {}", bytes(lacked as usize), duration(seconds)),
    };
    let (count, size) = (fetched.files.len(), bytes(total as usize));
    let files = if count == 1 { "1 file".into() } else { format!("{count} files") };
    note(format!("{} at commit {}: {files}, {size}; {there}", fetched.id.name, fetched.id.revision));
    output::line(path)
}
