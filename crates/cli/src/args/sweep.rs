//! The options of `vitrine sweep`.

use super::{Train, count, examples};
use clap::Args;
use std::ffi::OsString;

/// `vitrine sweep`: takes every option of `train`, too.
#[derive(Args, Clone, Debug)]
#[command(allow_negative_numbers = true, after_help = examples::SWEEP)]
pub struct Sweep {
    /// Runs of each setting, with the seeds 1, 2, .. (from --seed on, if that is given).
    #[arg(long, value_parser = count, value_name = "N", default_value_t = 5, help_heading = "Sweep")]
    pub seeds: usize,
    /// An option of train and the values to try, such as lr=1e-5,2e-5; may be given several times, for every combination;
    /// default: one setting.
    #[arg(long, value_parser = axis, value_name = "OPTION=VALUE,..", help_heading = "Sweep")]
    pub grid: Vec<Axis>,
    #[command(flatten)]
    pub train: Train,
    /// The options that every run shares, as arguments: filled in when the command line has been read.
    #[arg(skip)]
    pub shared: Vec<OsString>,
}

/// An option and the values that it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    pub option: String,
    pub values: Vec<String>,
}

fn axis(text: &str) -> Result<Axis, String> {
    let (option, values) = text.split_once('=').ok_or("must be OPTION=VALUE,.., such as lr=1e-5,2e-5")?;
    let option = option.trim().trim_start_matches("--").replace('_', "-");
    let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
    if option.is_empty() || values.iter().any(String::is_empty) {
        return Err("must be OPTION=VALUE,.., such as lr=1e-5,2e-5".into());
    }
    match values.iter().enumerate().find(|(place, value)| values[..*place].contains(value)) {
        Some((_, value)) => Err(format!("has the value {value} twice")),
        None => Ok(Axis { option, values }),
    }
}
