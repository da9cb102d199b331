//! The classes of a config: what `id2label`, `label2id` and `num_labels` say, and which of them counts.

use crate::config::{LABELS, MAX_LABELS, present, require};
use crate::{ModelConfig, Result};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use vitrine_nn::{listed, printable};

/// `LABEL_0`, `LABEL_1`, ...: the names that `transformers` gives to unnamed classes.
pub(crate) fn numbered_labels(count: usize) -> BTreeMap<usize, String> {
    (0..count).map(|i| (i, format!("LABEL_{i}"))).collect()
}

/// The names of the classes: `id2label`; else those of `label2id`, which `transformers` does not look at, as far as they are
/// numbered 0, 1, 2, ..; else `LABEL_0`, `LABEL_1`, .., as many as `num_labels`, which is 2 where nothing is said. What cannot be
/// read is left empty for [`ModelConfig::check_classifier`].
pub(crate) fn labels(fields: &Map<String, Value>) -> BTreeMap<usize, String> {
    if let Some(names) = present(fields, "id2label") {
        let name = |(id, name): (&String, &Value)| {
            let name = name.as_str().map_or_else(|| name.to_string(), str::to_owned);
            Some((id.trim().parse().ok()?, name))
        };
        let read = names.as_object().and_then(|names| names.iter().map(name).collect());
        // A key that is no number leaves a hole.
        return read.unwrap_or_else(|| BTreeMap::from([(1, String::new()), (2, String::new())]));
    }
    let count = present(fields, "num_labels").map(|count| count.as_u64().unwrap_or(0));
    if let Some(ids) = present(fields, "label2id").and_then(Value::as_object) {
        let id = |(name, id): (&String, &Value)| Some((usize::try_from(id.as_u64()?).ok()?, name.clone()));
        let names: Option<BTreeMap<usize, String>> = ids.iter().map(id).collect();
        let fits = |names: &BTreeMap<usize, String>| {
            let all = names.len() == ids.len() && names.keys().copied().eq(0..names.len());
            all && count.is_none_or(|count| count == names.len() as u64)
        };
        if let Some(names) = names.filter(fits) {
            return names;
        }
    }
    let count = count.map_or(2, |count| usize::try_from(count).unwrap_or(usize::MAX));
    numbered_labels(count.min(MAX_LABELS + 1))
}

impl ModelConfig {
    /// The names of the classes of a classifier with so many rows. A file that says nothing about classes leaves them to the
    /// weights; where `id2label` and `num_labels` say different things, the one that fits counts.
    ///
    /// # Errors
    /// `Config` when the file says another number.
    pub(crate) fn classes(&self, rows: usize) -> Result<Vec<String>> {
        require("num_labels", (2..=MAX_LABELS).contains(&rows), || LABELS.into(), rows)?;
        self.require_setting("problem_type", &"single_label_classification".into())?;
        if rows == self.num_labels() {
            self.check_classifier()?;
            return Ok(self.label_names());
        }
        let number = present(&self.extra, "num_labels").and_then(Value::as_u64);
        let says_nothing =
            ["id2label", "label2id", "num_labels"].iter().all(|field| present(&self.extra, field).is_none());
        if says_nothing || number == Some(rows as u64) {
            return Ok(numbered_labels(rows).into_values().collect());
        }
        let field = if present(&self.extra, "id2label").is_some() { "id2label" } else { "num_labels" };
        let got = format!("{} classes ({})", self.num_labels(), listed(&self.label_names()));
        require(
            field,
            false,
            || format!("{rows}, a name for each row of {}.weight", self.family.classifier.output),
            got,
        )?;
        Ok(Vec::new())
    }

    /// Whether a classifier in the weights is one of whole texts, as far as `architectures` says.
    pub(crate) fn classifies_texts(&self) -> bool {
        let named = self.extra.get("architectures").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let is = |class: &str| named.iter().filter_map(Value::as_str).any(|name| name.ends_with(class));
        is("ForSequenceClassification") || !(is("ForTokenClassification") || is("ForMultipleChoice"))
    }

    /// What a user should know about fields that contradict each other, a line each.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let Some(names) = present(&self.extra, "id2label").and_then(Value::as_object) else { return notes };
        if let Some(ids) = present(&self.extra, "label2id").and_then(Value::as_object) {
            let differs = |name: &&String| {
                let id = ids.get(*name).and_then(Value::as_u64);
                id.is_some_and(|id| self.id2label.get(&(id as usize)) != Some(name))
            };
            if let Some(name) = self.id2label.values().find(differs) {
                let name = printable(name);
                notes.push(format!(
                    "config.json: id2label and label2id number \"{name}\" differently; id2label counts"
                ));
            }
        }
        if let Some(number) =
            present(&self.extra, "num_labels").filter(|number| number.as_u64() != Some(names.len() as u64))
        {
            let count = names.len();
            notes.push(format!("config.json: num_labels is {number}, and id2label has {count} names"));
        }
        notes
    }
}
