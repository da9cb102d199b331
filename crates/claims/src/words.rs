//! C8: BERT beside a bag of words, on negation and on length.

use crate::evidence::{Estimate, Evidence, Line, Plot, Verdict};
use crate::statistics::{BOOTSTRAP, SEED, WILSON, paired, share};
use crate::training::{self, probabilities, right};
use crate::{Claim, Result, Setting, texts};
use vitrine_bert::SequenceClassifier;
use vitrine_train::baseline::{BagOfWords, BagOfWordsSettings};

/// Reviews of more words are long.
const LONG: usize = 250;
/// By how much BERT has to be better on negation.
const BETTER: f64 = 0.05;

pub const CLAIM: Claim = Claim {
    id: "C8",
    title: "Beside a bag of words",
    hypothesis: "BERT reads \"not bad\" and long reviews better than a bag of words, which sees \"bad\" and predicts negative.",
    method: "A bag of words (TF-IDF and logistic regression, single words) and one with pairs of words are fitted to the training reviews. They and BERT are measured on test reviews, by length, and on sentences \"the film was not bad\" (positive) and \"not good\" (negative).",
    rule: "Supported if BERT is right on at least 5 points more of the negated sentences than the better bag of words, and on more of the reviews of over 250 words: the lower ends of the 95 % intervals of the paired differences are at or above 0.05 and 0. Not supported if an upper end is below.",
    run,
};

/// One classifier's answers.
struct Reader {
    name: &'static str,
    negated: Vec<bool>,
    reviews: Vec<bool>,
}

fn run(setting: &Setting) -> Result<Evidence> {
    let pairs = texts::pairs(setting.size(5, 1));
    let negated: Vec<String> = pairs.iter().map(|pair| pair.negated.clone()).collect();
    // What is right of a negated word of praise is negative.
    let is_right = |positive: &dyn Fn(usize) -> bool| -> Vec<bool> {
        pairs.iter().enumerate().map(|(row, pair)| positive(row) != pair.is_praise).collect()
    };
    let (train, test) =
        (setting.train_rows(setting.size(1000, 25_000)), setting.test_rows(setting.size(100, 1000)));
    setting.say("BERT on the sentences and the reviews")?;
    let loaded = SequenceClassifier::load(&setting.classifier)?;
    let says = probabilities(&loaded, &negated)?;
    let max_length = loaded.model.config().max_length();
    let measured = training::measured(setting, &loaded.model, &loaded.tokenizer, &test, max_length)?;
    let mut readers =
        vec![Reader { name: "BERT", negated: is_right(&|row| says[row] > 0.5), reviews: right(&measured) }];
    for (name, ngrams) in [("bag of words", 1), ("words and pairs", 2)] {
        setting.say(&format!("{name}, on {} reviews", train.len()))?;
        let settings = BagOfWordsSettings { ngrams, ..BagOfWordsSettings::default() };
        let (model, _) = BagOfWords::fit(&train, &settings)?;
        let sentences: Vec<&str> = negated.iter().map(String::as_str).collect();
        let logits = model.decision_function(&sentences);
        let measured = model.evaluate(&test)?;
        readers.push(Reader { name, negated: is_right(&|row| logits[row] > 0.0), reviews: right(&measured) });
    }
    Ok(evidence(setting, &readers, &lengths(&test.examples), train.len()))
}

fn lengths(examples: &[vitrine_train::data::Example]) -> Vec<usize> {
    examples.iter().map(|example| example.text.split_whitespace().count()).collect()
}

/// Rows of lengths between these, the second excluded.
const BUCKETS: [(usize, usize, &str); 4] =
    [(0, 125, "< 125"), (125, LONG + 1, "125-250"), (LONG + 1, 400, "251-399"), (400, usize::MAX, ">= 400")];

fn evidence(setting: &Setting, readers: &[Reader], lengths: &[usize], train: usize) -> Evidence {
    let long: Vec<usize> = (0..lengths.len()).filter(|&row| lengths[row] > LONG).collect();
    let of = |right: &[bool], rows: &[usize]| rows.iter().map(|&row| right[row]).collect::<Vec<bool>>();
    let count = |right: &[bool]| right.iter().filter(|&&right| right).count();
    let bert = &readers[0];
    let better = |rows: &dyn Fn(&Reader) -> Vec<bool>| {
        let others = readers[1..].iter().map(|reader| (count(&rows(reader)), reader.name, rows(reader)));
        others.max_by_key(|(count, ..)| *count).map(|(_, name, right)| (name, right)).unwrap_or_default()
    };
    let (negation_name, negation) = better(&|reader| reader.negated.clone());
    let (long_name, on_long) = better(&|reader| of(&reader.reviews, &long));
    let (negation_gain, negation_interval) = paired(&bert.negated, &negation);
    let (long_gain, long_interval) = paired(&of(&bert.reviews, &long), &on_long);
    let verdict =
        Verdict::all(&[Verdict::at_least(negation_interval, BETTER), Verdict::at_least(long_interval, 0.0)]);
    let mut estimates = vec![
        Estimate::new(
            format!("BERT minus {negation_name}, accuracy on negated sentences"),
            negation_gain,
            negation_interval,
            BOOTSTRAP,
        )
        .deciding(),
    ];
    if !long.is_empty() {
        estimates.push(
            Estimate::new(
                format!("BERT minus {long_name}, accuracy on reviews of over {LONG} words"),
                long_gain,
                long_interval,
                BOOTSTRAP,
            )
            .deciding(),
        );
    }
    for reader in readers {
        for (what, right) in [
            ("negated sentences", reader.negated.clone()),
            ("reviews", reader.reviews.clone()),
            ("long reviews", of(&reader.reviews, &long)),
        ] {
            // The built-in reviews are all short.
            if right.is_empty() {
                continue;
            }
            let (value, interval) = share(&right);
            estimates.push(Estimate::new(
                format!("{}: accuracy on {what}", reader.name),
                value,
                interval,
                WILSON,
            ));
        }
    }
    let percent = |right: &[bool]| 100.0 * share(right).0;
    let mut result = format!(
        "On negated sentences BERT is right in {:.1} %, the better bag of words ({negation_name}) in {:.1} %",
        percent(&bert.negated),
        percent(&negation)
    );
    result += &match long.is_empty() {
        true => format!("; no review has over {LONG} words."),
        false => format!(
            "; on long reviews in {:.1} % and {:.1} % ({long_name}).",
            percent(&of(&bert.reviews, &long)),
            percent(&on_long)
        ),
    };
    let line = |reader: &Reader| {
        let point = |(place, &(from, to, _)): (usize, &(usize, usize, &str))| {
            let rows: Vec<usize> =
                (0..lengths.len()).filter(|&row| (from..to).contains(&lengths[row])).collect();
            let (value, interval) = share(&of(&reader.reviews, &rows));
            value.is_finite().then_some((place as f64, value, interval))
        };
        Line { name: reader.name.into(), points: BUCKETS.iter().enumerate().filter_map(point).collect() }
    };
    Evidence {
        sizes: vec![
            ("model".into(), setting.classifier_name.clone()),
            ("training reviews of the bags of words".into(), train.to_string()),
            ("test reviews".into(), lengths.len().to_string()),
            ("of these over 250 words".into(), long.len().to_string()),
            ("negated sentences".into(), bert.negated.len().to_string()),
        ],
        seeds: vec![crate::setting::SAMPLE_SEED.into(), SEED],
        verdict,
        result,
        estimates,
        remarks: vec![
            "The negated sentences are alike, so their interval is about sentences like these.".into(),
            "Reviews of more tokens than the model reads are cut for BERT alone.".into(),
        ],
        plots: vec![Plot {
            title: "Accuracy on test reviews by length".into(),
            x: "words".into(),
            y: "accuracy".into(),
            names: BUCKETS.map(|bucket| bucket.2.to_owned()).into(),
            ordered: true,
            lines: readers.iter().map(line).collect(),
        }],
    }
}
