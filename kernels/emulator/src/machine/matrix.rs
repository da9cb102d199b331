//! `ldmatrix` and `mma.sync`: which lane holds which element, and the product.
//!
//! Fragment layouts: PTX ISA 8.4, "Matrix Fragments for mma.m16n8k16" and its neighbours. With g = lane / 4, t = lane % 4:
//! a pair register of A holds row g or g + 8 and columns 2 t, 2 t + 1 (+ 8); of B, rows 2 t, 2 t + 1 (+ 8) of column g;
//! accumulators hold rows g, g + 8 and columns 2 t, 2 t + 1.

use super::Grid;
use super::access;
use super::alu::Lanes;
use super::block::Commons;
use super::warp::Warp;
use crate::finding::Fault;
use crate::ptx::{Instruction, MatrixType, Op, Operand};
use half::{bf16, f16};

/// `ldmatrix`: matrices of 8 x 8 two-byte elements; lanes 8 i to 8 i + 7 give the rows' addresses of matrix i.
pub(super) fn load(
    warp: &mut Warp,
    grid: &mut Grid,
    block: &mut Commons,
    instruction: &Instruction,
) -> Result<(), Box<Fault>> {
    let Op::LoadMatrix(transposed) = instruction.op else { unreachable!("internal: not ldmatrix") };
    let targets = parts(&instruction.operands[0]);
    let mut scratch = [0; 32];
    let addresses = *warp.read(&instruction.operands[1], &mut scratch, Some((grid, block)));
    for (matrix, target) in targets.iter().enumerate() {
        let mut elements = [[0u64; 8]; 8];
        for (row, elements) in elements.iter_mut().enumerate() {
            let lane = 8 * matrix + row;
            let bytes = access::shared_row(warp, grid, block, lane, addresses[lane])?;
            for (element, pair) in elements.iter_mut().zip(bytes.chunks_exact(2)) {
                *element = u64::from(u16::from_le_bytes([pair[0], pair[1]]));
            }
        }
        let out = std::array::from_fn(|lane| {
            let (g, t) = (lane / 4, lane % 4);
            let at = |column: usize| if transposed { elements[column][g] } else { elements[g][column] };
            at(2 * t) | at(2 * t + 1) << 16
        });
        warp.write(target, u32::MAX, &out);
    }
    Ok(())
}

fn parts(operand: &Operand) -> &[Operand] {
    match operand {
        Operand::Vector(parts) => parts,
        one => std::slice::from_ref(one),
    }
}

/// `mma.sync.aligned.m16n8kK.row.col.f32.T.T.f32`: D = A B + C. Products are exact in f32 for the half types; sums are f32 in
/// the order of k, where a GPU's order and rounding are its own: tolerances must allow for both.
pub(super) fn multiply(
    warp: &mut Warp,
    ty: MatrixType,
    depth: usize,
    operands: &[Operand],
    at: (&Grid, &Commons),
) {
    let registers = |warp: &Warp, operand: &Operand| -> Vec<Lanes> {
        let mut scratch = [0; 32];
        parts(operand).iter().map(|part| *warp.read(part, &mut scratch, Some(at))).collect()
    };
    let (a, b, c) =
        (registers(warp, &operands[1]), registers(warp, &operands[2]), registers(warp, &operands[3]));
    let mut left = [[0f32; 16]; 16];
    let mut right = [[0f32; 8]; 16];
    let mut sum = [[0f32; 8]; 16];
    // How many elements of a factor one register holds, and so how many columns of A four neighbouring lanes hold.
    let width = if ty == MatrixType::TF32 { 1 } else { 2 };
    let element = |register: u64, part: usize| {
        let bits = (register >> (16 * part)) as u16;
        match ty {
            MatrixType::BF16 => bf16::from_bits(bits).to_f32(),
            MatrixType::F16 => f16::from_bits(bits).to_f32(),
            MatrixType::TF32 => f32::from_bits(register as u32 & !0x1fff),
        }
    };
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        for part in 0..width {
            for (i, register) in a.iter().enumerate() {
                left[g + 8 * (i % 2)][width * (t + 4 * (i / 2)) + part] = element(register[lane], part);
            }
            for (i, register) in b.iter().enumerate() {
                right[width * (t + 4 * i) + part][g] = element(register[lane], part);
            }
        }
        for (i, register) in c.iter().enumerate() {
            sum[g + 8 * (i / 2)][2 * t + i % 2] = f32::from_bits(register[lane] as u32);
        }
    }
    for (left, sum) in left.iter().zip(&mut sum) {
        for (x, right) in left[..depth].iter().zip(&right) {
            for (sum, y) in sum.iter_mut().zip(right) {
                *sum += x * y;
            }
        }
    }
    for (i, to) in parts(&operands[0]).iter().enumerate() {
        let out = std::array::from_fn(|lane| {
            u64::from(sum[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2].to_bits())
        });
        warp.write(to, u32::MAX, &out);
    }
}
