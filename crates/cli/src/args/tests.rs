//! What every command's help has to have.

use super::{Arguments, Command as Chosen, command};
use clap::{ArgAction, Command, Parser};

fn commands() -> Vec<Command> {
    fn add(command: &Command, all: &mut Vec<Command>) {
        all.push(command.clone());
        command
            .get_subcommands()
            .filter(|inner| inner.get_name() != "help")
            .for_each(|inner| add(inner, all));
    }
    let mut all = Vec::new();
    add(&command(), &mut all);
    all
}

#[test]
fn the_command_line_is_consistent() {
    command().debug_assert();
}

#[test]
fn every_option_says_its_default() {
    for command in commands() {
        for arg in command.get_arguments() {
            let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
            if !takes_value || arg.is_required_set() || arg.is_positional() {
                continue;
            }
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let shown = !arg.get_default_values().is_empty() && !arg.is_hide_default_value_set();
            let name = format!("{} --{}", command.get_name(), arg.get_long().unwrap_or_default());
            assert!(shown || help.contains("default:"), "{name}: say `default: ..` in its help ({help})");
        }
    }
}

#[test]
fn every_command_has_examples_that_can_be_typed() {
    let mut count = 0;
    for command in &commands() {
        let name = command.get_name();
        let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines: Vec<&str> = examples.lines().filter(|line| line.starts_with("  vitrine ")).collect();
        assert!(!lines.is_empty(), "{name}: no examples in its help");
        for line in lines {
            // As a shell splits it: quotes of one kind, and what follows a pipe or > is not ours.
            let typed = line.split(['|', '>']).next().unwrap_or_default();
            let words: Vec<&str> = typed
                .split('\'')
                .enumerate()
                .flat_map(
                    |(place, part)| {
                        if place % 2 == 1 { vec![part] } else { part.split_whitespace().collect() }
                    },
                )
                .collect();
            let parsed = Arguments::try_parse_from(&words);
            assert!(
                parsed.is_ok(),
                "{line}: {}",
                parsed.err().map(|error| error.to_string()).unwrap_or_default()
            );
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
    let typed =
        Arguments::try_parse_from(["vitrine", "predict", "--model", "m", "a wonderful film"]).unwrap();
    assert!(matches!(typed.command, Chosen::Predict(predict) if predict.texts == ["a wonderful film"]));
}
