//! C6: a warmup of 500 steps in a run of 471.

use crate::evidence::{Estimate, Evidence, Line, Plot, Verdict};
use crate::{Claim, Result, Setting};
use vitrine_train::schedule::{Schedule, ScheduleKind};

/// The notebook's set-up: rows, rows a step, passes, warmup, peak.
const ROWS: usize = 2500;
const BATCH: usize = 16;
const EPOCHS: usize = 3;
const WARMUP: usize = 500;
const PEAK: f64 = 2e-5;

pub const CLAIM: Claim = Claim {
    id: "C6",
    title: "A warmup of 500 steps",
    hypothesis: "The notebook trains with a learning rate of 2e-5 after a warmup of 500 steps that stabilises the gradients.",
    method: "The steps of 2,500 rows in batches of 16 over 3 epochs are counted, and the learning rate of each is computed by the schedule that trains here, and by hand as k / 500 of the peak.",
    rule: "Supported if some step has a rate of 2e-5; not supported if none has. Nothing in it is left to chance.",
    run,
};

fn run(setting: &Setting) -> Result<Evidence> {
    setting.say("the schedule of 471 steps")?;
    let total = ROWS.div_ceil(BATCH) * EPOCHS;
    let rates = |warmup: usize| -> Vec<f64> {
        let schedule = Schedule { kind: ScheduleKind::Linear, total, warmup };
        (0..total).map(|step| PEAK * schedule.factor(step)).collect()
    };
    let notebook = rates(WARMUP);
    let by_hand = |step: usize| PEAK * step as f64 / WARMUP as f64;
    let apart = notebook.iter().enumerate().map(|(step, rate)| (rate - by_hand(step)).abs());
    let apart = apart.fold(0.0, f64::max);
    let tenth = rates(total.div_ceil(10));
    let largest = |rates: &[f64]| rates.iter().copied().fold(0.0, f64::max);
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
    let most = largest(&notebook);
    let verdict = if most >= PEAK { Verdict::Supported } else { Verdict::NotSupported };
    let line = |name: &str, rates: &[f64]| Line {
        name: name.into(),
        points: rates.iter().enumerate().step_by(10).map(|(k, &rate)| ((k + 1) as f64, rate, None)).collect(),
    };
    Ok(Evidence {
        sizes: vec![("steps".into(), total.to_string()), ("steps of warmup".into(), WARMUP.to_string())],
        seeds: Vec::new(),
        estimates: vec![
            Estimate::exact("largest learning rate", most).deciding(),
            Estimate::exact("mean learning rate", mean(&notebook)),
            Estimate::exact("mean learning rate with a warmup of a tenth of the steps", mean(&tenth)),
            Estimate::exact("largest difference from k / 500 of the peak", apart),
        ],
        verdict,
        result: format!(
            "The run has {total} steps, so the warmup never ends: the rate rises to {most:.3e} in the last step and stands at {:.0} % of 2e-5 on average.",
            100.0 * mean(&notebook) / PEAK
        ),
        remarks: vec!["The decay that should follow the warmup does not take place either: the run ends at its largest rate.".into()],
        plots: vec![Plot {
            title: "Learning rate".into(),
            x: "step".into(),
            y: "rate".into(),
            names: Vec::new(),
            ordered: true,
            lines: vec![line("warmup of 500 steps", &notebook), line("warmup of a tenth of the steps", &tenth)],
        }],
    })
}
