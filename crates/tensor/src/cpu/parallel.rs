//! Threads. The only file that names rayon.
//!
//! Work is cut into pieces of a fixed size, chosen by the shape of the data and never by the number of threads, so
//! that results do not depend on it. Threads take the pieces in order from a shared queue; the caller works too, and
//! work of a single piece never leaves it.

use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The number of threads cannot be what was wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThreadsError {
    /// The pool exists already: its size can no longer be changed.
    #[error(
        "the thread pool is already running with {running} threads; set the number before the first operation"
    )]
    AlreadyRunning {
        /// How many threads it has.
        running: usize,
    },
    /// The system starts no more threads: a limit on processes or on memory, of the user or the container.
    #[error(
        "the system refused to start {threads} ({why}); use fewer (`--threads`, or RAYON_NUM_THREADS), or raise the limit on processes \
         (`ulimit -u`, or the container's)"
    )]
    Refused {
        /// What there was to be: `1024 threads`, or `a thread for every core`.
        threads: String,
        /// What the system said.
        why: String,
    },
}

/// Starts the pool of the process, once. `None`: without the calling thread, one thread per core.
fn start(count: Option<usize>) -> Result<(), ThreadsError> {
    // Rayon lets a process try only once, and panics at the first use after a failure.
    static STARTED: OnceLock<Result<(), ThreadsError>> = OnceLock::new();
    let build = || {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(count.unwrap_or(0));
        let builder = if count.is_some() { builder.use_current_thread() } else { builder };
        builder.build_global().map_err(|error| ThreadsError::Refused {
            threads: count
                .filter(|&count| count > 0)
                .map_or("a thread for every core".into(), |count| format!("{count} threads")),
            why: error.to_string(),
        })
    };
    STARTED.get_or_init(build).clone()
}

/// Sets the number of threads of the process, 0 for one per core (or `RAYON_NUM_THREADS`), and makes the calling thread
/// one of them.
///
/// Optional: without it, the first parallel operation starts one thread per core, and panics if the system refuses. A binary
/// calls it on its main thread, which then gives work to the pool without waiting for another thread to wake up.
///
/// # Errors
/// [`ThreadsError::AlreadyRunning`] if the pool exists with another number of threads, [`ThreadsError::Refused`] if the
/// system does not start them.
pub fn set_threads(count: usize) -> Result<(), ThreadsError> {
    if rayon::current_thread_index().is_none() {
        start(Some(count))?;
    }
    match threads() {
        running if count != 0 && count != running => Err(ThreadsError::AlreadyRunning { running }),
        _ => Ok(()),
    }
}

/// How many threads operations called from this thread run on.
///
/// # Panics
/// If it has to start the pool, and the system refuses: see [`set_threads`].
pub fn threads() -> usize {
    if rayon::current_thread_index().is_none()
        && let Err(error) = start(None)
    {
        panic!("{error}");
    }
    rayon::current_num_threads()
}

/// Runs `body` on a pool of its own with `count` threads (at least one): for tests and scaling measurements.
///
/// `body` runs on another thread than the caller's, so a forced instruction set is set inside of it.
pub fn with_threads<R: Send>(count: usize, body: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(count.max(1))
        .build()
        .expect("internal: the system refused to start threads");
    pool.install(body)
}

/// Calls `work(index, item)` for every item, in no particular order, on all threads.
///
/// Outputs are handed out as items, which keeps them exclusive without any `unsafe`:
///
/// ```
/// # use vitrine_tensor::cpu::parallel;
/// let (mut y, mut sums) = (vec![1.0; 12], vec![0.0; 4]);
/// parallel::for_each(y.chunks_mut(3).zip(&mut sums), |row, (y, sum)| {
///     y.fill(row as f32);
///     *sum = y.iter().sum();
/// });
/// assert_eq!(sums, [0.0, 3.0, 6.0, 9.0]);
/// ```
pub fn for_each<I>(items: I, work: impl Fn(usize, I::Item) + Sync)
where
    I: IntoIterator<IntoIter: ExactSizeIterator + Send>,
{
    let items = items.into_iter();
    let helpers = if items.len() < 2 { 0 } else { threads().min(items.len()) - 1 };
    if helpers == 0 {
        return items.enumerate().for_each(|(index, item)| work(index, item));
    }
    let queue = Mutex::new(items.enumerate());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let drain = || {
        while let Some((index, item)) = next() {
            work(index, item);
        }
    };
    rayon::scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(|_| drain());
        }
        drain();
    });
}

/// Calls `work(range)` for the ranges that cut `0..len` into pieces of `chunk` (the last may be shorter).
pub fn for_each_chunk(len: usize, chunk: usize, work: impl Fn(Range<usize>) + Sync) {
    for_each(0..len.div_ceil(chunk.max(1)), |index, _| {
        let start = index * chunk;
        work(start..len.min(start + chunk));
    });
}

/// Calls `work(index, piece)` for the pieces of `chunk` elements of `data` (the last may be shorter).
///
/// Several outputs: zip their `chunks_mut` and call [`for_each`].
pub fn for_each_chunk_mut<T: Send>(data: &mut [T], chunk: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    for_each(data.chunks_mut(chunk.max(1)), work);
}

/// What `work(index, item)` returned for every item, in the items' order.
pub fn map<I, R: Send>(items: I, work: impl Fn(usize, I::Item) -> R + Sync) -> Vec<R>
where
    I: IntoIterator<IntoIter: ExactSizeIterator + Send>,
{
    let items = items.into_iter();
    let mut results: Vec<Option<R>> = Vec::new();
    results.resize_with(items.len(), || None);
    for_each(items.zip(&mut results), |index, (item, result)| *result = Some(work(index, item)));
    results.into_iter().flatten().collect()
}

/// Reduces `0..len` in pieces of `chunk`: `map(range)` gives a partial result, and `combine` folds the partials from
/// left to right, so the result is the same for any number of threads. `None` if `len` is zero.
pub fn map_reduce<R: Send>(
    len: usize,
    chunk: usize,
    map_range: impl Fn(Range<usize>) -> R + Sync,
    combine: impl FnMut(R, R) -> R,
) -> Option<R> {
    let chunk = chunk.max(1);
    map(0..len.div_ceil(chunk), |index, _| map_range(index * chunk..len.min((index + 1) * chunk)))
        .into_iter()
        .reduce(combine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_item_is_visited_once_for_any_number_of_threads() {
        for count in [1, 2, 3, 8] {
            with_threads(count, || {
                assert_eq!(threads(), count);
                for len in [0, 1, 2, 7, 1000] {
                    let mut visits = vec![0; len];
                    for_each_chunk_mut(&mut visits, 3, |index, piece| {
                        piece.iter_mut().enumerate().for_each(|(i, visit)| *visit += 1 + index * 3 + i);
                    });
                    assert!(visits.iter().enumerate().all(|(i, &visit)| visit == i + 1), "{len}: {visits:?}");
                    let total = AtomicUsize::new(0);
                    for_each_chunk(len, 4, |range| {
                        total.fetch_add(range.sum::<usize>(), Ordering::Relaxed);
                    });
                    assert_eq!(total.into_inner(), (0..len).sum::<usize>());
                }
            });
        }
    }

    #[test]
    fn reductions_do_not_depend_on_the_number_of_threads() {
        let data: Vec<f32> = (0..10_000).map(|i| (i as f32).sin()).collect();
        let sum = |count| {
            with_threads(count, || {
                map_reduce(data.len(), 64, |range| data[range].iter().sum::<f32>(), |a, b| a + b)
            })
        };
        assert_eq!(sum(1).map(f32::to_bits), sum(2).map(f32::to_bits));
        assert_eq!(sum(1).map(f32::to_bits), sum(5).map(f32::to_bits));
        assert_eq!(map_reduce(0, 64, |_| 1, |a, b| a + b), None);
    }

    #[test]
    fn results_come_in_order() {
        with_threads(3, || {
            assert_eq!(map(10..20, |index, item| index * item), [0, 11, 24, 39, 56, 75, 96, 119, 144, 171]);
        });
    }

    #[test]
    fn parallel_calls_nest() {
        with_threads(2, || {
            let sums = map(0..5usize, |_, i| map_reduce(100, 7, |range| range.len() * i, |a, b| a + b));
            assert_eq!(sums, [0, 100, 200, 300, 400].map(Some));
        });
    }
}
