//! [`Timeline`]: one pass of a model, operation by operation, as a page without scripts and without anything from the network.

mod operations;
mod tables;

use crate::html::head;
use crate::plot::{Axis, Mark, Series, number, plot};
use crate::sentence::thousands;
use maud::{DOCTYPE, Markup, html};

/// When something began, in seconds from the beginning of its pass, and how long it took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Seconds from the beginning.
    pub started: f64,
    /// Seconds.
    pub seconds: f64,
}

/// Statistics of a result; of what is not finite only the number counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    /// How many elements there are.
    pub count: usize,
    /// The smallest; none where none is finite.
    pub min: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
    /// The mean.
    pub mean: Option<f64>,
    /// The root of the sum of squares.
    pub norm: f64,
    /// How many are 0.
    pub zeros: usize,
    /// How many are NaN or infinite.
    pub non_finite: usize,
    /// The first ones.
    pub first: Vec<f64>,
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Its name among all.
    pub path: String,
    /// Where in the model.
    pub scope: String,
    /// What it is called.
    pub name: String,
    /// What it computes.
    pub formula: String,
    /// The gradients of what it reads.
    pub gradient_formula: String,
    /// Its file and line.
    pub place: String,
    /// Name and shape of each input.
    pub reads: Vec<(String, Vec<usize>)>,
    /// Shape of its result.
    pub shape: Vec<usize>,
    /// dtype of its result.
    pub dtype: String,
    /// Bytes of its result.
    pub bytes: usize,
    /// Bytes that are kept for backward.
    pub saved_bytes: usize,
    /// Floating-point operations of forward.
    pub flops: u64,
    /// When it was computed.
    pub forward: Span,
    /// When its gradient was; none without a backward pass, and where nothing needed it.
    pub backward: Option<Span>,
    /// The norm of the loss's gradient by its result: NaN where that is not finite.
    pub gradient_norm: Option<f64>,
    /// Its result.
    pub values: Option<Numbers>,
}

/// The gradient of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Its key in checkpoints.
    pub key: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The norm of its gradient.
    pub gradient_norm: f64,
    /// The same, divided by the norm of the weights.
    pub relative: Option<f64>,
}

/// A parameter that a step would not change, or not in every row.
#[derive(Clone, Debug, PartialEq)]
pub struct Idle {
    /// Its key in checkpoints.
    pub key: String,
    /// What was found.
    pub finding: String,
    /// How many rows get no gradient.
    pub rows: usize,
    /// Of how many.
    pub of: usize,
    /// Why, where that is known.
    pub reason: Option<String>,
}

/// One pass of a model over a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// The text.
    pub text: String,
    /// The tokens that the model read.
    pub tokens: Vec<String>,
    /// Further facts, each with its name.
    pub facts: Vec<(String, String)>,
    /// Seconds of forward.
    pub seconds: f64,
    /// Seconds of backward.
    pub backward_seconds: Option<f64>,
    /// The operations in the order of forward.
    pub operations: Vec<Operation>,
    /// The parameters' gradients.
    pub weights: Vec<Weight>,
    /// What a step would not change.
    pub idle: Vec<Idle>,
    /// Version of the program.
    pub version: String,
}

impl Timeline {
    /// The page. Everything that comes from the model or the text is escaped.
    pub fn page(&self) -> String {
        const SHOWN: usize = 60;
        let mut text: String = self.text.chars().take(SHOWN).collect();
        if self.text.chars().count() > SHOWN {
            text.push('…');
        }
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                (head(&format!("Trace of “{text}”"), include_str!("timeline.css")))
                body {
                    header {
                        h1 { "One pass over “" (text) "”" }
                        (self.tokens())
                        (self.tiles())
                        (tables::pairs(&self.facts))
                    }
                    main {
                        (operations::section(self))
                        (self.plots())
                        (tables::by_operation(self))
                        (tables::idle(self))
                        (tables::weights(self))
                    }
                    footer class="quiet" {
                        p { "Written by Vitrine " (self.version) ". Times are those of one pass on a warm machine; gradients are those of one text without dropout." }
                    }
                }
            }
        };
        page.into_string()
    }

    fn tokens(&self) -> Markup {
        html! { ol class="tokens" aria-label="tokens" { @for token in &self.tokens { li { (token) } } } }
    }

    fn tiles(&self) -> Markup {
        let flops: u64 = self.operations.iter().map(|op| op.flops).sum();
        let saved: usize = self.operations.iter().map(|op| op.saved_bytes).sum();
        let mut tiles = vec![
            ("tokens", self.tokens.len().to_string()),
            ("operations", self.operations.len().to_string()),
            ("forward", format!("{} ms", number(self.seconds * 1e3))),
        ];
        if let Some(seconds) = self.backward_seconds {
            tiles.push(("backward", format!("{} ms", number(seconds * 1e3))));
        }
        tiles.push(("arithmetic", format!("{} MFLOP", number(flops as f64 / 1e6))));
        tiles.push(("kept for backward", kib(saved)));
        html! { dl class="tiles" { @for (name, value) in &tiles { div { dt { (name) } dd { (value) } } } } }
    }

    /// Gradient norms and sizes of results along the pass.
    fn plots(&self) -> Markup {
        let gradients: Vec<Option<f64>> = self.operations.iter().map(|op| op.gradient_norm).collect();
        let sizes: Vec<Option<f64>> = self
            .operations
            .iter()
            .map(|op| op.values.as_ref().filter(|v| v.count > 0).map(|v| v.norm / (v.count as f64).sqrt()))
            .collect();
        html! {
            @if gradients.iter().chain(&sizes).any(Option::is_some) {
                h2 { "Along the pass" }
                div class="grid" {
                    (self.along("gradients", "Norm of the gradient", "of the loss by each result; powers of ten", &gradients))
                    (self.along("sizes", "Size of the results", "root mean square of each; powers of ten", &sizes))
                }
            }
        }
    }

    fn along(&self, id: &str, title: &str, unit: &str, values: &[Option<f64>]) -> Markup {
        let places: Vec<(usize, f64)> = values
            .iter()
            .enumerate()
            .filter_map(|(place, value)| {
                value.filter(|v| v.is_finite() && *v > 0.0).map(|v| (place, v.log10()))
            })
            .collect();
        let x = Axis::between(1.0, (values.len().max(2)) as f64, "operation");
        let points: Vec<(f64, f64)> = places.iter().map(|&(place, y)| ((place + 1) as f64, y)).collect();
        let y = decades(points.iter().map(|point| point.1));
        let left_out = values.iter().flatten().filter(|v| !v.is_finite() || **v <= 0.0).count();
        let series = Series { name: title.into(), color: 0, mark: Mark::Points(Vec::new()), points };
        let tip = |_: &Series, i: usize| {
            let (place, y) = places[i];
            format!("{}: {}", self.operations[place].path, number(10f64.powf(y)))
        };
        html! {
            @if !places.is_empty() {
                figure {
                    h3 { (title) " " span class="quiet" { "(" (unit) ")" } }
                    (plot(id, title, (&x, &y), &[series], false, tip))
                    @if left_out > 0 { figcaption { (left_out) " that are zero or not finite are left out." } }
                }
            }
        }
    }
}

/// An axis of logarithms to base 10, written as powers.
fn decades(values: impl Iterator<Item = f64> + Clone) -> Axis {
    let (from, to) = (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max));
    let (from, to) = if from <= to { (from.floor(), to.ceil()) } else { (0.0, 1.0) };
    let to = if to > from { to } else { from + 1.0 };
    let step = ((to - from) / 5.0).ceil().max(1.0);
    let ticks = (0..=((to - from) / step) as i32).map(|i| from + f64::from(i) * step);
    Axis { from, to, ticks: ticks.map(|power| (power, format!("1e{power}"))).collect(), label: String::new() }
}

/// A shape as in the code.
fn shape(dims: &[usize]) -> String {
    format!("{dims:?}")
}

fn kib(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", number(bytes as f64 / 1024.0)),
        _ => format!("{} MiB", number(bytes as f64 / 1_048_576.0)),
    }
}

/// A count of arithmetic.
fn arithmetic(flops: u64) -> String {
    format!("{} FLOP", thousands(flops))
}
