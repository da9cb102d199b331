//! `vitrine data inspect`: what a data set holds, and what is odd about it.

use crate::args::DataInspect;
use crate::hub::{name_of, resolve_data};
use crate::names::ModelName;
use crate::output::{
    self, Align, Outcome, Style, bytes, detail, line, paint, printable, table, thousands, warn,
};
use crate::progress::duration;
use serde::Serialize;
use std::time::Instant;
use vitrine_train::TokenCache;
use vitrine_train::data::{Purpose, SourceSplit, read_splits};
use vitrine_train::inspect::{Example, Finding, Inspection, Lengths, SplitInspection, inspect};

/// The longest input where nobody says otherwise: BERT's positions.
const MAX_LENGTH: usize = 512;
/// Columns of the longest bar.
const BAR: usize = 24;
/// Labels of a split that are shown.
const LABELS: usize = 8;

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    path: String,
    #[serde(flatten)]
    found: &'a Inspection,
    notes: Vec<String>,
    seconds: f64,
}

/// Runs the command.
pub fn run(arguments: &DataInspect) -> Outcome {
    let started = Instant::now();
    let tokenizer = arguments.model.as_ref().map(ModelName::tokenizer).transpose()?;
    let path = resolve_data(&arguments.path, Purpose::Labelled)?;
    let (splits, notes) = read_splits(&path, &arguments.columns.options(None))?;
    detail(format!("read in {}", duration(started.elapsed().as_secs_f64())));
    let cache = if arguments.no_cache { None } else { TokenCache::of_user() };
    let lengths = |split: &SourceSplit| -> Outcome<Option<Vec<usize>>> {
        let Some(tokenizer) = &tokenizer else { return Ok(None) };
        let texts: Vec<&str> = split.rows.iter().map(|row| row.text.as_str()).collect();
        Ok(Some(vitrine_train::token_lengths(&texts, tokenizer, cache.as_ref())?))
    };
    let tokens: Option<Vec<Vec<usize>>> = splits.iter().map(lengths).collect::<Outcome<_>>()?;
    detail(format!("tokenized after {}", duration(started.elapsed().as_secs_f64())));
    let max_length = tokenizer.is_some().then(|| arguments.max_length.unwrap_or(MAX_LENGTH));
    let found = inspect(&splits, tokens.as_deref(), max_length);
    let seconds = started.elapsed().as_secs_f64();
    if arguments.json {
        let path = name_of(&path);
        return output::json(&Report { path, found: &found, notes, seconds });
    }
    notes.iter().for_each(warn);
    for split in &found.splits {
        print_split(split)?;
    }
    if found.splits.len() > 1 {
        line(heading("between the splits"))?;
        for shared in &found.shared {
            let (first, second) = (&shared.first, &shared.second);
            print_finding(&format!("{second} rows that are {first} rows"), &shared.duplicates)?;
            print_finding(&format!("{second} rows nearly equal to {first} rows"), &shared.near_duplicates)?;
        }
        line("")?;
    }
    print_finding("equal texts with different labels", &found.conflicting_labels)?;
    line(format!("inspected in {}", duration(seconds)))?;
    if tokenizer.is_none() {
        line("lengths are in words; with --model DIR they are in tokens, and the truncated share is shown")?;
    }
    Ok(())
}

fn heading(text: &str) -> String {
    paint(&std::io::stdout(), Style::Bold, text)
}

fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent > 0.0 && percent < 0.1 { "<0.1 %".into() } else { format!("{percent:.1} %") }
}

fn print_split(split: &SplitInspection) -> Outcome {
    let column = |name: &Option<String>| name.as_deref().map_or("none".into(), printable);
    line(heading(&printable(&split.split)))?;
    line(format!("  source   {}", printable(&split.source)))?;
    line(format!("  columns  text {}, label {}", column(&split.text_column), column(&split.label_column)))?;
    line(format!("  rows     {}  ({})", thousands(split.rows), bytes(split.bytes)))?;
    let mut labels: Vec<String> =
        split.labels.iter().map(|(name, &rows)| format!("{} {}", printable(name), thousands(rows))).collect();
    if labels.len() > LABELS {
        let all = labels.len();
        labels.truncate(LABELS);
        labels.push(format!("... ({all} in all)"));
    }
    if split.unlabelled > 0 {
        labels.push(format!("without a label {}", thousands(split.unlabelled)));
    }
    line(format!("  labels   {}", labels.join(", ")))?;
    if let Some(problem) = &split.problem {
        warn(format!("{}: not to be trained on as it is: {problem}", split.split));
    }
    match &split.tokens {
        Some(lengths) => print_lengths("tokens", lengths)?,
        None => print_lengths("words", &split.words)?,
    }
    print_finding("empty texts", &split.empty)?;
    print_finding("texts with HTML", &split.html)?;
    if !split.html_kinds.is_empty() {
        let mut kinds: Vec<(&String, &usize)> = split.html_kinds.iter().collect();
        kinds.sort_by_key(|(_, rows)| std::cmp::Reverse(**rows));
        let kinds: Vec<String> =
            kinds.iter().take(LABELS).map(|(kind, rows)| format!("{kind} {}", thousands(**rows))).collect();
        line(format!("      {}", kinds.join(", ")))?;
    }
    print_finding("texts with U+FFFD (bytes that could not be read)", &split.replacement_characters)?;
    print_finding("texts with UTF-8 read as Windows-1252 (\u{c3}\u{a9} for \u{e9})", &split.mojibake)?;
    print_finding("texts with control characters", &split.control_characters)?;
    print_finding("rows equal to an earlier row", &split.duplicates)?;
    print_finding("rows nearly equal to another row", &split.near_duplicates)?;
    line("")
}

fn print_lengths(unit: &str, lengths: &Lengths) -> Outcome {
    let percentiles = [
        ("min", 0),
        ("5 %", 5),
        ("25 %", 25),
        ("median", 50),
        ("75 %", 75),
        ("95 %", 95),
        ("99 %", 99),
        ("max", 100),
    ];
    let cells: Vec<(&str, String)> = percentiles
        .iter()
        .map(|(name, percent)| {
            (*name, lengths.percentiles.get(percent).map_or(String::new(), |&n| thousands(n)))
        })
        .chain([("mean", format!("{:.0}", lengths.mean))])
        .collect();
    // Two rows of a few columns each, within 50 columns.
    line(format!("  lengths in {unit}"))?;
    for cells in cells.chunks(5) {
        let columns: Vec<(&str, Align)> = cells.iter().map(|(name, _)| (*name, Align::Right)).collect();
        let row: Vec<String> = cells.iter().map(|(_, value)| value.clone()).collect();
        let text = table(&columns, &[row]);
        // Without the rule under the head.
        let lines: Vec<&str> = text.lines().collect();
        line(format!("    {}\n    {}", lines[0], lines[2]))?;
    }
    let most = lengths.histogram.iter().map(|bar| bar.rows).max().unwrap_or(0).max(1);
    let name = |from: usize, to: Option<usize>| match to {
        Some(to) => format!("{from}-{to}"),
        None => format!("{from}-"),
    };
    let width = lengths.histogram.iter().map(|bar| name(bar.from, bar.to).len()).max().unwrap_or(0);
    for bar in &lengths.histogram {
        // A row is never invisible.
        let drawn = (BAR * bar.rows).div_ceil(most);
        line(format!(
            "    {:>width$} {:<BAR$} {}",
            name(bar.from, bar.to),
            "█".repeat(drawn),
            thousands(bar.rows)
        ))?;
    }
    if let Some(cut) = lengths.truncated {
        line(format!(
            "  longer than {} tokens: {} ({}), {} of all tokens are cut off",
            thousands(cut.max_length),
            thousands(cut.rows),
            percent(cut.share),
            percent(cut.tokens_share)
        ))?;
    }
    Ok(())
}

fn print_finding(what: &str, finding: &Finding) -> Outcome {
    if finding.rows == 0 {
        return line(format!("  {what}: none"));
    }
    let count = paint(&std::io::stdout(), Style::Warning, &thousands(finding.rows));
    line(format!("  {what}: {count} ({})", percent(finding.share)))?;
    finding.examples.iter().try_for_each(|example| line(format!("      {}", described(example))))
}

fn described(example: &Example) -> String {
    let label = |label: &Option<String>| {
        label.as_deref().map_or(String::new(), |name| format!(" [{}]", printable(name)))
    };
    let other = example.other.as_ref().map_or(String::new(), |other| {
        let similarity = other.similarity.map_or(String::new(), |s| format!(", {:.0} % alike", 100.0 * s));
        format!(" = {} {}{}{similarity}", other.split, other.row, label(&other.label))
    });
    // What would command the terminal is shown as its code, a line break too.
    let text = printable(&example.text).replace('\n', "\\n");
    format!("{} {}{}{other}: {text}", example.split, example.row, label(&example.label))
}
