//! The model card: a `README.md` with metadata for the Hugging Face hub
//! (<https://huggingface.co/docs/hub/model-cards>).

use crate::run::Evaluation;
use crate::{Run, sentence};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Name of the file.
pub const FILE: &str = "README.md";

/// What stands before the checksum in the last line of a card.
const MARK: &str = "<!-- Written by vitrine. An edited card is not replaced. sha256:";

/// The card of a run; `model_type` is the family, such as `bert`, which becomes a tag. Licence and base model are left out: the one is
/// the user's to choose, the other is unknown (`_name_or_path` in a `config.json` may be where its own training started).
pub fn card(run: &Run, model_type: Option<&str>) -> String {
    let mut text = format!("---\n{}---\n\n", metadata(run, model_type));
    let name = run.name();
    // Writing to a string does not fail.
    let _ = write!(text, "# {}\n\n{}\n\n", markdown(&name), markdown(&sentence::headline(run)));
    if !run.is_finished() {
        text.push_str("The run that made it is not finished.\n\n");
    }
    text.push_str("## Use\n\n```sh\nvitrine predict --model . \"a text\"\n```\n\n");
    text.push_str("```python\nfrom transformers import pipeline\n\npipeline(\"text-classification\", model=\".\")(\"a text\")\n```\n\n");
    if let Some(evaluation) = run.evaluation() {
        results(&mut text, evaluation);
    }
    text.push_str("## Training\n\n| setting | value |\n|---|---|\n");
    for (key, value) in &run.summary.settings {
        let value = crate::run::plain(value);
        if !value.is_empty() {
            let _ = writeln!(text, "| {} | {} |", markdown(key), markdown(&value));
        }
    }
    text.push_str("\n`run.json` has every figure, `report.html` the curves.\n");
    let sum = checksum(&text);
    let _ = writeln!(text, "\n{MARK}{sum} -->");
    text
}

fn results(text: &mut String, evaluation: &Evaluation) {
    text.push_str("## Results\n\n| measure | value | 95 % interval |\n|---|---|---|\n");
    let interval =
        |interval: Option<(f64, f64)>| interval.map_or(String::new(), |(a, b)| format!("{a:.4} to {b:.4}"));
    for (name, value, between) in figures(evaluation) {
        let _ = writeln!(text, "| {name} | {value:.4} | {} |", interval(between));
    }
    let of = match &evaluation.positive_class {
        Some(class) => format!("of the class `{}`", class.replace('`', "'")),
        None => "means over the classes that occur".into(),
    };
    let rows = sentence::thousands(evaluation.examples);
    let _ = writeln!(text, "\nOn {rows} rows; f1, precision and recall are {of}.\n");
}

type Figure = (&'static str, f64, Option<(f64, f64)>);

fn figures(evaluation: &Evaluation) -> Vec<Figure> {
    let e = evaluation;
    let all = [
        ("accuracy", Some(e.accuracy), e.accuracy_interval),
        ("f1", Some(e.f1), e.f1_interval),
        ("precision", Some(e.precision), None),
        ("recall", Some(e.recall), None),
        ("roc_auc", e.auroc, None),
        ("loss", e.loss, None),
        ("expected_calibration_error", e.calibration.as_ref().map(|c| c.expected_calibration_error), None),
    ];
    all.into_iter().filter_map(|(name, value, interval)| Some((name, value?, interval))).collect()
}

fn metadata(run: &Run, model_type: Option<&str>) -> String {
    let mut yaml = String::from("library_name: transformers\npipeline_tag: text-classification\n");
    yaml.push_str("tags:\n- vitrine\n- text-classification\n");
    if let Some(model_type) = model_type {
        let _ = writeln!(yaml, "- {}", quoted(model_type));
    }
    yaml.push_str("metrics:\n- accuracy\n- f1\n");
    let Some(evaluation) = run.evaluation() else { return yaml };
    let _ = write!(yaml, "model-index:\n- name: {}\n  results:\n", quoted(&run.name()));
    yaml.push_str("  - task:\n      type: text-classification\n      name: Text classification\n");
    let data = sentence::data(run);
    let kind: String =
        data.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    let _ = write!(yaml, "    dataset:\n      type: {}\n      name: {}\n", quoted(&kind), quoted(&data));
    if let Some(split) = run.summary.data.get(1) {
        let _ = writeln!(yaml, "      split: {}", quoted(&split.split));
    }
    yaml.push_str("    metrics:\n");
    for (name, value, _) in figures(evaluation) {
        let _ = write!(yaml, "    - type: {name}\n      value: {value}\n      name: {name}\n");
    }
    yaml
}

/// A string as YAML takes it: JSON's strings are among YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Text that is shown as it is, on one line: no HTML, no table cells, no emphasis.
fn markdown(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\n' | '\r' => out.push(' '),
            '|' | '*' | '_' | '`' | '[' | ']' | '<' | '>' | '\\' | '#' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

fn checksum(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

/// Whether a README.md is a card as Vitrine wrote it: one that a person wrote or edited is not to be replaced.
pub fn is_ours(text: &str) -> bool {
    let Some((body, mark)) = text.rsplit_once(&format!("\n{MARK}")) else { return false };
    mark.strip_suffix(" -->\n").is_some_and(|sum| sum == checksum(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_that_was_edited_is_not_ours() {
        let text = card(&Run::default(), None);
        assert!(is_ours(&text), "{text}");
        assert!(!is_ours(&text.replace("## Use", "## How to use")));
        assert!(!is_ours(&format!("{text}\nmore")));
        assert!(!is_ours("# Mine\n"));
        assert!(!is_ours(""));
    }

    #[test]
    fn names_cannot_break_the_card() {
        let mut run = Run::default();
        run.summary.settings.insert("data".into(), "a|b\n---\nx: <script>".into());
        run.summary.eval = Some(Evaluation { accuracy: 0.5, examples: 3, ..Evaluation::default() });
        let text = card(&run, Some("a\": b\n"));
        assert_eq!(text.matches("\n---\n").count(), 1, "{text}");
        assert!(text.contains("- \"a\\\": b\\n\"\n"), "{text}");
        assert!(!text.contains("| data | a|b"), "{text}");
        assert!(!text.split("---\n\n").nth(1).unwrap().contains("<script>"), "{text}");
    }
}
