//! Config files: a TOML file whose keys are the long options of a command, `batch-size = 16`.
//!
//! There is no second reader of values: what the file says becomes arguments, which stand before those of the command line and
//! go through the same parsers. Here the file's own rules are checked: that a key is an option, that a value has the type of the
//! option, and that each complaint names file, line and key.

use crate::names::{DataName, ModelName};
use crate::output::{Failure, Outcome, printable};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::any::TypeId;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Bytes of a config file, at most.
const LIMIT: u64 = 1 << 20;
/// Options that make no sense inside of a config file.
const NOT_KEYS: [&str; 4] = ["help", "version", "config", "print-config"];

/// A config file that has been read.
pub struct ConfigFile {
    path: PathBuf,
    text: String,
}

/// What an option takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// Nothing: it is there or not.
    Nothing,
    Number,
    Text,
    /// A parser of its own decides.
    Either,
}

fn takes(arg: &Arg) -> Takes {
    let of = arg.get_value_parser().type_id();
    let is = |types: &[TypeId]| types.iter().any(|id| of == *id);
    let numbers = [
        TypeId::of::<f64>(),
        TypeId::of::<f32>(),
        TypeId::of::<usize>(),
        TypeId::of::<u64>(),
        TypeId::of::<u32>(),
        TypeId::of::<u16>(),
        TypeId::of::<u8>(),
        TypeId::of::<i64>(),
        TypeId::of::<i32>(),
    ];
    let texts = [
        TypeId::of::<String>(),
        TypeId::of::<PathBuf>(),
        TypeId::of::<OsString>(),
        TypeId::of::<ModelName>(),
        TypeId::of::<DataName>(),
    ];
    match arg.get_action() {
        ArgAction::SetTrue | ArgAction::SetFalse | ArgAction::Count => Takes::Nothing,
        _ if is(&numbers) => Takes::Number,
        _ if is(&texts) => Takes::Text,
        _ => Takes::Either,
    }
}

fn takes_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append) || arg.get_value_delimiter().is_some()
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    /// `Usage` for one that cannot be read, is too large or is not UTF-8.
    pub fn read(path: &Path) -> Outcome<Self> {
        let failed = |why: String| Failure::Usage(format!("--config {}: {why}", path.display()));
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(LIMIT + 1).read_to_end(&mut bytes));
        read.map_err(|error| failed(error.to_string()))?;
        if bytes.len() as u64 > LIMIT {
            return Err(failed(format!("more than {LIMIT} bytes; a config file has a line an option")));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = line_of(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
            failed(format!("line {line} is not UTF-8"))
        })?;
        Ok(ConfigFile { path: path.to_owned(), text })
    }

    fn fail(&self, at: usize, why: impl AsRef<str>) -> Failure {
        let line = line_of(&self.text.as_bytes()[..at.min(self.text.len())]);
        // One line, whatever the parser says.
        let why = why.as_ref().split('\n').map(str::trim).collect::<Vec<_>>().join(" ");
        Failure::Usage(format!("{}:{line}: {}", self.path.display(), printable(why.trim())))
    }

    /// The arguments that the file stands for, without those that the user typed or that contradict typed ones.
    ///
    /// # Errors
    /// `Usage` with the line and the key.
    pub fn arguments(&self, root: &Command, name: &str, typed: &ArgMatches) -> Outcome<Vec<OsString>> {
        let table = DeTable::parse(&self.text)
            .map_err(|error| self.fail(error.span().map_or(0, |span| span.start), error.message()))?;
        let command =
            root.find_subcommand(name).ok_or_else(|| Failure::Usage(format!("no command {name}")))?;
        let table = table.into_inner();
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let is_typed =
            |arg: &Arg| typed.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
        let contradicts = |one: &Arg, other: &Arg| {
            let of = |left: &Arg, right: &Arg| {
                command.get_arg_conflicts_with(left).iter().any(|arg| arg.get_id() == right.get_id())
            };
            of(one, other) || of(other, one)
        };
        // Every option so far, and whether it stands for arguments: a flag that is false does not.
        let (mut seen, mut all): (Vec<(&Arg, bool)>, Vec<OsString>) = (Vec::new(), Vec::new());
        for (key, value) in entries {
            let at = key.span().start;
            let spelled = key.get_ref().as_ref();
            let arg = self.option(command, at, spelled)?;
            if seen.iter().any(|(other, _)| other.get_id() == arg.get_id()) {
                return Err(self.fail(at, format!("`{spelled}` is there twice, with - and with _")));
            }
            let added = self.values(arg, spelled, value.get_ref(), value.span().start)?;
            // Alone, so that what is wrong with a value is said of its line.
            if let Some(error) = refused(root, name, &added) {
                return Err(self.fail(at, format!("`{spelled}`: {}", said(&error))));
            }
            let is_set = !added.is_empty();
            let excludes = |(other, set): &&(&Arg, bool)| is_set && *set && contradicts(arg, other);
            if let Some((other, _)) = seen.iter().find(excludes) {
                let other = other.get_long().unwrap_or_default();
                return Err(self.fail(at, format!("`{spelled}` and `{other}` exclude each other")));
            }
            seen.push((arg, is_set));
            let wins =
                |other: &Arg| is_typed(other) && (other.get_id() == arg.get_id() || contradicts(arg, other));
            if !command.get_arguments().any(wins) {
                all.extend(added);
            }
        }
        match refused(root, name, &all) {
            Some(error) => Err(self.fail(0, said(&error))),
            None => Ok(all),
        }
    }

    fn option<'c>(&self, command: &'c Command, at: usize, spelled: &str) -> Outcome<&'c Arg> {
        let name = spelled.replace('_', "-");
        let options = || command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg)));
        match options().find(|(long, _)| *long == name) {
            Some((long, _)) if NOT_KEYS.contains(&long) => {
                Err(self.fail(at, format!("`{spelled}` is only for the command line")))
            }
            Some((_, arg)) => Ok(arg),
            None => {
                let nearest = options()
                    .map(|(long, _)| (distance(long, &name), long))
                    .filter(|(_, long)| !NOT_KEYS.contains(long))
                    .min();
                let hint = match nearest {
                    Some((distance, long)) if distance <= name.chars().count().max(4) / 2 => {
                        format!("did you mean `{long}`?")
                    }
                    _ => format!("the keys are the long options of `vitrine {} --help`", command.get_name()),
                };
                let short: String = spelled.chars().take(40).collect();
                Err(self.fail(at, format!("no option `{short}`; {hint}")))
            }
        }
    }

    /// A value as arguments.
    fn values(&self, arg: &Arg, key: &str, value: &DeValue<'_>, at: usize) -> Outcome<Vec<OsString>> {
        let takes = takes(arg);
        let expected = match takes {
            Takes::Nothing => "true or false",
            Takes::Number => "a number",
            Takes::Text => "a string",
            Takes::Either => "a string or a number",
        };
        let wrong = |value: &DeValue<'_>| {
            self.fail(at, format!("`{key}` must be {expected}, and is {}", kind_of(value)))
        };
        let long = arg.get_long().unwrap_or_default();
        if let (Takes::Nothing, DeValue::Boolean(is_on)) = (takes, value) {
            return Ok(is_on.then(|| format!("--{long}").into()).into_iter().collect());
        }
        let text = |value: &DeValue<'_>| -> Outcome<String> {
            match (takes, value) {
                (Takes::Text | Takes::Either, DeValue::String(text)) => Ok(text.clone().into_owned()),
                (Takes::Number | Takes::Either, DeValue::Integer(number)) => {
                    let digits = number.as_str().replace('_', "");
                    match i64::from_str_radix(digits.trim_start_matches('+'), number.radix()) {
                        Ok(number) => Ok(number.to_string()),
                        Err(_) => Err(self.fail(at, format!("`{key}`: the number {digits} is too large"))),
                    }
                }
                (Takes::Number | Takes::Either, DeValue::Float(number)) => {
                    Ok(number.as_str().replace('_', ""))
                }
                _ => Err(wrong(value)),
            }
        };
        let argument = |value: &str| OsString::from(format!("--{long}={value}"));
        match value {
            DeValue::Array(values) if takes_list(arg) && takes != Takes::Nothing => {
                let values: Vec<String> =
                    values.iter().map(|value| text(value.get_ref())).collect::<Outcome<_>>()?;
                match arg.get_value_delimiter() {
                    // No value can hold what separates them on the command line.
                    Some(delimiter) => match values.iter().find(|value| value.contains(delimiter)) {
                        Some(value) => {
                            Err(self.fail(at, format!("`{key}`: {value} has a `{delimiter}` in it")))
                        }
                        None if values.is_empty() => Ok(Vec::new()),
                        None => Ok(vec![argument(&values.join(&delimiter.to_string()))]),
                    },
                    None => Ok(values.iter().map(|value| argument(value)).collect()),
                }
            }
            value => Ok(vec![argument(&text(value)?)]),
        }
    }
}

/// What clap says against these arguments, except that others are missing: those may be on the command line.
fn refused(root: &Command, name: &str, arguments: &[OsString]) -> Option<clap::Error> {
    let all = ["vitrine", name].map(OsString::from).into_iter().chain(arguments.iter().cloned());
    let error = root.clone().try_get_matches_from(all).err();
    error.filter(|error| error.kind() != ErrorKind::MissingRequiredArgument)
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table; keys stand at the top of the file",
    }
}

/// What clap says is wrong, in one line.
pub fn said(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    lines.join(" ").trim_start_matches("error: ").to_owned()
}

fn line_of(before: &[u8]) -> usize {
    before.iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// Levenshtein's distance: letters to insert, remove or replace.
pub fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(100).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

/// The options that were given, by the user or by a config file, as arguments.
pub fn given(options: &[&Arg], matches: &ArgMatches) -> Vec<OsString> {
    let mut arguments = Vec::new();
    for arg in options {
        let id = arg.get_id().as_str();
        let Some(long) = arg.get_long() else { continue };
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        if takes(arg) == Takes::Nothing {
            arguments.push(format!("--{long}").into());
            continue;
        }
        for values in matches.get_raw_occurrences(id).into_iter().flatten() {
            let mut argument = OsString::from(format!("--{long}="));
            for (place, value) in values.enumerate() {
                if place > 0 {
                    argument.push(arg.get_value_delimiter().unwrap_or(',').to_string());
                }
                argument.push(value);
            }
            arguments.push(argument);
        }
    }
    arguments
}

/// Every option that has a value, with the value in TOML: as it was given, else its default, else that of `defaults`.
pub fn resolved(
    options: &[&Arg],
    matches: &ArgMatches,
    defaults: &[(&'static str, String)],
) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for arg in options {
        let id = arg.get_id().as_str();
        let Some(long) = arg.get_long() else { continue };
        let takes = takes(arg);
        let value = if takes == Takes::Nothing {
            matches.get_flag(id).then(|| "true".to_owned())
        } else if let Some(values) = matches.get_raw(id) {
            let values: Vec<String> = values.map(|value| in_toml(takes, &value.to_string_lossy())).collect();
            Some(if takes_list(arg) { format!("[{}]", values.join(", ")) } else { values.concat() })
        } else {
            defaults.iter().find(|(name, _)| *name == long).map(|(_, value)| in_toml(takes, value))
        };
        all.extend(value.map(|value| (long.to_owned(), value)));
    }
    all
}

/// A value of the command line in TOML.
fn in_toml(takes: Takes, value: &str) -> String {
    if takes != Takes::Text {
        if let Ok(whole) = value.parse::<i64>() {
            return whole.to_string();
        }
        if let Some(number) = value.parse::<f64>().ok().filter(|number| number.is_finite()) {
            return format!("{number:?}");
        }
    }
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text + "\""
}

/// Options in one line, for people.
pub fn in_a_line(resolved: &[(String, String)]) -> String {
    resolved
        .iter()
        .map(|(key, value)| format!("{key} {}", value.trim_matches('"')))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Options as a config file.
pub fn to_file(resolved: &[(String, String)]) -> String {
    let lines = resolved.iter().map(|(key, value)| format!("{key} = {value}\n"));
    format!(
        "# vitrine train --config FILE: a key for each option; the command line overrides it.\n{}",
        lines.collect::<String>()
    )
}

#[cfg(test)]
mod tests;
