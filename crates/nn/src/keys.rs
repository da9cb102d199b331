//! [`KeyReport`]: which keys of a checkpoint fit a model and which do not; and how names from files are shown.

use std::fmt;

/// Lines of one kind that a report shows.
const SHOWN: usize = 8;
/// Unexpected names among which a missing key's most similar one is looked for.
const MAX_CANDIDATES: usize = 10_000;
/// Characters of a name that are shown.
const MAX_NAME: usize = 120;

/// A name from a file for a message: on one line, without commands for a terminal, and not too long.
pub fn printable(name: &str) -> String {
    let mut shown = String::new();
    for (count, c) in name.chars().enumerate() {
        if count == MAX_NAME {
            return shown + "..";
        }
        // Bidirectional controls reorder what is shown beside them.
        if c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c)
        {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// The first of these names, and how many more there are.
pub fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| printable(name)).collect();
    let others = names.len().saturating_sub(SHOWN);
    let more = if others > 0 { format!(" and {others} more") } else { String::new() };
    shown.join(", ") + &more
}

/// What fits and what does not between a checkpoint and a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyReport {
    /// Keys that the model needs and the file lacks, the first ones with the most similar name among the unexpected ones.
    pub missing: Vec<(String, Option<String>)>,
    /// Keys with another shape: key, the model's shape, the file's.
    pub misshaped: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Names in the file that the model has no use for.
    pub unexpected: Vec<String>,
    /// Keys that the file lacks and that start anew: a head that is about to be trained.
    pub new: Vec<String>,
}

impl KeyReport {
    /// Whether a model can be made: nothing is missing or mis-shaped.
    pub fn fits(&self) -> bool {
        self.missing.is_empty() && self.misshaped.is_empty()
    }

    /// Looks for the most similar unexpected name of each missing key that will be shown.
    pub(crate) fn add_hints(&mut self) {
        for (key, hint) in self.missing.iter_mut().take(SHOWN) {
            let most = key.len() / 4;
            *hint = self
                .unexpected
                .iter()
                .filter(|name| name.len().abs_diff(key.len()) <= most)
                .take(MAX_CANDIDATES)
                .map(|name| (edit_distance(key, name), name))
                .min()
                .filter(|(distance, _)| *distance <= most)
                .map(|(_, name)| name.clone());
        }
    }
}

impl fmt::Display for KeyReport {
    /// A line per key: what is wrong, the key, and the detail. Of many lines of one kind the first ones, and their number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        let mut add = |kind: &str, count: usize, line: &dyn Fn(usize) -> String| {
            lines.extend((0..count.min(SHOWN)).map(|index| format!("  {kind:<10}  {}", line(index))));
            if count > SHOWN {
                lines.push(format!("  {kind:<10}  and {} more", count - SHOWN));
            }
        };
        add("missing", self.missing.len(), &|index| {
            let (key, hint) = &self.missing[index];
            let hint = hint.as_ref().map(|name| format!("  (is it {}?)", printable(name)));
            key.clone() + &hint.unwrap_or_default()
        });
        add("mis-shaped", self.misshaped.len(), &|index| {
            let (key, needed, got) = &self.misshaped[index];
            format!("{key}: the model needs {needed:?}, the file has {got:?}")
        });
        add("unexpected", self.unexpected.len(), &|index| printable(&self.unexpected[index]));
        add("new", self.new.len(), &|index| self.new[index].clone());
        f.write_str(&lines.join("\n"))
    }
}

/// Levenshtein's distance, in bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
