//! Which runs a sweep has.

use crate::args::{self, Axis, Sweep};
use crate::config;
use crate::output::{Failure, Outcome};
use clap::{ArgAction, Command};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Runs of a sweep, at most: more is a slip.
const MOST: usize = 10_000;
/// Options that are no setting of a run.
const NOT_SWEPT: [&str; 11] = [
    "seed",
    "seeds",
    "grid",
    "output",
    "overwrite",
    "resume",
    "config",
    "print-config",
    "json",
    "quiet",
    "verbose",
];

/// One combination of the grid's values.
pub struct Setting {
    /// `lr=1e-5,batch-size=16`; nothing where there is no grid.
    pub name: String,
    pub values: BTreeMap<String, String>,
    /// The same as arguments.
    arguments: Vec<String>,
}

impl Setting {
    /// The name, for people.
    pub fn shown(&self) -> &str {
        if self.name.is_empty() { "(all)" } else { &self.name }
    }
}

/// Every run.
pub struct Plan {
    pub folder: PathBuf,
    pub settings: Vec<Setting>,
    pub seeds: Vec<u64>,
    /// What all share, as in a config file.
    pub options: Vec<(String, String)>,
    shared: Vec<OsString>,
}

impl Plan {
    /// Reads the grid, and checks that `train` takes each run's options.
    pub fn new(arguments: &Sweep) -> Outcome<Self> {
        let train = &arguments.train;
        let usage = |message: String| Failure::Usage(message);
        let Some(folder) = train.output.clone() else {
            return Err(usage(
                "name the folder of the sweep with --output; it goes on there when it is started again"
                    .into(),
            ));
        };
        if train.overwrite {
            return Err(usage(
                "a sweep replaces nothing; name another --output, or remove that folder".into(),
            ));
        }
        if train.config.print_config {
            return Err(usage("--print-config is for `vitrine train`".into()));
        }
        let root = args::command();
        let command = root.find_subcommand("train").ok_or_else(|| usage("internal: no train".into()))?;
        let settings = combinations(command, &arguments.grid, &arguments.shared)?;
        let first = train.seed.unwrap_or(1);
        let seeds: Vec<u64> = (0..arguments.seeds as u64).map(|n| first.saturating_add(n)).collect();
        if settings.len().saturating_mul(seeds.len()) > MOST {
            let message =
                format!("{} settings with {} seeds are more than {MOST} runs", settings.len(), seeds.len());
            return Err(usage(message));
        }
        let plan = Plan {
            folder,
            settings,
            seeds,
            options: train.config.resolved.clone(),
            shared: arguments.shared.clone(),
        };
        for (index, setting) in plan.settings.iter().enumerate() {
            let typed = [OsString::from("vitrine")].into_iter().chain(plan.arguments(index, first));
            root.clone().try_get_matches_from(typed).map_err(|error| {
                usage(format!("--grid, setting {}: {}", setting.shown(), config::said(&error)))
            })?;
        }
        let mut names: Vec<String> = plan.settings.iter().map(|setting| folder_name(&setting.name)).collect();
        names.sort();
        if let Some(two) = names.windows(2).find(|two| two[0] == two[1]) {
            return Err(usage(format!("--grid: two settings would have the folder {}", two[0])));
        }
        Ok(plan)
    }

    /// Each setting with each seed: all settings with the first seed, then with the next, so that a sweep that is stopped has
    /// something of each.
    pub fn runs(&self) -> impl Iterator<Item = (usize, u64)> {
        self.seeds.iter().flat_map(|&seed| (0..self.settings.len()).map(move |setting| (setting, seed)))
    }

    /// The folder of a run inside that of the sweep: `lr=1e-5,seed=1`.
    pub fn run_name(&self, setting: &Setting, seed: u64) -> String {
        let parts: Vec<String> = [setting.name.clone(), format!("seed={seed}")]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect();
        folder_name(&parts.join(","))
    }

    /// `train` and its arguments, but for where the run saves.
    pub fn arguments(&self, setting: usize, seed: u64) -> Vec<OsString> {
        let own = self.settings[setting].arguments.iter().map(OsString::from);
        let all = [OsString::from("train")].into_iter().chain(self.shared.iter().cloned()).chain(own);
        all.chain([format!("--seed={seed}").into()]).collect()
    }
}

/// A name without signs that divide paths.
fn folder_name(name: &str) -> String {
    let is_kept = |c: char| c.is_alphanumeric() || "=,.-_+".contains(c);
    name.chars().map(|c| if is_kept(c) { c } else { '-' }).collect()
}

/// Every combination of the grid's values, the last axis changing first.
fn combinations(command: &Command, grid: &[Axis], shared: &[OsString]) -> Outcome<Vec<Setting>> {
    let empty = || Setting { name: String::new(), values: BTreeMap::new(), arguments: Vec::new() };
    let mut settings = vec![empty()];
    for (place, Axis { option, values }) in grid.iter().enumerate() {
        let usage = |why: &str| Failure::Usage(format!("--grid {option}: {why}"));
        let arg = command.get_arguments().find(|arg| arg.get_long() == Some(option));
        let Some(arg) = arg.filter(|_| !NOT_SWEPT.contains(&option.as_str())) else {
            let why = if option == "seed" {
                "the seeds are what --seeds says"
            } else {
                "no option of `vitrine train` to sweep over"
            };
            return Err(usage(why));
        };
        let given = format!("--{option}");
        if shared.iter().any(|argument| argument.to_string_lossy().split('=').next() == Some(&given)) {
            return Err(usage("is given as an option of all runs, too"));
        }
        if grid[..place].iter().any(|axis| axis.option == *option) {
            return Err(usage("is there twice; give all values after one ="));
        }
        let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
        let argument = |value: &str| match (is_flag, value) {
            (false, value) => Ok(Some(format!("--{option}={value}"))),
            (true, "true") => Ok(Some(format!("--{option}"))),
            (true, "false") => Ok(None),
            (true, _) => Err(usage("takes true and false")),
        };
        let mut next = Vec::new();
        for setting in &settings {
            for value in values {
                let part = format!("{option}={value}");
                let name = if setting.name.is_empty() { part } else { format!("{},{part}", setting.name) };
                let mut combined =
                    Setting { name, values: setting.values.clone(), arguments: setting.arguments.clone() };
                combined.values.insert(option.clone(), value.clone());
                combined.arguments.extend(argument(value)?);
                next.push(combined);
            }
        }
        settings = next;
        if settings.len() > MOST {
            return Err(Failure::Usage(format!("--grid has more than {MOST} combinations")));
        }
    }
    Ok(settings)
}
