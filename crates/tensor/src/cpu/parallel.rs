//! Threads (placeholder for compilation until the pool lands).

/// Calls `f(index, chunk)` for consecutive chunks of `chunk_len` elements.
pub fn for_each_chunk_mut<T: Send>(data: &mut [T], chunk_len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    data.chunks_mut(chunk_len).enumerate().for_each(|(index, chunk)| f(index, chunk));
}
