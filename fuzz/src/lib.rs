//! What the targets share: one folder in memory for readers that take a path, and what a panic means.
//!
//! libfuzzer-sys ends the process in its panic hook. Vitrine catches panics of libraries (a damaged parquet file makes the
//! parquet crate panic) and turns them into errors, so a hook must not end anything. [`target!`] installs a hook that only
//! remembers; a panic that reaches the target itself was caught by nobody, and that is the finding.

pub mod program;
pub mod tables;

use std::cell::RefCell;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Defines a target: `target!(|data| ...)` with `data: &[u8]`.
#[macro_export]
macro_rules! target {
    (|$data:ident| $body:expr) => {
        libfuzzer_sys::fuzz_target!(init: $crate::remember_panics(), |$data: &[u8]| $crate::run(|| $body));
    };
}

thread_local!(static LAST: RefCell<String> = const { RefCell::new(String::new()) });

/// Replaces libfuzzer-sys's hook.
pub fn remember_panics() {
    panic::set_hook(Box::new(|info| LAST.set(info.to_string())));
}

/// Runs one input. A panic that comes out of `body` is printed and ends the process, unless it contains one of the texts in
/// `VITRINE_FUZZ_KNOWN` (separated by `;`): a long run goes on past what is reported already.
pub fn run(body: impl FnOnce()) {
    if panic::catch_unwind(AssertUnwindSafe(body)).is_err() {
        let panic = LAST.take();
        let known = std::env::var("VITRINE_FUZZ_KNOWN").unwrap_or_default();
        if !known.split(';').any(|text| !text.is_empty() && panic.contains(text)) {
            eprintln!("uncaught: {panic}");
            std::process::abort();
        }
    }
}

/// A folder of this process in memory, where there is one.
pub fn scratch() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // `run` sets TMPDIR and clears it away: libFuzzer ends the process without a chance to.
        let memory = Path::new("/dev/shm");
        let named = std::env::var_os("TMPDIR").is_some() || !memory.is_dir();
        let parent = if named { std::env::temp_dir() } else { memory.to_owned() };
        let folder = parent.join(format!("vitrine-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder can be made");
        folder
    })
}

/// Writes a file of [`scratch`]; gives its path.
pub fn file(name: &str, content: &[u8]) -> PathBuf {
    let path = scratch().join(name);
    fs::write(&path, content).expect("the scratch folder has room");
    path
}

/// Writes the file, or removes what an earlier input left there.
pub fn optional_file(name: &str, content: Option<&[u8]>) {
    match content {
        Some(content) => drop(file(name, content)),
        None => drop(fs::remove_file(scratch().join(name))),
    }
}

/// Renders an error's message, as a command would.
pub fn message(error: &dyn std::fmt::Display) {
    drop(error.to_string());
}

/// Renders an error's message, which must be one short line without control characters.
///
/// # Panics
/// When it is not; that is a finding.
pub fn one_line(error: &dyn std::fmt::Display) {
    let text = error.to_string();
    let wrong = text.chars().find(|c| c.is_control());
    assert!(wrong.is_none(), "a message with {wrong:?}: {text:?}");
    assert!(text.len() < 2000, "a message of {} bytes", text.len());
}
