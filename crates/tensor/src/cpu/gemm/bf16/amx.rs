//! The kernel for AMX: 32 rows x 32 columns in four tile registers.
//!
//! `tdpbf16ps` multiplies a tile of 16 rows x 16 pairs of A by one of 16 pairs x 16 columns of B and adds to 16 x 16 f32.
//! Of the eight registers, 0 to 3 are the quadrants of C, 4 and 5 the upper and lower rows of A, 6 and 7 the left and right
//! columns of B: four loads feed four products of 16 cycles each. Tile registers belong to no target feature of stable
//! Rust, so they live only inside of the `asm!` blocks, and C goes through memory between them.
//! Source: Intel, "Architecture Instruction Set Extensions Programming Reference", chapter on AMX.

use super::kernel::{PairKernel, Tile};
use super::{PANEL, STEP};
use crate::cpu::isa::Available;
use std::arch::asm;

pub struct Amx;

/// Rows of a tile register.
const TILE_ROWS: usize = 16;
/// Bytes of a row of a tile register: 32 bfloat16 or 16 f32.
const ROW_BYTES: u16 = 64;

/// The operand of `ldtilecfg`.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Config {
    /// Registers for `upper` rows (1 to 16) and `lower` rows (0 to 16) of A and C.
    const fn new(upper: u8, lower: u8) -> Self {
        let rows = [upper, upper, lower, lower, upper, lower, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut row_bytes = [0; 16];
        let mut tile = 0;
        while tile < 8 {
            // A register without rows must have no columns either.
            row_bytes[tile] = if rows[tile] > 0 { ROW_BYTES } else { 0 };
            tile += 1;
        }
        Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    }

    /// # Safety
    /// The machine has AMX, and the process its permission.
    unsafe fn load(&self) {
        // SAFETY: reads the 64 bytes of the configuration, which is valid; the caller promises the instruction.
        unsafe { asm!("ldtilecfg [{0}]", in(reg) self, options(nostack, preserves_flags, readonly)) }
    }
}

static FULL: Config = Config::new(16, 16);

impl PairKernel for Amx {
    const ROWS: usize = 2 * TILE_ROWS;
    const BLOCK_ROWS: usize = 256;
    const BLOCK_COLUMNS: usize = 384;
    const FETCHES_A: bool = true;

    unsafe fn begin() {
        // SAFETY: passed on from the caller.
        unsafe { FULL.load() }
    }

    unsafe fn tile(_: Available, rows: usize, tile: &Tile) {
        // SAFETY: passed on from the caller.
        unsafe {
            if rows == Self::ROWS {
                return both(tile);
            }
            let (upper, lower) = (rows.min(TILE_ROWS), rows.saturating_sub(TILE_ROWS));
            Config::new(upper as u8, lower as u8).load();
            if lower > 0 {
                both(tile);
            } else {
                upper_alone(tile);
            }
            FULL.load();
        }
    }

    unsafe fn end() {
        // SAFETY: the caller promises the instruction. Without live tiles, a change of threads saves no tile data.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
    }
}

/// The steps of all four quadrants, where A is loaded by the instruction `$load`.
macro_rules! multiply {
    ($load:literal, $tile:ident, $a_stride:ident) => {
        asm!(
            "2:",
            "tileloadd tmm6, [{b} + {b_stride}*1]",
            concat!($load, " tmm4, [{a} + {a_stride}*1]"),
            "tileloadd tmm7, [{b} + {b_stride}*1 + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            concat!($load, " tmm5, [{lower} + {a_stride}*1]"),
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 64",
            "add {lower}, 64",
            "add {b}, {b_step}",
            "dec {steps}",
            "jnz 2b",
            a = inout(reg) $tile.a => _,
            lower = inout(reg) $tile.a.wrapping_add(TILE_ROWS * $tile.a_row_stride) => _,
            b = inout(reg) $tile.b => _,
            steps = inout(reg) $tile.steps => _,
            a_stride = in(reg) $a_stride,
            b_stride = in(reg) 4 * PANEL,
            b_step = const 4 * PANEL * STEP / 2,
            options(nostack, readonly),
        )
    };
}

/// All four quadrants.
///
/// # Safety
/// As [`PairKernel::tile`]; the registers are configured for the tile's rows, more than 16.
unsafe fn both(tile: &Tile) {
    let (a_stride, c_stride) = (2 * tile.a_row_stride, 4 * tile.c_row_stride);
    let c_lower = tile.c.wrapping_add(TILE_ROWS * tile.c_row_stride);
    // SAFETY: loads and stores stay in the tile's rows, of which the configuration has as many. `steps` is at least 1.
    // Tile registers are caller-saved, and nobody else uses them.
    unsafe {
        if tile.accumulate {
            asm!(
                "tileloadd tmm0, [{upper} + {stride}*1]",
                "tileloadd tmm1, [{upper} + {stride}*1 + 64]",
                "tileloadd tmm2, [{lower} + {stride}*1]",
                "tileloadd tmm3, [{lower} + {stride}*1 + 64]",
                upper = in(reg) tile.c, lower = in(reg) c_lower, stride = in(reg) c_stride,
                options(nostack, preserves_flags, readonly),
            );
        } else {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                options(nostack, preserves_flags, nomem),
            );
        }
        // The hint of `tileloaddt1`: what it loads is not used again soon.
        if tile.passes_a {
            multiply!("tileloaddt1", tile, a_stride);
        } else {
            multiply!("tileloadd", tile, a_stride);
        }
        asm!(
            "tilestored [{upper} + {stride}*1], tmm0",
            "tilestored [{upper} + {stride}*1 + 64], tmm1",
            "tilestored [{lower} + {stride}*1], tmm2",
            "tilestored [{lower} + {stride}*1 + 64], tmm3",
            upper = in(reg) tile.c, lower = in(reg) c_lower, stride = in(reg) c_stride,
            options(nostack, preserves_flags),
        );
    }
}

/// The upper two quadrants.
///
/// # Safety
/// As [`PairKernel::tile`]; the registers are configured for the tile's rows, at most 16.
unsafe fn upper_alone(tile: &Tile) {
    let (a_stride, c_stride) = (2 * tile.a_row_stride, 4 * tile.c_row_stride);
    // SAFETY: as `both`.
    unsafe {
        if tile.accumulate {
            asm!(
                "tileloadd tmm0, [{upper} + {stride}*1]",
                "tileloadd tmm1, [{upper} + {stride}*1 + 64]",
                upper = in(reg) tile.c, stride = in(reg) c_stride,
                options(nostack, preserves_flags, readonly),
            );
        } else {
            asm!("tilezero tmm0", "tilezero tmm1", options(nostack, preserves_flags, nomem));
        }
        asm!(
            "2:",
            "tileloadd tmm4, [{a} + {a_stride}*1]",
            "tileloadd tmm6, [{b} + {b_stride}*1]",
            "tileloadd tmm7, [{b} + {b_stride}*1 + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "add {a}, 64",
            "add {b}, {b_step}",
            "dec {steps}",
            "jnz 2b",
            a = inout(reg) tile.a => _,
            b = inout(reg) tile.b => _,
            steps = inout(reg) tile.steps => _,
            a_stride = in(reg) a_stride,
            b_stride = in(reg) 4 * PANEL,
            b_step = const 4 * PANEL * STEP / 2,
            options(nostack, readonly),
        );
        asm!(
            "tilestored [{upper} + {stride}*1], tmm0",
            "tilestored [{upper} + {stride}*1 + 64], tmm1",
            upper = in(reg) tile.c, stride = in(reg) c_stride,
            options(nostack, preserves_flags),
        );
    }
}
