//! Equal texts, and nearly equal ones, in time that grows with the number of texts and not with its square.
//!
//! Two texts are near duplicates if their sets of shingles (each [`SHINGLE`] consecutive words, lower-cased) have a Jaccard index,
//! `|A and B| / |A or B|`, of at least [`NEAR`]. Candidates come from MinHash (Broder 1997): for each of 64 hash functions the
//! smallest hash over a text's shingles is equal in two texts with the probability of their index. Texts that agree in one of
//! [`BANDS`] bands of [`DEPTH`] minima are compared by their shingles. At the index `j` a pair is missed with the probability
//! `(1 - j^4)^16`: 0.02 % at 0.8, and less above. In a band of many alike, each is compared only with the latest [`COMPARED`] of
//! each split, so that a corpus of one template stays linear, too.

use crate::data::{SourceRow, SourceSplit};
use std::collections::{BTreeMap, HashMap, HashSet};
use vitrine_tensor::cpu::parallel;
use vitrine_tensor::random;

/// Words of a shingle: as in Lee et al. 2022 ([arXiv 2107.06499](https://arxiv.org/abs/2107.06499)).
pub const SHINGLE: usize = 5;
/// The least Jaccard index of near duplicates: as there.
pub const NEAR: f64 = 0.8;

const BANDS: usize = 16;
const DEPTH: usize = 4;
const HASHES: usize = BANDS * DEPTH;
const COMPARED: usize = 4;
/// Texts that one piece of parallel work looks at.
const PIECE: usize = 64;

/// A row of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Occurrence {
    pub split: u32,
    pub row: u32,
}

impl Occurrence {
    pub fn of(self, splits: &[SourceSplit]) -> &SourceRow {
        &splits[self.split as usize].rows[self.row as usize]
    }
}

/// The different texts of all splits, each with its rows in order.
pub(super) struct Texts<'a> {
    texts: Vec<(&'a str, Vec<Occurrence>)>,
}

impl<'a> Texts<'a> {
    pub fn new(splits: &'a [SourceSplit]) -> Self {
        let mut texts: Vec<(&str, Vec<Occurrence>)> = Vec::new();
        let mut known: HashMap<&str, usize> = HashMap::new();
        for (split, rows) in splits.iter().enumerate() {
            for (row, source) in rows.rows.iter().enumerate() {
                let text = source.text.trim();
                if text.is_empty() {
                    continue;
                }
                let index = *known.entry(text).or_insert_with(|| {
                    texts.push((text, Vec::new()));
                    texts.len() - 1
                });
                texts[index].1.push(Occurrence { split: split as u32, row: row as u32 });
            }
        }
        Texts { texts }
    }

    /// The rows of each text that stands in several.
    pub fn repeated(&self) -> impl Iterator<Item = &[Occurrence]> {
        self.texts.iter().map(|(_, rows)| rows.as_slice()).filter(|rows| rows.len() > 1)
    }

    /// Each row with the nearest row of the same split, and of each earlier one, whose text is a near duplicate and not equal:
    /// in order.
    pub fn near_duplicates(&self) -> Vec<(Occurrence, Occurrence, f64)> {
        let sets: Vec<Vec<u32>> = parallel::map(self.texts.chunks(PIECE), |_, texts| {
            texts.iter().map(|(text, _)| shingles(text)).collect::<Vec<_>>()
        })
        .concat();
        let mut nearest: BTreeMap<(Occurrence, u32), (Occurrence, f64)> = BTreeMap::new();
        let mut add = |text: usize, other: usize, similarity: f64| {
            for &row in &self.texts[text].1 {
                let mut met = HashSet::new();
                for &of in self.texts[other].1.iter().filter(|of| of.split <= row.split) {
                    if met.insert(of.split) {
                        let best = nearest.entry((row, of.split)).or_insert((of, similarity));
                        if similarity > best.1 {
                            *best = (of, similarity);
                        }
                    }
                }
            }
        };
        for (first, second) in self.candidates(&sets) {
            let similarity = jaccard(&sets[first], &sets[second]);
            if similarity >= NEAR {
                add(first, second, similarity);
                add(second, first, similarity);
            }
        }
        nearest.into_iter().map(|((row, _), (other, similarity))| (row, other, similarity)).collect()
    }

    /// Pairs of texts that agree in a band, each once.
    fn candidates(&self, sets: &[Vec<u32>]) -> HashSet<(usize, usize)> {
        let functions = functions();
        let bands: Vec<[u64; BANDS]> = parallel::map(sets.chunks(PIECE), |_, sets| {
            sets.iter().map(|set| bands(set, &functions)).collect::<Vec<_>>()
        })
        .concat();
        // A text without words is like no other.
        let with_words: Vec<usize> = (0..sets.len()).filter(|&text| !sets[text].is_empty()).collect();
        let in_band = |band: usize| -> Vec<(u64, usize)> {
            with_words.iter().map(|&text| (bands[text][band], text)).collect()
        };
        let mut pairs = HashSet::new();
        for mut places in (0..BANDS).map(in_band) {
            places.sort_unstable();
            for alike in places.chunk_by(|left, right| left.0 == right.0).filter(|alike| alike.len() > 1) {
                let mut latest: HashMap<u32, Vec<usize>> = HashMap::new();
                for &(_, text) in alike {
                    for other in latest.values().flat_map(|texts| texts.iter().rev().take(COMPARED)) {
                        pairs.insert((*other, text));
                    }
                    latest.entry(self.texts[text].1[0].split).or_default().push(text);
                }
            }
        }
        pairs
    }
}

/// The hashes of a text's shingles, each once, in order; of a shorter text, of all its words.
fn shingles(text: &str) -> Vec<u32> {
    let words: Vec<u64> =
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(hash).collect();
    let mut shingles: Vec<u32> = match words.len() {
        0 => Vec::new(),
        1..SHINGLE => vec![combine(&words)],
        _ => words.windows(SHINGLE).map(combine).collect(),
    };
    shingles.sort_unstable();
    shingles.dedup();
    shingles
}

/// FNV-1a over a word's lower-cased characters.
fn hash(word: &str) -> u64 {
    let fold = |hash: u64, c: char| (hash ^ u64::from(c)).wrapping_mul(0x0100_0000_01b3);
    word.chars().flat_map(char::to_lowercase).fold(0xcbf2_9ce4_8422_2325, fold)
}

fn combine(words: &[u64]) -> u32 {
    let all =
        words.iter().fold(0u64, |all, word| (all.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    ((all ^ all >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32
}

/// `x -> a x + b` of 32 bits, `a` odd.
fn functions() -> [(u32, u32); HASHES] {
    let key = random::key(0);
    std::array::from_fn(|index| {
        let [a, b, ..] = random::philox([index as u32, 0, 0, 0], key);
        (a | 1, b)
    })
}

fn bands(set: &[u32], functions: &[(u32, u32); HASHES]) -> [u64; BANDS] {
    let mut least = [u32::MAX; HASHES];
    for shingle in set {
        for (least, (a, b)) in least.iter_mut().zip(functions) {
            // The high bits of a product are the mixed ones, and they decide which is least.
            *least = (*least).min(shingle.wrapping_mul(*a).wrapping_add(*b));
        }
    }
    std::array::from_fn(|band| {
        let minima = &least[band * DEPTH..][..DEPTH];
        minima.iter().fold(band as u64, |all, &minimum| {
            (all.rotate_left(17) ^ u64::from(minimum)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        })
    })
}

/// The Jaccard index of two sorted sets, one of which has members.
fn jaccard(left: &[u32], right: &[u32]) -> f64 {
    let (mut l, mut r, mut both) = (0, 0, 0usize);
    while l < left.len() && r < right.len() {
        let (a, b) = (left[l], right[r]);
        both += usize::from(a == b);
        l += usize::from(a <= b);
        r += usize::from(b <= a);
    }
    both as f64 / (left.len() + right.len() - both) as f64
}
