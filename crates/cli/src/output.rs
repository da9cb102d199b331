//! What the commands have in common: failures and exit codes, colours, JSON lines and tables.

use crate::progress;
use serde::Serialize;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU8, Ordering};

/// Why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// The request makes no sense: exit code 2.
    Usage(String),
    /// The run failed: exit code 1.
    Run(String),
    /// Nobody reads standard output any more.
    Closed,
}

/// The result of a command.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// 2 for a usage error, 1 for a failed run.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Run(_) => 1,
            Failure::Closed => 0,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(message) | Failure::Run(message) => f.write_str(message),
            Failure::Closed => f.write_str("standard output was closed"),
        }
    }
}

macro_rules! run_failure {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Failure::Run(error.to_string())
            }
        }
    )*};
}
run_failure!(
    vitrine_tensor::Error,
    vitrine_autograd::AutogradError,
    vitrine_nn::NnError,
    vitrine_bert::BertError,
    vitrine_train::TrainError,
    serde_json::Error
);

impl From<io::Error> for Failure {
    /// For errors of standard input and output; errors of files are mapped with their path where they happen.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Closed,
            _ => Failure::Run(format!("standard input or output: {error}")),
        }
    }
}

/// How a piece of text stands out on a terminal.
#[derive(Clone, Copy)]
pub enum Style {
    /// Headings and names.
    Bold,
    /// Something to look at.
    Warning,
    /// What went wrong.
    Error,
    /// What went well.
    Good,
}

/// How much is said on standard error.
static VERBOSITY: AtomicU8 = AtomicU8::new(NORMAL);
const QUIET: u8 = 0;
const NORMAL: u8 = 1;
const VERBOSE: u8 = 2;

/// Sets how much is said: warnings and errors only, or more than usual.
pub fn set_verbosity(quiet: bool, verbose: bool) {
    let verbosity = match (quiet, verbose) {
        (true, _) => QUIET,
        (false, true) => VERBOSE,
        (false, false) => NORMAL,
    };
    VERBOSITY.store(verbosity, Ordering::Relaxed);
}

/// Whether only warnings and errors are said.
pub fn is_quiet() -> bool {
    VERBOSITY.load(Ordering::Relaxed) == QUIET
}

/// Whether more is said than usual.
pub fn is_verbose() -> bool {
    VERBOSITY.load(Ordering::Relaxed) == VERBOSE
}

/// Whether a stream shows colours: NO_COLOR (no-color.org) forbids them, CLICOLOR_FORCE (bixense.com/clicolors) demands them, and
/// else a terminal has them that is not dumb.
fn has_colour(is_terminal: bool, variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    match (set("NO_COLOR"), set("CLICOLOR_FORCE").filter(|value| value != "0")) {
        (Some(_), _) => false,
        (None, Some(_)) => true,
        (None, None) => is_terminal && set("TERM").is_none_or(|term| term != "dumb"),
    }
}

/// Text in a style for `stream`, or plain where that has no colours.
pub fn paint(stream: &impl IsTerminal, style: Style, text: &str) -> String {
    let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    if !has_colour(stream.is_terminal(), variable) {
        return text.to_owned();
    }
    let code = match style {
        Style::Bold => "1",
        Style::Warning => "33",
        Style::Error => "1;31",
        Style::Good => "32",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Prints one line of text on standard output.
pub fn line(text: impl fmt::Display) -> Outcome {
    if io::stdout().is_terminal() {
        progress::clear();
    }
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

/// Prints text that ends its own lines on standard output.
pub fn print(text: impl fmt::Display) -> Outcome {
    Ok(write!(io::stdout().lock(), "{text}")?)
}

/// Prints one object as one line of JSON on standard output.
pub fn json(object: &impl Serialize) -> Outcome {
    line(serde_json::to_string(object)?)
}

/// Text from files, paths and models without commands for the terminal: control characters, and those that turn the
/// direction of writing, are shown as `\u{..}`. Line breaks stay.
pub fn printable(text: &str) -> String {
    let harmless = |c: char| {
        c == '\n' || !(c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
    };
    if text.chars().all(harmless) {
        return text.to_owned();
    }
    text.chars().map(|c| if harmless(c) { c.to_string() } else { c.escape_unicode().to_string() }).collect()
}

/// Prints a remark for people on standard error, unless only warnings are wanted.
pub fn note(text: impl fmt::Display) {
    if is_quiet() {
        return;
    }
    progress::clear();
    // Standard error may be closed; the run goes on.
    let _ = writeln!(io::stderr().lock(), "{}", printable(&text.to_string()));
}

/// Prints a remark for those who want to know more.
pub fn detail(text: impl fmt::Display) {
    if is_verbose() {
        note(text);
    }
}

/// Says what a user may want to do or look at next.
pub fn next(word: &str, text: impl fmt::Display) {
    if !is_quiet() {
        styled_note(Style::Good, word, text);
    }
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=,:@%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// A path as a shell takes it.
pub fn quoted_path(path: &std::path::Path) -> String {
    quoted(&path.display().to_string())
}

/// Prints a line with a word in front that stands out, on standard error.
pub fn styled_note(style: Style, word: &str, text: impl fmt::Display) {
    progress::clear();
    let word = paint(&io::stderr(), style, word);
    let _ = writeln!(io::stderr().lock(), "{word} {}", printable(&text.to_string()));
}

/// Prints a warning for people on standard error.
pub fn warn(text: impl fmt::Display) {
    styled_note(Style::Warning, "warning:", text);
}

/// How a column of a table is set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Lines of a table with aligned columns and a rule under the head.
pub fn table(columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let width = |text: &str| text.chars().count();
    let widths: Vec<usize> = (0..columns.len())
        .map(|c| rows.iter().map(|row| width(&row[c])).chain([width(columns[c].0)]).max().unwrap_or(0))
        .collect();
    let set = |cells: Vec<&str>| -> String {
        let cells = cells.iter().zip(columns).zip(&widths).map(|((cell, (_, align)), &w)| match align {
            Align::Left => format!("{cell:<w$}"),
            Align::Right => format!("{cell:>w$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![set(columns.iter().map(|column| column.0).collect())];
    lines.push(widths.iter().map(|&w| "-".repeat(w)).collect::<Vec<_>>().join("  "));
    lines.extend(rows.iter().map(|row| set(row.iter().map(String::as_str).collect())));
    lines.join("\n")
}

/// A count with thousands separated: 109,483,778.
pub fn thousands(n: usize) -> String {
    vitrine_report::sentence::thousands(n as u64)
}

/// Bytes with a binary unit: 417.6 MiB.
pub fn bytes(n: usize) -> String {
    scaled(n as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// A count with a decimal prefix: 22.4 G.
pub fn si(n: f64) -> String {
    scaled(n, 1000.0, &["", "k", "M", "G", "T", "P"])
}

fn scaled(mut n: f64, base: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while n.abs() >= base && unit + 1 < units.len() {
        n /= base;
        unit += 1;
    }
    let number = if unit == 0 && n.fract() == 0.0 { format!("{n:.0}") } else { format!("{n:.1}") };
    format!("{number} {}", units[unit]).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(thousands(109_483_778), "109,483,778");
        assert_eq!(thousands(12), "12");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(si(22_400_000_000.0), "22.4 G");
        assert_eq!(si(7.0), "7");
    }

    #[test]
    fn colours_follow_the_environment() {
        let colour = |terminal, set: &[(&str, &str)]| {
            let value = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
            has_colour(terminal, value)
        };
        assert!(colour(true, &[]) && !colour(false, &[]));
        assert!(!colour(true, &[("NO_COLOR", "1")]) && colour(true, &[("NO_COLOR", "")]));
        assert!(colour(false, &[("CLICOLOR_FORCE", "1")]) && !colour(false, &[("CLICOLOR_FORCE", "0")]));
        assert!(!colour(true, &[("TERM", "dumb")]) && colour(true, &[("TERM", "xterm")]));
        assert!(!colour(true, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]));
        assert!(colour(true, &[("TERM", "dumb"), ("CLICOLOR_FORCE", "1")]));
    }

    #[test]
    fn paths_for_a_shell() {
        assert_eq!(quoted("runs/lr=1e-5,seed=1"), "runs/lr=1e-5,seed=1");
        assert_eq!(quoted("my runs/it's"), r"'my runs/it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn tables_align() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["bc".into(), "20".into()]];
        let expected = "name   n\n----  --\na      1\nbc    20";
        assert_eq!(table(&[("name", Align::Left), ("n", Align::Right)], &rows), expected);
    }
}
