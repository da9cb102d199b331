use super::*;
use crate::data::SourceRow;
use std::path::Path;

fn split(name: &str, rows: &[(&str, Option<&str>)]) -> SourceSplit {
    let row = |(row, (text, label)): (usize, &(&str, Option<&str>))| SourceRow {
        text: (*text).to_owned(),
        label: label.map(str::to_owned),
        place: Location::line(Path::new("train.csv"), row as u64 + 2),
    };
    SourceSplit {
        split: Some(name.to_owned()),
        source: format!("{name}.csv"),
        text_column: None,
        label_column: None,
        rows: rows.iter().enumerate().map(row).collect(),
        problem: None,
    }
}

/// So many different words, from this one on.
fn words(from: usize, count: usize) -> String {
    (from..from + count).map(|n| format!("word{n}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn each_finding_is_counted_with_its_rows() {
    let train = split(
        "train",
        &[
            ("fine", Some("good")),
            (" fine\n", Some("bad")),
            ("  ", Some("bad")),
            ("a<br />b", Some("good")),
            ("caf\u{fffd}", None),
            ("cafÃ© and a\u{1b}[0m", Some("good")),
            ("fine", Some("good")),
        ],
    );
    let test = split("test", &[("new", Some("good")), ("fine", Some("good"))]);
    let found = inspect(&[train, test], Some(&[vec![3, 3, 2, 6, 4, 9, 3], vec![3, 3]]), Some(5));
    let split = &found.splits[0];
    assert_eq!((split.rows, split.unlabelled, split.labels["good"], split.labels["bad"]), (7, 1, 4, 2));
    assert_eq!((split.empty.rows, split.html.rows, split.html_kinds["<br>"]), (1, 1, 1));
    assert_eq!(
        (split.replacement_characters.rows, split.mojibake.rows, split.control_characters.rows),
        (1, 1, 1)
    );
    assert_eq!(split.empty.examples[0].row, 2);
    assert_eq!(split.html.examples[0].place, "train.csv:5");
    assert!((split.html.share - 1.0 / 7.0).abs() < 1e-12);
    // Rows 1 and 6 repeat row 0; row 1 has another label than 0 and 6, and than the test row.
    assert_eq!(split.duplicates.rows, 2);
    assert_eq!(split.duplicates.examples[0].other.as_ref().unwrap().row, 0);
    assert_eq!(found.conflicting_labels.rows, 4);
    assert_eq!(found.splits[1].duplicates.rows, 0);
    assert_eq!((found.shared[0].first.as_str(), found.shared[0].second.as_str()), ("train", "test"));
    assert_eq!(found.shared[0].duplicates.rows, 1);
    assert_eq!(found.shared[0].duplicates.examples[0].row, 1);
    let truncated = split.tokens.as_ref().unwrap().truncated.unwrap();
    assert_eq!((truncated.rows, truncated.max_length), (2, 5));
    assert!((truncated.tokens_share - 5.0 / 30.0).abs() < 1e-12);
    serde_json::to_string(&found).unwrap();
}

#[test]
fn near_duplicates_are_those_that_share_shingles() {
    // Of 100 words, 96 shingles. One word changed in the middle changes 5: index 91 / 101. At the end: 95 / 97.
    let whole = words(0, 100);
    let middle = whole.replace("word50 ", "other ");
    let end = whole.replace("word99", "other");
    // Six words apart change 30: 66 / 126.
    let far = ["word10 ", "word25 ", "word40 ", "word55 ", "word70 ", "word85 "]
        .iter()
        .fold(whole.clone(), |text, word| text.replace(word, "other "));
    let shouted = whole.to_uppercase().replace(' ', ", ");
    let train = split("train", &[(&whole, None), (&words(1000, 100), None), (&far, None), (&whole, None)]);
    let test = split(
        "test",
        &[(&middle, None), (&end, None), (&shouted, None), (&words(2000, 50), None), ("", None)],
    );
    let found = inspect(&[train, test], None, None);
    let shared = &found.shared[0].near_duplicates;
    assert_eq!(shared.rows, 3);
    let similarity = |row: usize| {
        let example = shared.examples.iter().find(|example| example.row == row).unwrap();
        example.other.as_ref().unwrap().similarity.unwrap()
    };
    assert!((similarity(0) - 91.0 / 101.0).abs() < 1e-12);
    assert!((similarity(1) - 95.0 / 97.0).abs() < 1e-12);
    assert_eq!(similarity(2), 1.0);
    // Equal ones are not near; the three of the test rows are near each other.
    assert_eq!((found.splits[0].near_duplicates.rows, found.splits[0].duplicates.rows), (0, 1));
    assert_eq!(found.splits[1].near_duplicates.rows, 3);
}

#[test]
fn near_duplicates_equal_those_of_all_pairs() {
    // Texts of every distance: the search misses none of these, and finds no others.
    let texts: Vec<String> = (0..240)
        .map(|n| {
            let (base, changed) = (n / 8, n % 8);
            (0..60)
                .map(|word| match (word * 7 + 3) % 60 < changed {
                    true => format!("new{n} "),
                    false => format!("b{base}w{word} "),
                })
                .collect()
        })
        .collect();
    let rows: Vec<(&str, Option<&str>)> = texts.iter().map(|text| (text.as_str(), None)).collect();
    let found = inspect(&[split("train", &rows)], None, None);
    let sets: Vec<BTreeSet<Vec<&str>>> = texts
        .iter()
        .map(|text| {
            let words: Vec<&str> = text.split_whitespace().collect();
            words.windows(SHINGLE).map(<[&str]>::to_vec).collect()
        })
        .collect();
    let near = |a: usize, b: usize| {
        sets[a].intersection(&sets[b]).count() as f64 / sets[a].union(&sets[b]).count() as f64 >= NEAR
    };
    let expected = (0..texts.len()).filter(|&a| (0..texts.len()).any(|b| a != b && near(a, b))).count();
    assert!(expected > 30 && expected < 240, "{expected}");
    assert_eq!(found.splits[0].near_duplicates.rows, expected);
}

#[test]
fn lengths_have_percentiles_and_bars() {
    let lengths: Vec<usize> = (1..=100).rev().collect();
    let found = Lengths::of(&lengths, Some(90));
    assert_eq!(found.percentiles[&50], 50);
    assert_eq!((found.percentiles[&0], found.percentiles[&95], found.percentiles[&100]), (1, 95, 100));
    assert!((found.mean - 50.5).abs() < 1e-12);
    assert_eq!(found.truncated.unwrap().rows, 10);
    assert_eq!(found.histogram.iter().map(|bar| bar.rows).sum::<usize>(), 100);
    assert!(found.histogram.len() <= BARS && found.histogram.last().unwrap().rows > 0);
    // One very long text does not squeeze the others into one bar.
    let found = Lengths::of(&[&lengths[..], &[1_000_000]].concat(), None);
    assert!(found.histogram[0].rows < 20, "{found:?}");
    assert_eq!(found.histogram.last().unwrap().to, None);
    assert_eq!(Lengths::of(&[], None).percentiles[&50], 0);
}
