//! `report.html`: one file without scripts and without anything from the network.

mod curves;
mod evaluation;
mod facts;

use crate::Run;
use crate::plot::COLORS;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// What is in every page that this crate has written.
pub const GENERATOR: &str = "<meta name=\"generator\" content=\"Vitrine\">";

/// The head of a page: its title, the house's style and `own` rules. The page loads nothing.
pub fn head(title: &str, own: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:";
            // Without it a browser looks for /favicon.ico.
            link rel="icon" href="data:,";
            (PreEscaped(GENERATOR))
            title { (title) }
            style { (PreEscaped(STYLE)) (PreEscaped(own)) }
        }
    }
}

/// The style of every page, in which [plots](crate::plot) have their colours.
pub const STYLE: &str = include_str!("style.css");

/// The page about one run, or about several side by side. Everything that comes from the runs is escaped.
pub fn report(runs: &[Run]) -> String {
    let title = match runs {
        [run] => format!("{}: training report", run.name()),
        runs => format!("{} runs: training report", runs.len()),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (head(&title, ""))
            body {
                header {
                    h1 { @if let [run] = runs { (crate::sentence::headline(run)) } @else { (crate::sentence::comparison(runs)) } }
                    @for run in runs { (status(run, runs.len() > 1)) }
                    @if let [run] = runs { (facts::tiles(run)) } @else { (legend(runs)) }
                }
                main {
                    (curves::section(runs))
                    (evaluation::section(runs))
                    (facts::data(runs))
                    (facts::operations(runs))
                    (evaluation::wrong(runs))
                    (facts::settings(runs))
                }
                footer class="quiet" {
                    @let version = runs.iter().find_map(|run| run.summary.machine.get("vitrine")?.as_str());
                    p { "Written by Vitrine" @if let Some(version) = version { " " (version) } ". Intervals are 95 %: Wilson's for shares, percentile bootstrap for F1." }
                }
            }
        }
    };
    page.into_string()
}

/// What a reader must know before believing anything else: a run that is not finished, its warnings, and lines that were not read.
fn status(run: &Run, named: bool) -> Markup {
    let name = if named { format!("{}: ", run.name()) } else { String::new() };
    let steps = run.steps.len();
    let state = run.summary.state.as_deref().unwrap_or("running");
    html! {
        @if !run.is_finished() {
            p class="banner" data-state=(state) {
                (name)
                @match state {
                    "interrupted" => "This run was interrupted. ",
                    "failed" => "This run failed. ",
                    _ => "This run is not finished. ",
                }
                "What follows is as of step " (steps) "."
            }
        }
        @for warning in run.warnings.iter().chain(&run.summary.data_warnings) { p class="banner" { (name) "Warning: " (warning) } }
        @if run.unreadable_lines > 0 {
            p class="banner" { (name) (run.unreadable_lines) " line(s) of metrics.jsonl could not be read and are left out." }
        }
    }
}

/// The runs with their colours and dashes.
fn legend(runs: &[Run]) -> Markup {
    html! {
        ul class="legend" {
            @for (i, run) in runs.iter().enumerate() {
                li class=(format!("c{}", i % COLORS)) {
                    svg class="plot" viewBox="0 0 28 10" aria-hidden="true" style="display:inline" { line class="line" x1="1" x2="27" y1="5" y2="5" {} }
                    (run.name())
                }
            }
        }
    }
}
