//! `vitrine completions` and `vitrine man`: what the shell and `man` know of the command line.

use crate::args::{Completions, Man, command};
use crate::output::{Failure, Outcome, note, quoted_path};
use clap::Command;
use std::fs;
use std::io::{self, Write};

/// Prints the completions of a shell.
pub fn shell(arguments: &Completions) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command(), "vitrine", &mut script);
    Ok(io::stdout().lock().write_all(&script)?)
}

/// Every command with its own page: the whole, its commands, and theirs; each named as its page is, `vitrine-bench-step`.
fn pages() -> Vec<Command> {
    fn add(command: &Command, pages: &mut Vec<Command>) {
        pages.push(command.clone());
        command
            .get_subcommands()
            .filter(|inner| inner.get_name() != "help")
            .for_each(|inner| add(inner, pages));
    }
    let mut pages = Vec::new();
    add(&command(), &mut pages);
    pages
}

/// `vitrine-bench-step` for `vitrine bench step`.
fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn rendered(command: &Command) -> Outcome<Vec<u8>> {
    let name = page_name(command);
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).title(name.to_uppercase()).render(&mut text)?;
    Ok(text)
}

/// Prints a page of the manual, or writes all of them.
pub fn man(arguments: &Man) -> Outcome {
    let pages = pages();
    if let Some(folder) = &arguments.output {
        let failed = |path: &std::path::Path, error: io::Error| {
            Failure::Run(format!("cannot write {}: {error}", path.display()))
        };
        fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        for page in &pages {
            let path = folder.join(format!("{}.1", page_name(page)));
            fs::write(&path, rendered(page)?).map_err(|error| failed(&path, error))?;
        }
        note(format!("{} pages in {}", pages.len(), quoted_path(folder)));
        return Ok(());
    }
    let wanted = std::iter::once("vitrine").chain(arguments.command.iter().map(String::as_str));
    let wanted = wanted.collect::<Vec<_>>().join("-");
    let Some(page) = pages.iter().find(|page| page_name(page) == wanted) else {
        let names: Vec<String> =
            pages[1..].iter().map(|page| page_name(page)["vitrine-".len()..].replace('-', " ")).collect();
        let asked = arguments.command.join(" ");
        return Err(Failure::Usage(format!("no command `{asked}`; there are: {}", names.join(", "))));
    };
    Ok(io::stdout().lock().write_all(&rendered(page)?)?)
}
