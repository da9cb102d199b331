//! Paired tests between the settings of a sweep: same seed, same rows.

use super::{Plan, Run};
use crate::predictions::{Discordance, PREDICTIONS_FILE, Predictions};
use serde::Serialize;
use std::collections::HashMap;
use std::path::Path;
use vitrine_train::statistics::{Spread, holm, paired_t};

/// Two settings.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub first: String,
    pub second: String,
    /// Of the accuracies, first minus second, seed by seed.
    pub accuracy_difference: Option<Spread>,
    /// The paired t-test of these; none of fewer than two seeds.
    pub paired_t: Option<f64>,
    /// One test a seed.
    pub mcnemar: Vec<McNemar>,
}

/// McNemar's test of two runs.
#[derive(Clone, Debug, Serialize)]
pub struct McNemar {
    pub seed: u64,
    pub rows: usize,
    /// Rows that only the first got right.
    pub only_first: usize,
    /// Rows that only the second got right.
    pub only_second: usize,
    pub p: f64,
    /// Adjusted for the number of McNemar tests of the sweep.
    pub p_holm: f64,
}

/// Every pair of settings, and why some are not compared.
pub fn compare(plan: &Plan, runs: &[Vec<Run>]) -> (Vec<Comparison>, Vec<String>) {
    let (mut comparisons, mut not_compared) = (Vec::new(), Vec::new());
    if plan.settings.len() < 2 {
        return (comparisons, not_compared);
    }
    let mut known: HashMap<&Path, Option<Predictions>> = HashMap::new();
    let finished: Vec<&Run> = runs.iter().flatten().filter(|run| run.is_finished()).collect();
    let lack = finished.iter().filter(|run| !run.folder.join(PREDICTIONS_FILE).exists()).count();
    if lack > 0 {
        not_compared.push(format!(
            "no McNemar test where {PREDICTIONS_FILE} is missing: in {lack} of {} runs",
            finished.len()
        ));
    }
    for run in finished.into_iter().filter(|run| run.folder.join(PREDICTIONS_FILE).exists()) {
        let predictions = Predictions::read(&run.folder)
            .map_err(|why| not_compared.push(format!("no McNemar test: {why}")))
            .ok();
        known.insert(&run.folder, predictions);
    }
    let finished =
        |setting: usize, seed: u64| runs[setting].iter().find(|run| run.seed == seed && run.is_finished());
    for second in 0..plan.settings.len() {
        for first in 0..second {
            let mut comparison = Comparison {
                first: plan.settings[first].name.clone(),
                second: plan.settings[second].name.clone(),
                accuracy_difference: None,
                paired_t: None,
                mcnemar: Vec::new(),
            };
            let mut differences = Vec::new();
            for &seed in &plan.seeds {
                let (Some(a), Some(b)) = (finished(first, seed), finished(second, seed)) else { continue };
                if a.test_hash != b.test_hash {
                    not_compared.push(format!("{} and {} were evaluated on different rows", a.name, b.name));
                    continue;
                }
                if let (Some(a), Some(b)) = (a.accuracy, b.accuracy) {
                    differences.push(a - b);
                }
                let [a_rows, b_rows] =
                    [a, b].map(|run| known.get(run.folder.as_path()).and_then(Option::as_ref));
                let (Some(a_rows), Some(b_rows)) = (a_rows, b_rows) else { continue };
                if a_rows.labels != b_rows.labels {
                    not_compared.push(format!(
                        "the {PREDICTIONS_FILE} of {} and {} are about different rows",
                        a.name, b.name
                    ));
                    continue;
                }
                let Discordance { only_first, only_second, p } =
                    Discordance::of(&a_rows.right, &b_rows.right);
                let rows = a_rows.right.len();
                comparison.mcnemar.push(McNemar { seed, rows, only_first, only_second, p, p_holm: p });
            }
            comparison.accuracy_difference = Spread::of(&differences);
            comparison.paired_t = paired_t(&differences);
            comparisons.push(comparison);
        }
    }
    let mut tests: Vec<&mut McNemar> = comparisons.iter_mut().flat_map(|pair| &mut pair.mcnemar).collect();
    let adjusted = holm(&tests.iter().map(|test| test.p).collect::<Vec<_>>());
    for (test, p) in tests.iter_mut().zip(adjusted) {
        test.p_holm = p;
    }
    (comparisons, not_compared)
}
