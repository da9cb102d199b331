//! NVIDIA's matrix product, where its library is installed: `cublasLtMatmul`, with what is searched and described kept per
//! shape.
//!
//! cudarc's safe wrapper makes F32 products TF32 and searches on every call; so this opens the library itself, under each
//! of its names. F32 products are exact (`CUBLAS_COMPUTE_32F`), bfloat16 ones accumulate in F32. The library's own GELU is
//! the tanh form, so activations stay with our kernels. [`VARIABLE`] leaves the library closed.
//!
//! cuBLASLt's matrices are columns of neighbours. A row-major C = A B is, read that way, C^T = B^T A^T: the operands change
//! places, and one that lies in rows is used as it is.

use super::context::Context;
use super::memory::Block;
use crate::{DType, Error, Result, Tensor};
use libloading::Library;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::{Mutex, PoisonError};

/// The environment variable that says who multiplies matrices.
const VARIABLE: &str = "VITRINE_GEMM";

/// The library's names, newest first after the plain one.
pub const CUBLASLT_NAMES: [&str; 3] = ["libcublasLt.so", "libcublasLt.so.13", "libcublasLt.so.12"];

/// Most bytes of scratch memory that an algorithm may ask for.
const WORKSPACE: usize = 32 << 20;

type Handle = *mut c_void;
type Status = c_int;

// Values of cublasLt.h and library_types.h, CUDA 12 and 13.
const SUCCESS: Status = 0;
const COMPUTE_32F: c_int = 68;
const R_32F: c_int = 0;
const R_16BF: c_int = 14;
const OP_N: c_int = 0;
const OP_T: c_int = 1;
const DESC_TRANSA: c_int = 3;
const DESC_TRANSB: c_int = 4;
const DESC_EPILOGUE: c_int = 7;
const DESC_BIAS_POINTER: c_int = 8;
const PREFERENCE_MAX_WORKSPACE_BYTES: c_int = 1;
/// Of A, B, C, D.
const PREFERENCE_MIN_ALIGNMENTS: [c_int; 4] = [5, 6, 7, 8];
const EPILOGUE_BIAS: c_int = 4;
/// The sums of the columns of the right operand beside the product: the gradient of a bias beside that of a weight.
const EPILOGUE_BGRADB: c_int = 512;

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Heuristic {
    algorithm: [u64; 8],
    workspace: usize,
    state: Status,
    waves: f32,
    reserved: [c_int; 4],
}

type SetAttribute = unsafe extern "C" fn(Handle, c_int, *const c_void, usize) -> Status;
type Search = unsafe extern "C" fn(
    Handle,
    Handle,
    Handle,
    Handle,
    Handle,
    Handle,
    Handle,
    c_int,
    *mut Heuristic,
    *mut c_int,
) -> Status;
type Matmul = unsafe extern "C" fn(
    Handle,
    Handle,
    *const c_void,
    *const c_void,
    Handle,
    *const c_void,
    Handle,
    *const c_void,
    *const c_void,
    Handle,
    *mut c_void,
    Handle,
    *const [u64; 8],
    *mut c_void,
    usize,
    *mut c_void,
) -> Status;

/// The functions that are used.
struct Functions {
    descriptor: unsafe extern "C" fn(*mut Handle, c_int, c_int) -> Status,
    set_descriptor: SetAttribute,
    layout: unsafe extern "C" fn(*mut Handle, c_int, u64, u64, i64) -> Status,
    preference: unsafe extern "C" fn(*mut Handle) -> Status,
    set_preference: SetAttribute,
    search: Search,
    matmul: Matmul,
    _library: Library,
}

/// How an operand lies in memory: rows (or columns) of neighbours, this many elements apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Order {
    Rows(usize),
    Columns(usize),
}

impl Order {
    /// The order of a matrix, if it has one.
    pub fn of(x: &Tensor) -> Option<Self> {
        match *x.strides() {
            [row, 1] => Some(Order::Rows(row.max(x.dims()[1]))),
            [1, column] => Some(Order::Columns(column.max(x.dims()[0]))),
            _ => None,
        }
    }

    fn operation(self) -> c_int {
        match self {
            Order::Rows(_) => OP_N,
            Order::Columns(_) => OP_T,
        }
    }
}

/// What a product's description depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    sizes: [usize; 3],
    a: Order,
    b: Order,
    input: DType,
    output: DType,
    epilogue: Option<c_int>,
    /// Of a, b, and c with d, bytes: algorithms expect 256 unless they are told.
    alignments: [u32; 3],
}

/// What is done beside a product.
#[derive(Clone, Copy)]
pub(crate) enum Beside<'a> {
    Nothing,
    /// A bias, of the result's dtype, is added to every row.
    Bias(&'a Tensor),
    /// This, like the result, is added to it.
    SoFar(&'a Tensor),
    /// The sums of a's rows are written here, in the result's dtype: for `a = dy^T`, the gradient of the bias.
    RowSums(&'a Tensor),
}

impl Beside<'_> {
    fn epilogue(self) -> Option<c_int> {
        match self {
            Beside::Nothing | Beside::SoFar(_) => None,
            Beside::Bias(_) => Some(EPILOGUE_BIAS),
            // The operands change places: our left one is the library's right one.
            Beside::RowSums(_) => Some(EPILOGUE_BGRADB),
        }
    }

    /// Of the epilogue's vector.
    fn address(self) -> Option<u64> {
        match self {
            Beside::Nothing | Beside::SoFar(_) => None,
            Beside::Bias(vector) | Beside::RowSums(vector) => Some(vector.device_address()),
        }
    }
}

/// The description of a product, and the algorithm for it. Kept for the life of the process.
#[derive(Clone, Copy)]
struct Plan {
    descriptor: Handle,
    a: Handle,
    b: Handle,
    c: Handle,
    algorithm: [u64; 8],
    workspace: usize,
}

/// The library, opened for one device.
pub(crate) struct CublasLt {
    functions: Functions,
    handle: Handle,
    /// `None` for what the library has no algorithm for.
    plans: Mutex<HashMap<Key, Option<Plan>>>,
}

// SAFETY: a handle may be used from any thread; descriptors are changed only under the lock of the plans.
unsafe impl Send for CublasLt {}
// SAFETY: as above.
unsafe impl Sync for CublasLt {}

/// Whether `VITRINE_GEMM=own` asks for Vitrine's own kernels also where cuBLASLt is installed. Absent or empty, it does not.
///
/// # Errors
/// `InvalidArgument` for another value.
pub fn own_products() -> Result<bool> {
    let value = std::env::var_os(VARIABLE).unwrap_or_default();
    match value.to_str() {
        Some("") => Ok(false),
        Some("own") => Ok(true),
        _ => {
            let (expected, got) = ("`own` or absent", value.to_string_lossy().into_owned());
            Err(Error::InvalidArgument { op: "cuda", name: VARIABLE, expected, got })
        }
    }
}

/// A status other than success is "no": the caller has a kernel of its own.
fn ok(status: Status) -> Option<()> {
    (status == SUCCESS).then_some(())
}

impl CublasLt {
    /// Opens the library for the current context; `None` where it is missing or not wanted.
    pub fn open() -> Result<Option<Self>> {
        Ok(if own_products()? { None } else { Self::find() })
    }

    fn find() -> Option<Self> {
        // SAFETY: NVIDIA's library has no initialisers that do anything harmful.
        let library = CUBLASLT_NAMES.iter().find_map(|name| unsafe { Library::new(*name) }.ok())?;
        // SAFETY: the types are those of cublasLt.h; the pointers live as long as the library, which is kept beside them.
        unsafe {
            let create: unsafe extern "C" fn(*mut Handle) -> Status =
                *library.get(b"cublasLtCreate\0").ok()?;
            let functions = Functions {
                descriptor: *library.get(b"cublasLtMatmulDescCreate\0").ok()?,
                set_descriptor: *library.get(b"cublasLtMatmulDescSetAttribute\0").ok()?,
                layout: *library.get(b"cublasLtMatrixLayoutCreate\0").ok()?,
                preference: *library.get(b"cublasLtMatmulPreferenceCreate\0").ok()?,
                set_preference: *library.get(b"cublasLtMatmulPreferenceSetAttribute\0").ok()?,
                search: *library.get(b"cublasLtMatmulAlgoGetHeuristic\0").ok()?,
                matmul: *library.get(b"cublasLtMatmul\0").ok()?,
                _library: library,
            };
            let mut handle = std::ptr::null_mut();
            ok(create(&raw mut handle))?;
            Some(CublasLt { functions, handle, plans: Mutex::default() })
        }
    }

    fn layout(&self, dtype: DType, rows: usize, columns: usize, stride: usize) -> Option<Handle> {
        let kind = if dtype == DType::F32 { R_32F } else { R_16BF };
        let mut layout = std::ptr::null_mut();
        // SAFETY: there is room for the handle.
        ok(unsafe {
            (self.functions.layout)(&raw mut layout, kind, rows as u64, columns as u64, stride as i64)
        })?;
        Some(layout)
    }

    /// An operand of `rows x columns`, as the columns of neighbours that the library sees.
    fn operand(&self, dtype: DType, rows: usize, columns: usize, order: Order) -> Option<Handle> {
        match order {
            Order::Rows(stride) => self.layout(dtype, columns, rows, stride),
            Order::Columns(stride) => self.layout(dtype, rows, columns, stride),
        }
    }

    /// The vector of a product's epilogue.
    fn set_vector(&self, descriptor: Handle, address: u64) -> Option<()> {
        let pointer = address.to_ne_bytes();
        // SAFETY: the descriptor is alive, and only this thread changes it: it is new, or the plans are locked.
        ok(unsafe {
            (self.functions.set_descriptor)(
                descriptor,
                DESC_BIAS_POINTER,
                pointer.as_ptr().cast(),
                pointer.len(),
            )
        })
    }

    /// Describes a product and searches for its algorithm; the epilogue's vector is set before, for a library that looks at it.
    fn plan(&self, key: Key, vector: Option<u64>) -> Option<Plan> {
        let [m, n, k] = key.sizes;
        let set = |function: SetAttribute, object: Handle, attribute: c_int, value: &[u8]| {
            // SAFETY: the object was just made, and the value has the attribute's size.
            ok(unsafe { function(object, attribute, value.as_ptr().cast(), value.len()) })
        };
        let mut descriptor = std::ptr::null_mut();
        // SAFETY: there is room for the handle.
        ok(unsafe { (self.functions.descriptor)(&raw mut descriptor, COMPUTE_32F, R_32F) })?;
        // The operands change places; see the head of the file.
        set(self.functions.set_descriptor, descriptor, DESC_TRANSA, &key.b.operation().to_ne_bytes())?;
        set(self.functions.set_descriptor, descriptor, DESC_TRANSB, &key.a.operation().to_ne_bytes())?;
        if let Some(epilogue) = key.epilogue {
            set(self.functions.set_descriptor, descriptor, DESC_EPILOGUE, &epilogue.to_ne_bytes())?;
        }
        if let Some(address) = vector {
            self.set_vector(descriptor, address)?;
        }
        let a = self.operand(key.input, m, k, key.a)?;
        let b = self.operand(key.input, k, n, key.b)?;
        let c = self.layout(key.output, n, m, n)?;
        let mut preference = std::ptr::null_mut();
        // SAFETY: there is room for the handle.
        ok(unsafe { (self.functions.preference)(&raw mut preference) })?;
        let limit = WORKSPACE.to_ne_bytes();
        set(self.functions.set_preference, preference, PREFERENCE_MAX_WORKSPACE_BYTES, &limit)?;
        let [a_alignment, b_alignment, c_alignment] = key.alignments;
        let alignments = [b_alignment, a_alignment, c_alignment, c_alignment];
        for (attribute, alignment) in PREFERENCE_MIN_ALIGNMENTS.into_iter().zip(alignments) {
            set(self.functions.set_preference, preference, attribute, &alignment.to_ne_bytes())?;
        }
        let mut found = Heuristic { algorithm: [0; 8], workspace: 0, state: 0, waves: 0.0, reserved: [0; 4] };
        let mut count = 0;
        // SAFETY: all objects were made above, and there is room for one result.
        let status = unsafe {
            (self.functions.search)(
                self.handle,
                descriptor,
                b,
                a,
                c,
                c,
                preference,
                1,
                &raw mut found,
                &raw mut count,
            )
        };
        ok(status)?;
        let usable = count == 1 && found.state == SUCCESS;
        usable.then_some(Plan { descriptor, a, b, c, algorithm: found.algorithm, workspace: found.workspace })
    }

    /// `d = a b` for matrices of one dtype, with what is done beside it. `None`: the library cannot, or does not want to.
    pub fn product(
        &self,
        context: &std::sync::Arc<Context>,
        a: &Tensor,
        b: &Tensor,
        beside: Beside<'_>,
        d: &mut Tensor,
    ) -> Option<()> {
        let sizes = [a.dims()[0], b.dims()[1], a.dims()[1]];
        // What is not added is not read.
        let (c, factor) = if let Beside::SoFar(c) = beside { (c, 1.0f32) } else { (&*d, 0.0) };
        let key = Key {
            sizes,
            a: Order::of(a)?,
            b: Order::of(b)?,
            input: a.dtype(),
            output: d.dtype(),
            epilogue: beside.epilogue(),
            alignments: [a.device_address(), b.device_address(), c.device_address() | d.device_address()]
                .map(|address| 1 << address.trailing_zeros().min(8)),
        };
        if sizes.contains(&0) {
            return None;
        }
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = (*plans.entry(key).or_insert_with(|| self.plan(key, beside.address())))?;
        if let Some(address) = beside.address() {
            self.set_vector(plan.descriptor, address)?;
        }
        let workspace = Block::new(context, plan.workspace).ok()?;
        let one = 1.0f32;
        let pointer = |tensor: &Tensor| tensor.device_address() as *const c_void;
        // SAFETY: the operands are on the context's device with the shapes and strides of the plan; the workspace is as large
        // as the algorithm asked for, and goes back to the pool only for work behind this product.
        let status = unsafe {
            (self.functions.matmul)(
                self.handle,
                plan.descriptor,
                (&raw const one).cast(),
                pointer(b),
                plan.b,
                pointer(a),
                plan.a,
                (&raw const factor).cast(),
                pointer(c),
                plan.c,
                d.device_address() as *mut c_void,
                plan.c,
                &raw const plan.algorithm,
                workspace.address() as *mut c_void,
                plan.workspace,
                context.stream().cast(),
            )
        };
        ok(status)
    }
}
