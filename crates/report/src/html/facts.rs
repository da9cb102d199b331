//! Data, time, settings and hardware.

use crate::Run;
use crate::plot::{Axis, Bar, histogram, number};
use crate::run::{Lengths, Split, plain};
use crate::sentence::{duration, percent, percent_interval, thousands};
use maud::{Markup, html};
use serde_json::{Map, Value};

/// The figures that a reader wants first.
pub fn tiles(run: &Run) -> Markup {
    let evaluation = run.evaluation();
    let tile = |name: &str, value: String, small: String| {
        html! { div { dt { (name) } dd { (value) @if !small.is_empty() { small { (small) } } } } }
    };
    html! {
        dl class="tiles" {
            @if let Some(e) = evaluation {
                (tile("Accuracy", percent(e.accuracy), e.accuracy_interval.map(percent_interval).unwrap_or_default()))
                (tile("F1", format!("{:.3}", e.f1), e.f1_interval.map(|(a, b)| format!("{a:.3} to {b:.3}")).unwrap_or_default()))
                @if let Some(auroc) = e.auroc { (tile("AUROC", format!("{auroc:.3}"), "1 is perfect, 0.5 is chance".into())) }
            } @else if let Some(loss) = run.steps.last().and_then(|step| step.loss) {
                (tile("Training loss", number(loss), "of the last step".into()))
            }
            @if let Some(train) = &run.summary.train {
                (tile("Training", duration(train.seconds), format!("{} steps, {} tokens/s", thousands(train.steps), thousands(train.tokens_per_second.round().max(0.0) as u64))))
            } @else if let Some(last) = run.steps.last() {
                (tile("So far", duration(run.steps.iter().filter_map(|step| step.seconds).sum()), format!("step {}", last.step)))
            }
        }
    }
}

/// Rows, classes, lengths and what was cut. Runs on the same data have one section.
pub fn data(runs: &[Run]) -> Markup {
    let mut shown: Vec<(&Run, &Split)> = Vec::new();
    for run in runs {
        for split in &run.summary.data {
            let same = |other: &&Split| {
                (&other.split, &other.source, other.rows, other.tokens)
                    == (&split.split, &split.source, split.rows, split.tokens)
            };
            if !shown.iter().any(|(_, other)| same(other)) {
                shown.push((run, split));
            }
        }
    }
    if shown.is_empty() {
        return html! {};
    }
    html! {
        h2 { "Data" }
        div class="scroll" {
            table id="data" {
                thead { tr { th { "split" } th class="n" { "rows" } th class="n" { "tokens" } th class="n" { "cut" } th { "classes" } th { "source" } } }
                tbody {
                    @for (_, split) in &shown {
                        tr {
                            th scope="row" { (split.split) }
                            td class="n" { (thousands(split.rows)) }
                            td class="n" { (thousands(split.tokens)) }
                            td class="n" { (percent(split.truncated as f64 / split.rows.max(1) as f64)) }
                            td { (classes(&split.classes)) }
                            td { (split.source) }
                        }
                    }
                }
            }
        }
        div class="grid" style="margin-top:1.75rem" {
            @for (i, (run, split)) in shown.iter().enumerate() {
                @if let Some(lengths) = &split.lengths {
                    (length_histogram(&format!("lengths-{i}"), run.setting("max_length"), split, lengths))
                }
            }
        }
    }
}

fn classes(classes: &Map<String, Value>) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<String> =
        classes.iter().take(SHOWN).map(|(name, count)| format!("{name} {}", plain(count))).collect();
    if classes.len() > SHOWN {
        names.push(format!("… ({} in all)", classes.len()));
    }
    names.join(", ")
}

fn length_histogram(id: &str, max_length: Option<String>, split: &Split, lengths: &Lengths) -> Markup {
    let width = f64::from(lengths.width.max(1));
    let x = Axis::between(0.0, width * lengths.counts.len().max(1) as f64, "tokens");
    let y = Axis::over(lengths.counts.iter().map(|&n| n as f64).chain([0.0]), "rows");
    let last = lengths.counts.len().saturating_sub(1);
    let bars: Vec<Bar> = lengths
        .counts
        .iter()
        .enumerate()
        .map(|(i, &rows)| {
            // Texts that were cut have the maximum length, so they are in the last bin.
            let cut = if i == last { split.truncated.min(rows) } else { 0 };
            let (from, to) = (i as f64 * width, (i + 1) as f64 * width);
            let also = if cut > 0 { format!(", {} of them cut", thousands(cut)) } else { String::new() };
            let tip = format!("{} to {to} tokens: {} rows{also}", from + 1.0, thousands(rows));
            Bar { from, to, value: rows as f64, marked: cut as f64, tip }
        })
        .collect();
    html! {
        figure {
            h3 { "Lengths of the " (split.split) " split " span class="quiet" { "(rows by tokens)" } }
            (histogram(id, "Rows by length in tokens", (&x, &y), &bars))
            figcaption {
                @if split.truncated > 0 {
                    (percent(split.truncated as f64 / split.rows.max(1) as f64)) " of the texts are longer and were cut"
                    @if let Some(length) = max_length { " at " (length) " tokens" }
                    " (orange)."
                } @else { "No text was cut." }
            }
        }
    }
}

/// Time by operation of the step that was profiled.
pub fn operations(runs: &[Run]) -> Markup {
    html! {
        @for run in runs {
            @if let Some((step, times)) = &run.profile {
                @let all: f64 = times.iter().map(crate::trace::OpTime::total).sum();
                @let longest = times.first().map_or(1.0, crate::trace::OpTime::total).max(f64::MIN_POSITIVE);
                h2 { "Time by operation" @if runs.len() > 1 { " of " (run.name()) } }
                p class="quiet" {
                    "Measured in step " (step) ", " (duration(all)) " inside operations: "
                    i class="key forward" {} "forward " i class="key backward" {} "backward " i class="key other" {} "update."
                }
                table class="ops" {
                    thead { tr { th { "operation" } th class="n" { "calls" } th class="n" { "ms" } th class="n" { "share" } th {} } }
                    tbody {
                        @for time in times {
                            tr data-op=(time.op) data-ms=(format!("{:.4}", time.total() * 1e3)) {
                                th scope="row" { (time.op) }
                                td class="n" { (time.calls.max(1)) }
                                td class="n" { (number(time.total() * 1e3)) }
                                td class="n" { (percent(time.total() / all.max(f64::MIN_POSITIVE))) }
                                td class="time" {
                                    div class="stack" aria-hidden="true" {
                                        @for (class, seconds) in [("forward", time.forward), ("backward", time.backward), ("other", time.other)] {
                                            i class=(class) style=(format!("width:{:.2}%", 100.0 * seconds / longest)) title=(format!("{class} {} ms", number(seconds * 1e3))) {}
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Settings and hardware. Of several runs first what differs between them.
pub fn settings(runs: &[Run]) -> Markup {
    let [run] = runs else { return compared(runs) };
    html! {
        @if !run.summary.settings.is_empty() {
            h2 { "Settings" }
            (pairs(&rows_of(&run.summary.settings)))
        }
        @let machine = machine(run);
        @if !machine.is_empty() {
            h2 { "Hardware" }
            (pairs(&machine))
        }
    }
}

fn compared(runs: &[Run]) -> Markup {
    let all: Vec<Vec<(String, String)>> =
        runs.iter().map(|run| [rows_of(&run.summary.settings), machine(run)].concat()).collect();
    let mut keys: Vec<&str> = Vec::new();
    for (key, _) in all.iter().flatten() {
        if !keys.contains(&key.as_str()) {
            keys.push(key);
        }
    }
    let value = |run: usize, key: &str| {
        all[run].iter().find(|(k, _)| k == key).map_or("–", |(_, value)| value.as_str()).to_owned()
    };
    let (same, different): (Vec<&str>, Vec<&str>) =
        keys.into_iter().partition(|key| (1..runs.len()).all(|run| value(run, key) == value(0, key)));
    html! {
        h2 { "Settings and hardware" }
        @if different.is_empty() { p { "All settings are the same." } } @else {
            p class="quiet" { "What differs between the runs:" }
            div class="scroll" {
                table id="differences" {
                    thead { tr { th {} @for run in runs { th scope="col" { (run.name()) } } } }
                    tbody { @for key in &different { tr { th scope="row" { (key) } @for run in 0..runs.len() { td { (value(run, key)) } } } } }
                }
            }
        }
        details { summary { "What is the same in all of them" }
            (pairs(&same.iter().map(|key| ((*key).to_owned(), value(0, key))).collect::<Vec<_>>())) }
    }
}

fn pairs(rows: &[(String, String)]) -> Markup {
    html! { table class="pairs" { tbody { @for (key, value) in rows { tr { th scope="row" { (key) } td { (value) } } } } } }
}

/// Settings as the options are called; those that are not set are left out, nested ones have dots.
fn rows_of(settings: &Map<String, Value>) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for (key, value) in settings {
        match value {
            Value::Object(inner) => {
                rows.extend(
                    rows_of(inner).into_iter().map(|(k, v)| (format!("{}.{k}", key.replace('_', "-")), v)),
                );
            }
            Value::Null => {}
            value => rows.push((key.replace('_', "-"), plain(value))),
        }
    }
    rows
}

fn machine(run: &Run) -> Vec<(String, String)> {
    let field = |map: &Map<String, Value>, key: &str| map.get(key).map(plain).filter(|text| !text.is_empty());
    let (machine, resolved) = (&run.summary.machine, &run.summary.resolved);
    let gib = |bytes: f64| format!("{:.1} GiB", bytes / f64::from(1 << 30));
    let memory = machine.get("memory_bytes").and_then(Value::as_f64).map(gib);
    let device = field(resolved, "device").map(|device| {
        field(resolved, "device_reason").map_or(device.clone(), |reason| format!("{device} ({reason})"))
    });
    let dtype = field(resolved, "dtype").map(|dtype| {
        field(resolved, "dtype_reason").map_or(dtype.clone(), |reason| format!("{dtype} ({reason})"))
    });
    let rows = [
        ("processor", field(machine, "processor")),
        ("cores", field(machine, "cores")),
        ("memory", memory),
        ("device", device),
        ("precision", dtype),
        ("instruction set", field(resolved, "isa")),
        ("threads", field(resolved, "threads")),
        ("largest memory used", run.summary.peak_rss_bytes.map(gib)),
        ("platform", field(machine, "platform")),
        ("vitrine", field(machine, "vitrine")),
    ];
    rows.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}
