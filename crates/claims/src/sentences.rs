//! C5: the notebook's three sentences, and 48 like each.

use crate::evidence::{Estimate, Evidence, Line, Plot, Point, Verdict};
use crate::statistics::{SEED, WILSON, share};
use crate::training::probabilities;
use crate::{Claim, Result, Setting, texts};
use vitrine_bert::SequenceClassifier;

/// The share of sentences that has to come out as the notebook says.
const SHARE: f64 = 0.9;

pub const CLAIM: Claim = Claim {
    id: "C5",
    title: "Three sentences",
    hypothesis: "A fine-tuned BERT tells praise (\"absolutely fantastic\") and blame (\"absolutely hated\") apart, and reads \"not bad, but it wasn't great either\" as a shift towards neutral or positive.",
    method: "The notebook's three sentences and 48 of our own like each are classified. The third kind is compared with the same sentence without its \"not\".",
    rule: "Supported if of each kind at least 90 % come out as said (praise positive, blame negative, \"not\" raises the probability of positive): the lower end of the 95 % interval is at or above 0.9 for all three. Not supported if an upper end is below 0.9.",
    run,
};

fn run(setting: &Setting) -> Result<Evidence> {
    setting.say("147 sentences")?;
    let loaded = SequenceClassifier::load(&setting.classifier)?;
    let positive = |texts: &[String]| probabilities(&loaded, texts);
    let notebook = positive(&texts::NOTEBOOK.map(str::to_owned))?;
    let praise = positive(&texts::clear(true))?;
    let blame = positive(&texts::clear(false))?;
    let (with, without): (Vec<String>, Vec<String>) = texts::mixed().into_iter().unzip();
    let (with, without) = (positive(&with)?, positive(&without)?);
    let shift: Vec<bool> = with.iter().zip(&without).map(|(with, without)| with > without).collect();
    let right = |values: &[f64], positive: bool| -> Vec<bool> {
        values.iter().map(|&value| (value > 0.5) == positive).collect()
    };
    let mut estimates = Vec::new();
    let mut verdicts = Vec::new();
    for (name, right) in [
        ("praise that is called positive", right(&praise, true)),
        ("blame that is called negative", right(&blame, false)),
        ("sentences whose \"not\" raises the probability of positive", shift),
    ] {
        let (value, interval) = share(&right);
        verdicts.push(Verdict::at_least(interval, SHARE));
        estimates.push(Estimate::new(name, value, interval, WILSON).deciding());
    }
    for (index, value) in notebook.iter().enumerate() {
        let name = format!("probability of positive, sentence {}", index + 1);
        estimates.push(Estimate::exact(name, *value));
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_with, mean_without) = (mean(&with), mean(&without));
    estimates.push(Estimate::exact("mean probability of positive with \"not\"", mean_with));
    estimates.push(Estimate::exact("the same without it", mean_without));
    Ok(Evidence {
        sizes: vec![
            ("model".into(), setting.classifier_name.clone()),
            ("sentences of a kind".into(), praise.len().to_string()),
        ],
        seeds: vec![SEED],
        verdict: Verdict::all(&verdicts),
        result: format!(
            "The three sentences are positive with probability {:.3}, {:.3} and {:.3}. \"not\" moves the third kind from {mean_without:.3} to {mean_with:.3} on average.",
            notebook[0], notebook[1], notebook[2]
        ),
        estimates,
        remarks: vec![
            "The sentences of a kind are alike, so the interval is about sentences like these and no others.".into(),
            "The classifier has no class for neutral: what it says of the third sentence is positive or negative.".into(),
        ],
        plots: vec![Plot {
            title: "Probability of positive".into(),
            x: "sentence of the kind".into(),
            y: "probability".into(),
            names: Vec::new(),
            ordered: true,
            lines: [("praise", &praise), ("blame", &blame), ("with not", &with), ("without", &without)]
                .map(|(name, values)| Line { name: name.into(), points: numbered(values) })
                .into(),
        }],
    })
}

fn numbered(values: &[f64]) -> Vec<Point> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.into_iter().enumerate().map(|(index, value)| ((index + 1) as f64, value, None)).collect()
}
