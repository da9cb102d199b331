//! Instructions in which lanes read each other's registers: shuffles, votes, matches, reductions.
//!
//! None of them orders memory accesses; only `bar.warp.sync` does.

use super::Grid;
use super::alu::Lanes;
use super::block::Commons;
use super::warp::{Warp, lanes};
use crate::finding::{Fault, FindingKind};
use crate::ptx::{Atomic, Instruction, Op, Operand, Shuffle, Type, Vote};

/// The lanes in which a predicate is true.
pub(super) fn ballot(predicate: &Lanes) -> u32 {
    (0..32).fold(0, |mask, lane| mask | u32::from(predicate[lane] != 0) << lane)
}

/// One step of `redux` and of an atomic operation on integers: the new value; operands and result have the type's width.
pub(super) fn combine(kind: Atomic, ty: Type, old: u64, value: u64) -> u64 {
    let signed = |bits: u64| if ty.size() == 8 { bits as i64 } else { i64::from(bits as u32 as i32) };
    let (a, b) = if ty.size() == 8 { (old, value) } else { (old & 0xffff_ffff, value & 0xffff_ffff) };
    let out = match kind {
        Atomic::Add => a.wrapping_add(b),
        Atomic::Min if ty.is_signed() => signed(a).min(signed(b)) as u64,
        Atomic::Max if ty.is_signed() => signed(a).max(signed(b)) as u64,
        Atomic::Min => a.min(b),
        Atomic::Max => a.max(b),
        Atomic::And => a & b,
        Atomic::Or => a | b,
        Atomic::Xor => a ^ b,
        Atomic::Exchange | Atomic::CompareAndSwap => b,
        Atomic::Increment => {
            if a >= b {
                0
            } else {
                a + 1
            }
        }
        Atomic::Decrement => {
            if a == 0 || a > b {
                b
            } else {
                a - 1
            }
        }
    };
    if ty.size() == 8 { out } else { out & 0xffff_ffff }
}

pub(super) fn execute(
    warp: &mut Warp,
    instruction: &Instruction,
    mask: u32,
    at: (&Grid, &Commons),
) -> Result<(), Box<Fault>> {
    let operands = &instruction.operands[..];
    let value = |index: usize| {
        let mut scratch = [0; 32];
        *warp.read(&operands[index], &mut scratch, Some(at))
    };
    match instruction.op {
        Op::Shuffle(mode) => {
            let (out, inside) = shuffle(mode, &value(1), &value(2), &value(3), mask)?;
            match &operands[0] {
                Operand::Vector(pair) => {
                    warp.write(&pair[0], mask, &out);
                    warp.write(&pair[1], mask, &inside);
                }
                one => warp.write(one, mask, &out),
            }
        }
        Op::Vote(mode) => {
            let (predicate, masks) = (ballot(&value(1)), value(2));
            let out = std::array::from_fn(|lane| {
                let among = masks[lane] as u32 & mask;
                let yes = predicate & among;
                u64::from(match mode {
                    Vote::All => u32::from(yes == among),
                    Vote::Any => u32::from(yes != 0),
                    Vote::Uniform => u32::from(yes == among || yes == 0),
                    Vote::Ballot => yes,
                })
            });
            warp.write(&operands[0], mask, &out);
        }
        Op::ActiveMask => warp.write(&operands[0], mask, &[u64::from(mask); 32]),
        Op::Match(all, ty) => {
            let bits = if ty.size() == 8 { u64::MAX } else { 0xffff_ffff };
            let (values, masks) = (value(1).map(|v| v & bits), value(2));
            let mut same = [0; 32];
            let mut every = [0; 32];
            for lane in lanes(mask) {
                let among = masks[lane] as u32 & mask;
                let equal =
                    lanes(among).fold(0u32, |m, other| m | u32::from(values[other] == values[lane]) << other);
                every[lane] = u64::from(equal == among);
                same[lane] = if all && equal != among { 0 } else { u64::from(equal) };
            }
            match &operands[0] {
                Operand::Vector(pair) => {
                    warp.write(&pair[0], mask, &same);
                    warp.write(&pair[1], mask, &every);
                }
                one => warp.write(one, mask, &same),
            }
        }
        Op::Reduce(kind, ty) => {
            let (values, masks) = (value(1), value(2));
            let out = std::array::from_fn(|lane| {
                lanes(masks[lane] as u32 & mask)
                    .map(|other| values[other])
                    .reduce(|a, b| combine(kind, ty, a, b))
                    .unwrap_or(0)
            });
            warp.write(&operands[0], mask, &out);
        }
        _ => unreachable!("internal: not a collective instruction"),
    }
    Ok(())
}

/// `shfl.sync`: the value from another lane, and whether that lane lies in the segment. In `control`, bits 0-4 are the last
/// lane of the segment (relative) and bits 8-12 the bits of the lane number that stay. PTX ISA 8.4, `shfl.sync`.
fn shuffle(
    mode: Shuffle,
    x: &Lanes,
    b: &Lanes,
    control: &Lanes,
    mask: u32,
) -> Result<(Lanes, Lanes), Box<Fault>> {
    let (mut out, mut inside) = ([0; 32], [0; 32]);
    for lane in lanes(mask) {
        let (amount, control) = (b[lane] as i64 & 31, control[lane] as i64);
        let (clamp, segment) = (control & 31, control >> 8 & 31);
        let lane_number = lane as i64;
        let last = (lane_number & segment) | (clamp & !segment);
        let first = lane_number & segment;
        let from = match mode {
            Shuffle::Up => lane_number - amount,
            Shuffle::Down => lane_number + amount,
            Shuffle::Butterfly => lane_number ^ amount,
            Shuffle::Index => first | (amount & !segment),
        };
        let fits = if mode == Shuffle::Up { from >= last } else { from <= last };
        let from = if fits { from as usize } else { lane };
        if mask >> from & 1 == 0 {
            let message = format!(
                "lane {lane} reads from lane {from}, which does not take part (lanes {mask:#010x} do)"
            );
            return Err(Fault::new(FindingKind::LaneMask, lane, message));
        }
        (out[lane], inside[lane]) = (x[from] & 0xffff_ffff, u64::from(fits));
    }
    Ok((out, inside))
}
