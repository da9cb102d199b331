//! Which rows are used: samples that draw the same rows as pandas.
//!
//! `DataFrame.sample(n, random_state=seed)` asks `numpy.random.RandomState(seed).choice(rows, n, replace=False)`, which is
//! the first `n` entries of `permutation(rows)`: a Fisher-Yates shuffle of `0..rows` from the back, fed by the Mersenne
//! Twister. Its indices come from masked rejection: words are cut to the bits of the largest index, and drawn again while
//! they are above it. Sources: Matsumoto & Nishimura 1998, `mt19937ar.c`; NumPy's `mtrand.pyx` (`shuffle`),
//! `legacy-distributions.c` and `distributions.c` (`random_interval`). NumPy keeps this stream frozen.

use super::Dataset;

/// How many rows to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// Every row, in the source's order.
    All,
    /// At most this many rows of each class.
    PerLabel(usize),
    /// At most this many rows, shared equally among the classes that occur; the first of them take what remains.
    Total(usize),
}

/// Draws rows class by class, as `frame.groupby("label").apply(lambda g: g.sample(min(len(g), n), random_state=seed))`:
/// classes in order, each with a fresh generator of the same seed, its rows in the order drawn. A class with fewer rows
/// than its share gives all of them (shuffled, as pandas does). Returns indices into `dataset.examples`.
pub fn stratified(dataset: &Dataset, sample: Sample, seed: u32) -> Vec<usize> {
    let mut rows_of = vec![Vec::new(); dataset.label_names.len()];
    for (row, example) in dataset.examples.iter().enumerate() {
        rows_of[example.label as usize].push(row);
    }
    rows_of.retain(|rows| !rows.is_empty());
    let classes = rows_of.len();
    let share = |class: usize| match sample {
        Sample::All => usize::MAX,
        Sample::PerLabel(n) => n,
        Sample::Total(n) => n / classes + usize::from(class < n % classes),
    };
    if sample == Sample::All {
        return (0..dataset.len()).collect();
    }
    let draw = |(class, rows): (usize, &Vec<usize>)| -> Vec<usize> {
        pandas_sample(rows.len(), share(class), seed).into_iter().map(|position| rows[position]).collect()
    };
    rows_of.iter().enumerate().flat_map(draw).collect()
}

/// Holds back about `share` of each class's rows, rounded, and never all of them: (the rows that stay, those held back), both in
/// the source's order. A function of the labels and the seed; which rows of a class it takes is what [`pandas_sample`] draws.
pub fn hold_back(dataset: &Dataset, share: f64, seed: u32) -> (Vec<usize>, Vec<usize>) {
    let mut rows_of = vec![Vec::new(); dataset.label_names.len()];
    for (row, example) in dataset.examples.iter().enumerate() {
        rows_of[example.label as usize].push(row);
    }
    let mut is_held = vec![false; dataset.len()];
    for rows in rows_of {
        let count = ((share * rows.len() as f64).round() as usize).min(rows.len().saturating_sub(1));
        for position in pandas_sample(rows.len(), count, seed) {
            is_held[rows[position]] = true;
        }
    }
    (0..dataset.len()).partition(|&row| !is_held[row])
}

/// The positions drawn by `DataFrame.sample(min(n, rows), random_state=seed)` from a frame of `rows` rows, in that order.
pub fn pandas_sample(rows: usize, n: usize, seed: u32) -> Vec<usize> {
    let mut generator = MersenneTwister::new(seed);
    let mut positions: Vec<usize> = (0..rows).collect();
    for i in (1..rows).rev() {
        positions.swap(i, generator.up_to(i));
    }
    positions.truncate(n);
    positions
}

/// Length of the Mersenne Twister's state in words.
const WORDS: usize = 624;

/// MT19937 with the seeding of `RandomState(seed)`.
struct MersenneTwister {
    state: [u32; WORDS],
    /// The next word of the state to hand out; `WORDS` when a new block is due.
    next: usize,
}

impl MersenneTwister {
    /// `init_genrand`: each word from the one before it, by a linear congruential step.
    fn new(seed: u32) -> MersenneTwister {
        let mut state = [seed; WORDS];
        for i in 1..WORDS {
            let previous = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(previous ^ (previous >> 30)).wrapping_add(i as u32);
        }
        MersenneTwister { state, next: WORDS }
    }

    /// The next tempered word.
    fn word(&mut self) -> u32 {
        if self.next == WORDS {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A new block: word i from the top bit of word i, the other bits of word i + 1, and word i + 397.
    fn twist(&mut self) {
        for i in 0..WORDS {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % WORDS] & 0x7fff_ffff);
            let twisted = (y >> 1) ^ if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + 397) % WORDS] ^ twisted;
        }
        self.next = 0;
    }

    /// A uniform index in `0..=max` by masked rejection. NumPy takes two words, the high one first, above 2^32 - 1.
    fn up_to(&mut self, max: usize) -> usize {
        let mask = usize::MAX >> max.leading_zeros().min(usize::BITS - 1);
        loop {
            let low = self.word() as usize;
            let index = match u32::try_from(max) {
                Ok(_) => low & mask,
                Err(_) => (low << 16 << 16 | self.word() as usize) & mask,
            };
            if index <= max {
                return index;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::PathBuf};

    use proptest::prelude::*;

    use super::*;
    use crate::data::Example;

    /// `len` rows with the given labels in turn.
    fn dataset(labels: &[u32]) -> Dataset {
        let classes = labels.iter().max().map_or(0, |&label| label + 1);
        Dataset {
            examples: labels.iter().map(|&label| Example { text: String::new(), label }).collect(),
            label_names: (0..classes).map(|class| class.to_string()).collect(),
            source: "test".to_owned(),
            ..Dataset::default()
        }
    }

    #[test]
    fn first_words_of_the_reference_generator() {
        // The first outputs of mt19937ar.c for its default seed, and the 10,000th that the C++ standard prescribes.
        let mut generator = MersenneTwister::new(5489);
        assert_eq!([(); 3].map(|()| generator.word()), [3_499_211_612, 581_869_302, 3_890_346_734]);
        assert_eq!((3..10_000).map(|_| generator.word()).last(), Some(4_123_659_995));
    }

    #[test]
    fn draws_the_rows_that_pandas_draws() {
        // pandas 3.1, numpy 2.4: list(pandas.DataFrame(index=range(rows)).sample(n, random_state=seed).index)[:8]
        let cases: [(u32, usize, usize, [usize; 5]); 6] = [
            (42, 10, 5, [8, 1, 5, 0, 7]),
            (42, 100, 50, [83, 53, 70, 45, 44]),
            (42, 12_500, 1250, [1766, 11_919, 8909, 4963, 10_099]),
            (7, 10, 5, [8, 5, 0, 2, 1]),
            (7, 1000, 1000, [778, 334, 271, 802, 216]),
            (123_456_789, 12_500, 250, [12_153, 11_988, 2261, 3944, 3866]),
        ];
        for (seed, rows, n, start) in cases {
            let drawn = pandas_sample(rows, n, seed);
            assert_eq!(drawn.len(), n);
            assert_eq!(drawn[..5], start, "seed {seed}, {rows} rows");
        }
    }

    #[test]
    fn draws_every_golden_sample() {
        let Some(path) = shared("goldens/pandas_sample.json") else { return };
        let golden: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
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

    #[test]
    fn stratified_goes_class_by_class() {
        // Class 0 sits on the even rows and class 1 on the odd ones, so each class has ten.
        let data = dataset(&[0, 1].repeat(10));
        let zero = [16, 2, 10, 0, 14];
        let one = zero.map(|row| row + 1);
        assert_eq!(stratified(&data, Sample::PerLabel(5), 42), [zero, one].concat());
        assert_eq!(stratified(&data, Sample::Total(10), 42), [zero, one].concat());
        assert_eq!(stratified(&data, Sample::Total(7), 42), [16, 2, 10, 0, 17, 3, 11]);
        assert_eq!(stratified(&data, Sample::All, 42), (0..20).collect::<Vec<_>>());
        assert_eq!(stratified(&data, Sample::PerLabel(99), 42).len(), 20);
        assert_eq!(stratified(&dataset(&[]), Sample::Total(7), 42), Vec::<usize>::new());
        // A class that does not occur takes no share.
        assert_eq!(stratified(&dataset(&[2, 2, 2, 0]), Sample::Total(2), 42).len(), 2);
    }

    #[test]
    fn a_tenth_of_each_class_is_held_back() {
        let data = dataset(&[0, 1, 1, 1].repeat(25));
        let (kept, held) = hold_back(&data, 0.1, 42);
        assert_eq!(data.subset(&held).class_counts(), [3, 8]);
        assert_eq!(data.subset(&kept).class_counts(), [22, 67]);
        assert!(kept.is_sorted() && held.is_sorted() && kept.iter().all(|row| !held.contains(row)));
        assert_eq!(hold_back(&data, 0.1, 42), (kept, held.clone()));
        assert_ne!(hold_back(&data, 0.1, 43).1, held);
        assert!(hold_back(&data, 0.0, 42).1.is_empty());
        // Something of each class is left to train on.
        assert_eq!(data.subset(&hold_back(&data, 0.999, 42).0).class_counts(), [1, 1]);
        assert_eq!(hold_back(&dataset(&[0, 1, 1]), 0.1, 42), (vec![0, 1, 2], vec![]));
    }

    proptest! {
        #[test]
        fn samples_are_distinct_rows_balanced_by_class(
            labels in prop::collection::vec(0u32..4, 1..200), n in 0usize..80, seed in any::<u32>()
        ) {
            let data = dataset(&labels);
            let rows = stratified(&data, Sample::PerLabel(n), seed);
            prop_assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), rows.len());
            let drawn = data.subset(&rows);
            let want: Vec<usize> = data.class_counts().iter().map(|&count| count.min(n)).collect();
            prop_assert_eq!(drawn.class_counts(), want);
            prop_assert!(drawn.examples.is_sorted_by_key(|example| example.label));
            // A smaller sample is the start of a larger one, in each class.
            prop_assert_eq!(&pandas_sample(labels.len(), n, seed)[..], &pandas_sample(labels.len(), usize::MAX, seed)[..n.min(labels.len())]);
            let total = stratified(&data, Sample::Total(n), seed);
            prop_assert!(total.len() <= n);
        }
    }

    /// A file of the shared folder, or a visible skip.
    fn shared(name: &str) -> Option<PathBuf> {
        crate::data::tests::shared(name)
    }
}
