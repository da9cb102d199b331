//! A class is its name: how the classes of two sides (data and model, two splits, two shards) are matched.

use crate::{Result, TrainError};

use super::Dataset;

/// The words for sentiment that mean the same, with the place of each among the classes.
const SENTIMENT: [(&str, usize); 6] =
    [("neg", 0), ("negative", 0), ("neu", 1), ("neutral", 1), ("pos", 2), ("positive", 2)];

/// Negative 0, neutral 1, positive 2; `None` for any other word. Case does not matter.
pub(super) fn sentiment(name: &str) -> Option<usize> {
    SENTIMENT.iter().find(|(word, _)| word.eq_ignore_ascii_case(name)).map(|&(_, class)| class)
}

/// How classes were matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched {
    /// Each by its name.
    ByName,
    /// One side has numbers in place of names: class `i` is class `i`.
    ByIndex,
}

/// A name that stands for no more than a place: a whole number, or transformers' `LABEL_0`, `LABEL_1`, ...
fn place(name: &str) -> Option<usize> {
    let digits = match name.get(..6) {
        Some(prefix) if prefix.eq_ignore_ascii_case("label_") => &name[6..],
        _ => name,
    };
    let canonical = digits == "0" || !digits.starts_with(['0', '+']);
    digits.parse().ok().filter(|_| canonical)
}

/// Whether these classes have places in place of names: 0 to n - 1, or `LABEL_0` to `LABEL_{n-1}`.
pub fn unnamed(names: &[String]) -> bool {
    names.iter().enumerate().all(|(index, name)| place(name) == Some(index))
}

/// The class that two classes of a pair are measured for: the one named `pos` or `positive`, or else the second one, as in
/// scikit-learn. `None` where there are not two.
pub fn positive(names: &[String]) -> Option<usize> {
    let [first, second] = names else { return None };
    Some(usize::from(!(sentiment(first) == Some(2) && sentiment(second) != Some(2))))
}

/// For each of `classes` the index of the same class among `known`; `None` if they do not fit.
///
/// A class is found by its exact name, or else by its name without regard to case if one class alone has it, or else as a
/// synonym (`neg` and `negative`, `neu` and `neutral`, `pos` and `positive`). `known` may have more classes.
///
/// Where either side has no names, only numbers (or `LABEL_0`, ...), and these are not the other side's very names, classes
/// are matched by index. Both sides must then have as many, since nothing else says that they are the same. One exception
/// is a single number: no data set has one class, so these are rows of a larger one.
pub fn align(classes: &[String], known: &[String]) -> Option<(Vec<u32>, Matched)> {
    let found: Vec<Option<usize>> = classes.iter().map(|name| find(name, known)).collect();
    let placed = |index: usize| index as u32;
    if let Some(indices) = found.iter().copied().collect::<Option<Vec<usize>>>() {
        let mut distinct = indices.clone();
        distinct.sort_unstable();
        distinct.dedup();
        // Two classes that become one would be lost without a word.
        return (distinct.len() == indices.len())
            .then(|| (indices.into_iter().map(placed).collect(), Matched::ByName));
    }
    // A numeral that is a class's very name is no index, and then its neighbours are none either.
    if found.iter().any(Option::is_some)
        || !(unnamed(known) || classes.iter().all(|name| place(name).is_some()))
    {
        return None;
    }
    if classes.len() == known.len() && (unnamed(classes) || unnamed(known)) {
        return Some(((0..classes.len()).map(placed).collect(), Matched::ByIndex));
    }
    match classes {
        [only] => {
            place(only).filter(|&index| index < known.len()).map(|i| (vec![placed(i)], Matched::ByIndex))
        }
        _ => None,
    }
}

/// The one class that a name means.
fn find(name: &str, known: &[String]) -> Option<usize> {
    let only = |same: &dyn Fn(&str) -> bool| {
        let mut found = known.iter().enumerate().filter(|(_, other)| same(other)).map(|(index, _)| index);
        found.next().filter(|_| found.next().is_none())
    };
    only(&|other| other == name)
        .or_else(|| {
            let folded = name.trim().to_lowercase();
            only(&|other| other.trim().to_lowercase() == folded)
        })
        .or_else(|| {
            let meaning = sentiment(name.trim())?;
            only(&|other| sentiment(other.trim()) == Some(meaning))
        })
}

impl Dataset {
    /// The same rows with the classes of `known`, which belongs to `owner` (for messages), and a remark for the reader if
    /// the names of the two sides are not the same.
    ///
    /// # Errors
    /// `Classes` if they do not fit: see [`align`].
    pub fn aligned(mut self, known: &[String], owner: &str) -> Result<(Dataset, Option<String>)> {
        let Some((map, matched)) = align(&self.label_names, known) else {
            return Err(TrainError::Classes {
                data: self.source,
                classes: self.label_names,
                owner: owner.to_owned(),
                known: known.to_vec(),
            });
        };
        let pairs = self.label_names.iter().zip(&map);
        let renamed: Vec<String> = pairs
            .filter(|(name, index)| **name != known[**index as usize])
            .map(|(name, index)| {
                let [name, known] = [name, &known[*index as usize]].map(|name| crate::error::shortened(name));
                format!("`{name}` is `{known}`")
            })
            .take(12)
            .collect();
        let how = match matched {
            Matched::ByName => "by name",
            Matched::ByIndex => "by index",
        };
        let remark = (!renamed.is_empty()).then(|| {
            format!("{}: classes are matched to those of {owner} {how}: {}", self.source, renamed.join(", "))
        });
        for example in &mut self.examples {
            example.label = map[example.label as usize];
        }
        self.label_names = known.to_vec();
        Ok((self, remark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(list: &str) -> Vec<String> {
        list.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn classes_are_matched_by_name_before_index() {
        use Matched::{ByIndex, ByName};
        let fits: [(&str, &str, &[u32], Matched); 22] = [
            ("negative positive", "negative positive", &[0, 1], ByName),
            ("neg pos", "positive negative", &[1, 0], ByName),
            ("Pos NEG", "NEGATIVE POSITIVE", &[1, 0], ByName),
            ("neg pos", "negative neutral positive", &[0, 2], ByName),
            ("ham spam", "SPAM HAM", &[1, 0], ByName),
            // The exact name wins over the folded one.
            ("us US", "US us", &[1, 0], ByName),
            // A numeral that is a class's very name beats the index.
            ("1 2 3 4 5", "1 2 3 4 5", &[0, 1, 2, 3, 4], ByName),
            ("1 5", "5 4 3 2 1", &[4, 0], ByName),
            ("0 1", "1 0", &[1, 0], ByName),
            ("0 2", "0 1 2", &[0, 2], ByName),
            // Numbers on one side.
            ("0 1", "negative positive", &[0, 1], ByIndex),
            ("0 1", "positive negative", &[0, 1], ByIndex),
            ("neg pos", "LABEL_0 LABEL_1", &[0, 1], ByIndex),
            ("neg pos", "0 1", &[0, 1], ByIndex),
            ("0 1", "LABEL_0 LABEL_1", &[0, 1], ByIndex),
            ("LABEL_1 LABEL_0", "LABEL_0 LABEL_1", &[1, 0], ByName),
            ("1 2", "LABEL_0 LABEL_1", &[0, 1], ByIndex),
            ("false true", "LABEL_0 LABEL_1", &[0, 1], ByIndex),
            ("True False", "false true", &[1, 0], ByName),
            // Rows of one class are a part of something larger.
            ("1", "negative positive", &[1], ByIndex),
            ("positive", "negative positive", &[1], ByName),
            ("1", "LABEL_0 LABEL_1", &[1], ByIndex),
        ];
        for (classes, known, map, matched) in fits {
            assert_eq!(
                align(&names(classes), &names(known)),
                Some((map.to_vec(), matched)),
                "{classes} to {known}"
            );
        }
        for (classes, known) in [
            ("ham spam", "negative positive"),
            ("negative positive mixed", "negative positive"),
            // Other numbers of classes, and nothing that says which are the same.
            ("0 1", "negative neutral positive"),
            ("0 1 2", "negative positive"),
            ("0 1", "LABEL_0 LABEL_1 LABEL_2"),
            ("a b c", "LABEL_0 LABEL_1"),
            ("2", "negative positive"),
            // 1 and 2 are names, and neither side says which is which.
            ("1 2", "negative positive"),
            ("0 4", "negative positive"),
            ("0 1", "1 2"),
            ("0 1 2 3 4", "1 2 3 4 5"),
            // Two classes of one name.
            ("neg negative", "negative positive"),
            ("Us", "US us"),
            ("-1 1", "negative positive"),
            ("01 1", "negative positive"),
        ] {
            assert_eq!(align(&names(classes), &names(known)), None, "{classes} to {known}");
        }
    }

    #[test]
    fn the_positive_class_is_the_one_called_so() {
        for (list, class) in [
            ("negative positive", Some(1)),
            ("POSITIVE NEGATIVE", Some(0)),
            ("ham spam", Some(1)),
            ("a b c", None),
        ] {
            assert_eq!(positive(&names(list)), class, "{list}");
        }
    }

    proptest! {
        #[test]
        fn any_order_and_case_of_distinct_names_finds_its_way_back(
            set in prop::collection::btree_set("[a-z]{1,8}", 1..20), seed in any::<u64>()
        ) {
            let known: Vec<String> = set.into_iter().collect();
            let order = super::super::batching::epoch_order(known.len(), seed, 0);
            let shuffled: Vec<String> = order.iter().map(|&i| known[i].to_uppercase()).collect();
            let (map, matched) = align(&shuffled, &known).expect("every name is there");
            prop_assert_eq!(matched, Matched::ByName);
            prop_assert_eq!(map, order.iter().map(|&i| i as u32).collect::<Vec<_>>());
        }
    }
}
