//! The C functions, as `cublasLt.h` declares them; those that Vitrine's wrapper calls.

#![allow(non_snake_case, clippy::missing_safety_doc)]

use half::bf16;
use libloading::os::unix::Library;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

type Handle = *mut c_void;

/// A `cublasStatus_t` other than success.
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
enum Status {
    InvalidValue = 7,
    ExecutionFailed = 13,
    NotSupported = 15,
}

type Outcome<T = ()> = Result<T, Status>;

fn report(outcome: Outcome) -> c_int {
    outcome.map_or_else(|status| status as c_int, |()| 0)
}

/// Element types, by `cudaDataType_t`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    F32,
    Bf16,
}

impl Type {
    fn new(number: c_int) -> Outcome<Self> {
        match number {
            0 => Ok(Type::F32),
            14 => Ok(Type::Bf16),
            _ => Err(Status::NotSupported),
        }
    }

    fn size(self) -> usize {
        if self == Type::F32 { 4 } else { 2 }
    }

    fn read(self, bytes: &[u8]) -> f32 {
        match self {
            Type::F32 => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            Type::Bf16 => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        }
    }

    fn write(self, value: f32, bytes: &mut [u8]) {
        match self {
            Type::F32 => bytes.copy_from_slice(&value.to_le_bytes()),
            Type::Bf16 => bytes.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
        }
    }
}

/// What is done beside a product.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Epilogue {
    #[default]
    Nothing,
    /// A number for each row of D is added.
    Bias,
    /// The sums of the columns of op(B) are written, in D's type.
    BiasGradientB,
}

/// A product's settings.
#[derive(Default)]
struct Descriptor {
    transposed: [bool; 2],
    epilogue: Epilogue,
    bias: u64,
}

/// Columns of neighbours, `stride` elements apart.
#[derive(Clone, Copy)]
struct Layout {
    ty: Type,
    rows: usize,
    columns: usize,
    stride: usize,
}

impl Layout {
    /// Bytes from the first to the last element.
    fn span(&self) -> usize {
        ((self.columns - 1) * self.stride + self.rows) * self.ty.size()
    }

    fn at(&self, row: usize, column: usize) -> usize {
        (column * self.stride + row) * self.ty.size()
    }
}

type Copy = unsafe extern "C" fn(u64, u64, usize, *mut c_void) -> c_int;

/// The emulated driver's copies, on a stream: to the device, to the host; and whether a stream is captured.
struct Driver {
    to_device: Copy,
    to_host: Copy,
    is_capturing: unsafe extern "C" fn(*mut c_void, *mut c_int) -> c_int,
    _library: Library,
}

fn driver() -> Outcome<&'static Driver> {
    static DRIVER: OnceLock<Option<Driver>> = OnceLock::new();
    let driver = DRIVER.get_or_init(|| {
        // SAFETY: the library is loaded already, or is the driver of a machine; the types are those of cuda.h, in which
        // host pointers are as wide as device addresses.
        unsafe {
            let library = Library::new("libcuda.so").ok()?;
            Some(Driver {
                to_device: *library.get(b"cuMemcpyHtoDAsync_v2\0").ok()?,
                to_host: *library.get(b"cuMemcpyDtoHAsync_v2\0").ok()?,
                is_capturing: *library.get(b"cuStreamIsCapturing\0").ok()?,
                _library: library,
            })
        }
    });
    driver.as_ref().ok_or(Status::ExecutionFailed)
}

fn read(address: u64, len: usize, stream: *mut c_void) -> Outcome<Vec<u8>> {
    let mut bytes = vec![0u8; len];
    // SAFETY: there is room for the bytes, and the emulated driver is done when it returns.
    let status = unsafe { (driver()?.to_host)(bytes.as_mut_ptr() as u64, address, len, stream) };
    if status == 0 { Ok(bytes) } else { Err(Status::ExecutionFailed) }
}

fn write(address: u64, bytes: &[u8], stream: *mut c_void) -> Outcome {
    // SAFETY: the bytes are readable, and the emulated driver is done when it returns.
    let status = unsafe { (driver()?.to_device)(address, bytes.as_ptr() as u64, bytes.len(), stream) };
    if status == 0 { Ok(()) } else { Err(Status::ExecutionFailed) }
}

/// Gives the caller an object of its own.
///
/// # Safety
/// `out` is null or has room for a handle.
unsafe fn give<T>(out: *mut Handle, value: T) -> Outcome {
    if out.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: promised by the caller.
    unsafe { out.write(Box::into_raw(Box::new(value)).cast()) };
    Ok(())
}

/// An object that [`give`] gave.
///
/// # Safety
/// The handle is null or of such an object of this type, which nobody else uses now.
unsafe fn object<'a, T>(handle: Handle) -> Outcome<&'a mut T> {
    // SAFETY: promised by the caller.
    unsafe { handle.cast::<T>().as_mut() }.ok_or(Status::InvalidValue)
}

/// An attribute's value.
///
/// # Safety
/// `value` has `size` readable bytes.
unsafe fn attribute<const N: usize>(value: *const c_void, size: usize) -> Outcome<[u8; N]> {
    if size != N || value.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: promised by the caller, and as many as the array has.
    Ok(unsafe { value.cast::<[u8; N]>().read_unaligned() })
}

static SEARCHES: AtomicU64 = AtomicU64::new(0);

/// How often an algorithm was searched for.
#[unsafe(no_mangle)]
pub extern "C" fn vitrine_emulator_cublaslt_searches() -> u64 {
    SEARCHES.load(Ordering::Relaxed)
}

macro_rules! api {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $ty:ty),* $(,)?) $body:block)*) => { $(
        $(#[$doc])*
        ///
        /// # Safety
        /// Pointers are what `cublasLt.h` says of them.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $ty),*) -> c_int {
            // Not every body does something unsafe.
            #[allow(unused_unsafe)]
            // SAFETY: promised by the caller.
            let run = || -> Outcome { unsafe { $body } };
            report(run())
        }
    )* };
}

api! {
    /// A handle, which holds nothing.
    fn cublasLtCreate(handle: *mut Handle) { give(handle, ()) }
    /// A product with f32 sums.
    fn cublasLtMatmulDescCreate(descriptor: *mut Handle, compute: c_int, scale: c_int) {
        if (compute, scale) != (68, 0) {
            return Err(Status::NotSupported);
        }
        give(descriptor, Descriptor::default())
    }
    /// Transposition of A and B, the epilogue, the bias.
    fn cublasLtMatmulDescSetAttribute(descriptor: Handle, which: c_int, value: *const c_void, size: usize) {
        let descriptor: &mut Descriptor = object(descriptor)?;
        match which {
            3 | 4 => match i32::from_ne_bytes(attribute(value, size)?) {
                operation @ (0 | 1) => descriptor.transposed[which as usize - 3] = operation == 1,
                _ => return Err(Status::NotSupported),
            },
            7 => match i32::from_ne_bytes(attribute(value, size)?) {
                1 => descriptor.epilogue = Epilogue::Nothing,
                4 => descriptor.epilogue = Epilogue::Bias,
                512 => descriptor.epilogue = Epilogue::BiasGradientB,
                _ => return Err(Status::NotSupported),
            },
            8 => descriptor.bias = u64::from_ne_bytes(attribute(value, size)?),
            _ => return Err(Status::NotSupported),
        }
        Ok(())
    }
    /// A matrix of columns of neighbours.
    fn cublasLtMatrixLayoutCreate(layout: *mut Handle, ty: c_int, rows: u64, columns: u64, stride: i64) {
        if rows == 0 || columns == 0 || stride < rows as i64 {
            return Err(Status::InvalidValue);
        }
        let (rows, columns, stride) = (rows as usize, columns as usize, stride as usize);
        give(layout, Layout { ty: Type::new(ty)?, rows, columns, stride })
    }
    /// Preferences, which change nothing.
    fn cublasLtMatmulPreferenceCreate(preference: *mut Handle) { give(preference, ()) }
    /// The workspace and the alignments.
    fn cublasLtMatmulPreferenceSetAttribute(_preference: Handle, which: c_int, _value: *const c_void, _size: usize) {
        if matches!(which, 1 | 5..=8) { Ok(()) } else { Err(Status::NotSupported) }
    }
    /// The one algorithm.
    fn cublasLtMatmulAlgoGetHeuristic(
        _handle: Handle, descriptor: Handle, a: Handle, b: Handle, c: Handle, d: Handle, _preference: Handle,
        requested: c_int, results: *mut [u64; 12], returned: *mut c_int,
    ) {
        if requested < 1 || results.is_null() || returned.is_null() {
            return Err(Status::InvalidValue);
        }
        SEARCHES.fetch_add(1, Ordering::Relaxed);
        Sizes::new(object(descriptor)?, object(a)?, object(b)?, object(c)?, object(d)?)?;
        // The algorithm, no workspace, success.
        results.write([0; 12]);
        returned.write(1);
        Ok(())
    }
    /// `D = op(A) op(B) (+ C) (+ bias)`.
    fn cublasLtMatmul(
        _handle: Handle, descriptor: Handle, alpha: *const f32, a: u64, a_layout: Handle, b: u64, b_layout: Handle,
        beta: *const f32, c: u64, c_layout: Handle, d: u64, d_layout: Handle, _algorithm: *const c_void,
        _workspace: *mut c_void, _workspace_size: usize, stream: *mut c_void,
    ) {
        let mut capturing = 0;
        (driver()?.is_capturing)(stream, &raw mut capturing);
        let c = match beta.read() {
            0.0 => None,
            1.0 => Some(c),
            _ => return Err(Status::NotSupported),
        };
        if capturing != 0 || alpha.read() != 1.0 {
            return Err(Status::NotSupported);
        }
        let descriptor: &Descriptor = object(descriptor)?;
        let (a_layout, b_layout): (&Layout, &Layout) = (object(a_layout)?, object(b_layout)?);
        let (c_layout, d_layout): (&Layout, &Layout) = (object(c_layout)?, object(d_layout)?);
        let sizes = Sizes::new(descriptor, a_layout, b_layout, c_layout, d_layout)?;
        multiply(descriptor, sizes, (a, a_layout), (b, b_layout), c.map(|c| (c, c_layout)), (d, d_layout), stream)
    }
}

/// M, N, K of `op(A) [M, K]` and `op(B) [K, N]`.
#[derive(Clone, Copy)]
struct Sizes {
    m: usize,
    n: usize,
    k: usize,
}

impl Sizes {
    fn new(descriptor: &Descriptor, a: &Layout, b: &Layout, c: &Layout, d: &Layout) -> Outcome<Self> {
        let sides = |layout: &Layout, transposed: bool| {
            if transposed { (layout.columns, layout.rows) } else { (layout.rows, layout.columns) }
        };
        let ((m, k), (b_rows, n)) = (sides(a, descriptor.transposed[0]), sides(b, descriptor.transposed[1]));
        if b_rows != k || (d.rows, d.columns) != (m, n) || (c.rows, c.columns) != (m, n) {
            return Err(Status::InvalidValue);
        }
        // As the table of supported types says: F32 stays F32, BF16 gives either.
        if a.ty != b.ty || c.ty != d.ty || (a.ty == Type::F32 && d.ty != Type::F32) {
            return Err(Status::NotSupported);
        }
        Ok(Sizes { m, n, k })
    }
}

fn multiply(
    descriptor: &Descriptor,
    Sizes { m, n, k }: Sizes,
    (a, a_layout): (u64, &Layout),
    (b, b_layout): (u64, &Layout),
    c: Option<(u64, &Layout)>,
    (d, d_layout): (u64, &Layout),
    stream: *mut c_void,
) -> Outcome {
    let load = |address: u64, layout: &Layout, transposed: bool, rows: usize, columns: usize| {
        let bytes = read(address, layout.span(), stream)?;
        let element = |i: usize| {
            let (row, column) = (i % rows, i / rows);
            let at = if transposed { layout.at(column, row) } else { layout.at(row, column) };
            layout.ty.read(&bytes[at..])
        };
        Ok((0..rows * columns).map(element).collect::<Vec<f32>>())
    };
    let left = load(a, a_layout, descriptor.transposed[0], m, k)?;
    let right = load(b, b_layout, descriptor.transposed[1], k, n)?;
    let added = c.map(|(c, layout)| load(c, layout, false, m, n)).transpose()?;
    let biased = descriptor.epilogue == Epilogue::Bias;
    let bias = if biased { read(descriptor.bias, m * d_layout.ty.size(), stream)? } else { Vec::new() };
    if descriptor.epilogue == Epilogue::BiasGradientB {
        let mut bytes = vec![0; n * d_layout.ty.size()];
        for (column, out) in right.chunks_exact(k).zip(bytes.chunks_exact_mut(d_layout.ty.size())) {
            d_layout.ty.write(column.iter().sum(), out);
        }
        write(descriptor.bias, &bytes, stream)?;
    }
    for column in 0..n {
        let mut sums = vec![0f32; m];
        for (x, left) in right[column * k..].iter().zip(left.chunks_exact(m)).take(k) {
            sums.iter_mut().zip(left).for_each(|(sum, y)| *sum += x * y);
        }
        let mut bytes = vec![0; m * d_layout.ty.size()];
        for (row, (sum, out)) in sums.iter().zip(bytes.chunks_exact_mut(d_layout.ty.size())).enumerate() {
            let at = row * d_layout.ty.size();
            let bias = if biased { d_layout.ty.read(&bias[at..]) } else { 0.0 };
            let added = added.as_ref().map_or(0.0, |added| added[column * m + row]);
            d_layout.ty.write(sum + added + bias, out);
        }
        write(d + d_layout.at(0, column) as u64, &bytes, stream)?;
    }
    Ok(())
}
