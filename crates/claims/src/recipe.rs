//! C1: what the notebook's recipe gives.

use crate::evidence::{Estimate, Evidence, Line, Plot, Verdict};
use crate::setting::SAMPLE_SEED;
use crate::statistics::WILSON;
use crate::training::{fine_tune, measured, settings};
use crate::{Claim, Result, Setting};
use vitrine_bert::{Head, SequenceClassifier};
use vitrine_train::metrics::Metrics;

/// What the notebook prints.
const ACCURACY: f64 = 0.502;
const F1: f64 = 0.0079;
/// Heads that are measured without training.
const HEADS: [u64; 3] = [1, 2, 3];

pub const CLAIM: Claim = Claim {
    id: "C1",
    title: "What the recipe gives",
    hypothesis: "The notebook's recipe ends with an accuracy of 0.5020 and an F1 of 0.0079, as it prints.",
    method: "The recipe is run: 2,500 reviews, 3 epochs, batches of 16, a rate of 2e-5, a warmup of 500 steps, weight decay 0.01, 512 tokens; 500 test reviews. The same model is measured without training, with three random heads.",
    rule: "Supported if 0.502 lies in the 95 % interval of the accuracy and 0.0079 in that of F1. Not supported if either lies outside. Inconclusive with small sizes, which are another recipe.",
    run,
};

fn run(setting: &Setting) -> Result<Evidence> {
    let (rows, tests, epochs, length) = setting.size((48, 40, 1, 64), (2500, 500, 3, 512));
    let (train, test) = (setting.train_rows(rows), setting.test_rows(tests));
    let mut untrained = Vec::new();
    for seed in HEADS {
        setting.say("without training")?;
        let head = Head::New { names: &train.label_names, seed };
        let loaded = SequenceClassifier::load_with(&setting.pretrained, head)?;
        let most = length.min(loaded.model.config().max_length());
        untrained.push(measured(setting, &loaded.model, &loaded.tokenizer, &test, most)?.metrics);
    }
    let settings = settings(2e-5, epochs, 500, 42);
    let (model, tokenizer, course) =
        fine_tune(setting, &setting.pretrained, &train, (length, None), &settings, "the recipe")?;
    let trained = measured(setting, &model, &tokenizer, &test, length)?.metrics;
    let inside = |interval: (f64, f64), value: f64| interval.0 <= value && value <= interval.1;
    let as_printed = inside(trained.accuracy_interval(), ACCURACY) && inside(trained.f1_interval(), F1);
    let verdict = match (setting.quick, as_printed) {
        (true, _) => Verdict::Inconclusive,
        (false, true) => Verdict::Supported,
        (false, false) => Verdict::NotSupported,
    };
    let f1_by = "95 %, percentile bootstrap, 1,000 resamples";
    let accuracy =
        |name: String, of: &Metrics| Estimate::new(name, of.accuracy, Some(of.accuracy_interval()), WILSON);
    let f1 = |name: String, of: &Metrics| Estimate::new(name, of.f1, Some(of.f1_interval()), f1_by);
    let mut estimates = vec![
        accuracy("accuracy".into(), &trained).deciding(),
        f1("F1".into(), &trained).deciding(),
        Estimate::exact("loss of the last step", course.steps.last().map_or(f64::NAN, |step| step.loss)),
    ];
    for (seed, metrics) in HEADS.iter().zip(&untrained) {
        estimates.push(accuracy(format!("accuracy without training, head {seed}"), metrics));
        estimates.push(f1(format!("F1 without training, head {seed}"), metrics));
    }
    let points = course.steps.iter().step_by((course.steps.len() / 100).max(1));
    let mut remarks = vec![format!(
        "The model is {}, smaller than the notebook's bert-base, which takes hours on a processor.",
        setting.pretrained_name
    )];
    if setting.quick {
        remarks.push("Small sizes: fewer reviews and one epoch are not the notebook's recipe.".into());
    }
    Ok(Evidence {
        sizes: vec![
            ("model".into(), setting.pretrained_name.clone()),
            ("training reviews".into(), train.len().to_string()),
            ("test reviews".into(), test.len().to_string()),
            ("steps".into(), course.steps.len().to_string()),
            ("tokens of a review at most".into(), length.to_string()),
        ],
        seeds: [vec![42, SAMPLE_SEED.into()], HEADS.to_vec()].concat(),
        verdict,
        result: format!(
            "The recipe gives an accuracy of {:.3} and an F1 of {:.3}; without training it is {} and {}.",
            trained.accuracy,
            trained.f1,
            listed(&untrained, |metrics| metrics.accuracy),
            listed(&untrained, |metrics| metrics.f1)
        ),
        estimates,
        remarks,
        plots: vec![Plot {
            title: "Loss of the steps".into(),
            x: "step".into(),
            y: "loss".into(),
            names: Vec::new(),
            ordered: true,
            lines: vec![Line {
                name: "loss".into(),
                points: points.map(|step| (step.step as f64, step.loss, None)).collect(),
            }],
        }],
    })
}

fn listed(all: &[Metrics], value: impl Fn(&Metrics) -> f64) -> String {
    all.iter().map(|metrics| format!("{:.3}", value(metrics))).collect::<Vec<_>>().join(", ")
}
