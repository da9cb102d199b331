//! Which files of a repository a data set is read from: [`super::load_splits`] seen from the other side, before anything is downloaded.

use super::texts::PRETRAINING;
use super::{EVALUATION, FORMATS, TRAIN, format_of, is_shard_name};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What the data are for, and so which splits are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Training and evaluating a classifier: the training split and those to evaluate on.
    Labelled,
    /// Pretraining: the training split and texts without labels, never test data.
    Pretraining,
}

impl Purpose {
    fn splits(self) -> Vec<&'static str> {
        match self {
            Purpose::Labelled => TRAIN.into_iter().chain(EVALUATION).collect(),
            Purpose::Pretraining => PRETRAINING.to_vec(),
        }
    }
}

/// A data set in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFiles {
    /// What to read when the files are there: a folder, or the one file; empty for the repository's own folder.
    pub path: String,
    /// The files to fetch.
    pub files: Vec<String>,
}

/// Folders whose splits are the repository's own where there are several, the first of these.
const OWN: [&str; 4] = ["", "plain_text", "data", "default"];
/// Tables that describe a data set and are none.
const DESCRIPTIONS: [&str; 4] =
    ["dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"];
/// Subsets that a message lists.
const LISTED: usize = 12;

/// The files to fetch of a data set's repository, of all its `files`, paths with /. A folder with splits is a subset (a configuration, as
/// `datasets` calls it); without `subset` it is the only one, or the repository's own. `name` is the repository's.
///
/// # Errors
/// One line: what is there instead, and what to do.
pub fn data_set_files(
    name: &str,
    files: &[&str],
    subset: Option<&str>,
    purpose: Purpose,
) -> Result<DataFiles, String> {
    let data: Vec<&str> = files.iter().copied().filter(|file| is_data(file)).collect();
    let subsets = subsets(&data, &purpose.splits());
    let called = |folder: &str| folder.rsplit('/').next().unwrap_or(folder).to_owned();
    let chosen = match subset {
        Some(wanted) => subsets.keys().find(|folder| **folder == wanted || called(folder) == wanted),
        None if subsets.len() == 1 => subsets.keys().next(),
        None => OWN.iter().find_map(|own| subsets.get_key_value(own).map(|(folder, _)| folder)),
    };
    if let Some(folder) = chosen {
        return Ok(DataFiles {
            path: (*folder).to_owned(),
            files: subsets[folder].iter().cloned().collect(),
        });
    }
    if !subsets.is_empty() {
        let mut names: Vec<String> = subsets.keys().map(|folder| called(folder)).collect();
        let others = names.len().saturating_sub(LISTED);
        names.truncate(LISTED);
        let others = if others > 0 { format!(" and {others} more") } else { String::new() };
        let has = match subset {
            Some(wanted) => format!("no subset `{wanted}`; it has"),
            None => "several subsets:".into(),
        };
        return Err(format!(
            "{has} {}{others}; fetch one, and pass the folder that is printed: vitrine fetch --dataset {name} --subset {}",
            names.join(", "),
            names[0]
        ));
    }
    match data[..] {
        [only] if subset.is_none() => Ok(DataFiles { path: only.to_owned(), files: vec![only.to_owned()] }),
        _ => Err(nothing(name, files, &data)),
    }
}

/// Why there is nothing that could be read.
fn nothing(name: &str, files: &[&str], data: &[&str]) -> String {
    if !data.is_empty() {
        let shown: Vec<&str> = data.iter().copied().take(6).collect();
        return format!(
            "no split is to be seen in the names of its {} data files ({}); fetch them with `hf download {name} --repo-type \
             dataset --local-dir DIR`, and pass one file",
            data.len(),
            shown.join(", ")
        );
    }
    let base = name.rsplit('/').next().unwrap_or(name);
    if files.contains(&format!("{base}.py").as_str()) {
        return format!(
            "its data come from a Python script ({base}.py), which is not run here; the hub may have them as tables: \
             {name}@refs/convert/parquet"
        );
    }
    format!("no tables in it (.{})", FORMATS.join(", ."))
}

/// Whether a path is that of a table, by its name.
fn is_data(file: &str) -> bool {
    let base = file.rsplit('/').next().unwrap_or(file);
    format_of(Path::new(file)).is_some()
        && !file.split('/').any(|part| part.starts_with('.'))
        && !DESCRIPTIONS.contains(&base)
}

/// The folders that hold splits, each with the files that are read there. Where any has rows to train on, the others are none.
fn subsets<'a>(data: &[&'a str], splits: &[&str]) -> BTreeMap<&'a str, BTreeSet<String>> {
    let mut found: BTreeMap<&str, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    for file in data {
        let (folder, base) = file.rsplit_once('/').unwrap_or(("", file));
        let (above, inner) = folder.rsplit_once('/').unwrap_or(("", folder));
        let of_file = splits.iter().find(|split| is_shard_name(base, split)).map(|split| (folder, *split));
        // `train/0000.parquet`: whatever is in the folder of a split belongs to it.
        let of_folder =
            splits.iter().find(|split| inner.eq_ignore_ascii_case(split)).map(|split| (above, *split));
        if let Some((folder, split)) = of_folder.or(of_file) {
            found.entry(folder).or_default().entry(split).or_default().push(file);
        }
    }
    if found.values().any(|splits| TRAIN.iter().any(|train| splits.contains_key(train))) {
        found.retain(|_, splits| TRAIN.iter().any(|train| splits.contains_key(train)));
    }
    let preferred = |files: Vec<&'a str>| {
        let first = files.iter().filter_map(|file| format_of(Path::new(file))).min();
        files.into_iter().filter(move |file| format_of(Path::new(file)) == first).map(str::to_owned)
    };
    found
        .into_iter()
        .map(|(folder, splits)| (folder, splits.into_values().flat_map(preferred).collect()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[&str], subset: Option<&str>) -> Result<DataFiles, String> {
        data_set_files("owner/name", files, subset, Purpose::Labelled)
    }

    fn refused(files: &[&str], subset: Option<&str>, words: &[&str]) {
        let message = found(files, subset).unwrap_err();
        assert!(!message.contains('\n') && words.iter().all(|word| message.contains(word)), "{message}");
    }

    /// The files of stanfordnlp/imdb, as the hub has them.
    const IMDB: [&str; 5] = [
        ".gitattributes",
        "README.md",
        "plain_text/test-00000-of-00001.parquet",
        "plain_text/train-00000-of-00001.parquet",
        "plain_text/unsupervised-00000-of-00001.parquet",
    ];

    #[test]
    fn the_splits_that_are_read_are_fetched() {
        let imdb = found(&IMDB, None).unwrap();
        assert_eq!(imdb.path, "plain_text");
        assert_eq!(imdb.files, IMDB[2..4]);
        let texts = data_set_files("stanfordnlp/imdb", &IMDB, None, Purpose::Pretraining).unwrap();
        assert_eq!(texts.files, IMDB[3..]);
        // cornell-movie-review-data/rotten_tomatoes
        let tomatoes = ["README.md", "test.parquet", "train.parquet", "validation.parquet"];
        assert_eq!(
            found(&tomatoes, None).unwrap(),
            DataFiles { path: String::new(), files: tomatoes[1..].iter().map(|&file| file.into()).collect() }
        );
        // What refs/convert/parquet looks like.
        let converted =
            ["default/test/0000.parquet", "default/train/0000.parquet", "default/train/0001.parquet"];
        assert_eq!(found(&converted, None).unwrap().files, converted);
        assert_eq!(found(&converted, None).unwrap().path, "default");
        // One format of each split, that which is read.
        let both = ["train.csv", "train.jsonl", "test.jsonl", "dataset_infos.json"];
        assert_eq!(found(&both, None).unwrap().files, ["test.jsonl", "train.csv"]);
        assert_eq!(found(&["README.md", "IMDB Dataset.csv"], None).unwrap().path, "IMDB Dataset.csv");
        assert_eq!(found(&["test.csv"], None).unwrap().files, ["test.csv"]);
    }

    #[test]
    fn a_subset_is_chosen_by_its_name() {
        let glue = [
            "README.md",
            "cola/train-00000-of-00001.parquet",
            "sst2/train-00000-of-00001.parquet",
            "sst2/validation-00000-of-00001.parquet",
            "ax/test-00000-of-00001.parquet",
        ];
        refused(
            &glue,
            None,
            &["several subsets: cola, sst2;", "vitrine fetch --dataset owner/name --subset cola"],
        );
        refused(&glue, Some("mnli"), &["no subset `mnli`; it has cola, sst2;"]);
        let sst2 = found(&glue, Some("sst2")).unwrap();
        assert_eq!((sst2.path.as_str(), sst2.files.len()), ("sst2", 2));
        let nested = ["data/en/train.jsonl", "data/de/train.jsonl"];
        assert_eq!(found(&nested, Some("de")).unwrap().path, "data/de");
        // Its own splits are what a repository is named after.
        assert_eq!(found(&["train.csv", "extra/train.csv"], None).unwrap().path, "");
    }

    #[test]
    fn what_cannot_be_read_is_named_with_what_to_do() {
        refused(&["README.md", "name.py"], None, &["Python script", "owner/name@refs/convert/parquet"]);
        refused(&["README.md", "audio.zip"], None, &["no tables in it"]);
        refused(&["a.csv", "b.csv"], None, &["2 data files (a.csv, b.csv)", "hf download"]);
        refused(&["reviews.csv"], Some("x"), &["1 data files"]);
    }
}
