//! Loading one data set, and what must hold for all that loads.

use crate::message;
use std::path::Path;
use vitrine_train::data::{self, Dataset, LoadOptions};

/// Loads a file; bits of `choice` set options.
pub fn load(path: &Path, choice: u8) {
    let named = |bit: u8, name: &str| (choice >> bit & 1 == 1).then(|| name.to_owned());
    let options = LoadOptions {
        text_column: named(1, "t"),
        label_column: named(2, "l"),
        ..LoadOptions::default()
    };
    match data::load(path, &options) {
        Ok(dataset) => {
            check(&dataset);
            let known = ["neg", "pos"].map(str::to_owned);
            match dataset.aligned(&known, "the model") {
                Ok((aligned, _)) => check(&aligned),
                Err(error) => message(&error),
            }
        }
        Err(error) => message(&error),
    }
}

/// Every label is a class, and what a run says of the rows can be said.
pub fn check(dataset: &Dataset) {
    assert!(!dataset.is_empty());
    assert!(dataset.examples.iter().all(|example| (example.label as usize) < dataset.label_names.len()));
    assert_eq!(dataset.class_counts().iter().sum::<usize>(), dataset.len());
}
