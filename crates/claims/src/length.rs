//! C7: 512 tokens beside 256 and 128, of the beginning and of the end.

use crate::evidence::{Estimate, Evidence, Line, Plot, Verdict};
use crate::setting::SAMPLE_SEED;
use crate::statistics::{BOOTSTRAP, SEED, WILSON, paired, share};
use crate::training::{fine_tune, measured, right, settings};
use crate::{Claim, Result, Setting};
use vitrine_bert::{SequenceClassifier, Tokenizer, Truncation};

/// How much more accuracy the long input has to give.
const BETTER: f64 = 0.01;
/// A rate at which the small model learns in few steps.
const RATE: f64 = 3e-4;
/// The whole, and what is left of it.
const CUTS: [(usize, Truncation, &str); 5] = [
    (512, Truncation::Head, "512"),
    (256, Truncation::Head, "first 256"),
    (256, Truncation::Tail, "last 256"),
    (128, Truncation::Head, "first 128"),
    (128, Truncation::Tail, "last 128"),
];

pub const CLAIM: Claim = Claim {
    id: "C7",
    title: "512 tokens",
    hypothesis: "Reviews have to be read up to 512 tokens: the first 256 or 128 give less accuracy.",
    method: "The pretrained model is fine-tuned on the same reviews for two epochs at a rate of 3e-4, cut to the first 512, 256 or 128 tokens and to the last 256 or 128, and measured on test reviews that are cut alike.",
    rule: "Supported if 512 tokens give at least one point more accuracy than the first 256 and than the first 128: the lower ends of the 95 % intervals of the paired differences are at or above 0.01. Not supported if an upper end is below. Inconclusive if one of these runs has not learned: the 95 % interval of its accuracy includes 0.5.",
    run,
};

fn run(setting: &Setting) -> Result<Evidence> {
    let (rows, tests) = setting.size((32, 32), (1000, 1000));
    let (train, test) = (setting.train_rows(rows), setting.test_rows(tests));
    let steps = rows.div_ceil(16) * 2;
    let own: Tokenizer = SequenceClassifier::load_with(
        &setting.pretrained,
        vitrine_bert::Head::New { names: &train.label_names, seed: 1 },
    )?
    .tokenizer;
    let mut found = Vec::new();
    for (length, part, name) in CUTS {
        let tokenizer = own.clone().with_truncation(part);
        let settings = settings(RATE, 2, steps.div_ceil(10), 1);
        let what = format!("{name} tokens");
        let (model, tokenizer, _) =
            fine_tune(setting, &setting.pretrained, &train, (length, Some(&tokenizer)), &settings, &what)?;
        let most = length.min(model.config().max_length());
        found.push((name, right(&measured(setting, &model, &tokenizer, &test, most)?)));
    }
    let of = |name: &str| {
        found.iter().find(|(other, _)| *other == name).map_or(&[][..], |(_, right)| right.as_slice())
    };
    let whole = of("512");
    let at_chance = at_chance(["512", "first 256", "first 128"].map(|name| (name, of(name))));
    let (mut estimates, mut verdicts) = (Vec::new(), Vec::new());
    for name in ["first 256", "first 128"] {
        let (value, interval) = paired(whole, of(name));
        verdicts.push(Verdict::at_least(interval, BETTER));
        estimates.push(
            Estimate::new(
                format!("accuracy with 512 minus that with the {name} tokens"),
                value,
                interval,
                BOOTSTRAP,
            )
            .deciding(),
        );
    }
    for (length, [head, tail]) in [("256", ["first 256", "last 256"]), ("128", ["first 128", "last 128"])] {
        let (value, interval) = paired(of(tail), of(head));
        estimates.push(Estimate::new(
            format!("accuracy with the last {length} minus that with the first"),
            value,
            interval,
            BOOTSTRAP,
        ));
    }
    let mut points = Vec::new();
    for (place, (name, right)) in found.iter().enumerate() {
        let (value, interval) = share(right);
        estimates.push(Estimate::new(format!("accuracy with {name} tokens"), value, interval, WILSON));
        points.push((place as f64, value, interval));
    }
    let said: Vec<String> =
        found.iter().map(|(name, right)| format!("{name}: {:.3}", share(right).0)).collect();
    let mut remarks = vec![
        "One run of each: intervals are over reviews, and another seed may move each figure by a point or two.".into(),
        "The built-in reviews are shorter than 128 tokens; only longer ones tell the cuts apart.".into(),
    ];
    if !at_chance.is_empty() {
        remarks
            .push(format!("At chance, so that nothing can be compared with it: {}.", at_chance.join(", ")));
    }
    Ok(Evidence {
        sizes: vec![
            ("model".into(), setting.pretrained_name.clone()),
            ("training reviews".into(), train.len().to_string()),
            ("test reviews".into(), test.len().to_string()),
            ("steps".into(), steps.to_string()),
        ],
        seeds: vec![1, SAMPLE_SEED.into(), SEED],
        verdict: if at_chance.is_empty() { Verdict::all(&verdicts) } else { Verdict::Inconclusive },
        result: format!("Accuracy by tokens read: {}.", said.join(", ")),
        estimates,
        remarks,
        plots: vec![Plot {
            title: "Accuracy by what is read".into(),
            x: "tokens".into(),
            y: "accuracy".into(),
            names: CUTS.map(|cut| cut.2.to_owned()).into(),
            ordered: false,
            lines: vec![Line { name: "accuracy".into(), points }],
        }],
    })
}

/// The runs that have not learned. Such a run tells of its rate and its seed, and nothing of what it has read.
fn at_chance<'a>(runs: [(&'a str, &[bool]); 3]) -> Vec<&'a str> {
    let has_learned = |right: &[bool]| share(right).1.is_some_and(|(low, _)| low > 0.5);
    runs.into_iter().filter(|(_, right)| !has_learned(right)).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_at_chance_is_found() {
        let right = |count: usize| (0..1000).map(|row| row < count).collect::<Vec<bool>>();
        let runs = [("512", right(801)), ("first 256", right(501)), ("first 128", right(540))];
        assert_eq!(at_chance(runs.each_ref().map(|(name, right)| (*name, right.as_slice()))), ["first 256"]);
        assert_eq!(at_chance([("512", &[]), ("a", &right(300)), ("b", &right(530))]), ["512", "a", "b"]);
    }
}
