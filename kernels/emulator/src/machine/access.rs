//! Loads, stores, atomic operations and `cp.async`: every access to memory, with its checks.

use super::Grid;
use super::block::Commons;
use super::collective::combine;
use super::memory::{BadAddress, Bytes};
use super::races::{Actor, Conflict, Use};
use super::warp::{Warp, lanes};
use crate::finding::{Fault, FindingKind};
use crate::ptx::{Atomic, Instruction, Op, Operand, Space, Type};
use half::{bf16, f16};
use std::collections::VecDeque;

/// Where generic addresses of shared memory begin; device memory lies above both windows.
const SHARED_WINDOW: u64 = 0x0100_0000_0000;
/// Where generic addresses of a thread's local memory begin.
const LOCAL_WINDOW: u64 = 0x0200_0000_0000;
const WINDOW_SIZE: u64 = 1 << 32;

/// What is added to an address in a space to make it generic.
pub(super) fn window(space: Space) -> u64 {
    match space {
        Space::Shared => SHARED_WINDOW,
        Space::Local => LOCAL_WINDOW,
        _ => 0,
    }
}

/// The space of a generic address.
pub(super) fn space_of(address: u64) -> Space {
    match address {
        SHARED_WINDOW..LOCAL_WINDOW if address - SHARED_WINDOW < WINDOW_SIZE => Space::Shared,
        LOCAL_WINDOW.. if address - LOCAL_WINDOW < WINDOW_SIZE => Space::Local,
        _ => Space::Global,
    }
}

/// One `cp.async`: bytes on their way to shared memory.
#[derive(Clone)]
struct Copy {
    to: usize,
    bytes: [u8; 16],
    size: usize,
}

/// What belongs to each lane alone: its local memory and its asynchronous copies.
pub(super) struct Local {
    frame: usize,
    bytes: Vec<u8>,
    written: Bytes,
    open: Vec<Vec<Copy>>,
    groups: Vec<VecDeque<Vec<Copy>>>,
    /// Copies and groups of them in `open` and `groups`, all lanes together.
    waiting: usize,
}

/// The most copies and groups of them that a warp can have under way: 16 bytes each are six times a block's shared memory.
const COPIES: usize = 1 << 16;

impl Local {
    pub fn new(frame: usize) -> Self {
        Local {
            frame,
            bytes: vec![0xff; 32 * frame],
            written: Bytes::none(32 * frame),
            open: vec![Vec::new(); 32],
            groups: vec![VecDeque::new(); 32],
            waiting: 0,
        }
    }

    /// Bytes of a thread.
    pub fn frame(&self) -> usize {
        self.frame
    }

    pub fn start(&mut self) {
        self.written.clear();
        self.open.iter_mut().for_each(Vec::clear);
        self.groups.iter_mut().for_each(VecDeque::clear);
        self.waiting = 0;
    }

    /// Room for one more copy or group of a lane.
    fn wait_for_one(&mut self, lane: usize) -> Result<(), Box<Fault>> {
        self.waiting += 1;
        if self.waiting <= COPIES {
            return Ok(());
        }
        let message = format!("more than {COPIES} `cp.async` and groups of them, which nothing waits for");
        Err(Fault::new(FindingKind::UnfinishedCopy, lane, message))
    }

    /// Closes the group of copies that the lanes have begun.
    pub fn commit(&mut self, mask: u32) -> Result<(), Box<Fault>> {
        for lane in lanes(mask) {
            self.wait_for_one(lane)?;
            let group = std::mem::take(&mut self.open[lane]);
            self.groups[lane].push_back(group);
        }
        Ok(())
    }
}

/// What an access does.
#[derive(Clone, Copy)]
enum Purpose<'a> {
    Read,
    /// The new bytes.
    Write(&'a [u8]),
    Atomic,
}

/// Who accesses memory.
struct Lane<'a> {
    warp: usize,
    lane: usize,
    local: &'a mut Local,
}

fn out_of_bounds(lane: usize, message: String) -> Box<Fault> {
    Fault::new(FindingKind::OutOfBounds, lane, message)
}

fn conflict(lane: usize, block: u32, space: &str, doing: &str, with: Conflict) -> Box<Fault> {
    let what = if with.was_write { "write" } else { "read" };
    let whose = if with.with.block() == block {
        format!("thread {} of this block", with.with.thread())
    } else {
        format!("thread {} of block number {}", with.with.thread(), with.with.block())
    };
    let message = format!(
        "race on {space} memory: a {doing} here and an earlier {what} by {whose}, with nothing between that orders them"
    );
    Fault::new(FindingKind::Race, lane, message)
}

/// The bytes at an address, after all checks.
fn touch<'m>(
    grid: &'m mut Grid,
    block: &'m mut Commons,
    who: Lane<'m>,
    space: Space,
    address: u64,
    size: usize,
    purpose: Purpose,
) -> Result<&'m mut [u8], Box<Fault>> {
    let Lane { warp, lane, local } = who;
    let (space, address) = match space {
        Space::Generic => {
            let space = space_of(address);
            (space, address.wrapping_sub(window(space)))
        }
        // A 32-bit register may hold these.
        Space::Shared | Space::Local => (space, address & 0xffff_ffff),
        _ => (space, address),
    };
    let doing = match purpose {
        Purpose::Read => "read",
        Purpose::Write(_) => "write",
        Purpose::Atomic => "read and write",
    };
    let used = |old: &[u8]| match purpose {
        Purpose::Read => Use::Read,
        Purpose::Write(new) => Use::Write(old == new),
        Purpose::Atomic => Use::Atomic,
    };
    if !address.is_multiple_of(size as u64) {
        let message = format!("{doing} of {size} bytes at {address:#x}, which is not a multiple of {size}");
        return Err(Fault::new(FindingKind::Misaligned, lane, message));
    }
    let writes = !matches!(purpose, Purpose::Read);
    let reads = !matches!(purpose, Purpose::Write(_));
    let unwritten = |what: &str| {
        Fault::new(
            FindingKind::Uninitialised,
            lane,
            format!("read of {size} bytes of {what} that nothing has written"),
        )
    };
    let actor = Actor {
        block: block.number,
        thread: (32 * warp + lane) as u32,
        seen: block.clocks.of(warp),
        releases: if block.acquired { &grid.releases } else { &[] },
    };
    match space {
        Space::Shared => {
            let (shared, start) = (&mut block.shared, address as usize);
            if start + size > shared.bytes.len() || !shared.valid.all(start, size) {
                let message = format!(
                    "{doing} of {size} bytes at offset {start} of {} bytes of shared memory, outside every variable",
                    shared.bytes.len()
                );
                return Err(out_of_bounds(lane, message));
            }
            if grid.checks.memory {
                if shared.in_flight.any(start, size) {
                    let message = format!(
                        "{doing} of shared memory at offset {start} while a `cp.async` to it is under way: wait for it first"
                    );
                    return Err(Fault::new(FindingKind::UnfinishedCopy, lane, message));
                }
                if reads && !shared.written.all(start, size) {
                    return Err(unwritten("shared memory"));
                }
                let used = used(&shared.bytes[start..start + size]);
                let noted = shared.shadow.note(start, size, block.block_generation, &actor, used);
                noted.map_err(|with| conflict(lane, block.number, "shared", doing, with))?;
                if writes {
                    shared.written.insert(start, size);
                }
            }
            Ok(&mut shared.bytes[start..start + size])
        }
        Space::Local => {
            let start = address as usize;
            if start + size > local.frame {
                return Err(out_of_bounds(
                    lane,
                    format!(
                        "{doing} of {size} bytes at offset {start} of {} bytes of local memory",
                        local.frame
                    ),
                ));
            }
            let start = lane * local.frame + start;
            if reads && grid.checks.memory && !local.written.all(start, size) {
                return Err(unwritten("local memory"));
            }
            if writes {
                local.written.insert(start, size);
            }
            Ok(&mut local.bytes[start..start + size])
        }
        _ => {
            let (buffer, start) = grid.memory.find(address, size).map_err(|bad| match bad {
                BadAddress::Nowhere(text) => {
                    out_of_bounds(lane, format!("{doing} outside of device memory: {text}"))
                }
                BadAddress::Freed(text) => {
                    Fault::new(FindingKind::UseAfterFree, lane, format!("{doing} of {text}"))
                }
            })?;
            if writes && buffer.constant {
                return Err(Fault::new(FindingKind::ReadOnly, lane, "write to constant memory".into()));
            }
            if grid.checks.memory {
                if reads && !buffer.is_written(start, size) {
                    return Err(unwritten("device memory"));
                }
                let used = used(&buffer.bytes()[start..start + size]);
                let noted = buffer.shadow.note(start, size, block.launch_generation, &actor, used);
                noted.map_err(|with| conflict(lane, block.number, "device", doing, with))?;
            }
            if writes {
                buffer.mark_written(start, size);
            }
            Ok(&mut buffer.bytes_mut()[start..start + size])
        }
    }
}

/// A row of 16 bytes of shared memory, for `ldmatrix`.
pub(super) fn shared_row(
    warp: &mut Warp,
    grid: &mut Grid,
    block: &mut Commons,
    lane: usize,
    address: u64,
) -> Result<[u8; 16], Box<Fault>> {
    let who = Lane { warp: warp.number, lane, local: &mut warp.local };
    let row = touch(grid, block, who, Space::Shared, address, 16, Purpose::Read)?;
    Ok(row.try_into().expect("internal: 16 bytes were asked for"))
}

/// A little-endian number of up to 8 bytes; signed types keep their sign in all 64 bits.
fn number(bytes: &[u8], ty: Type) -> u64 {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let value = u64::from_le_bytes(wide);
    if ty.is_signed() {
        let unused = 64 - 8 * bytes.len() as u32;
        return ((value << unused) as i64 >> unused) as u64;
    }
    value
}

/// The operands of a load or store that hold values: one, or the parts of a vector.
fn parts(operand: &Operand) -> &[Operand] {
    match operand {
        Operand::Vector(parts) => parts,
        one => std::slice::from_ref(one),
    }
}

/// `ld`, `st`, `atom`, `red`, `cp.async`, and the copies between frames of inlined calls.
pub(super) fn execute(
    warp: &mut Warp,
    grid: &mut Grid,
    block: &mut Commons,
    instruction: &Instruction,
    mask: u32,
) -> Result<(), Box<Fault>> {
    let operands = &instruction.operands[..];
    let value = |warp: &Warp, grid: &Grid, block: &Commons, operand: &Operand| {
        let mut scratch = [0; 32];
        *warp.read(operand, &mut scratch, Some((grid, block)))
    };
    match instruction.op {
        Op::Load(Space::Param, ty, count) => {
            let addresses = value(warp, grid, block, &operands[1]);
            let (size, params) = (ty.size() * count, &grid.launch.params);
            let mut out = [[0; 32]; 4];
            for lane in lanes(mask) {
                let start = addresses[lane] as usize;
                let Some(bytes) = params.get(start..start.saturating_add(size)) else {
                    let message = format!("{size} bytes at offset {start} of {} of arguments", params.len());
                    return Err(out_of_bounds(lane, message));
                };
                for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact(ty.size())) {
                    out[lane] = number(bytes, ty);
                }
            }
            for (to, out) in parts(&operands[0]).iter().zip(&out) {
                warp.write(to, mask, out);
            }
        }
        Op::Load(space, ty, count) => {
            let addresses = value(warp, grid, block, &operands[1]);
            let mut out = [[0; 32]; 4];
            for lane in lanes(mask) {
                let who = Lane { warp: warp.number, lane, local: &mut warp.local };
                let bytes =
                    touch(grid, block, who, space, addresses[lane], ty.size() * count, Purpose::Read)?;
                for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact(ty.size())) {
                    out[lane] = number(bytes, ty);
                }
            }
            for (to, out) in parts(&operands[0]).iter().zip(&out) {
                warp.write(to, mask, out);
            }
        }
        Op::Store(space, ty, count) => {
            let addresses = value(warp, grid, block, &operands[0]);
            let mut from = [[0; 32]; 4];
            for (from, operand) in from.iter_mut().zip(parts(&operands[1])) {
                *from = value(warp, grid, block, operand);
            }
            for lane in lanes(mask) {
                let mut new = [0; 32];
                let size = ty.size();
                for (i, from) in from[..count].iter().enumerate() {
                    new[i * size..(i + 1) * size].copy_from_slice(&from[lane].to_le_bytes()[..size]);
                }
                let new = &new[..size * count];
                let who = Lane { warp: warp.number, lane, local: &mut warp.local };
                touch(grid, block, who, space, addresses[lane], new.len(), Purpose::Write(new))?
                    .copy_from_slice(new);
            }
        }
        Op::Atomic { space, ty, kind, returns } => {
            let rest = &operands[usize::from(returns)..];
            let addresses = value(warp, grid, block, &rest[0]);
            let (first, second) =
                (value(warp, grid, block, &rest[1]), rest.get(2).map(|o| value(warp, grid, block, o)));
            let mut old = [0; 32];
            for lane in lanes(mask) {
                block.acquired = true;
                if warp.fenced >> lane & 1 == 1 {
                    let number = block.number as usize;
                    if grid.releases.len() <= number {
                        grid.releases.resize(number + 1, None);
                    }
                    let release = block.clocks.release((32 * warp.number + lane) as u32);
                    grid.releases[number] = Some(Box::new(release));
                }
                let who = Lane { warp: warp.number, lane, local: &mut warp.local };
                let bytes = touch(grid, block, who, space, addresses[lane], ty.size(), Purpose::Atomic)?;
                old[lane] = number(bytes, ty);
                let new = match second {
                    Some(new) if kind == Atomic::CompareAndSwap => {
                        let bits = u64::MAX >> (64 - 8 * ty.size());
                        if (old[lane] ^ first[lane]) & bits == 0 { new[lane] } else { old[lane] }
                    }
                    _ => atomic(kind, ty, old[lane], first[lane]),
                };
                bytes.copy_from_slice(&new.to_le_bytes()[..ty.size()]);
            }
            warp.fenced &= !mask;
            if returns {
                warp.write(&operands[0], mask, &old);
            }
        }
        Op::CopyLocal(size) => {
            let (to, from) = (value(warp, grid, block, &operands[0]), value(warp, grid, block, &operands[1]));
            for lane in lanes(mask) {
                let base = lane * warp.local.frame;
                let (to, from) = (base + to[lane] as usize, base + from[lane] as usize);
                warp.local.bytes.copy_within(from..from + size, to);
                warp.local.written.insert(to, size);
            }
        }
        Op::CopyAsync => {
            let (to, from) = (value(warp, grid, block, &operands[0]), value(warp, grid, block, &operands[1]));
            let sizes = value(warp, grid, block, &operands[2]);
            let read = operands.get(3).map_or(sizes, |operand| value(warp, grid, block, operand));
            for lane in lanes(mask) {
                let (size, read) = (sizes[lane] as usize, read[lane] as u32 as usize);
                if !matches!(size, 4 | 8 | 16) || read > size {
                    return Err(out_of_bounds(lane, format!("`cp.async` of {read} of {size} bytes")));
                }
                copy_async(warp, grid, block, lane, to[lane] & 0xffff_ffff, from[lane], size, read)?;
            }
        }
        _ => unreachable!("internal: not an access to memory"),
    }
    Ok(())
}

/// The new value of an atomic operation.
fn atomic(kind: Atomic, ty: Type, old: u64, value: u64) -> u64 {
    let pair = |f: fn(u16, u16) -> u16| {
        let half = |shift: u32| u64::from(f((old >> shift) as u16, (value >> shift) as u16)) << shift;
        half(0) | half(16)
    };
    let add_f16 = |a: u16, b: u16| (f16::from_bits(a) + f16::from_bits(b)).to_bits();
    let add_bf16 = |a: u16, b: u16| (bf16::from_bits(a) + bf16::from_bits(b)).to_bits();
    match (kind, ty) {
        (Atomic::Add, Type::F32) => {
            (f32::from_bits(old as u32) + f32::from_bits(value as u32)).to_bits().into()
        }
        (Atomic::Add, Type::F64) => (f64::from_bits(old) + f64::from_bits(value)).to_bits(),
        (Atomic::Add, Type::F16) => add_f16(old as u16, value as u16).into(),
        (Atomic::Add, Type::BF16) => add_bf16(old as u16, value as u16).into(),
        (Atomic::Add, Type::F16x2) => pair(add_f16),
        (Atomic::Add, Type::BF16x2) => pair(add_bf16),
        _ => combine(kind, ty, old, value),
    }
}

/// Begins a copy of `read` bytes, the rest zeros. The source is read now; the target is not to be touched until the wait, and
/// the write is noted now and then, because it may happen at any time between.
fn copy_async(
    warp: &mut Warp,
    grid: &mut Grid,
    block: &mut Commons,
    lane: usize,
    to: u64,
    from: u64,
    size: usize,
    read: usize,
) -> Result<(), Box<Fault>> {
    let mut bytes = [0; 16];
    let number = warp.number;
    if read > 0 {
        // The whole chunk must be aligned, though only a part may be read.
        if !from.is_multiple_of(size as u64) {
            let message =
                format!("`cp.async` of {size} bytes from {from:#x}, which is not a multiple of {size}");
            return Err(Fault::new(FindingKind::Misaligned, lane, message));
        }
        let mut at = 0;
        while at < read {
            // Pieces of a power of two.
            let piece = 1 << (read - at).ilog2();
            let who = Lane { warp: number, lane, local: &mut warp.local };
            let source = touch(grid, block, who, Space::Global, from + at as u64, piece, Purpose::Read)?;
            bytes[at..at + piece].copy_from_slice(source);
            at += piece;
        }
    }
    let who = Lane { warp: number, lane, local: &mut warp.local };
    touch(grid, block, who, Space::Shared, to, size, Purpose::Write(&bytes[..size]))?;
    let to = to as usize;
    block.shared.in_flight.insert(to, size);
    warp.local.wait_for_one(lane)?;
    warp.local.open[lane].push(Copy { to, bytes, size });
    Ok(())
}

/// `cp.async.wait_group N`: all but the latest N groups arrive; without an operand, everything.
pub(super) fn wait(
    warp: &mut Warp,
    grid: &mut Grid,
    block: &mut Commons,
    instruction: &Instruction,
    mask: u32,
) -> Result<(), Box<Fault>> {
    let keep = match instruction.operands.first() {
        Some(Operand::Immediate(groups)) => Some(*groups as usize),
        _ => None,
    };
    for lane in lanes(mask) {
        if keep.is_none() {
            warp.local.commit(1 << lane)?;
        }
        while warp.local.groups[lane].len() > keep.unwrap_or(0) {
            let copies = warp.local.groups[lane].pop_front().unwrap_or_default();
            warp.local.waiting -= copies.len() + 1;
            for copy in copies {
                block.shared.in_flight.remove(copy.to, copy.size);
                let new = &copy.bytes[..copy.size];
                let who = Lane { warp: warp.number, lane, local: &mut warp.local };
                touch(grid, block, who, Space::Shared, copy.to as u64, copy.size, Purpose::Write(new))?
                    .copy_from_slice(new);
            }
        }
    }
    Ok(())
}
