//! [`Offsets`]: where each sequence of an unpadded batch begins and ends.

use crate::cuda::{Buffer, Context};
use crate::{Error, Result};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// The boundaries of `B` sequences that lie one after the other in `T` rows, without padding.
///
/// Sequence `b` is rows `offsets[b]..offsets[b + 1]`. This is `cu_seqlens` of FlashAttention's variable-length
/// interface. Cheap to clone.
#[derive(Clone)]
pub struct Offsets {
    /// `B + 1` positions, from 0 to `T`, never decreasing.
    host: Arc<[u32]>,
    longest: usize,
    /// The same on the CUDA device that asked first, shared by all clones.
    device: Arc<OnceLock<OnDevice>>,
}

/// The device, and the positions there.
type OnDevice = (Arc<Context>, Arc<Buffer<u32>>);

impl PartialEq for Offsets {
    fn eq(&self, other: &Self) -> bool {
        self.host == other.host
    }
}

impl Eq for Offsets {}

impl std::fmt::Debug for Offsets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Offsets").field(&self.host).finish()
    }
}

impl Offsets {
    /// Checks and takes `B + 1` positions.
    ///
    /// # Errors
    /// `InvalidArgument` when they do not start at 0 or decrease.
    pub fn new(positions: &[u32]) -> Result<Self> {
        if positions.first() != Some(&0) || positions.windows(2).any(|pair| pair[0] > pair[1]) {
            return Err(Error::InvalidArgument {
                op: "offsets",
                name: "positions",
                expected: "a sequence from 0 that never decreases",
                got: format!("{positions:?}"),
            });
        }
        let longest = positions.windows(2).map(|pair| (pair[1] - pair[0]) as usize).max().unwrap_or(0);
        Ok(Offsets { host: positions.into(), longest, device: Arc::default() })
    }

    /// The offsets of sequences with these lengths.
    ///
    /// # Errors
    /// `InvalidArgument` when the total does not fit in 32 bits.
    pub fn from_lengths(lengths: impl IntoIterator<Item = usize>) -> Result<Self> {
        let mut positions = vec![0u32];
        let mut total = 0usize;
        for length in lengths {
            total = total.saturating_add(length);
            positions.push(u32::try_from(total).map_err(|_| Error::InvalidArgument {
                op: "offsets",
                name: "lengths",
                expected: "at most 2^32 - 1 rows together",
                got: total.to_string(),
            })?);
        }
        Offsets::new(&positions)
    }

    /// `B` sequences of one row each: how rows that stand for whole sequences (`[CLS]` rows) are described.
    ///
    /// # Errors
    /// As [`Offsets::from_lengths`].
    pub fn ones(sequences: usize) -> Result<Self> {
        Offsets::from_lengths(std::iter::repeat_n(1, sequences))
    }

    /// The number of sequences `B`.
    pub fn sequences(&self) -> usize {
        self.host.len() - 1
    }

    /// The number of rows `T`.
    pub fn total(&self) -> usize {
        self.host[self.host.len() - 1] as usize
    }

    /// The length of the longest sequence.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The rows of sequence `b`.
    pub fn range(&self, b: usize) -> Range<usize> {
        self.host[b] as usize..self.host[b + 1] as usize
    }

    /// The rows of every sequence in turn.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.host.windows(2).map(|pair| pair[0] as usize..pair[1] as usize)
    }

    /// The `B + 1` positions.
    pub fn positions(&self) -> &[u32] {
        &self.host
    }

    /// The first row of each sequence, `B` of them.
    pub fn firsts(&self) -> &[u32] {
        &self.host[..self.sequences()]
    }

    /// The `B + 1` positions in a device's memory: uploaded once.
    pub(crate) fn on_device(&self, context: &Arc<Context>) -> Result<Arc<Buffer<u32>>> {
        if let Some((of, positions)) = self.device.get()
            && Arc::ptr_eq(of, context)
        {
            return Ok(positions.clone());
        }
        let positions = Arc::new(Buffer::upload(context, &self.host)?);
        // Of two devices, the second uploads each time.
        let _ = self.device.set((context.clone(), positions.clone()));
        Ok(positions)
    }

    /// Sum over the sequences of length squared: what attention costs.
    pub fn sum_of_squares(&self) -> usize {
        self.ranges().map(|range| range.len() * range.len()).sum()
    }
}
