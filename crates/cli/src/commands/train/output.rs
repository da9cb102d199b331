//! Where a run saves its model, and where else if that fails.

use crate::args::Train;
use crate::output::{Failure, Outcome};
use std::fs;
use std::path::Path;
use vitrine_bert::{BertError, StagedFiles};

/// Claims --output, or the first of runs/train-001, runs/train-002, .. that is free: another run that starts now gets another.
pub fn claim_output(arguments: &Train) -> Outcome<StagedFiles> {
    if let Some(folder) = &arguments.output {
        return super::super::claim_output(folder, arguments.overwrite);
    }
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
