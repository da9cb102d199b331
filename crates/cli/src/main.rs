//! `vitrine`: fine-tune, measure and take apart a BERT.
//!
//! A file per command in [`commands`]; each parses nothing, prints through [`output`], and returns an error that names
//! what is wrong, where, and what to do. Exit code 2 is a usage error, 1 a failed run.

mod args;
mod commands;
mod config;
mod data_summary;
mod hub;
mod interrupt;
mod machine;
mod names;
mod output;
mod parse;
mod predictions;
mod progress;
mod report;

use std::process::ExitCode;

// Small allocations (token ids, strings, JSON); tensors have a pool of their own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let parsed = parse::parse(std::env::args_os().collect()).and_then(|arguments| {
        output::set_verbosity(arguments.quiet, arguments.verbose);
        commands::run(arguments.command)
    });
    match parsed {
        // A reader such as `head` that has seen enough is not a failure.
        Ok(()) | Err(output::Failure::Closed) => ExitCode::SUCCESS,
        Err(failure) => {
            output::styled_note(output::Style::Error, "error:", &failure);
            interrupt::end();
            ExitCode::from(failure.exit_code())
        }
    }
}
