//! One launch: a kernel with arguments that are checked against the table of `vitrine-kernels`.
//!
//! The driver takes addresses of arguments and cannot see a wrong type or number; the table can, and a test compares it with
//! the PTX.

use super::context::{Context, failed};
use super::memory::Block;
use crate::{DType, Device, Error, Result, Tensor};
use cudarc::driver::result;
use std::ffi::c_void;
use std::sync::Arc;
use vitrine_kernels::{Kernel, Module, Parameter};

/// An argument: its kind and its bytes, of which a structure has at most 96.
#[derive(Clone, Copy)]
pub(super) struct Argument {
    kind: Parameter,
    bytes: [u64; 12],
}

impl Argument {
    fn new<T: Copy>(kind: Parameter, value: T) -> Self {
        const { assert!(size_of::<T>() <= 96 && align_of::<T>() <= 8) };
        let mut bytes = [0u64; 12];
        // SAFETY: a T fits as asserted; kernels' structures write their padding, so all of it is initialised.
        unsafe { bytes.as_mut_ptr().cast::<T>().write(value) };
        Argument { kind, bytes }
    }

    fn address(address: u64) -> Self {
        Argument::new(Parameter::Pointer, address)
    }

    /// No array.
    pub const NULL: Argument = Argument { kind: Parameter::Pointer, bytes: [0; 12] };
}

impl From<u32> for Argument {
    fn from(value: u32) -> Self {
        Argument::new(Parameter::U32, value)
    }
}
impl From<u64> for Argument {
    fn from(value: u64) -> Self {
        Argument::new(Parameter::U64, value)
    }
}
impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Argument::new(Parameter::F32, value)
    }
}
impl From<&Block> for Argument {
    fn from(block: &Block) -> Self {
        Argument::address(block.address())
    }
}
/// The first element.
impl From<&Tensor> for Argument {
    fn from(tensor: &Tensor) -> Self {
        Argument::address(tensor.device_address())
    }
}
impl From<&mut Tensor> for Argument {
    fn from(tensor: &mut Tensor) -> Self {
        Argument::address(tensor.device_address())
    }
}
impl From<Option<&Tensor>> for Argument {
    fn from(tensor: Option<&Tensor>) -> Self {
        tensor.map_or(Argument::NULL, Argument::from)
    }
}
macro_rules! structures {
    ($($name:ident),*) => { $(
        impl From<vitrine_kernels::$name> for Argument {
            fn from(value: vitrine_kernels::$name) -> Self {
                Argument::new(Parameter::Struct(size_of::<vitrine_kernels::$name>()), value)
            }
        }
    )* };
}
structures!(Dropout, Attention, GemmSimt, GemmShape, GemmBackward, View);

/// The device of a tensor that is on one.
pub(super) fn context_of(tensor: &Tensor) -> Result<Arc<Context>> {
    match tensor.device() {
        Device::Cuda(ordinal) => Context::get(ordinal),
        Device::Cpu => unreachable!("internal: the CPU backend has this"),
    }
}

/// `NAME_f32` or `NAME_bf16`: the kernel of a family for a dtype.
pub(super) fn kernel(
    op: &'static str,
    module: &'static Module,
    name: &str,
    tensor: &Tensor,
) -> Result<&'static Kernel> {
    let suffix = match tensor.dtype() {
        DType::F32 => "_f32",
        DType::BF16 => "_bf16",
        dtype => return Err(Error::NotSupported { op, device: tensor.device(), dtype }),
    };
    let found = module.kernels.iter().find(|kernel| kernel.name.strip_suffix(suffix) == Some(name));
    found.ok_or(Error::NotSupported { op, device: tensor.device(), dtype: tensor.dtype() })
}

/// A kernel that exists once.
pub(super) fn single(module: &'static Module, name: &str) -> &'static Kernel {
    let found = module.kernels.iter().find(|kernel| kernel.name == name);
    found.expect("internal: the table has this kernel")
}

/// The shape of a launch.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    /// Blocks along x, y, z.
    pub blocks: [usize; 3],
    /// Threads of a block.
    pub threads: usize,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
}

impl Grid {
    /// Blocks along x and y.
    pub fn new(x: usize, y: usize, threads: usize) -> Self {
        Grid { blocks: [x, y, 1], threads, shared: 0 }
    }

    /// One thread for every eight of `n` elements.
    pub fn elements(n: usize) -> Self {
        Grid::new(n.div_ceil(2048), 1, 256)
    }
}

/// Launches a kernel; without blocks there is nothing to do.
pub(super) fn run(
    context: &Context,
    module: &'static Module,
    kernel: &'static Kernel,
    grid: Grid,
    arguments: &mut [Argument],
) -> Result<()> {
    let kinds = arguments.iter().map(|argument| argument.kind);
    assert!(kinds.eq(kernel.parameters.iter().copied()), "internal: arguments of {} do not fit", kernel.name);
    if grid.blocks.contains(&0) {
        return Ok(());
    }
    let [x, y, z] = grid.blocks;
    if x > i32::MAX as usize || y > 65535 || z > 65535 {
        let (name, expected) = ("size", "a problem that fits a CUDA grid (2^31 - 1, 65535, 65535 blocks)");
        return Err(Error::InvalidArgument {
            op: kernel.name,
            name,
            expected,
            got: format!("{x}, {y}, {z}"),
        });
    }
    let function = context.function(module, kernel.name, grid.shared)?;
    let mut pointers: Vec<*mut c_void> =
        arguments.iter_mut().map(|argument| argument.bytes.as_mut_ptr().cast()).collect();
    // SAFETY: arguments have the kernel's types and number, as asserted; addresses are of tensors and blocks that go back to
    // the pool at the earliest after this call, and so to work behind this launch in the stream. That kernels stay inside
    // of their arrays is what the emulator checks.
    unsafe {
        result::launch_kernel(
            function.0,
            (x as u32, y as u32, z as u32),
            (grid.threads as u32, 1, 1),
            grid.shared as u32,
            context.stream(),
            &mut pointers,
        )
    }
    .map_err(failed(context.ordinal, kernel.name))
}

/// `launch!(context, MODULE, kernel, grid, a, b, ..)`: arguments of any kind that [`Argument`] knows.
macro_rules! launch {
    ($context:expr, $module:expr, $kernel:expr, $grid:expr, $($argument:expr),* $(,)?) => {
        $crate::cuda::launch::run(
            &$context,
            &$module,
            $kernel,
            $grid,
            &mut [$($crate::cuda::launch::Argument::from($argument)),*],
        )
    };
}
pub(super) use launch;
