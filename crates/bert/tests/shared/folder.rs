//! Tests that need a file or folder of `../shared`, the data beside the checkout. They run through libtest-mimic because they
//! have to be counted as ignored where it is absent, and that is known only when they run.

use libtest_mimic::{Arguments, Failed, Trial};
use std::path::{Path, PathBuf};

/// A name, what it needs under `../shared` (or under `VITRINE_SHARED`), and the test, which gets its path.
pub type Test = (&'static str, &'static str, fn(&Path));

/// Runs the tests; the last line says which of them lacked what.
pub fn run(tests: &[Test]) -> ! {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = std::env::var_os("VITRINE_SHARED").map_or_else(beside, PathBuf::from);
    let mut absent = Vec::new();
    let trials = tests.iter().map(|&(name, needed, test)| {
        let path = shared.join(needed);
        let there = path.exists();
        if !there {
            absent.push(format!("{name} needs {}", path.display()));
        }
        let run = move || -> Result<(), Failed> {
            test(&path);
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(!there)
    });
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials.collect());
    if !absent.is_empty() {
        println!("SKIPPED {} of {} tests: {}", absent.len(), tests.len(), absent.join("; "));
    }
    conclusion.exit()
}
