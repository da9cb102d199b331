//! How much memory attention takes. A test binary of its own: the counters are the whole process's.

use vitrine_tensor::cpu::memory;
use vitrine_tensor::ops::attention::{AttentionOptions, Queries, attention, attention_backward};
use vitrine_tensor::{Dropout, Offsets, Tensor, random};

/// With 2048 rows, the scores of one head would take 16 MiB.
#[test]
fn memory_is_proportional_to_the_number_of_rows() {
    let (rows, width) = (2048usize, 64);
    let numbers = |columns: usize| {
        Tensor::from_slice(&random::normal(rows * columns, 0.1, 1, 0), &[rows, columns]).unwrap()
    };
    let (qkv, dout) = (numbers(3 * width), numbers(width));
    let dropout = Dropout { dropout_p: 0.1, seed: 1, step: 7, site: 3, first_sequence: 5 };
    let (offsets, options) = (
        Offsets::from_lengths([rows]).unwrap(),
        AttentionOptions { dropout: Some(dropout), ..Default::default() },
    );
    memory::reset_peak();
    let before = memory::stats().live;
    let forward = attention(&qkv, 1, 0.125, &offsets, Queries::All, &options).unwrap();
    attention_backward(&dout, &qkv, &forward.lse, 1, 0.125, &offsets, Queries::All, &options).unwrap();
    let used = memory::stats().peak - before;
    // Results and scratch are about ten times the output.
    assert!(used < 12 * rows * width * 4, "{used} bytes");
}
