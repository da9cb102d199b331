//! How good the model is: the table, the confusion matrix, calibration, accuracy by length, and what it gets wrong.

use crate::Run;
use crate::plot::{Axis, COLORS, Mark, Series, number, plot};
use crate::run::{Bucket, Calibration, Evaluation};
use crate::sentence::{percent, percent_interval, thousands};
use maud::{Markup, html};

/// Classes that a matrix on a page has room for.
const CLASSES: usize = 12;

/// Everything but the wrong rows.
pub fn section(runs: &[Run]) -> Markup {
    if runs.iter().all(|run| run.evaluation().is_none()) {
        return html! {};
    }
    html! {
        h2 { "Evaluation" }
        div class="scroll" { (table(runs)) }
        div class="grid" style="margin-top:1.75rem" {
            @for run in runs { @if let Some(evaluation) = run.evaluation() { (matrix(runs, run, evaluation)) } }
            (calibration(runs))
            (by_length(runs))
        }
    }
}

fn table(runs: &[Run]) -> Markup {
    type Cell = fn(&Evaluation) -> Option<(String, String)>;
    let rows: [(&str, Cell); 8] = [
        ("Accuracy", |e| Some((format!("{:.4}", e.accuracy), interval(e.accuracy_interval)))),
        ("F1", |e| Some((format!("{:.4}", e.f1), interval(e.f1_interval)))),
        ("Precision", |e| Some((format!("{:.4}", e.precision), String::new()))),
        ("Recall", |e| Some((format!("{:.4}", e.recall), String::new()))),
        ("AUROC", |e| Some((format!("{:.4}", e.auroc?), String::new()))),
        ("Loss (nats)", |e| Some((format!("{:.4}", e.loss?), String::new()))),
        ("Calibration error", |e| {
            Some((format!("{:.4}", e.calibration.as_ref()?.expected_calibration_error), String::new()))
        }),
        ("Rows", |e| Some((thousands(e.examples), String::new()))),
    ];
    let positive = runs.iter().find_map(|run| run.evaluation()?.positive_class.clone());
    html! {
        table id="evaluation" {
            @if runs.len() > 1 {
                thead { tr { th {} @for run in runs { th scope="col" { (run.name()) } } } }
            }
            tbody {
                @for (name, cell) in rows {
                    @let cells: Vec<_> = runs.iter().map(|run| run.evaluation().and_then(cell)).collect();
                    @if cells.iter().any(Option::is_some) {
                        tr data-metric=(name) {
                            th scope="row" { (name) }
                            @for cell in cells {
                                td { @if let Some((value, interval)) = cell { (value) @if !interval.is_empty() { " " small { (interval) } } } @else { "–" } }
                            }
                        }
                    }
                }
            }
        }
        p class="quiet" {
            @match positive {
                Some(class) => { "F1, precision and recall are those of the class " (class) "." },
                None => "F1, precision and recall are means over the classes that occur.",
            }
        }
    }
}

fn interval(interval: Option<(f64, f64)>) -> String {
    interval.map_or(String::new(), |(low, high)| format!("{low:.4} to {high:.4}"))
}

fn matrix(runs: &[Run], run: &Run, evaluation: &Evaluation) -> Markup {
    let counts = &evaluation.confusion_matrix;
    // The classes with most rows, in their own order.
    let mut shown: Vec<usize> = (0..counts.len().min(evaluation.per_class.len())).collect();
    shown.sort_by_key(|&class| std::cmp::Reverse(evaluation.per_class[class].support));
    shown.truncate(CLASSES);
    shown.sort_unstable();
    if shown.is_empty() {
        return html! {};
    }
    let name = |class: usize| evaluation.per_class[class].class.as_str();
    html! {
        figure {
            h3 { "Confusion matrix" @if runs.len() > 1 { " of " (run.name()) } }
            div class="scroll" {
                table class="matrix" {
                    thead { tr { th { "true \\ predicted" } @for &class in &shown { th scope="col" { (name(class)) } } th { "recall" } } }
                    tbody {
                        @for &class in &shown {
                            @let all = counts[class].iter().sum::<u64>().max(1);
                            tr {
                                th scope="row" { (name(class)) }
                                @for &predicted in &shown {
                                    @let count = counts[class].get(predicted).copied().unwrap_or(0);
                                    td style=(format!("--share:{:.3}", count as f64 / all as f64)) data-count=(count) { (thousands(count)) }
                                }
                                th class="n" { (percent(evaluation.per_class[class].recall)) }
                            }
                        }
                    }
                }
            }
            figcaption {
                "Rows by true and predicted class."
                @if shown.len() < counts.len() { " The " (shown.len()) " largest of " (counts.len()) " classes are shown." }
            }
        }
    }
}

fn name(runs: &[Run], run: &Run, what: &str) -> String {
    if runs.len() > 1 { run.name() } else { what.to_owned() }
}

fn calibration(runs: &[Run]) -> Markup {
    let all: Vec<(usize, &Run, &Calibration)> = runs
        .iter()
        .enumerate()
        .filter_map(|(i, run)| Some((i % COLORS, run, run.evaluation()?.calibration.as_ref()?)))
        .collect();
    if all.is_empty() {
        return html! {};
    }
    let mut tips: Vec<Vec<String>> = Vec::new();
    let series: Vec<Series> = all
        .iter()
        .map(|&(color, run, calibration)| {
            let filled = || calibration.bins.iter().filter(|bin| bin.rows > 0);
            let most = filled().map(|bin| bin.rows).max().unwrap_or(1) as f64;
            let points = filled().filter_map(|bin| Some((bin.confidence?, bin.accuracy?))).collect();
            let tip = filled().map(|bin| {
                let (confidence, accuracy) = (bin.confidence.unwrap_or(0.0), bin.accuracy.unwrap_or(0.0));
                let rows = thousands(bin.rows);
                format!(
                    "{rows} rows that it is {} sure of: {} are right",
                    percent(confidence),
                    percent(accuracy)
                )
            });
            tips.push(tip.collect());
            let mark = Mark::Weighted(filled().map(|bin| bin.rows as f64 / most).collect());
            Series { name: name(runs, run, "accuracy"), color, points, mark }
        })
        .collect();
    let tip_of = |s: &Series, i: usize| {
        let which = series.iter().position(|other| other.name == s.name).unwrap_or(0);
        tips[which].get(i).cloned().unwrap_or_default()
    };
    let (x, y) = (Axis::between(0.0, 1.0, "confidence"), Axis::between(0.0, 1.0, "accuracy"));
    html! {
        figure {
            h3 { "Calibration" }
            (plot("calibration", "Accuracy by confidence", (&x, &y), &series, true, tip_of))
            figcaption {
                "Accuracy of the rows by the model's confidence in its answer; larger circles hold more rows. On the dotted line confidence can be taken at its word. "
                "Expected calibration error: "
                @for (i, (_, run, calibration)) in all.iter().enumerate() {
                    @if i > 0 { ", " } @if runs.len() > 1 { (run.name()) " " } (percent(calibration.expected_calibration_error))
                }
                "."
            }
        }
    }
}

fn by_length(runs: &[Run]) -> Markup {
    let all: Vec<(usize, &Run, &[Bucket])> = runs
        .iter()
        .enumerate()
        .filter_map(|(i, run)| Some((i % COLORS, run, run.evaluation()?.accuracy_by_length.as_slice())))
        .filter(|(_, _, buckets)| !buckets.is_empty())
        .collect();
    if all.is_empty() {
        return html! {};
    }
    // Lengths double from bucket to bucket, so the axis counts doublings.
    let place = |bucket: &Bucket| f64::from(bucket.to).log2();
    let buckets = || all.iter().flat_map(|(_, _, buckets)| buckets.iter());
    let low = buckets().map(place).fold(f64::INFINITY, f64::min) - 0.5;
    let high = buckets().map(place).fold(f64::NEG_INFINITY, f64::max) + 0.5;
    let x = Axis::of_powers_of_two(low, high, "tokens, up to");
    let mut y =
        Axis::over(buckets().flat_map(|b| [b.interval.0, b.interval.1]).collect::<Vec<_>>().into_iter(), "");
    if y.to > 1.0 {
        y = Axis::between(y.from, 1.0, "");
    }
    let series: Vec<Series> = all
        .iter()
        .map(|&(color, run, buckets)| Series {
            name: name(runs, run, "accuracy"),
            color,
            points: buckets.iter().map(|bucket| (place(bucket), bucket.accuracy)).collect(),
            mark: Mark::Points(buckets.iter().map(|bucket| Some(bucket.interval)).collect()),
        })
        .collect();
    let tip = |s: &Series, i: usize| {
        let (_, _, buckets) = all[series.iter().position(|other| other.name == s.name).unwrap_or(0)];
        let bucket = &buckets[i];
        let (rows, interval) = (thousands(bucket.rows), percent_interval(bucket.interval));
        format!(
            "{} to {} tokens: {} of {rows} rows ({interval})",
            bucket.from,
            bucket.to,
            percent(bucket.accuracy)
        )
    };
    html! {
        figure {
            h3 { "Accuracy by length" }
            (plot("by-length", "Accuracy by length in tokens", (&x, &y), &series, false, tip))
            figcaption { "Share of right rows by length of the text in tokens, as read, with 95 % intervals." }
        }
    }
}

/// The rows that a model gets wrong although it is sure.
pub fn wrong(runs: &[Run]) -> Markup {
    html! {
        @for run in runs {
            @if let Some(evaluation) = run.evaluation().filter(|e| !e.confidently_wrong.is_empty()) {
                h2 { "Surest mistakes" @if runs.len() > 1 { " of " (run.name()) } }
                p class="quiet" { "The evaluated texts that the model got wrong with the highest confidence. Some may be labelled wrongly." }
                ol class="wrong" {
                    @for wrong in &evaluation.confidently_wrong {
                        li {
                            p { "Says " b { (wrong.predicted) } " with " (percent(wrong.probability)) ", labelled " b { (wrong.label) }
                                span class="quiet" { " · row " (wrong.row) ", " (number(f64::from(wrong.tokens))) " tokens" } }
                            @if let Some(text) = &wrong.excerpt { blockquote dir="auto" { (text) } }
                        }
                    }
                }
            }
        }
    }
}
