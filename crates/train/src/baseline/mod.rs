//! [`BagOfWords`]: TF-IDF and logistic regression, the classifier that a transformer has to beat to be worth its seconds.
//!
//! The definition is scikit-learn's `TfidfVectorizer` followed by `LogisticRegression` with the L2 penalty, and tests compare with
//! it. The fit ends nearer to the optimum than scikit-learn's default `tol`.

mod lbfgs;
mod logistic;
mod sparse;
mod tfidf;

pub use lbfgs::Convergence;

use crate::data::Dataset;
use crate::metrics::{Accumulator, Predictions};
use crate::{Evaluation, Result, TrainError};
use logistic::Logistic;
use serde::{Deserialize, Serialize};
use sparse::SparseRows;
use std::time::Instant;
use tfidf::Tfidf;

/// The logarithm of the probability of a class that no training row has: that of 1e-15. The maximum likelihood is 0, and one row
/// would make the mean loss infinite.
const LOG_OF_ABSENT: f64 = -34.538_776_394_910_684;
/// Weights that are fitted at most. L-BFGS keeps about 25 vectors of them in f64: 4 GB.
const MAX_WEIGHTS: usize = 20_000_000;

/// What counts, and how strongly weights are held back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BagOfWordsSettings {
    /// Terms of up to so many words: 1 for words, 2 for words and pairs of neighbours.
    pub ngrams: usize,
    /// Terms that occur in fewer texts are left out.
    pub min_df: usize,
    /// Of the terms that stay, so many that occur most often; none for all.
    pub max_features: Option<usize>,
    /// Whether a term that occurs n times in a text counts `1 + ln n`, instead of n.
    pub sublinear_tf: bool,
    /// The inverse strength of the L2 penalty.
    pub c: f64,
}

impl Default for BagOfWordsSettings {
    /// Words and pairs of at least two texts, `1 + ln n`, C = 10: the strong form of it for reviews.
    fn default() -> Self {
        BagOfWordsSettings { ngrams: 2, min_df: 2, max_features: None, sublinear_tf: true, c: 10.0 }
    }
}

/// A fitted bag-of-words classifier.
#[derive(Clone, Debug)]
pub struct BagOfWords {
    tfidf: Tfidf,
    logistic: Logistic,
    names: Vec<String>,
    /// The classes that training rows have: what the regression numbers from 0.
    present: Vec<usize>,
}

/// What a fit took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Fitted {
    /// Terms that have weights.
    pub features: usize,
    /// How the optimizer ended.
    #[serde(flatten)]
    pub convergence: Convergence,
    /// Wall-clock seconds, reading of words included.
    pub seconds: f64,
}

/// A term and its weight for a class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Term {
    /// One word, or two with a space between them.
    pub term: String,
    /// Its weight in the logit of the class.
    pub weight: f64,
}

impl BagOfWords {
    /// Fits it to labelled rows of at least two classes. The result is the same for any number of threads.
    ///
    /// # Errors
    /// `Technique` where no term is left, where there are too many weights, and for rows of one class.
    pub fn fit(rows: &Dataset, settings: &BagOfWordsSettings) -> Result<(Self, Fitted)> {
        let started = Instant::now();
        let counts = rows.class_counts();
        let present: Vec<usize> = (0..counts.len()).filter(|&class| counts[class] > 0).collect();
        if present.len() < 2 {
            let why = "all rows have the same label; there is nothing to learn".to_owned();
            return Err(TrainError::Technique { option: "--data", why });
        }
        let texts = texts(rows);
        let (tfidf, x) = Tfidf::fit(&texts, settings)?;
        let (features, outputs) = (tfidf.terms().len(), logistic::outputs(present.len()));
        if features * outputs > MAX_WEIGHTS {
            let why = format!(
                "{features} terms for {} classes are more than {MAX_WEIGHTS} weights; --max-features {} fits",
                present.len(),
                MAX_WEIGHTS / outputs
            );
            return Err(TrainError::Technique { option: "--max-features", why });
        }
        let place = |label: u32| present.iter().position(|&class| class == label as usize);
        let labels: Vec<usize> = rows.examples.iter().filter_map(|example| place(example.label)).collect();
        let (logistic, convergence) = Logistic::fit(&x, &labels, present.len(), settings.c);
        let model = BagOfWords { tfidf, logistic, names: rows.label_names.clone(), present };
        Ok((model, Fitted { features, convergence, seconds: started.elapsed().as_secs_f64() }))
    }

    /// Logarithms of the classes' probabilities for each text: `[texts, classes]`, row-major. A class without training rows has
    /// the probability 1e-15.
    pub fn log_probabilities(&self, texts: &[&str]) -> Vec<f64> {
        self.of_rows(&self.tfidf.transform(texts).0)
    }

    fn of_rows(&self, x: &SparseRows) -> Vec<f64> {
        let present = self.logistic.log_probabilities(x);
        let mut all = vec![LOG_OF_ABSENT; x.rows() * self.names.len()];
        let rows = all.chunks_exact_mut(self.names.len()).zip(present.chunks_exact(self.present.len()));
        for (row, present) in rows {
            self.present.iter().zip(present).for_each(|(&class, &log)| row[class] = log);
        }
        all
    }

    /// What `decision_function` of scikit-learn returns: `[texts]` for two classes, else `[texts, classes with training rows]`.
    pub fn decision_function(&self, texts: &[&str]) -> Vec<f64> {
        self.logistic.decision_function(&self.tfidf.transform(texts).0)
    }

    /// Measures it on rows with the classes that it was fitted to. Lengths are counted in words.
    ///
    /// # Errors
    /// No rows; a label that is no class.
    pub fn evaluate(&self, rows: &Dataset) -> Result<Evaluation> {
        let started = Instant::now();
        let (x, words) = self.tfidf.transform(&texts(rows));
        let logits: Vec<f32> = self.of_rows(&x).iter().map(|&log| log as f32).collect();
        let labels: Vec<u32> = rows.examples.iter().map(|example| example.label).collect();
        let total = words.iter().map(|&words| words as usize).sum();
        let mut metrics = Accumulator::new(self.names.clone());
        metrics.add(&logits, &labels)?;
        let mut predictions = Predictions::new(self.names.clone(), labels, words);
        predictions.set(&(0..x.rows()).collect::<Vec<_>>(), &logits)?;
        Ok(Evaluation::of(metrics.finish()?, predictions, started.elapsed().as_secs_f64(), total)
            .quoting(rows))
    }

    /// The terms with the largest weights of each class that has training rows, the largest first; equal ones by name.
    pub fn most_telling(&self, count: usize) -> Vec<(String, Vec<Term>)> {
        let of_class = |(place, &class): (usize, &usize)| {
            let weights = self.logistic.weights_of(place);
            let mut order: Vec<usize> = (0..weights.len()).collect();
            order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
            let term = |&feature: &usize| Term {
                term: self.tfidf.terms()[feature].clone(),
                weight: weights[feature],
            };
            (self.names[class].clone(), order.iter().take(count).map(term).collect())
        };
        self.present.iter().enumerate().map(of_class).collect()
    }

    /// The terms that have weights, in order of their code points.
    pub fn terms(&self) -> &[String] {
        self.tfidf.terms()
    }

    /// The inverse document frequency of each term: `ln((1 + texts) / (1 + texts with it)) + 1`.
    pub fn idf(&self) -> &[f64] {
        self.tfidf.idf()
    }
}

fn texts(rows: &Dataset) -> Vec<&str> {
    rows.examples.iter().map(|example| example.text.as_str()).collect()
}
