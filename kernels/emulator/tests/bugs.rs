//! Kernels with one planted bug each: found, named rightly, at the right line. And correct ones: not blamed.

mod common;

use common::{Given, floats, launch, load, to_floats};
use vitrine_emulator::{FindingKind, take_findings};

const PTX: &str = include_str!("kernels/bugs.ptx");
const SOURCE: &str = include_str!("kernels/bugs.cu");

/// Runs a kernel and checks the one finding: its kind, its kernel, its line in `bugs.cu`, and the text that the driver gives.
#[track_caller]
fn found(kernel: &str, kind: FindingKind, blocks: u32, threads: u32, shared: u32, arguments: &[Given]) {
    let module = load(PTX).unwrap();
    let error =
        launch(module, kernel, blocks, threads, shared, arguments).expect_err("the bug was not found");
    let findings = take_findings();
    assert_eq!(findings.len(), 1, "{findings:?}");
    let finding = &findings[0];
    assert_eq!((finding.kind, finding.kernel.as_str()), (kind, kernel), "{finding}");
    let line = planted_line(kernel);
    let places = [&finding.source, &finding.inlined_at];
    let right = places.into_iter().flatten().any(|(file, at)| file == "bugs.cu" && *at == line);
    assert!(right, "expected bugs.cu:{line}: {finding}");
    let text = PTX.lines().nth(finding.ptx_line as usize - 1).unwrap();
    let name = finding.instruction.split('.').next().unwrap();
    assert!(text.contains(name), "PTX line {}: {text:?} for {finding}", finding.ptx_line);
    assert!(finding.block[0] < blocks && finding.thread[0] < threads, "{finding}");
    let driver = error.error_string().unwrap().to_str().unwrap().to_string();
    assert_eq!(driver, finding.to_string());
}

/// The line of the kernel that ends with a BUG mark.
fn planted_line(kernel: &str) -> u32 {
    let lines = (1..).zip(SOURCE.lines());
    let body = lines.skip_while(|(_, line)| !line.contains(&format!("void {kernel}(")));
    body.into_iter().find(|(_, line)| line.contains("// BUG")).expect("a mark").0
}

/// Runs a kernel that must raise nothing.
#[track_caller]
fn clean(kernel: &str, blocks: u32, threads: u32, shared: u32, arguments: &[Given]) -> Vec<Vec<u8>> {
    let outcome = launch(load(PTX).unwrap(), kernel, blocks, threads, shared, arguments);
    let findings = take_findings();
    assert!(findings.is_empty(), "{}", findings[0]);
    outcome.unwrap()
}

fn ones(len: usize) -> Given {
    floats(vec![1.0; len])
}

fn room(len: usize) -> Given {
    Given::Room(4 * len)
}

fn zero_words(len: usize) -> Given {
    Given::Array(vec![0; 4 * len])
}

#[test]
fn races() {
    found("race_without_barrier", FindingKind::Race, 1, 128, 0, &[room(128)]);
    found("race_inside_a_warp", FindingKind::Race, 1, 32, 0, &[room(32)]);
    found("race_of_a_reused_tile", FindingKind::Race, 1, 64, 0, &[ones(192), room(64)]);
    found("race_between_blocks", FindingKind::Race, 2, 32, 0, &[room(1)]);
    found("race_with_an_atomic", FindingKind::Race, 1, 64, 0, &[zero_words(2)]);
}

#[test]
fn bad_accesses() {
    let n = Given::Int;
    found("read_past_the_end", FindingKind::OutOfBounds, 2, 64, 0, &[ones(100), room(100), n(100)]);
    found("write_past_the_end", FindingKind::OutOfBounds, 2, 64, 0, &[room(100), n(100)]);
    found("shared_overrun", FindingKind::OutOfBounds, 1, 32, 0, &[room(32), n(33)]);
    found("dynamic_shared_overrun", FindingKind::OutOfBounds, 1, 32, 128, &[room(32), n(1)]);
    found("misaligned_vector", FindingKind::Misaligned, 1, 1, 0, &[ones(8), room(1), n(1)]);
    found("use_after_free", FindingKind::UseAfterFree, 1, 32, 0, &[Given::Freed(128), room(32)]);
    found("local_overrun", FindingKind::OutOfBounds, 1, 32, 0, &[room(32), n(100)]);
    found("write_to_a_constant", FindingKind::ReadOnly, 1, 32, 0, &[room(32), n(3)]);
}

#[test]
fn reads_of_what_nothing_wrote() {
    found("shared_not_written", FindingKind::Uninitialised, 1, 64, 0, &[room(64), Given::Int(63)]);
    found("global_not_written", FindingKind::Uninitialised, 1, 32, 0, &[room(32), room(32)]);
}

#[test]
fn asynchronous_copies() {
    found("copy_without_wait", FindingKind::UnfinishedCopy, 1, 64, 0, &[ones(256), room(64)]);
    found("copy_without_barrier", FindingKind::Race, 1, 64, 0, &[ones(256), room(64)]);
    found("refill_before_the_readers_are_done", FindingKind::Race, 1, 64, 0, &[ones(512), room(64)]);
}

#[test]
fn barriers_and_lanes() {
    found("barrier_in_a_branch", FindingKind::DivergentBarrier, 1, 64, 0, &[room(64)]);
    found("barrier_after_a_return", FindingKind::DivergentBarrier, 1, 64, 0, &[room(64), Given::Int(40)]);
    found("barrier_that_a_warp_skips", FindingKind::DivergentBarrier, 1, 64, 0, &[room(64)]);
    found("barriers_that_disagree", FindingKind::DivergentBarrier, 1, 64, 0, &[room(64)]);
    found("mask_without_the_lane", FindingKind::LaneMask, 1, 32, 0, &[room(32)]);
    found("shuffle_from_an_absent_lane", FindingKind::LaneMask, 1, 32, 0, &[room(32)]);
    found("mask_of_lanes_that_wait_elsewhere", FindingKind::LaneMask, 1, 32, 0, &[room(32)]);
}

#[test]
fn ends() {
    found("endless_wait", FindingKind::Endless, 1, 1, 0, &[zero_words(1)]);
    found("gives_up", FindingKind::Trap, 1, 32, 0, &[room(32)]);
}

#[test]
fn correct_kernels_raise_nothing() {
    let counting = |len: usize| floats((0..len).map(|i| i as f32));
    let arrays = clean("correct_block_sum", 1, 128, 0, &[counting(128), room(1)]);
    assert_eq!(to_floats(&arrays[1]), [8128.0]);

    let arrays = clean("correct_double_buffer", 1, 64, 0, &[counting(1024), room(64), Given::Int(4)]);
    // Of each tile, the numbers at 255 - t and at t: together 255 and twice the tile's start.
    let expected: f32 = (0..4).map(|tile| (2 * 256 * tile + 255) as f32).sum();
    assert_eq!(to_floats(&arrays[1]), [expected; 64]);

    let arrays = clean("correct_producer_and_consumer", 1, 64, 0, &[room(96)]);
    let expected: Vec<f32> = (0..96).map(|i| (i / 32 * 32 + 31 - i % 32) as f32).collect();
    assert_eq!(to_floats(&arrays[0]), expected);

    let arrays = clean("correct_last_block", 5, 32, 0, &[ones(160), room(5), zero_words(1), room(1)]);
    assert_eq!(to_floats(&arrays[3]), [160.0]);

    clean("correct_early_return", 2, 64, 0, &[floats(vec![0.0; 100]), Given::Int(100)]);
    let arrays = clean("correct_warp_exchange", 1, 64, 0, &[room(64)]);
    let expected: Vec<f32> = (0..64u32).map(|i| (i ^ 5) as f32 + 2.0).collect();
    assert_eq!(to_floats(&arrays[0]), expected);
}
