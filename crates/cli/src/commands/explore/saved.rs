//! The page with recorded answers as one file.

use crate::output::{Failure, Outcome, bytes, note};
use std::fs;
use std::path::Path;
use vitrine_bert::write_atomically;
use vitrine_explore::engine::Refusal;
use vitrine_explore::{ModelEngine, Recorded, record, self_contained};
use vitrine_report::GENERATOR;

/// What only a saved page has.
const MARK: &str = "id=\"snapshot\"";

/// Bytes from which on a text is long: then it has hundreds of tokens.
const LONG: usize = 1000;

/// Refuses a file that cannot be written, or is somebody else's, before anything is computed. `option` names where it was given.
pub fn check(path: &Path, option: &str) -> Outcome {
    let refuse = |why: &str| Err(Failure::Usage(format!("{option} {}: {why}", path.display())));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if path.is_dir() || path.file_name().is_none() || folder.is_some_and(|folder| !folder.is_dir()) {
        return refuse("name a file in a folder that is there");
    }
    let is_ours = |there: &[u8]| {
        let there = String::from_utf8_lossy(there);
        there.contains(GENERATOR) && there.contains(MARK)
    };
    match fs::read(path) {
        Ok(there) if !is_ours(&there) => refuse("it is there and is no page of `vitrine look`; name another"),
        Err(_) if path.exists() => refuse("it is there and cannot be read; name another"),
        _ => Ok(()),
    }
}

/// A file that was written.
pub struct Written {
    pub recorded: Recorded,
    pub bytes: usize,
}

/// Computes what a page of this text shows, and writes it.
pub fn write(engine: &ModelEngine, text: &str, path: &Path) -> Outcome<Written> {
    if text.len() > LONG {
        note("computing; the attributions of a long text take a while");
    }
    let recorded = record(engine, text).map_err(|refusal| match refusal {
        Refusal::Request(line) => Failure::Usage(line),
        other => Failure::Run(other.to_string()),
    })?;
    let page = self_contained(&recorded.snapshot);
    write_atomically(path, page.as_bytes())?;
    Ok(Written { recorded, bytes: page.len() })
}

impl Written {
    /// Says what the file holds, and what it does not.
    pub fn say(&self) {
        let Recorded { runs, maps, heads, .. } = &self.recorded;
        let tokens: Vec<String> = runs.iter().map(|run| run.tokens.len().to_string()).collect();
        let tokens = tokens.join(" and ");
        let of = if maps < heads {
            format!("{maps} of {heads} maps, as more would be too large")
        } else {
            format!("{heads} maps")
        };
        note(format!("{tokens} tokens, {of}: {}", bytes(self.bytes)));
        for run in runs.iter().filter(|run| run.truncated > 0) {
            note(format!("{} tokens of the text are cut off", run.truncated));
        }
    }
}
