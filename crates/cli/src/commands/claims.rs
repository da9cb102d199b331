//! `vitrine claims`: hypotheses about BERT, tested.

use super::report::check_page;
use super::start_threads;
use crate::args::{ClaimsList, ClaimsRun};
use crate::interrupt::Interrupts;
use crate::names::DataName;
use crate::output::{self, Align, Failure, Outcome, Style, line, note, paint, printable, table};
use crate::progress::Progress;
use serde_json::json;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use vitrine_bert::write_atomically;
use vitrine_claims::{CLAIMS, Claim, ClaimError, Finding, Setting, Verdict, image, page};
use vitrine_report::plot::number;
use vitrine_train::data::{Dataset, LoadOptions};

/// Where IMDB is looked for.
const IMDB: &str = "data/imdb";

/// Runs `claims list`.
pub fn list(arguments: &ClaimsList) -> Outcome {
    for (index, claim) in CLAIMS.iter().enumerate() {
        let Claim { id, title, hypothesis, method, rule, .. } = claim;
        if arguments.json {
            let object =
                json!({ "id": id, "title": title, "hypothesis": hypothesis, "method": method, "rule": rule });
            output::json(&object)?;
            continue;
        }
        if index > 0 {
            line("")?;
        }
        line(paint(&io::stdout(), Style::Bold, &format!("{id}  {title}")))?;
        for (name, text) in [("hypothesis", hypothesis), ("method", method), ("verdict", rule)] {
            line(format!("  {name:<10}  {text}"))?;
        }
    }
    Ok(())
}

/// Runs `claims run`.
pub fn run(arguments: &ClaimsRun) -> Outcome {
    let claims = chosen(&arguments.ids)?;
    if let Some(path) = &arguments.html {
        check_page("--html", path)?;
    }
    // A run takes minutes: a folder that cannot be made shows now.
    if let Some(folder) = &arguments.plots {
        std::fs::create_dir_all(folder).map_err(|error| {
            Failure::Usage(format!("--plots {}: no folder can be made there: {error}", folder.display()))
        })?;
    }
    start_threads(arguments.threads.map_or(0, usize::from))?;
    let data = arguments.data.clone().unwrap_or_else(|| match Path::new(IMDB).is_dir() {
        true => DataName::Path(IMDB.into()),
        false => DataName::Embedded,
    });
    let (train, test) = reviews(&data)?;
    let data_name = match &data {
        DataName::Embedded => {
            "built-in reviews, made by a grammar; --data names others, such as IMDB".to_owned()
        }
        DataName::Path(_) => data.to_string(),
    };
    note(format!("data: {data_name}"));
    let interrupts = Interrupts::watch();
    let progress = Mutex::new(Progress::new("claims", claims.len()));
    let done = Mutex::new((0, ""));
    let watch = |what: &str| {
        // A poisoned lock means that another call panicked, which ends the run anyway.
        let (done, id) = *done.lock().unwrap_or_else(PoisonError::into_inner);
        progress.lock().unwrap_or_else(PoisonError::into_inner).set(done, || format!("{id}: {what}"));
        !interrupts.seen()
    };
    let setting = Setting {
        quick: arguments.quick,
        train,
        test,
        data_name,
        pretrained: arguments.pretrained.trained()?,
        pretrained_name: arguments.pretrained.to_string(),
        classifier: arguments.model.trained()?,
        classifier_name: arguments.model.to_string(),
        watch: &watch,
    };
    vitrine_claims::check_classifier(&setting).map_err(|error| Failure::Usage(format!("--model {error}")))?;
    let mut findings = Vec::new();
    for (index, claim) in claims.iter().enumerate() {
        *done.lock().unwrap_or_else(PoisonError::into_inner) = (index, claim.id);
        match claim.run(&setting) {
            Ok(finding) => {
                crate::progress::clear();
                show(arguments, &finding)?;
                findings.push(finding);
            }
            Err(ClaimError::Stopped) => {
                return Err(Failure::Run(format!(
                    "interrupted in {}, claim {} of {}",
                    claim.id,
                    index + 1,
                    claims.len()
                )));
            }
            Err(error) => return Err(Failure::Run(format!("{}: {error}", claim.id))),
        }
        // What is done is not lost if a later claim fails.
        if let Some(folder) = &arguments.plots {
            images(folder, &findings[findings.len() - 1])?;
        }
        if let Some(path) = &arguments.html {
            write_atomically(path, page(&findings, env!("CARGO_PKG_VERSION")).as_bytes())?;
        }
    }
    crate::progress::clear();
    if arguments.json {
        return Ok(());
    }
    if findings.len() > 1 {
        summary(&findings)?;
    }
    match &arguments.html {
        Some(path) => line(path.display()),
        None => Ok(()),
    }
}

/// Writes the plots of a claim.
fn images(folder: &Path, finding: &Finding) -> Outcome {
    for (place, plot) in finding.evidence.plots.iter().enumerate() {
        let file = folder.join(format!("{}-{place}.svg", finding.id));
        write_atomically(&file, image(plot).as_bytes())?;
    }
    Ok(())
}

/// The claims of these ids, each once.
fn chosen(ids: &[String]) -> Outcome<Vec<&'static Claim>> {
    let mut claims: Vec<&Claim> = Vec::new();
    for id in ids {
        let found: Vec<&Claim> = match (id.as_str(), Claim::of(id)) {
            ("all", _) => CLAIMS.iter().collect(),
            (_, Some(claim)) => vec![claim],
            (_, None) => {
                let known: Vec<&str> = CLAIMS.iter().map(|claim| claim.id).collect();
                return Err(Failure::Usage(format!(
                    "no claim {id}: there are {}, and all",
                    known.join(", ")
                )));
            }
        };
        for claim in found {
            if claims.iter().all(|other| other.id != claim.id) {
                claims.push(claim);
            }
        }
    }
    Ok(claims)
}

/// Reviews to train and to measure on, negative first.
fn reviews(data: &DataName) -> Outcome<(Dataset, Dataset)> {
    let splits = data.splits(&LoadOptions::default())?;
    splits.notes.iter().for_each(note);
    let refuse = |why: String| Failure::Usage(format!("--data {data}: {why}"));
    let test =
        splits.test.ok_or_else(|| refuse("claims are measured on a test split, and there is none".into()))?;
    let order = vitrine_claims::polarity(&splits.train.label_names).map_err(&refuse)?;
    let ordered = |mut rows: Dataset| {
        if order == vitrine_claims::Polarity::PositiveFirst {
            rows.examples.iter_mut().for_each(|row| row.label = 1 - row.label);
            rows.label_names.reverse();
        }
        rows
    };
    Ok((ordered(splits.train), ordered(test)))
}

fn show(arguments: &ClaimsRun, finding: &Finding) -> Outcome {
    if arguments.json {
        return output::json(finding);
    }
    let evidence = &finding.evidence;
    let style = match evidence.verdict {
        Verdict::Supported => Style::Good,
        Verdict::NotSupported => Style::Error,
        Verdict::Inconclusive => Style::Warning,
    };
    let verdict = paint(&io::stdout(), style, &evidence.verdict.to_string());
    line(format!("{}  {verdict}: {}", finding.id, finding.title))?;
    line(format!("  {}", finding.hypothesis))?;
    line(format!("  {}", printable(&evidence.result)))?;
    let columns =
        [("", Align::Left), ("value", Align::Right), ("95 % interval", Align::Left), ("", Align::Left)];
    let rows: Vec<Vec<String>> = evidence
        .estimates
        .iter()
        .map(|estimate| {
            let interval =
                estimate.interval.map(|(low, high)| format!("{} to {}", number(low), number(high)));
            let decides = if estimate.decides { "decides" } else { "" };
            vec![
                printable(&estimate.name),
                number(estimate.value),
                interval.unwrap_or_default(),
                decides.into(),
            ]
        })
        .collect();
    table(&columns, &rows).lines().try_for_each(|row| line(format!("  {row}")))?;
    line(format!("  rule: {}", finding.rule))?;
    evidence.remarks.iter().try_for_each(|remark| line(format!("  note: {}", printable(remark))))?;
    line("")
}

fn summary(findings: &[Finding]) -> Outcome {
    let row = |finding: &Finding| {
        vec![
            finding.id.to_owned(),
            finding.evidence.verdict.to_string(),
            finding.title.to_owned(),
            format!("{} s", number(finding.seconds)),
        ]
    };
    let columns =
        [("claim", Align::Left), ("verdict", Align::Left), ("", Align::Left), ("time", Align::Right)];
    line(table(&columns, &findings.iter().map(row).collect::<Vec<_>>()))
}
