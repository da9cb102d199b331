//! C3: whether attention from "bad" to "not" carries the negation.

use crate::evidence::{Estimate, Evidence, Line, Plot, Valued, Verdict};
use crate::statistics::{BOOTSTRAP, SEED, mean, ratio};
use crate::texts::{self, Pair};
use crate::{Claim, ClaimError, Result, Setting};
use vitrine_explain::{Blocks, Edge, Method, Patched, Subject, Text, Wanted};

/// The share of the effect that the edge has to carry.
const SHARE: f64 = 0.5;

pub const CLAIM: Claim = Claim {
    id: "C3",
    title: "Attention and \"not bad\"",
    hypothesis: "In \"not bad\" attention links \"bad\" to \"not\" and so turns its meaning: this edge carries the negation.",
    method: "In 500 pairs (\"the film was not bad\" and \"the film was so bad\", five words of blame and five of praise) the effect of \"not\" on the difference of the logits is measured, and how much of it is lost when the edge from the adjective to \"not\" is blocked in all layers and heads. Beside it: the same for other edges, the attention itself, integrated gradients, and activation patching.",
    rule: "Supported if blocking the edge loses at least half of the effect: the lower end of the 95 % interval of the share is at or above 0.5. Not supported if the upper end is below. Inconclusive if \"not\" has no effect to begin with.",
    run,
};

/// The edges that are blocked, one set after the other: query and key.
const BLOCKED: [&str; 4] = ["adjective to not", "adjective to was", "[CLS] to not", "all others to not"];

/// What is measured of one pair.
struct Measured {
    /// By how much "not" moves the difference of the logits, in the direction in which it should.
    effect: f64,
    /// How much of it is lost with each of [`BLOCKED`].
    lost: [f64; 4],
    /// Attention from the adjective to "not" and to "was" in each layer, mean over heads; and of the head with the most.
    attention: Vec<[f64; 2]>,
    most: f64,
    /// One over the number of tokens.
    uniform: f64,
}

/// The tokens of a sentence that matter.
struct Places {
    not: usize,
    was: usize,
    adjective: usize,
}

fn run(setting: &Setting) -> Result<Evidence> {
    let subject = Subject::load(setting.classifier.clone())?;
    let pairs = texts::pairs(setting.size(10, 1));
    let mut measured = Vec::new();
    for (done, pair) in pairs.iter().enumerate() {
        setting.say(&format!("pair {} of {}: edges", done + 1, pairs.len()))?;
        measured.push(edges(&subject, pair)?);
    }
    let (mut attributed, mut patched) = (Vec::new(), Vec::new());
    let some: Vec<&Pair> = pairs.iter().step_by(setting.size(10, 5)).collect();
    for (done, pair) in some.iter().enumerate() {
        setting.say(&format!("pair {} of {}: integrated gradients and patching", done + 1, some.len()))?;
        attributed.push(integrated(&subject, pair)?);
        patched.extend(patching(&subject, pair)?);
    }
    let layers = subject.config().num_hidden_layers;
    Ok(evidence(setting, layers, &measured, &attributed, &patched))
}

/// A sentence and where its words are.
fn read(subject: &Subject, pair: &Pair, negated: bool) -> Result<(Text, Places)> {
    let text = subject.read(if negated { &pair.negated } else { &pair.plain })?;
    let find = |word: &str| text.tokens.iter().rposition(|token| token.text == word);
    let word = if negated { "not" } else { "so" };
    match (find(word), find("was"), find(pair.adjective)) {
        (Some(not), Some(was), Some(adjective)) => Ok((text, Places { not, was, adjective })),
        _ => Err(ClaimError::Data {
            claim: CLAIM.id,
            needed: format!("a vocabulary in which {word}, was and {} are one token each", pair.adjective),
            got: format!("the model cuts {:?} otherwise", text.text),
        }),
    }
}

/// Logit of positive minus that of negative, in the direction in which "not" should move it.
fn margin(subject: &Subject, pair: &Pair, text: &Text, blocks: &Blocks) -> Result<f64> {
    let Some(prediction) = subject.predict(text, blocks)? else {
        return Err(ClaimError::Data {
            claim: CLAIM.id,
            needed: "a classifier".into(),
            got: "this model has none".into(),
        });
    };
    let margin = f64::from(prediction.logits[1]) - f64::from(prediction.logits[0]);
    Ok(if pair.is_praise { -margin } else { margin })
}

fn edges(subject: &Subject, pair: &Pair) -> Result<Measured> {
    let (negated, places) = read(subject, pair, true)?;
    let (plain, _) = read(subject, pair, false)?;
    let before = margin(subject, pair, &plain, &Blocks::none())?;
    let whole = margin(subject, pair, &negated, &Blocks::none())?;
    let edge = |query: usize, key: usize| Edge { layer: None, head: None, query, key };
    let Places { not, was, adjective } = places;
    let others = (0..negated.size()).filter(|&query| query != not);
    let blocked = [
        vec![edge(adjective, not)],
        vec![edge(adjective, was)],
        vec![edge(0, not)],
        others.map(|query| edge(query, not)).collect(),
    ];
    let mut lost = [0.0; 4];
    for (lost, edges) in lost.iter_mut().zip(blocked) {
        let blocks = Blocks { heads: Vec::new(), edges };
        *lost = whole - margin(subject, pair, &negated, &blocks)?;
    }
    let attention = subject.attention(&negated, &Blocks::none())?;
    let (heads, size) = (attention.heads(), negated.size());
    let to =
        |layer: usize, head: usize, key: usize| f64::from(attention.map(layer, head)[adjective * size + key]);
    let by_layer = |layer: usize| {
        [not, was].map(|key| (0..heads).map(|head| to(layer, head, key)).sum::<f64>() / heads as f64)
    };
    let all = (0..attention.layers()).flat_map(|layer| (0..heads).map(move |head| (layer, head)));
    let most = all.map(|(layer, head)| to(layer, head, not)).fold(0.0, f64::max);
    let attention = (0..attention.layers()).map(by_layer).collect();
    Ok(Measured { effect: whole - before, lost, attention, most, uniform: 1.0 / size as f64 })
}

/// The integrated gradients of "not" and of the adjective, in the direction in which "not" should speak.
fn integrated(subject: &Subject, pair: &Pair) -> Result<[f64; 2]> {
    let (negated, places) = read(subject, pair, true)?;
    let class = usize::from(!pair.is_praise);
    let wanted = Wanted::new(Method::IntegratedGradients, class);
    let found = subject.attribute(&negated, &Blocks::none(), &wanted, &|_, _| true)?;
    Ok([found.values[places.not], found.values[places.adjective]])
}

/// What is recovered of the negated sentence by its values at "not", the adjective and [CLS], by point; none where the two sentences
/// have the same result.
fn patching(subject: &Subject, pair: &Pair) -> Result<Option<Vec<[f64; 3]>>> {
    let (negated, places) = read(subject, pair, true)?;
    let (plain, _) = read(subject, pair, false)?;
    let found = match subject.patch(&negated, &plain, &Blocks::none(), Patched::Stream, &|_, _| true) {
        Ok(found) => found,
        Err(vitrine_explain::ExplainError::SameResult { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let rows = found.recovered.iter();
    Ok(Some(rows.map(|row| [row[places.not], row[places.adjective], row[0]]).collect()))
}

fn evidence(
    setting: &Setting,
    layers: usize,
    measured: &[Measured],
    attributed: &[[f64; 2]],
    patched: &[Vec<[f64; 3]>],
) -> Evidence {
    let effects: Vec<f64> = measured.iter().map(|pair| pair.effect).collect();
    let (effect, effect_interval) = mean(&effects);
    let shares: Vec<Valued> = (0..BLOCKED.len())
        .map(|which| ratio(&measured.iter().map(|pair| pair.lost[which]).collect::<Vec<_>>(), &effects))
        .collect();
    let has_effect = effect_interval.is_some_and(|(low, _)| low > 0.0);
    let verdict = match has_effect {
        true => Verdict::at_least(shares[0].1, SHARE),
        false => Verdict::Inconclusive,
    };
    let of = |value: &dyn Fn(&Measured) -> f64| mean(&measured.iter().map(value).collect::<Vec<_>>());
    let gradients = |which: usize| mean(&attributed.iter().map(|values| values[which]).collect::<Vec<_>>());
    let layers = layers as f64;
    let attention = of(&|pair| pair.attention.iter().map(|to| to[0]).sum::<f64>() / layers);
    let (most, uniform) = (of(&|pair| pair.most), of(&|pair| pair.uniform));
    let estimate = |name: &str, (value, interval)| Estimate::new(name, value, interval, BOOTSTRAP);
    let mut estimates = vec![
        estimate("effect of \"not\" on the difference of the logits", (effect, effect_interval)).deciding(),
    ];
    for (which, (name, share)) in BLOCKED.iter().zip(&shares).enumerate() {
        let one = estimate(&format!("share of it that is lost without the edge: {name}"), *share);
        estimates.push(if which == 0 { one.deciding() } else { one });
    }
    estimates.push(estimate("attention from the adjective to \"not\", mean of all heads", attention));
    estimates.push(estimate("the same, of the head with the most", most));
    estimates.push(estimate("the same, if attention were even", uniform));
    estimates.push(estimate(
        "integrated gradient of \"not\" for the class that it should speak for",
        gradients(0),
    ));
    estimates.push(estimate("the same of the adjective", gradients(1)));
    let result = match has_effect {
        true => format!(
            "\"not\" moves the logits by {effect:.2}. Without the edge from the adjective to it {:.0} % of that are lost, without that from [CLS] {:.0} %, without all {:.0} %.",
            percent(shares[0].0),
            percent(shares[2].0),
            percent(shares[3].0)
        ),
        false => format!(
            "\"not\" moves the logits by {effect:.2}, which may be no effect at all: there is nothing to carry."
        ),
    };
    Evidence {
        sizes: vec![
            ("model".into(), setting.classifier_name.clone()),
            ("pairs".into(), measured.len().to_string()),
            ("pairs with integrated gradients".into(), attributed.len().to_string()),
            ("pairs that were patched".into(), patched.len().to_string()),
        ],
        seeds: vec![SEED],
        estimates,
        verdict,
        result,
        remarks: vec![
            "The pairs are alike, so the intervals are about sentences like these.".into(),
            "A blocked edge leaves other ways: through [CLS], or through a token that has read \"not\" before.".into(),
        ],
        plots: plots(measured, &shares, patched),
    }
}

fn plots(measured: &[Measured], shares: &[Valued], patched: &[Vec<[f64; 3]>]) -> Vec<Plot> {
    let layers = measured.first().map_or(0, |pair| pair.attention.len());
    let attention = |which: usize, name: &str| Line {
        name: name.into(),
        points: (0..layers)
            .map(|layer| {
                let (value, interval) =
                    mean(&measured.iter().map(|pair| pair.attention[layer][which]).collect::<Vec<_>>());
                (layer as f64, value, interval)
            })
            .collect(),
    };
    let points = patched.first().map_or(0, Vec::len);
    let recovered = |which: usize, name: &str| Line {
        name: name.into(),
        points: (0..points)
            .map(|point| {
                let (value, interval) =
                    mean(&patched.iter().map(|pair| pair[point][which]).collect::<Vec<_>>());
                (point as f64, value, interval)
            })
            .collect(),
    };
    let share = |(place, &(value, interval)): (usize, &Valued)| {
        value.is_finite().then_some((place as f64, value, interval))
    };
    let mut plots = vec![
        Plot {
            title: "Effect that is lost without an edge".into(),
            x: "edge".into(),
            y: "share".into(),
            names: BLOCKED.map(str::to_owned).into(),
            ordered: false,
            lines: vec![Line {
                name: "share".into(),
                points: shares.iter().enumerate().filter_map(share).collect(),
            }],
        },
        Plot {
            title: "Attention from the adjective".into(),
            x: "layer".into(),
            y: "probability, mean of the heads".into(),
            names: (0..layers).map(|layer| layer.to_string()).collect(),
            ordered: true,
            lines: vec![attention(0, "to not"), attention(1, "to was")],
        },
    ];
    if points > 0 {
        plots.push(Plot {
            title: "What a patch recovers of the negation".into(),
            x: "hidden state".into(),
            y: "share of the difference".into(),
            names: (0..points).map(|point| point.to_string()).collect(),
            ordered: true,
            lines: vec![recovered(0, "at not"), recovered(1, "at the adjective"), recovered(2, "at [CLS]")],
        });
    }
    plots
}

/// A share in whole per cent, never -0.
fn percent(share: f64) -> f64 {
    (100.0 * share).round() + 0.0
}
