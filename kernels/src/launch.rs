//! How the generated launches reach a device: what a launcher has to offer, and what it gets.

use crate::Module;
use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;

/// A device with its arrays: implemented by the tensor library's context, and by the tests of this package.
pub trait Launcher: Sized {
    /// An array of reals in device memory; which reals, only the run tells.
    type Tensor: Reals;
    /// An array of `E`s in device memory.
    type Array<E>: Pointer;
    /// What can go wrong.
    type Error;

    /// Launches a kernel: `launcher.launch(AddForward { a, b, y, n })`.
    ///
    /// # Errors
    /// [`Launcher::mismatch`] if no variant of the kernel takes these tensors, and those of [`Launcher::run`].
    fn launch<K: Kernel<Self>>(&self, kernel: K) -> Result<(), Self::Error> {
        kernel.launch(self)
    }

    /// Runs an entry point on a grid; without blocks there is nothing to do.
    ///
    /// # Errors
    /// A grid that is too large, and those of the driver.
    fn run(&self, launch: &Launch<'_>) -> Result<(), Self::Error>;

    /// The error for tensors that the kernel does not take.
    fn mismatch(&self, mismatch: Mismatch) -> Self::Error;
}

/// A kernel with its arguments. The implementations are generated.
pub trait Kernel<L: Launcher> {
    /// Chooses the variant for the arguments, and launches it.
    ///
    /// # Errors
    /// As [`Launcher::launch`].
    fn launch(&self, launcher: &L) -> Result<(), L::Error>;
}

/// Something in device memory.
pub trait Pointer {
    /// The address of the first element.
    fn address(&self) -> u64;
}

/// Reals in device memory.
pub trait Reals: Pointer {
    /// What the elements are, if kernels compute with them.
    fn real(&self) -> Option<Real>;
}

/// The real numbers that kernels take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Real {
    /// `float`.
    F32,
    /// `__nv_bfloat16`.
    Bf16,
}

impl fmt::Display for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Real::F32 => "f32",
            Real::Bf16 => "bf16",
        })
    }
}

/// Why no variant of a kernel fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The kernel, without the types in its name.
    pub kernel: &'static str,
    /// What it was given: each tensor's name and type.
    pub given: String,
}

/// Blocks, threads and shared memory of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks along x, y, z.
    pub blocks: [usize; 3],
    /// Threads of a block.
    pub threads: usize,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
}

/// An entry point, its grid, and arguments that have the types of its parameters, in their order: only generated code makes one.
pub struct Launch<'a> {
    module: &'static Module,
    entry: &'static str,
    grid: Grid,
    arguments: &'a [Argument<'a>],
}

/// The address of one argument's value.
#[repr(transparent)]
pub struct Argument<'a>(*const c_void, PhantomData<&'a ()>);

impl<'a> Argument<'a> {
    pub(crate) fn new<T: Copy>(value: &'a T) -> Self {
        Argument((&raw const *value).cast(), PhantomData)
    }
}

impl<'a> Launch<'a> {
    pub(crate) fn new(
        module: &'static Module,
        entry: &'static str,
        grid: Grid,
        arguments: &'a [Argument<'a>],
    ) -> Self {
        Launch { module, entry, grid, arguments }
    }

    /// Where the entry point is.
    pub fn module(&self) -> &'static Module {
        self.module
    }

    /// Its name there.
    pub fn entry(&self) -> &'static str {
        self.entry
    }

    /// How many threads run it.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// The addresses of the arguments, as `cuLaunchKernel` wants them; it only reads what is there.
    pub fn arguments(&self) -> *const *const c_void {
        self.arguments.as_ptr().cast()
    }
}

/// One entry point of a kernel that exists for several types, or for several numbers.
pub(crate) struct Variant {
    pub entry: &'static str,
    /// The number in its name; 0 where there is none.
    pub number: u32,
    /// What its tensors hold, in the order of the kernel's parameters.
    pub reals: &'static [Real],
}

/// The tensors that a kernel was given, with their names.
pub(crate) type Given<'a, L, const N: usize> = [(&'static str, Option<&'a <L as Launcher>::Tensor>); N];

/// The first variant that takes these tensors; absent ones fit any.
pub(crate) fn choose<L: Launcher, const N: usize>(
    launcher: &L,
    kernel: &'static str,
    variants: &[Variant],
    number: u32,
    given: &Given<'_, L, N>,
) -> Result<&'static str, L::Error> {
    let fits = |variant: &&Variant| {
        let mut pairs = given.iter().zip(variant.reals);
        variant.number == number
            && pairs.all(|((_, tensor), real)| tensor.is_none_or(|tensor| tensor.real() == Some(*real)))
    };
    if let Some(variant) = variants.iter().find(fits) {
        return Ok(variant.entry);
    }
    let mut text: Vec<String> = given
        .iter()
        .filter_map(|(name, tensor)| {
            let real = tensor.as_ref()?.real();
            Some(format!("{name}: {}", real.map_or("neither f32 nor bf16".into(), |real| real.to_string())))
        })
        .collect();
    if number > 0 {
        text.push(number.to_string());
    }
    Err(launcher.mismatch(Mismatch { kernel, given: text.join(", ") }))
}

/// A device address; null for what is absent.
pub(crate) fn address(array: Option<&impl Pointer>) -> u64 {
    array.map_or(0, Pointer::address)
}

// The functions of LAUNCH.

pub(crate) fn ceil_div(a: usize, b: usize) -> usize {
    a.div_ceil(b)
}

pub(crate) fn min(a: usize, b: usize) -> usize {
    a.min(b)
}
