//! In which order rows are seen and how they are cut into batches.

use std::{num::NonZeroUsize, ops::Range};

use vitrine_tensor::random;

/// Keeps the shuffle's random numbers apart from those of dropout, which use the seed itself as their key.
const SHUFFLE: u64 = 0x7368_7566_666c_6521;

/// The order in which an epoch visits `rows` rows: a function of (seed, epoch) and nothing else, so that a resumed run
/// continues exactly. `epoch` counts from zero.
///
/// A Fisher-Yates shuffle from the back. Index `i` is swapped with `floor(u (i + 1) / 2^64)`, where the 64 bits `u` are
/// the first two words of one Philox call with the counter `(i low, i high, epoch, 0)`.
pub fn epoch_order(rows: usize, seed: u64, epoch: u32) -> Vec<usize> {
    let key = random::key(seed ^ SHUFFLE);
    let mut order: Vec<usize> = (0..rows).collect();
    for i in (1..rows).rev() {
        let [low, high, ..] = random::philox([i as u32, (i as u64 >> 32) as u32, epoch, 0], key);
        let u = u64::from(high) << 32 | u64::from(low);
        let j = (u128::from(u) * (i as u128 + 1)) >> 64;
        order.swap(i, j as usize);
    }
    order
}

/// Batches whose rows are sorted together in [`grouped_order`]; transformers' `LengthGroupedSampler` takes as many.
const GROUPED_BATCHES: usize = 50;

/// [`epoch_order`], but batches of `batch_size` consecutive rows have like lengths: the shuffled rows are cut into groups
/// of 50 batches, each group is sorted by length, and its batches are shuffled.
///
/// Without padding this saves no arithmetic, but a batch's longest row, and so the largest buffer of attention, is closer
/// to its shortest.
pub fn grouped_order(lengths: &[usize], batch_size: usize, seed: u64, epoch: u32) -> Vec<usize> {
    let batch_size = batch_size.max(1);
    let mut order = epoch_order(lengths.len(), seed, epoch);
    let mut grouped = Vec::with_capacity(order.len());
    for (group, rows) in order.chunks_mut(GROUPED_BATCHES * batch_size).enumerate() {
        // Longest first, so that the short batch at the end of the epoch has short rows; equals as they were shuffled.
        rows.sort_by_key(|&row| std::cmp::Reverse(lengths[row]));
        let whole = rows.len() / batch_size;
        let seed = seed.wrapping_add(1 + group as u64).rotate_left(32);
        for batch in epoch_order(whole, seed, epoch) {
            grouped.extend_from_slice(&rows[batch * batch_size..][..batch_size]);
        }
        grouped.extend_from_slice(&rows[whole * batch_size..]);
    }
    grouped
}

/// Optimizer steps in an epoch without gradient accumulation: `ceil(rows / batch_size)`, the last batch being short.
pub fn steps_per_epoch(rows: usize, batch_size: NonZeroUsize) -> usize {
    rows.div_ceil(batch_size.get())
}

/// Cuts an order into batches of `batch_size` rows; the last one holds what remains.
pub fn batches(order: &[usize], batch_size: NonZeroUsize) -> impl ExactSizeIterator<Item = &[usize]> {
    order.chunks(batch_size.get())
}

/// How evaluation batches are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EvalBatch {
    /// So many rows each.
    Rows(usize),
    /// As many rows as have at most so many tokens together, and at least one.
    Tokens(usize),
}

impl EvalBatch {
    /// The most rows of `length` tokens that a batch has.
    pub fn rows(self, length: usize) -> usize {
        match self {
            EvalBatch::Rows(rows) => rows,
            EvalBatch::Tokens(tokens) => (tokens / length.max(1)).max(1),
        }
    }
}

impl Default for EvalBatch {
    /// Enough tokens to keep every core busy with large products, few enough for their activations to stay small.
    fn default() -> Self {
        EvalBatch::Tokens(4096)
    }
}

/// Cuts rows of these lengths, in their own order, into consecutive evaluation batches.
pub fn eval_batches(lengths: impl IntoIterator<Item = usize>, batch: EvalBatch) -> Vec<Range<usize>> {
    let mut batches: Vec<Range<usize>> = Vec::new();
    let mut tokens = 0;
    for (row, length) in lengths.into_iter().enumerate() {
        let full = batches.last().is_none_or(|rows| match batch {
            EvalBatch::Rows(count) => rows.len() >= count,
            EvalBatch::Tokens(budget) => tokens + length > budget,
        });
        if full {
            batches.push(row..row);
            tokens = 0;
        }
        tokens += length;
        if let Some(rows) = batches.last_mut() {
            rows.end = row + 1;
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn size(batch_size: usize) -> NonZeroUsize {
        NonZeroUsize::new(batch_size).unwrap()
    }

    #[test]
    fn orders_are_pinned() {
        // A checkpoint of today resumes tomorrow: these must never change. Computed apart from this code, in Python.
        assert_eq!(epoch_order(8, 42, 0), [2, 4, 1, 3, 7, 6, 0, 5]);
        assert_eq!(epoch_order(8, 42, 1), [7, 4, 3, 1, 0, 2, 6, 5]);
        assert_eq!(epoch_order(8, 1 << 40, 0), [5, 6, 0, 4, 7, 2, 1, 3]);
    }

    #[test]
    fn every_place_is_equally_likely() {
        // 4,000 shuffles of 5 rows: each row is expected 800 times in each place, with a deviation of 25.3.
        let mut counts = [[0u32; 5]; 5];
        for seed in 0..4000 {
            for (place, row) in epoch_order(5, seed, 3).into_iter().enumerate() {
                counts[row][place] += 1;
            }
        }
        for count in counts.as_flattened() {
            assert!(count.abs_diff(800) < 130, "{counts:?}");
        }
    }

    #[test]
    fn notebook_has_157_steps_an_epoch() {
        assert_eq!(steps_per_epoch(2500, size(16)), 157);
        assert_eq!(steps_per_epoch(0, size(16)), 0);
        assert_eq!(eval_batches([1; 5], EvalBatch::Rows(2)), [0..2, 2..4, 4..5]);
        assert!(eval_batches([], EvalBatch::Rows(2)).is_empty());
        assert_eq!(eval_batches([3, 3, 9, 2, 4], EvalBatch::Tokens(6)), [0..2, 2..3, 3..5]);
    }

    proptest! {
        #[test]
        fn batches_cover_a_permutation(rows in 0usize..300, batch in 1usize..70, seed in any::<u64>(), epoch in any::<u32>()) {
            let order = epoch_order(rows, seed, epoch);
            prop_assert_eq!(&order, &epoch_order(rows, seed, epoch));
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..rows).collect::<Vec<_>>());
            let cut: Vec<&[usize]> = batches(&order, size(batch)).collect();
            prop_assert_eq!(cut.len(), steps_per_epoch(rows, size(batch)));
            prop_assert_eq!(&cut.concat(), &order);
            prop_assert!(cut.iter().rev().skip(1).all(|rows| rows.len() == batch));
            for cut in [EvalBatch::Rows(batch), EvalBatch::Tokens(batch)] {
                let eval = eval_batches(order.iter().copied(), cut);
                prop_assert!(eval.iter().all(|rows| !rows.is_empty()));
                prop_assert_eq!(eval.into_iter().flatten().collect::<Vec<_>>(), (0..rows).collect::<Vec<_>>());
            }
        }

        #[test]
        fn grouped_batches_cover_a_permutation_of_like_lengths(
            lengths in proptest::collection::vec(1usize..512, 0..700), batch in 1usize..9, seed in any::<u64>()
        ) {
            let order = grouped_order(&lengths, batch, seed, 1);
            prop_assert_eq!(&order, &grouped_order(&lengths, batch, seed, 1));
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..lengths.len()).collect::<Vec<_>>());
            // Inside of a group, the ranges of lengths of two batches meet at most at their ends.
            for group in order.chunks(GROUPED_BATCHES * batch) {
                let mut ranges: Vec<(usize, usize)> = group
                    .chunks(batch)
                    .map(|rows| {
                        let lengths = rows.iter().map(|&row| lengths[row]);
                        (lengths.clone().min().unwrap(), lengths.max().unwrap())
                    })
                    .collect();
                ranges.sort_unstable();
                prop_assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{:?}", ranges);
            }
        }

        #[test]
        fn epochs_and_seeds_differ(seed in any::<u64>(), epoch in 0u32..1000) {
            let order = epoch_order(200, seed, epoch);
            prop_assert_ne!(&order, &epoch_order(200, seed, epoch + 1));
            prop_assert_ne!(&order, &epoch_order(200, seed.wrapping_add(1), epoch));
        }
    }
}
