//! From the arguments of the process to [`Arguments`]: what a config file says stands before what the user typed.

use crate::args::{self, Arguments, Command};
use crate::commands::default_options;
use crate::config::{self, ConfigFile};
use crate::output::Outcome;
use clap::FromArgMatches;
use std::ffi::OsString;
use std::path::PathBuf;

/// Options that are about one run and no settings of it: no config file keeps them.
const NOT_SETTINGS: [&str; 10] = [
    "help",
    "version",
    "quiet",
    "verbose",
    "config",
    "print-config",
    "output",
    "overwrite",
    "json",
    "resume",
];
/// What a sweep decides for each of its runs, and its own options.
const OF_SWEEP: [&str; 3] = ["seed", "seeds", "grid"];

/// Reads the command line, and the config file that it names. Prints help and usage errors itself, and ends the process then.
///
/// # Errors
/// `Usage` for a config file.
pub fn parse(arguments: Vec<OsString>) -> Outcome<Arguments> {
    let root = args::command();
    let arguments = with_config(&root, arguments)?;
    let matches = root.clone().try_get_matches_from(arguments).unwrap_or_else(|error| error.exit());
    let mut parsed = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Some((name, options)) = matches.subcommand()
        && let Some(command) = root.find_subcommand(name)
    {
        let settings = |excluded: &[&str]| -> Vec<&clap::Arg> {
            let is_setting = |arg: &&clap::Arg| {
                arg.get_long().is_some_and(|long| !NOT_SETTINGS.contains(&long) && !excluded.contains(&long))
            };
            command.get_arguments().filter(is_setting).collect()
        };
        match &mut parsed.command {
            Command::Train(train) => {
                train.config.resolved = config::resolved(&settings(&[]), options, &default_options(train));
            }
            Command::Sweep(sweep) => {
                let train = &mut sweep.train;
                let shared = settings(&OF_SWEEP);
                train.config.resolved = config::resolved(&shared, options, &default_options(train));
                train.config.resolved.retain(|(name, _)| !OF_SWEEP.contains(&name.as_str()));
                sweep.shared = config::given(&shared, options);
            }
            _ => {}
        }
    }
    Ok(parsed)
}

/// The arguments with those of `--config` behind the command's name, except for options that the user typed, which count more.
fn with_config(root: &clap::Command, mut arguments: Vec<OsString>) -> Outcome<Vec<OsString>> {
    // What is wrong with the command line is said later.
    let Ok(matches) = root.clone().try_get_matches_from(&arguments) else { return Ok(arguments) };
    let Some((name, typed)) = matches.subcommand() else { return Ok(arguments) };
    let Ok(Some(path)) = typed.try_get_one::<PathBuf>("config_file") else { return Ok(arguments) };
    let Some(place) = arguments.iter().position(|argument| argument.to_str() == Some(name)) else {
        return Ok(arguments);
    };
    let file = ConfigFile::read(path)?;
    let added = file.arguments(root, name, typed)?;
    arguments.splice(place + 1..place + 1, added);
    Ok(arguments)
}
