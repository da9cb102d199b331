//! AMX in software, so that the kernel's machine code is tested on processors without it: they answer a tile instruction
//! with SIGILL, and the handler here does what the instruction would have done.
//!
//! It knows the six instructions that `amx.rs` uses, and their constraints; a violation, which the processor would answer
//! with a fault, ends the process with a line that names it. Source: Intel, "Architecture Instruction Set Extensions
//! Programming Reference", chapter 3.

use half::bf16;
use std::cell::RefCell;
use std::sync::Once;

/// Numbers of the registers in `gregs`, by their numbers in instructions (Linux, `ucontext.h`).
const REGISTERS: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

const ROW: usize = 64;
const ROWS: usize = 16;

/// What a thread has.
struct Tiles {
    data: [[[u8; ROW]; ROWS]; 8],
    /// Rows, and bytes of a row, of each register; none before `ldtilecfg`.
    shape: Option<[(usize, usize); 8]>,
}

thread_local! {
    static TILES: RefCell<Tiles> = const { RefCell::new(Tiles { data: [[[0; ROW]; ROWS]; 8], shape: None }) };
}

/// Installs the handler for the process.
pub(super) fn emulate() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: a zeroed `sigaction` is valid; the handler has the signature that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_illegal_instruction as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGILL, &raw const action, std::ptr::null_mut()), 0);
        }
    });
}

fn fault(what: &str) -> ! {
    eprintln!("emulated AMX: {what}");
    std::process::abort();
}

extern "C" fn on_illegal_instruction(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a `ucontext_t`, which is ours until the handler returns.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let start = registers[libc::REG_RIP as usize] as *const u8;
    // SAFETY: the instruction that raised the signal; none of these is shorter than 5 bytes, and code follows it.
    let [vex, byte1, byte2, opcode, modrm] = std::array::from_fn(|i| unsafe { *start.add(i) });
    let (map, prefix, wide) = (byte1 & 31, byte2 & 3, byte2 & 0x84);
    if vex != 0xC4 || map != 2 || wide != 0 {
        fault("an illegal instruction that is no tile instruction");
    }
    let (mode, reg, rm) = (modrm >> 6, usize::from(modrm >> 3 & 7), usize::from(modrm & 7));
    let mut length = 5;
    // The address of a memory operand: base, index and scale where there is a second byte, displacement.
    let mut address = 0usize;
    if mode != 3 {
        let extended = |bit: u8, number: usize| number + if byte1 & bit == 0 { 8 } else { 0 };
        let value = |number: usize| registers[REGISTERS[number] as usize] as usize;
        if rm == 4 {
            // SAFETY: as above: a SIB byte follows.
            let sib = unsafe { *start.add(length) };
            length += 1;
            let index = extended(0x40, usize::from(sib >> 3 & 7));
            address = value(extended(0x20, usize::from(sib & 7)));
            if index != 4 {
                address = address.wrapping_add(value(index) << (sib >> 6));
            }
        } else if mode == 0 && rm == 5 {
            fault("an operand relative to the instruction, which this emulation does not know");
        } else {
            address = value(extended(0x20, rm));
        }
        // SAFETY: as above: a displacement of that length follows.
        unsafe {
            match mode {
                1 => {
                    address = address.wrapping_add_signed(isize::from(start.add(length).cast::<i8>().read()));
                }
                2 => {
                    address = address
                        .wrapping_add_signed(start.add(length).cast::<i32>().read_unaligned() as isize);
                }
                _ => {}
            }
        }
        length += [0, 1, 4][usize::from(mode)];
    }
    // The index register is the stride of a tile's rows.
    let stride = if mode != 3 && rm == 4 {
        // SAFETY: as above.
        let sib = unsafe { *start.add(5) };
        let number = usize::from(sib >> 3 & 7) + if byte1 & 0x40 == 0 { 8 } else { 0 };
        let stride = registers[REGISTERS[number] as usize] as usize;
        (number != 4).then_some(stride << (sib >> 6))
    } else {
        None
    };
    TILES.with_borrow_mut(|tiles| match (opcode, prefix, mode) {
        (0x49, 0, 3) => tiles.shape = None,
        (0x49, 0, _) => tiles.configure(address as *const u8),
        (0x49, 3, 3) => {
            tiles.shape(reg);
            tiles.data[reg] = [[0; ROW]; ROWS];
        }
        // `tileloadd`, and `tileloaddt1`, which differs in a hint to the caches.
        (0x4B, 1 | 3, 0..=2) => tiles.load(reg, address.wrapping_sub(stride.unwrap_or(0)), stride),
        (0x4B, 2, 0..=2) => tiles.store(reg, address.wrapping_sub(stride.unwrap_or(0)), stride),
        (0x5C, 2, 3) => tiles.multiply(reg, rm, usize::from(!(byte2 >> 3) & 15)),
        _ => fault("a tile instruction that this emulation does not know"),
    });
    registers[libc::REG_RIP as usize] += length as i64;
}

impl Tiles {
    fn configure(&mut self, config: *const u8) {
        // SAFETY: `ldtilecfg` reads 64 bytes.
        let bytes: [u8; 64] = std::array::from_fn(|i| unsafe { *config.add(i) });
        if bytes[0] != 1 || bytes[1..16].iter().any(|&byte| byte != 0) {
            fault("a palette other than 1, or reserved bytes that are not zero");
        }
        let shape = std::array::from_fn(|tile| {
            let columns = usize::from(u16::from_le_bytes([bytes[16 + 2 * tile], bytes[17 + 2 * tile]]));
            let rows = usize::from(bytes[48 + tile]);
            if rows > ROWS || columns > ROW || (rows == 0) != (columns == 0) {
                fault("a tile with too many rows or columns, or with only one of them");
            }
            (rows, columns)
        });
        self.shape = Some(shape);
        self.data = [[[0; ROW]; ROWS]; 8];
    }

    fn shape(&self, tile: usize) -> (usize, usize) {
        match self.shape {
            Some(shape) if shape[tile].0 > 0 => shape[tile],
            _ => fault("a tile that is not configured"),
        }
    }

    fn load(&mut self, tile: usize, address: usize, stride: Option<usize>) {
        let (rows, columns) = self.shape(tile);
        self.data[tile] = [[0; ROW]; ROWS];
        for row in 0..rows {
            let source = (address + row * stride.unwrap_or(0)) as *const u8;
            // SAFETY: what `tileloadd` reads.
            unsafe { source.copy_to(self.data[tile][row].as_mut_ptr(), columns) };
        }
    }

    fn store(&self, tile: usize, address: usize, stride: Option<usize>) {
        let (rows, columns) = self.shape(tile);
        for row in 0..rows {
            let target = (address + row * stride.unwrap_or(0)) as *mut u8;
            // SAFETY: what `tilestored` writes.
            unsafe { target.copy_from(self.data[tile][row].as_ptr(), columns) };
        }
    }

    /// `tdpbf16ps c, a, b`.
    fn multiply(&mut self, c: usize, a: usize, b: usize) {
        let ((c_rows, c_columns), (a_rows, a_columns), (b_rows, b_columns)) =
            (self.shape(c), self.shape(a), self.shape(b));
        if a == b || b == c || a == c || a_rows != c_rows || b_columns != c_columns || a_columns != 4 * b_rows
        {
            fault("operands whose shapes do not fit");
        }
        let half = |row: &[u8; ROW], index: usize| {
            bf16::from_le_bytes([row[2 * index], row[2 * index + 1]]).to_f32()
        };
        for m in 0..c_rows {
            for n in 0..c_columns / 4 {
                let mut sums = [0.0f32; 2];
                for k in 0..b_rows {
                    for (parity, sum) in sums.iter_mut().enumerate() {
                        let product =
                            (half(&self.data[a][m], 2 * k + parity), half(&self.data[b][k], 2 * n + parity));
                        *sum = product.0.mul_add(product.1, *sum);
                    }
                }
                let place = &mut self.data[c][m][4 * n..4 * n + 4];
                let before = f32::from_le_bytes(std::array::from_fn(|i| place[i]));
                place.copy_from_slice(&(before + (sums[0] + sums[1])).to_le_bytes());
            }
        }
    }
}
