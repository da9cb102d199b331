//! C4: learning rates, accuracy, and what is left of the language model.

use crate::evidence::{Estimate, Evidence, Line, Plot, Valued, Verdict};
use crate::setting::SAMPLE_SEED;
use crate::statistics::{BOOTSTRAP, SEED, WILSON, mean, paired, share};
use crate::training::{fine_tune, measured, right, settings, transplant};
use crate::{Claim, Result, Setting};
use vitrine_autograd::Tape;
use vitrine_bert::{MaskedLm, Place, TokenBatch, Tokenizer};
use vitrine_train::data::Dataset;
use vitrine_train::pretrain::{HELD_OUT_EPOCH, Masking, Piece};

/// The first is the notebook's, the last is the one that it warns of.
const RATES: [f64; 4] = [2e-5, 1e-4, 3e-4, 1e-3];
/// By how much the loss has to rise more, in nats.
const NATS: f64 = 1.0;
/// Seed of the masks.
const MASKS: u64 = 7;

pub const CLAIM: Claim = Claim {
    id: "C4",
    title: "Learning rates and forgetting",
    hypothesis: "A rate of 1e-3 makes BERT forget its language and generalise worse; 2e-5 avoids it.",
    method: "The pretrained model is fine-tuned with rates from 2e-5 to 1e-3, two epochs each. Then its encoder is put back under its masked-language-model head, and the loss of hidden words of test reviews is compared with that before. Accuracy, the share of the more frequent answer (1 is a collapse) and gradient norms by layer are measured too.",
    rule: "Supported if at 1e-3 the loss of hidden words rises by at least 1 nat more than at 2e-5, and accuracy is lower: the lower ends of the 95 % intervals (over reviews) are at or above 1 and 0. Not supported if an upper end is below.",
    run,
};

/// One fine-tuned model.
struct Tuned {
    rate: f64,
    right: Vec<bool>,
    /// The share of the more frequent answer.
    frequent: f64,
    /// The rise of the loss of each review's hidden words.
    rises: Vec<f64>,
    /// Mean norms of the gradient.
    norms: Vec<(Place, f64)>,
}

fn run(setting: &Setting) -> Result<Evidence> {
    let (rows, tests, documents, max_length) = setting.size((48, 40, 12, 48), (1000, 500, 200, 128));
    let seeds: &[u64] = setting.size(&[1][..], &[1, 2][..]);
    let (train, test) = (setting.train_rows(rows), setting.test_rows(tests));
    let texts = setting.test_rows(documents);
    setting.say("the loss of hidden words before")?;
    let mut language = MaskedLm::load(&setting.pretrained)?;
    let before = masked_losses(setting, &language.model, &language.tokenizer, &texts, max_length)?;
    let mut tuned = Vec::new();
    let steps = rows.div_ceil(16) * 2;
    for rate in RATES {
        let mut one = Tuned {
            rate,
            right: Vec::new(),
            frequent: 0.0,
            rises: vec![0.0; before.len()],
            norms: Vec::new(),
        };
        for &seed in seeds {
            let what = format!("rate {rate:e}, seed {seed}");
            let settings = settings(rate, 2, steps.div_ceil(10), seed);
            let (model, tokenizer, course) =
                fine_tune(setting, &setting.pretrained, &train, (max_length, None), &settings, &what)?;
            let evaluation = measured(setting, &model, &tokenizer, &test, max_length)?;
            let answers = right(&evaluation);
            let positive =
                answers.iter().zip(&test.examples).filter(|(right, row)| **right == (row.label == 1)).count();
            let share = positive as f64 / answers.len() as f64;
            one.frequent += share.max(1.0 - share) / seeds.len() as f64;
            one.right.extend(answers);
            transplant(&model, &mut language.model)?;
            let after = masked_losses(setting, &language.model, &tokenizer, &texts, max_length)?;
            for ((rise, after), before) in one.rises.iter_mut().zip(after).zip(&before) {
                *rise += (after - before) / seeds.len() as f64;
            }
            one.norms = course.norms;
        }
        tuned.push(one);
    }
    let sizes = vec![
        ("model".into(), setting.pretrained_name.clone()),
        ("training reviews".into(), train.len().to_string()),
        ("test reviews".into(), test.len().to_string()),
        ("reviews with hidden words".into(), before.len().to_string()),
        ("tokens of a review at most".into(), max_length.to_string()),
        ("steps".into(), steps.to_string()),
    ];
    Ok(evidence(sizes, seeds, &before, &tuned))
}

/// The mean loss of the hidden words of each review that has any, in nats. The masks are the same in every call.
fn masked_losses(
    setting: &Setting,
    model: &MaskedLm,
    tokenizer: &Tokenizer,
    rows: &Dataset,
    max_length: usize,
) -> Result<Vec<f64>> {
    let masking = Masking::new(tokenizer, 0.15, MASKS)?;
    let mut losses = Vec::new();
    for (index, row) in rows.examples.iter().enumerate() {
        setting.say("hidden words")?;
        let ids = tokenizer.encode(&row.text, max_length)?.ids;
        let inner = &ids[1..ids.len() - 1];
        let piece = Piece { document: index as u32, start: 0, tokens: inner.len() as u32 };
        let (hidden, places) = masking.hide(inner, &piece, HELD_OUT_EPOCH);
        if places.is_empty() {
            continue;
        }
        let targets = places.iter().map(|&place| ids[place as usize]).collect();
        let batch = TokenBatch::new([hidden], None, model.config())?;
        losses.push(model.loss(&Tape::inference(), &batch, &places.into(), &targets)?.value().item()?);
    }
    Ok(losses)
}

fn evidence(sizes: Vec<(String, String)>, seeds: &[u64], before: &[f64], tuned: &[Tuned]) -> Evidence {
    let (first, last) = (&tuned[0], &tuned[tuned.len() - 1]);
    let more: Vec<f64> = last.rises.iter().zip(&first.rises).map(|(last, first)| last - first).collect();
    let (forgetting, forgetting_interval) = mean(&more);
    let (worse, worse_interval) = paired(&first.right, &last.right);
    let verdict =
        Verdict::all(&[Verdict::at_least(forgetting_interval, NATS), Verdict::at_least(worse_interval, 0.0)]);
    let (start, start_interval) = mean(before);
    let mut estimates = vec![
        Estimate::new(
            "rise of the loss at 1e-3 minus that at 2e-5, nats",
            forgetting,
            forgetting_interval,
            BOOTSTRAP,
        )
        .deciding(),
        Estimate::new("accuracy at 2e-5 minus that at 1e-3", worse, worse_interval, BOOTSTRAP).deciding(),
        Estimate::new("loss of hidden words before, nats", start, start_interval, BOOTSTRAP),
    ];
    for one in tuned {
        let rate = one.rate;
        let (accuracy, interval) = share(&one.right);
        estimates.push(Estimate::new(format!("accuracy at {rate:e}"), accuracy, interval, WILSON));
        let (rise, interval) = mean(&one.rises);
        estimates.push(Estimate::new(
            format!("rise of the loss at {rate:e}, nats"),
            rise,
            interval,
            BOOTSTRAP,
        ));
        estimates
            .push(Estimate::exact(format!("share of the more frequent answer at {rate:e}"), one.frequent));
        let norm =
            |wanted: Place| one.norms.iter().find(|(place, _)| *place == wanted).map(|(_, norm)| *norm);
        if let (Some(below), Some(head)) = (norm(Place::Layer(0)), norm(Place::Head)) {
            let name = format!("gradient norm of layer 0 / that of the head at {rate:e}");
            estimates.push(Estimate::exact(name, below / head));
        }
    }
    let accuracy = |one: &Tuned| share(&one.right);
    let line = |name: &str, value: &dyn Fn(&Tuned) -> Valued| Line {
        name: name.into(),
        points: tuned
            .iter()
            .enumerate()
            .map(|(place, one)| {
                let (value, interval) = value(one);
                (place as f64, value, interval)
            })
            .collect(),
    };
    let names: Vec<String> = tuned.iter().map(|one| format!("{:e}", one.rate)).collect();
    let plot = |title: &str, y: &str, lines| Plot {
        title: title.into(),
        x: "learning rate".into(),
        y: y.into(),
        names: names.clone(),
        ordered: true,
        lines,
    };
    let best = tuned.iter().max_by(|a, b| accuracy(a).0.total_cmp(&accuracy(b).0)).unwrap_or(first);
    Evidence {
        sizes,
        seeds: seeds.iter().copied().chain([SAMPLE_SEED.into(), SEED]).collect(),
        verdict,
        result: format!(
            "The loss of hidden words rises by {:.2} nats at 2e-5 and by {:.2} at 1e-3; accuracy is {:.3} and {:.3}. The best rate is {:e} with {:.3}.",
            mean(&first.rises).0,
            mean(&last.rises).0,
            accuracy(first).0,
            accuracy(last).0,
            best.rate,
            accuracy(best).0
        ),
        estimates,
        remarks: vec![
            "The model is smaller than the notebook's, and a smaller model takes larger rates.".into(),
            "Intervals are over reviews, not over runs: they say nothing of how runs differ.".into(),
        ],
        plots: vec![
            plot("Accuracy", "accuracy", vec![line("accuracy", &accuracy)]),
            plot("Rise of the loss of hidden words", "nats", vec![line("rise", &|one| mean(&one.rises))]),
            norms(tuned),
        ],
    }
}

/// Gradient norms by part, a line a rate.
fn norms(tuned: &[Tuned]) -> Plot {
    let line = |one: &Tuned| Line {
        name: format!("{:e}", one.rate),
        points: one.norms.iter().enumerate().map(|(place, (_, norm))| (place as f64, *norm, None)).collect(),
    };
    Plot {
        title: "Gradient norms by part of the model".into(),
        x: "part".into(),
        y: "mean norm over the steps".into(),
        names: tuned[0].norms.iter().map(|(place, _)| place.to_string()).collect(),
        ordered: true,
        lines: tuned.iter().map(line).collect(),
    }
}
