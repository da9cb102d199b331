//! What needs the data of `../shared`.

#[path = "../../bert/tests/shared/folder.rs"]
mod folder;

use std::fs;
use std::path::Path;
use vitrine_train::data::sampling::{self, pandas_sample};
use vitrine_train::data::{LoadOptions, load, load_splits};

fn main() {
    folder::run(&[
        ("imdb_and_the_notebooks_rows", "data/imdb", imdb_and_the_notebooks_rows),
        ("draws_every_golden_sample", "goldens/pandas_sample.json", draws_every_golden_sample),
        ("the_inputs_of_the_fuzzer", "reports/hostile", the_inputs_of_the_fuzzer),
    ]);
}

fn imdb_and_the_notebooks_rows(path: &Path) {
    let splits = load_splits(path, &LoadOptions::default()).unwrap();
    let test = splits.test.unwrap();
    assert_eq!(splits.train.label_names, ["neg", "pos"]);
    assert_eq!(splits.train.class_counts(), [12_500, 12_500]);
    assert_eq!(test.class_counts(), [10_000, 10_000]);
    let rows = sampling::stratified(&splits.train, sampling::Sample::PerLabel(1250), 42);
    assert_eq!(splits.train.subset(&rows).class_counts(), [1250, 1250]);
    // The frame holds the negative reviews first, so the draws of each class are those of the golden sample.
    assert_eq!((&rows[..3], &rows[1250..1253]), (&[1766, 11_919, 8909][..], &[14_266, 24_419, 21_409][..]));
    let rows = sampling::stratified(&test, sampling::Sample::Total(500), 42);
    assert_eq!(test.subset(&rows).class_counts(), [250, 250]);
}

fn draws_every_golden_sample(path: &Path) {
    let golden: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 18);
    for case in cases {
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let want: Vec<usize> = case["indices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|index| index.as_u64().unwrap() as usize)
            .collect();
        let drawn = pandas_sample(number("rows"), number("sample"), number("seed") as u32);
        assert_eq!(drawn, want, "seed {}, {} rows", number("seed"), number("rows"));
    }
}

fn the_inputs_of_the_fuzzer(hostile: &Path) {
    let read = |name| load(&hostile.join(name), &LoadOptions::default());
    let message = read("hangs.parquet").unwrap_err().to_string();
    assert!(message.contains("header is not whole"), "{message}");
    assert_eq!(read("long_text.parquet").unwrap().len(), 2);
}
