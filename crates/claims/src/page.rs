//! The claims as one page, without scripts and without anything from the network.

use crate::evidence::{Estimate, Finding, Plot, Verdict};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use vitrine_report::html::{STYLE, head};
use vitrine_report::plot::{Axis, COLORS, Mark, Series, number, plot};

/// What this page adds to the style of reports.
const OWN: &str = "
.verdict { display: inline-block; padding: .05rem .5rem; border-radius: .25rem; border: 1px solid var(--quiet); font-size: .875rem; white-space: nowrap; }
.verdict.supported { border-color: var(--c2); color: var(--c2); } .verdict.not-supported { border-color: var(--c1); color: var(--c1); }
article h2 { display: flex; flex-wrap: wrap; gap: .25rem .75rem; align-items: baseline; }
dl.plain { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .25rem 1rem; margin: 0 0 1rem; max-width: 52rem; }
dl.plain dt { color: var(--quiet); } dl.plain dd { margin: 0; }
tr.decides td:first-child { font-weight: 600; }
@media (max-width: 40rem) { dl.plain { grid-template-columns: 1fr; gap: 0; } dl.plain dd { margin-bottom: .5rem; } }
";

/// The page about these findings.
pub fn page(findings: &[Finding], version: &str) -> String {
    let title = match findings {
        [one] => format!("{}: {}", one.id, one.title),
        all => format!("{} claims about BERT", all.len()),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (head(&title, OWN))
            body {
                header {
                    h1 { (title) }
                    p { "Each hypothesis has a rule for its verdict that was fixed before the run. A result stands here whatever it is." }
                    @if findings.iter().any(|finding| finding.quick) {
                        p class="banner" { "Run with --quick: sizes are tiny, and most verdicts say only that there is too little to tell." }
                    }
                    @if findings.len() > 1 { (summary(findings)) }
                }
                main { @for finding in findings { (article(finding)) } }
                footer class="quiet" { p { "Written by Vitrine " (version) "." } }
            }
        }
    };
    page.into_string()
}

fn verdict(verdict: Verdict) -> Markup {
    let class = match verdict {
        Verdict::Supported => "verdict supported",
        Verdict::NotSupported => "verdict not-supported",
        Verdict::Inconclusive => "verdict",
    };
    html! { span class=(class) { (verdict) } }
}

fn summary(findings: &[Finding]) -> Markup {
    html! {
        div class="scroll" {
            table {
                thead { tr { th {} th { "claim" } th { "verdict" } th { "result" } } }
                tbody {
                    @for finding in findings {
                        tr {
                            th scope="row" { a href=(format!("#{}", finding.id)) { (finding.id) } }
                            td { (finding.title) }
                            td { (verdict(finding.evidence.verdict)) }
                            td { (finding.evidence.result) }
                        }
                    }
                }
            }
        }
    }
}

fn article(finding: &Finding) -> Markup {
    let evidence = &finding.evidence;
    html! {
        article id=(finding.id) {
            h2 { span { (finding.id) " " (finding.title) } (verdict(evidence.verdict)) }
            p { (evidence.result) }
            dl class="plain" {
                dt { "hypothesis" } dd { (finding.hypothesis) }
                dt { "method" } dd { (finding.method) }
                dt { "rule" } dd { (finding.rule) }
            }
            div class="grid" {
                @for (place, plot) in evidence.plots.iter().enumerate() { (figure(&format!("{}-{place}", finding.id), plot)) }
            }
            div class="scroll" style="margin-top:1.5rem" {
                table {
                    thead { tr { th { "measured" } th class="n" { "value" } th class="n" { "95 % interval" } th { "by" } } }
                    tbody { @for estimate in &evidence.estimates { (row(estimate)) } }
                }
            }
            details {
                summary { "Sizes, data and seeds" }
                table class="pairs" {
                    tbody {
                        tr { th scope="row" { "data" } td { (finding.data) } }
                        @for (name, value) in &evidence.sizes { tr { th scope="row" { (name) } td { (value) } } }
                        tr { th scope="row" { "seeds" } td { (evidence.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")) } }
                        tr { th scope="row" { "seconds" } td { (number(finding.seconds)) } }
                    }
                }
            }
            @for remark in &evidence.remarks { p class="quiet" { (remark) } }
        }
    }
}

fn row(estimate: &Estimate) -> Markup {
    html! {
        tr class=(if estimate.decides { "decides" } else { "" }) {
            td { (estimate.name) @if estimate.decides { " " small { "(decides)" } } }
            td class="n" { (number(estimate.value)) }
            td class="n" { @if let Some((low, high)) = estimate.interval { (number(low)) " to " (number(high)) } @else { "–" } }
            td { small { (estimate.by) } }
        }
    }
}

/// The axes and lines of a plot.
fn drawn(id: &str, shown: &Plot) -> Markup {
    let all = || shown.lines.iter().flat_map(|line| &line.points);
    let x = axis_of(shown, all().map(|point| point.0));
    let ends = all().flat_map(|&(_, y, interval)| {
        [y].into_iter().chain(interval.map(|i| i.0)).chain(interval.map(|i| i.1))
    });
    let y = Axis::over(ends, "");
    let series: Vec<Series> = shown
        .lines
        .iter()
        .enumerate()
        .map(|(color, line)| Series {
            name: line.name.clone(),
            color,
            points: line.points.iter().map(|&(x, y, _)| (x, y)).collect(),
            mark: match (shown.ordered, line.points.len()) {
                (false, _) => Mark::Apart(line.points.iter().map(|point| point.2).collect()),
                (true, 0..=20) => Mark::Points(line.points.iter().map(|point| point.2).collect()),
                (true, _) => Mark::Line,
            },
        })
        .collect();
    let tip = |series: &Series, i: usize| {
        let (at, value) = series.points[i];
        let name = shown.names.get(at as usize).filter(|_| at.fract() == 0.0).cloned();
        format!("{}, {}: {}", series.name, name.unwrap_or_else(|| number(at)), number(value))
    };
    plot(id, &shown.title, (&x, &y), &series, false, tip)
}

fn figure(id: &str, shown: &Plot) -> Markup {
    html! {
        figure {
            h3 { (shown.title) " " span class="quiet" { "(" (shown.y) ")" } }
            (drawn(id, shown))
            @if shown.lines.len() > 1 {
                ul class="legend" {
                    @for (color, line) in shown.lines.iter().enumerate() {
                        li class=(format!("c{}", color % COLORS)) {
                            svg class="plot" viewBox="0 0 28 10" aria-hidden="true" style="display:inline" { line class="line" x1="1" x2="27" y1="5" y2="5" {} }
                            (line.name)
                        }
                    }
                }
            }
        }
    }
}

/// Room for the title of a plot that stands alone, and for each name of its legend.
const TITLE: usize = 26;
const NAME: usize = 18;

/// A plot as an image that stands alone: an SVG file in light or dark colours, as the reader's system has it.
pub fn image(shown: &Plot) -> String {
    let names = if shown.lines.len() > 1 { shown.lines.len() } else { 0 };
    let above = TITLE + NAME * names;
    let height = above + 250;
    let own = "text { font: 12px system-ui, sans-serif; fill: var(--ink); }";
    let title = format!("{} ({})", shown.title, shown.y);
    let image = html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 400 {height}")) width="400" height=(height) role="img" aria-label=(title) {
            style { (PreEscaped(STYLE)) (own) }
            rect width="400" height=(height) fill="var(--paper)" {}
            text x="8" y="17" font-weight="600" { (title) }
            @for (color, line) in shown.lines.iter().take(names).enumerate() {
                @let y = TITLE + NAME * color + 8;
                g class=(format!("plot c{}", color % COLORS)) {
                    line class="line" x1="8" x2="36" y1=(y) y2=(y) {}
                    text x="44" y=(y + 4) { (line.name) }
                }
            }
            // What it holds fills it.
            svg y=(above) width="400" height="250" { (drawn("plot", shown)) }
        }
    };
    image.into_string()
}

/// Names for whole numbers, or numbers.
fn axis_of(shown: &Plot, values: impl Iterator<Item = f64> + Clone) -> Axis {
    if shown.names.is_empty() {
        return Axis::over(values, &shown.x);
    }
    let ticks = shown.names.iter().enumerate().map(|(place, name)| (place as f64, name.clone())).collect();
    Axis { from: -0.5, to: shown.names.len() as f64 - 0.5, ticks, label: shown.x.clone() }
}
