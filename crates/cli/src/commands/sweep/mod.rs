//! `vitrine sweep`: trains with several seeds and settings, one run after the other, and compares them.
//!
//! Each run is a `vitrine train` of its own, in a folder of its own: one that fails, or is ended by the system for its memory,
//! takes no other with it. What a run found is read from its folder, so that a sweep goes on where it was stopped.

mod compare;
mod plan;
mod run;

use super::train::located;
use crate::args::Sweep;
use crate::interrupt::Interrupts;
use crate::output::{
    Align, Failure, Outcome, Style, json, line, note, quoted_path, styled_note, table, warn,
};
use crate::progress::duration;
use compare::{Comparison, compare};
use plan::{Plan, Setting};
use run::{Run, State};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use vitrine_bert::write_atomically;
use vitrine_train::statistics::Spread;

/// What was found, as one JSON object, in the folder of the sweep.
const REPORT_FILE: &str = "sweep.json";

/// `sweep.json`.
#[derive(Serialize)]
struct Report<'a> {
    command: &'static str,
    /// What every run shares, as in a config file.
    options: BTreeMap<&'a str, &'a str>,
    settings: Vec<SettingReport<'a>>,
    comparisons: Vec<Comparison>,
    /// Why pairs of settings are not compared.
    not_compared: Vec<String>,
}

#[derive(Serialize)]
struct SettingReport<'a> {
    name: &'a str,
    values: &'a BTreeMap<String, String>,
    accuracy: Option<Spread>,
    f1: Option<Spread>,
    runs: &'a [Run],
}

/// Runs the command.
pub fn run(arguments: &Sweep) -> Outcome {
    let plan = Plan::new(arguments)?;
    // What the hub has not, or has to send first, shows before the first run, and every run then finds it in the cache.
    located(&arguments.train)?;
    fs::create_dir_all(&plan.folder)
        .map_err(|error| Failure::Run(format!("cannot make {}: {error}", plan.folder.display())))?;
    check_unchanged(&plan)?;
    let all = plan.settings.len() * plan.seeds.len();
    let text = if all == 1 { "1 run".to_owned() } else { format!("{all} runs") };
    note(format!("{text} in {}", quoted_path(&plan.folder)));
    let mut runs: Vec<Vec<Run>> = plan.settings.iter().map(|_| Vec::new()).collect();
    let interrupts = Interrupts::watch();
    let mut stopped = false;
    for (place, (setting, seed)) in plan.runs().enumerate() {
        let name = plan.run_name(&plan.settings[setting], seed);
        let folder = plan.folder.join(&name);
        let mut state = State::of(&folder);
        if !matches!(state, State::Finished) && !stopped {
            styled_note(Style::Bold, &format!("[{}/{all}]", place + 1), &name);
            state = run::start(&plan, setting, seed, &folder, &state, &interrupts)?;
            stopped = interrupts.seen();
        }
        let found = Run::look(&folder, &name, seed, state);
        note(found.line());
        runs[setting].push(found);
        write_report(&plan, &runs)?;
    }
    let text = write_report(&plan, &runs)?;
    if arguments.train.json {
        json(&text)?;
    } else {
        print(&plan, &runs)?;
    }
    note(format!("saved in {}", quoted_path(&plan.folder.join(REPORT_FILE))));
    let failed: Vec<&str> =
        runs.iter().flatten().filter(|run| !run.is_finished()).map(|run| run.name.as_str()).collect();
    match (stopped, failed.as_slice()) {
        (true, _) => Err(Failure::Run("interrupted; give the same command again to go on".into())),
        (false, []) => Ok(()),
        (false, failed) => Err(Failure::Run(format!(
            "{} of {all} runs failed: {}; give the same command again to try them again",
            failed.len(),
            failed.join(", ")
        ))),
    }
}

/// Refuses to add runs to those of a sweep with other options: they would be compared as if nothing else had changed.
fn check_unchanged(plan: &Plan) -> Outcome {
    let path = plan.folder.join(REPORT_FILE);
    let before = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::Run(format!("cannot read {}: {error}", path.display()))),
    };
    let folder = quoted_path(&plan.folder);
    let before: serde_json::Value = serde_json::from_str(&before).map_err(|error| {
        Failure::Run(format!(
            "{}: not the report of a sweep ({error}); name another --output",
            path.display()
        ))
    })?;
    let said = |name: &str| before["options"].get(name).and_then(serde_json::Value::as_str);
    let known = before["options"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let names: std::collections::BTreeSet<&str> =
        known.chain(plan.options.iter().map(|(name, _)| name.as_str())).collect();
    let grid: Vec<&str> =
        plan.settings.iter().flat_map(|setting| setting.values.keys().map(String::as_str)).collect();
    let differences: Vec<String> = names
        .into_iter()
        .filter(|name| !grid.contains(name))
        .filter_map(|name| {
            let now = plan.options.iter().find(|(option, _)| option == name).map(|(_, value)| value.as_str());
            let before = said(name);
            (now != before).then(|| {
                format!("{name} {} there, {} now", before.unwrap_or("not given"), now.unwrap_or("not given"))
            })
        })
        .collect();
    match differences.is_empty() {
        true => Ok(()),
        false => Err(Failure::Usage(format!(
            "the runs in {folder} were made with other options ({}); name another --output",
            differences.join("; ")
        ))),
    }
}

/// Writes `sweep.json`, and returns what is in it.
fn write_report(plan: &Plan, runs: &[Vec<Run>]) -> Outcome<serde_json::Value> {
    let (comparisons, not_compared) = compare(plan, runs);
    let spread = |runs: &[Run], value: fn(&Run) -> Option<f64>| {
        Spread::of(&runs.iter().filter_map(value).collect::<Vec<_>>())
    };
    let settings = plan
        .settings
        .iter()
        .zip(runs)
        .map(|(Setting { name, values, .. }, runs)| SettingReport {
            name,
            values,
            accuracy: spread(runs, |run| run.accuracy),
            f1: spread(runs, |run| run.f1),
            runs,
        })
        .collect();
    let options = plan.options.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let report = Report { command: "sweep", options, settings, comparisons, not_compared };
    let text = serde_json::to_string_pretty(&report)?;
    write_atomically(&plan.folder.join(REPORT_FILE), text.as_bytes())?;
    Ok(serde_json::to_value(&report)?)
}

fn print(plan: &Plan, runs: &[Vec<Run>]) -> Outcome {
    let cell = |values: Vec<f64>| match Spread::of(&values) {
        None => "-".to_owned(),
        Some(Spread { mean, standard_deviation: None, .. }) => format!("{mean:.4}"),
        Some(Spread { mean, standard_deviation: Some(deviation), .. }) => {
            format!("{mean:.4} ± {deviation:.4}")
        }
    };
    let columns =
        [("setting", Align::Left), ("runs", Align::Right), ("accuracy", Align::Right), ("f1", Align::Right)];
    let rows: Vec<Vec<String>> = plan
        .settings
        .iter()
        .zip(runs)
        .map(|(setting, runs)| {
            let finished = runs.iter().filter(|run| run.is_finished()).count();
            vec![
                setting.shown().to_owned(),
                format!("{finished}/{}", plan.seeds.len()),
                cell(runs.iter().filter_map(|run| run.accuracy).collect()),
                cell(runs.iter().filter_map(|run| run.f1).collect()),
            ]
        })
        .collect();
    line(table(&columns, &rows))?;
    line("mean ± standard deviation over seeds")?;
    let (comparisons, not_compared) = compare(plan, runs);
    if !comparisons.is_empty() {
        line("")?;
        let columns = [
            ("A", Align::Left),
            ("B", Align::Left),
            ("seed", Align::Right),
            ("only A right", Align::Right),
            ("only B right", Align::Right),
            ("p", Align::Right),
            ("p (Holm)", Align::Right),
        ];
        let rows: Vec<Vec<String>> = comparisons
            .iter()
            .flat_map(|pair| {
                pair.mcnemar.iter().map(move |test| {
                    vec![
                        pair.first.clone(),
                        pair.second.clone(),
                        test.seed.to_string(),
                        test.only_first.to_string(),
                        test.only_second.to_string(),
                        format!("{:.2e}", test.p),
                        format!("{:.2e}", test.p_holm),
                    ]
                })
            })
            .collect();
        if !rows.is_empty() {
            line(table(&columns, &rows))?;
            line("McNemar's exact test on the same rows; Holm: adjusted for the number of tests")?;
        }
        for pair in &comparisons {
            if let (Some(difference), Some(p)) = (pair.accuracy_difference, pair.paired_t) {
                let (mean, runs) = (difference.mean, difference.runs);
                line(format!(
                    "{} - {}: accuracy {mean:+.4} over {runs} seeds, paired t-test p {p:.2e}",
                    pair.first, pair.second
                ))?;
            }
        }
    }
    not_compared.iter().for_each(warn);
    Ok(())
}

/// The time of a run, for people.
fn took(seconds: f64) -> String {
    format!("in {}", duration(seconds))
}

/// Whether there is anything in a folder.
fn is_used(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}
