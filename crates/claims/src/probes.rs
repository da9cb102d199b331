//! C2: what a linear classifier finds in [CLS], in the mean and in the maximum of all tokens, layer by layer.

use crate::evidence::{Estimate, Evidence, Line, Plot, Verdict};
use crate::setting::SAMPLE_SEED;
use crate::statistics::{BOOTSTRAP, SEED, WILSON, paired, share};
use crate::{Claim, Result, Setting};
use vitrine_autograd::Tape;
use vitrine_bert::{LayerPoint, Loaded, Point, Source, Tap, TappedModel, Taps, TokenBatch};
use vitrine_tensor::{DType, Device};
use vitrine_train::data::Dataset;

/// By how much [CLS] may be worse and still count as no worse.
const MARGIN: f64 = 0.01;
/// The ridge, as a share of the rows.
const RIDGE: f64 = 0.1;
/// What becomes of the tokens of a text.
const POOLS: [&str; 3] = ["[CLS]", "mean", "max"];

pub const CLAIM: Claim = Claim {
    id: "C2",
    title: "[CLS] as the sentence",
    hypothesis: "By the last layer [CLS] has gathered the sentence: for a linear classifier it is at least as good as the mean or the maximum of all tokens.",
    method: "Of the pretrained model, which nobody has told about sentiment, and of the fine-tuned one, a linear classifier (ridge regression on standardised features) is fitted to [CLS], to the mean and to the maximum of the tokens after each layer, and measured on test reviews.",
    rule: "Supported if in the last layer of the pretrained model [CLS] is at most one point worse than the better of mean and maximum: the lower end of the 95 % interval of the paired difference is at or above -0.01. Not supported if the upper end is below.",
    run,
};

/// Features of one point and pool: a row a text.
type Features = Vec<Vec<f32>>;

/// Which test rows a probe gets right, by hidden state and pool.
type Found = Vec<[Vec<bool>; 3]>;

fn run(setting: &Setting) -> Result<Evidence> {
    let (rows, tests, length) = setting.size((60, 60, 48), (1000, 1000, 256));
    let (train, test) = (setting.train_rows(rows), setting.test_rows(tests));
    let mut found = Vec::new();
    for (name, source) in [("pretrained", &setting.pretrained), ("fine-tuned", &setting.classifier)] {
        found.push((name, probed(setting, name, source, (&train, &test), length)?));
    }
    Ok(evidence(setting, &found, (train.len(), test.len(), length)))
}

fn probed(
    setting: &Setting,
    name: &str,
    source: &Source,
    (train, test): (&Dataset, &Dataset),
    length: usize,
) -> Result<Found> {
    let loaded = TappedModel::load(source)?;
    let of_train = features(setting, name, &loaded, train, length)?;
    let of_test = features(setting, name, &loaded, test, length)?;
    let signs = |rows: &Dataset| -> Vec<f64> {
        rows.examples.iter().map(|row| if row.label == 1 { 1.0 } else { -1.0 }).collect()
    };
    let (train, test) = (signs(train), signs(test));
    let mut found = Vec::new();
    for (point, (train_rows, test_rows)) in of_train.iter().zip(&of_test).enumerate() {
        setting.say(&format!("{name}: probes of hidden state {point}"))?;
        found.push(std::array::from_fn(|pool| {
            let probe = Probe::fit(&train_rows[pool], &train);
            test_rows[pool]
                .iter()
                .zip(&test)
                .map(|(row, &sign)| (probe.says(row) > 0.0) == (sign > 0.0))
                .collect()
        }));
    }
    Ok(found)
}

/// `[hidden states][pools]`: the features of every row.
fn features(
    setting: &Setting,
    name: &str,
    loaded: &Loaded<TappedModel>,
    rows: &Dataset,
    length: usize,
) -> Result<Vec<[Features; 3]>> {
    let Loaded { model, tokenizer, .. } = loaded;
    let layers = model.config().num_hidden_layers;
    let points = [Point::Embeddings]
        .into_iter()
        .chain((0..layers).map(|layer| Point::Layer(layer, LayerPoint::Output)));
    let points: Vec<Point> = points.collect();
    let mut taps = Taps::new();
    let read: Vec<Tap> = points.iter().map(|&point| taps.read(point)).collect();
    let mut all: Vec<[Features; 3]> = points.iter().map(|_| Default::default()).collect();
    let most = length.min(model.config().max_length());
    for (done, row) in rows.examples.iter().enumerate() {
        setting.say(&format!("{name}: hidden states of review {} of {}", done + 1, rows.len()))?;
        let ids = tokenizer.encode(&row.text, most)?.ids;
        let batch = TokenBatch::new([ids], None, model.config())?;
        model.run(&Tape::inference(), &batch, &taps, &points)?;
        for (tap, pooled) in read.iter().zip(&mut all) {
            let value = taps.value(*tap)?.contiguous()?.to_device(Device::Cpu)?.to_dtype(DType::F32)?;
            let width = value.dims()[1];
            pool(&value.to_vec::<f32>()?, width)
                .into_iter()
                .zip(pooled)
                .for_each(|(row, rows)| rows.push(row));
        }
    }
    Ok(all)
}

/// The first row, the mean and the largest value of each column of `[S, C]`.
fn pool(values: &[f32], width: usize) -> [Vec<f32>; 3] {
    let rows = values.len() / width;
    let (mut mean, mut max) = (vec![0.0; width], vec![f32::NEG_INFINITY; width]);
    for row in values.chunks(width) {
        for ((mean, max), value) in mean.iter_mut().zip(&mut max).zip(row) {
            *mean += value / rows as f32;
            *max = max.max(*value);
        }
    }
    [values[..width].to_vec(), mean, max]
}

/// Ridge regression of a sign on standardised features.
struct Probe {
    /// Mean and deviation of each feature.
    scales: Vec<(f64, f64)>,
    weights: Vec<f64>,
    bias: f64,
}

impl Probe {
    /// `w = (X^T X + RIDGE n I)^-1 X^T (y - mean y)` over the standardised rows X, by Cholesky's decomposition.
    fn fit(rows: &Features, signs: &[f64]) -> Self {
        let (n, width) = (rows.len() as f64, rows.first().map_or(0, Vec::len));
        let scales: Vec<(f64, f64)> = (0..width)
            .map(|column| {
                let values = || rows.iter().map(|row| f64::from(row[column]));
                let mean = values().sum::<f64>() / n;
                let deviation = (values().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt();
                // A feature that does not vary says nothing.
                (mean, if deviation > 1e-12 { deviation } else { f64::INFINITY })
            })
            .collect();
        let bias = signs.iter().sum::<f64>() / n;
        let (mut gram, mut weights) = (vec![0.0; width * width], vec![0.0; width]);
        for (row, sign) in rows.iter().zip(signs) {
            let x = standardised(row, &scales);
            for (i, xi) in x.iter().enumerate() {
                weights[i] += xi * (sign - bias);
                gram[i * width..i * width + i + 1].iter_mut().zip(&x).for_each(|(sum, xj)| *sum += xi * xj);
            }
        }
        (0..width).for_each(|i| gram[i * width + i] += RIDGE * n);
        solve(&mut gram, &mut weights, width);
        Probe { scales, weights, bias }
    }

    /// Above 0 for the positive sign.
    fn says(&self, row: &[f32]) -> f64 {
        let x = standardised(row, &self.scales);
        self.bias + x.iter().zip(&self.weights).map(|(x, weight)| x * weight).sum::<f64>()
    }
}

fn standardised(row: &[f32], scales: &[(f64, f64)]) -> Vec<f64> {
    row.iter().zip(scales).map(|(&value, (mean, deviation))| (f64::from(value) - mean) / deviation).collect()
}

/// Solves `A x = b` in the place of b, with the lower half of a positive definite A, which is overwritten.
fn solve(a: &mut [f64], b: &mut [f64], n: usize) {
    for i in 0..n {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| a[i * n + k] * a[j * n + k]).sum();
            let rest = a[i * n + j] - sum;
            a[i * n + j] = if i == j { rest.sqrt() } else { rest / a[j * n + j] };
        }
    }
    for i in 0..n {
        let sum: f64 = (0..i).map(|k| a[i * n + k] * b[k]).sum();
        b[i] = (b[i] - sum) / a[i * n + i];
    }
    for i in (0..n).rev() {
        let sum: f64 = (i + 1..n).map(|k| a[k * n + i] * b[k]).sum();
        b[i] = (b[i] - sum) / a[i * n + i];
    }
}

fn evidence(
    setting: &Setting,
    found: &[(&str, Found)],
    (train, test, length): (usize, usize, usize),
) -> Evidence {
    let accuracy = |right: &[bool]| share(right).0;
    let (mut estimates, mut plots, mut said) = (Vec::new(), Vec::new(), Vec::new());
    let mut verdict = Verdict::Inconclusive;
    for (model, states) in found {
        let Some(last) = states.last() else { continue };
        let other = if accuracy(&last[1]) >= accuracy(&last[2]) { 1 } else { 2 };
        let (value, interval) = paired(&last[0], &last[other]);
        let name = format!("{model}, last layer: accuracy of [CLS] minus that of the {}", POOLS[other]);
        let estimate = Estimate::new(name, value, interval, BOOTSTRAP);
        if *model == "pretrained" {
            verdict = Verdict::at_least(interval, -MARGIN);
            estimates.push(estimate.deciding());
        } else {
            estimates.push(estimate);
        }
        for (pool, right) in POOLS.iter().zip(last) {
            let (value, interval) = share(right);
            estimates.push(Estimate::new(
                format!("{model}, last layer: accuracy of {pool}"),
                value,
                interval,
                WILSON,
            ));
        }
        let of = |pool: usize| format!("{:.3}", accuracy(&last[pool]));
        said.push(format!("{model}: [CLS] {}, mean {}, max {}", of(0), of(1), of(2)));
        plots.push(Plot {
            title: format!("Accuracy of a linear classifier, {model} model"),
            x: "hidden state".into(),
            y: "accuracy".into(),
            names: (0..states.len()).map(|state| state.to_string()).collect(),
            ordered: true,
            lines: POOLS
                .iter()
                .enumerate()
                .map(|(pool, name)| Line {
                    name: (*name).into(),
                    points: states
                        .iter()
                        .enumerate()
                        .map(|(state, right)| {
                            let (value, interval) = share(&right[pool]);
                            (state as f64, value, interval)
                        })
                        .collect(),
                })
                .collect(),
        });
    }
    Evidence {
        sizes: vec![
            ("pretrained model".into(), setting.pretrained_name.clone()),
            ("fine-tuned model".into(), setting.classifier_name.clone()),
            ("training reviews".into(), train.to_string()),
            ("test reviews".into(), test.to_string()),
            ("tokens of a review at most".into(), length.to_string()),
        ],
        seeds: vec![SAMPLE_SEED.into(), SEED],
        estimates,
        verdict,
        result: format!("In the last layer, {}.", said.join("; ")),
        remarks: vec![
            "Hidden state 0 is that of the embeddings, where [CLS] is the same in every review: what it gets there is chance.".into(),
            "A model that was pretrained on hidden words alone has learned its [CLS] from nothing else. `embedded` began from MiniLM, whose sentences are the mean of the tokens.".into(),
        ],
        plots,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vitrine_tensor::random;

    #[test]
    fn a_probe_solves_its_equations() {
        let (rows, width) = (40, 7);
        let numbers = random::normal(rows * width, 1.0, 3, 0);
        let x: Features = numbers.chunks(width).map(<[f32]>::to_vec).collect();
        let signs: Vec<f64> = x.iter().map(|row| if row[2] - row[4] > 0.1 { 1.0 } else { -1.0 }).collect();
        let probe = Probe::fit(&x, &signs);
        // The gradient of the squares and the ridge is zero at the weights.
        for column in 0..width {
            let slope: f64 = x
                .iter()
                .zip(&signs)
                .map(|(row, sign)| standardised(row, &probe.scales)[column] * (sign - probe.says(row)))
                .sum();
            let ridge = RIDGE * rows as f64 * probe.weights[column];
            assert!((slope - ridge).abs() < 1e-9, "{column}: {slope} {ridge}");
        }
        let right = x.iter().zip(&signs).filter(|(row, sign)| probe.says(row) * *sign > 0.0).count();
        assert!(right > 35, "{right}");
        // Features that do not vary leave the mean.
        let flat = Probe::fit(&vec![vec![2.0; 3]; 4], &[1.0, 1.0, 1.0, -1.0]);
        assert_eq!(flat.says(&[2.0, 2.0, 9.0]), 0.5);
    }

    #[test]
    fn pools_are_the_first_the_mean_and_the_largest() {
        let [first, mean, max] = pool(&[1.0, 2.0, 3.0, -4.0], 2);
        assert_eq!((first, mean, max), (vec![1.0, 2.0], vec![2.0, -1.0], vec![3.0, 2.0]));
    }
}
