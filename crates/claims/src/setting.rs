//! [`Setting`]: what claims are tested on.

use crate::{ClaimError, Result};
use vitrine_bert::Source;
use vitrine_train::data::Dataset;
use vitrine_train::data::sampling::{Sample, stratified};

/// Called with what is done next; false ends the run.
pub type Watch<'a> = &'a (dyn Fn(&str) -> bool + Sync);

/// What claims are tested on.
pub struct Setting<'a> {
    /// Whether small sizes are enough: for a look, and for CI. Verdicts are then often inconclusive.
    pub quick: bool,
    /// Labelled reviews to train on, of two classes, negative first.
    pub train: Dataset,
    /// Labelled reviews to measure on.
    pub test: Dataset,
    /// What the two are, for people.
    pub data_name: String,
    /// A pretrained masked language model.
    pub pretrained: Source,
    /// What it is called.
    pub pretrained_name: String,
    /// A classifier of reviews, negative first.
    pub classifier: Source,
    /// What it is called.
    pub classifier_name: String,
    /// Watches.
    pub watch: Watch<'a>,
}

/// Seed of the draws of rows: that of the notebook.
pub const SAMPLE_SEED: u32 = 42;

impl Setting<'_> {
    /// Says what is done next.
    ///
    /// # Errors
    /// `Stopped`.
    pub fn say(&self, what: &str) -> Result<()> {
        if (self.watch)(what) { Ok(()) } else { Err(ClaimError::Stopped) }
    }

    /// One of two sizes.
    pub fn size<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// At most so many rows to train on, half of each class.
    pub fn train_rows(&self, rows: usize) -> Dataset {
        sample(&self.train, rows)
    }

    /// At most so many rows to measure on, half of each class.
    pub fn test_rows(&self, rows: usize) -> Dataset {
        sample(&self.test, rows)
    }
}

fn sample(rows: &Dataset, total: usize) -> Dataset {
    rows.subset(&stratified(rows, Sample::Total(total), SAMPLE_SEED))
}
