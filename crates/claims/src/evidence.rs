//! What a claim's run found.

use serde::Serialize;
use std::fmt;

/// What the evidence says of a hypothesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The interval lies wholly where the hypothesis says.
    Supported,
    /// It lies wholly elsewhere.
    NotSupported,
    /// It lies on both sides, or cannot be had.
    Inconclusive,
}

impl Verdict {
    /// Whether an interval lies at or above a threshold.
    pub fn at_least(interval: Option<(f64, f64)>, threshold: f64) -> Self {
        match interval {
            Some((low, _)) if low >= threshold => Verdict::Supported,
            Some((_, high)) if high < threshold => Verdict::NotSupported,
            _ => Verdict::Inconclusive,
        }
    }

    /// Supported where all are, not supported where one is not.
    pub fn all(verdicts: &[Verdict]) -> Self {
        match verdicts {
            _ if verdicts.contains(&Verdict::NotSupported) => Verdict::NotSupported,
            _ if verdicts.contains(&Verdict::Inconclusive) || verdicts.is_empty() => Verdict::Inconclusive,
            _ => Verdict::Supported,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Supported => "supported",
            Verdict::NotSupported => "not supported",
            Verdict::Inconclusive => "inconclusive",
        })
    }
}

/// A number that was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// What it is.
    pub name: String,
    /// The number; null in JSON where there is none.
    pub value: f64,
    /// The ends of its 95 % interval; none for what has no chance in it.
    pub interval: Option<(f64, f64)>,
    /// How the interval was made.
    pub by: &'static str,
    /// Whether the verdict rests on it.
    pub decides: bool,
}

impl Estimate {
    /// A number without chance in it.
    pub fn exact(name: impl Into<String>, value: f64) -> Self {
        Estimate { name: name.into(), value, interval: None, by: "exact", decides: false }
    }

    /// A number with an interval.
    pub fn new(name: impl Into<String>, value: f64, interval: Option<(f64, f64)>, by: &'static str) -> Self {
        Estimate { name: name.into(), value, interval, by, decides: false }
    }

    /// The verdict rests on it.
    #[must_use]
    pub fn deciding(self) -> Self {
        Estimate { decides: true, ..self }
    }
}

/// The ends of a 95 % interval.
pub type Interval = (f64, f64);
/// A number and its interval; none for what has no chance in it, or too few units.
pub type Valued = (f64, Option<Interval>);
/// A point of a plot: x, y, and y's interval.
pub type Point = (f64, f64, Option<Interval>);

/// One line of a plot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// What it shows.
    pub name: String,
    /// The points from left to right.
    pub points: Vec<Point>,
}

/// A plot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// What x is.
    pub x: String,
    /// What y is.
    pub y: String,
    /// Names for x = 0, 1, 2, ..; numbers without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Whether the names are in an order, so that lines between their points say something.
    pub ordered: bool,
    /// The lines.
    pub lines: Vec<Line>,
}

/// What a run measured, and what follows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// What was used: models, rows, tokens.
    pub sizes: Vec<(String, String)>,
    /// The seeds of training, draws and resampling.
    pub seeds: Vec<u64>,
    /// What was measured.
    pub estimates: Vec<Estimate>,
    /// What follows by the claim's rule.
    pub verdict: Verdict,
    /// In a sentence or two.
    pub result: String,
    /// What a reader should not forget.
    pub remarks: Vec<String>,
    /// For the page.
    pub plots: Vec<Plot>,
}

/// A claim with its evidence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The claim's id.
    pub id: &'static str,
    /// What it is about.
    pub title: &'static str,
    /// What is said.
    pub hypothesis: &'static str,
    /// What was done.
    pub method: &'static str,
    /// The rule of the verdict.
    pub rule: &'static str,
    /// Whether sizes were the small ones.
    pub quick: bool,
    /// Which labelled data were used, where any were.
    pub data: String,
    /// What was found.
    #[serde(flatten)]
    pub evidence: Evidence,
    /// Wall-clock seconds.
    pub seconds: f64,
}
