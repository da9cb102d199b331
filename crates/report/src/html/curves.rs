//! Loss, learning rate, gradient norm and speed over the steps.

use crate::Run;
use crate::plot::{Axis, Mark, Series, number, plot, smoothed, thinned};
use crate::run::{Evaluation, Step};
use crate::sentence::percent;
use maud::{Markup, html};

/// All curves, the runs one over another.
pub fn section(runs: &[Run]) -> Markup {
    if runs.iter().all(|run| run.steps.is_empty()) {
        return html! {};
    }
    html! {
        h2 { "Training" }
        div class="grid" {
            (loss(runs))
            (accuracy(runs))
            (curve(runs, "lr", "Learning rate", "learning rate", |step| step.lr))
            (curve(runs, "grad-norm", "Gradient norm before clipping", "global norm", |step| step.grad_norm))
            (curve(runs, "speed", "Speed", "tokens/s", |step| Some(step.tokens? / step.seconds.filter(|&s| s > 0.0)?)))
        }
    }
}

fn points(run: &Run, value: impl Fn(&Step) -> Option<f64>) -> Vec<(f64, f64)> {
    let points = run.steps.iter().filter_map(|step| Some((step.step, value(step)?)));
    points.filter(|point| point.1.is_finite()).collect()
}

/// The evaluations of a run by step, the one at the end after the last step.
fn evaluations(run: &Run) -> Vec<(f64, &Evaluation)> {
    let mut all: Vec<(f64, &Evaluation)> = run.evaluations.iter().map(|(step, e)| (*step, e)).collect();
    if let (Some(end), Some(last)) = (&run.summary.eval, run.steps.last())
        && all.last().is_none_or(|(step, evaluation)| *step < last.step || evaluation.loss != end.loss)
    {
        all.push((last.step, end));
    }
    all
}

fn name(runs: &[Run], run: &Run, what: &str) -> String {
    if runs.len() > 1 { format!("{}, {what}", run.name()) } else { what.to_owned() }
}

fn steps_axis(runs: &[Run]) -> Axis {
    let last = runs.iter().flat_map(|run| run.steps.last()).fold(1.0, |last: f64, step| last.max(step.step));
    Axis::between(0.0, last, "step")
}

fn tip(series: &Series, i: usize) -> String {
    let (x, y) = series.points[i];
    format!("{}: {} at step {}", series.name, number(y), number(x))
}

fn loss(runs: &[Run]) -> Markup {
    let mut series = Vec::new();
    let mut windows = Vec::new();
    for (color, run) in runs.iter().enumerate() {
        let raw = points(run, |step| step.loss);
        // A fortieth of the run, so that the line moves and does not tremble.
        let window = (raw.len() / 40).max(1);
        windows.push(window);
        if runs.len() == 1 && window > 1 {
            series.push(Series {
                name: "loss of a step".into(),
                color,
                points: thinned(&raw).0,
                mark: Mark::Faint,
            });
        }
        let points = thinned(&smoothed(&raw, window)).0;
        series.push(Series { name: name(runs, run, "training loss"), color, points, mark: Mark::Line });
        let found: Vec<(f64, f64)> =
            evaluations(run).iter().filter_map(|(step, e)| Some((*step, e.loss?))).collect();
        if !found.is_empty() {
            let color = if runs.len() == 1 { 1 } else { color };
            let mark = Mark::Points(vec![None; found.len()]);
            series.push(Series { name: name(runs, run, "evaluation loss"), color, points: found, mark });
        }
    }
    let y = Axis::over(series.iter().flat_map(|s| s.points.iter().map(|p| p.1)), "nats");
    let evaluated = series.iter().any(|s| matches!(s.mark, Mark::Points(_)));
    html! {
        figure {
            h3 { "Loss " span class="quiet" { "(nats)" } }
            (plot("loss", "Loss over steps", (&steps_axis(runs), &y), &series, false, tip))
            figcaption {
                "Training loss"
                @if windows.iter().any(|&window| window > 1) { ", mean over the last " (windows.iter().max().copied().unwrap_or(1)) " steps" }
                @if evaluated { "; circles are evaluations" } "."
            }
        }
    }
}

/// Accuracy at the evaluations, where there are at least two: one is in the table.
fn accuracy(runs: &[Run]) -> Markup {
    let mut series = Vec::new();
    for (color, run) in runs.iter().enumerate() {
        let found = evaluations(run);
        if found.len() > 1 {
            let points = found.iter().map(|(step, e)| (*step, e.accuracy)).collect();
            let mark = Mark::Points(found.iter().map(|(_, e)| e.accuracy_interval).collect());
            series.push(Series { name: name(runs, run, "accuracy"), color, points, mark });
        }
    }
    if series.is_empty() {
        return html! {};
    }
    let ends = series.iter().flat_map(|s| {
        let Mark::Points(intervals) = &s.mark else { return Vec::new() };
        s.points.iter().map(|p| p.1).chain(intervals.iter().flatten().flat_map(|&(a, b)| [a, b])).collect()
    });
    let mut y = Axis::over(ends.collect::<Vec<f64>>().into_iter(), "share of rows");
    if y.to > 1.0 {
        y = Axis::between(y.from, 1.0, "share of rows");
    }
    html! {
        figure {
            h3 { "Accuracy " span class="quiet" { "(share of evaluated rows)" } }
            (plot("accuracy", "Accuracy at each evaluation", (&steps_axis(runs), &y), &series, false, |s, i| {
                format!("{}: {} at step {}", s.name, percent(s.points[i].1), number(s.points[i].0))
            }))
            figcaption { "At each evaluation, with its 95 % interval." }
        }
    }
}

fn curve(runs: &[Run], id: &str, title: &str, what: &str, value: impl Fn(&Step) -> Option<f64>) -> Markup {
    let mut means = 1;
    let series: Vec<Series> = runs
        .iter()
        .enumerate()
        .map(|(color, run)| {
            let (points, group) = thinned(&points(run, &value));
            means = means.max(group);
            Series { name: name(runs, run, what), color, points, mark: Mark::Line }
        })
        .filter(|series| !series.points.is_empty())
        .collect();
    if series.is_empty() {
        return html! {};
    }
    // From 0, so that a steady curve looks steady.
    let values = series.iter().flat_map(|s| s.points.iter().map(|p| p.1)).chain([0.0]);
    let y = Axis::over(values, what);
    html! {
        figure {
            h3 { (title) @if id == "speed" { " " span class="quiet" { "(tokens/s)" } } }
            (plot(id, &format!("{title} over steps"), (&steps_axis(runs), &y), &series, false, tip))
            @if means > 1 { figcaption { "Means of " (means) " steps." } }
        }
    }
}
