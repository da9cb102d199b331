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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::AttentionForward;
    use crate::attention_general::AttentionGeneralBackwardDq;
    use crate::dropout_add_layer_norm::DropoutAddLayerNormBackward;
    use crate::elementwise::Add;
    use crate::gemm::{BackwardShape, GemmBackward};
    use crate::movement::{Piece, SegmentSum};
    use crate::softmax::SoftmaxForward;
    use crate::{Attention, Dropout};
    use std::cell::RefCell;

    /// A tensor at an address.
    struct At(u64, Option<Real>);

    /// `E`s at an address.
    struct Table<E>(u64, PhantomData<E>);

    impl Pointer for At {
        fn address(&self) -> u64 {
            self.0
        }
    }

    impl Reals for At {
        fn real(&self) -> Option<Real> {
            self.1
        }
    }

    impl<E> Pointer for Table<E> {
        fn address(&self) -> u64 {
            self.0
        }
    }

    /// Remembers the last launch: entry point, grid, and the first bytes of its arguments.
    #[derive(Default)]
    struct Recorder(RefCell<Option<(&'static str, Grid, Vec<u64>)>>);

    impl Launcher for Recorder {
        type Tensor = At;
        type Array<E> = Table<E>;
        type Error = Mismatch;

        fn run(&self, launch: &Launch<'_>) -> Result<(), Mismatch> {
            // SAFETY: the test asks for arguments only of `SegmentSum`, all of which but the last have eight bytes.
            let read = |argument: &Argument<'_>| unsafe { argument.0.cast::<u64>().read_unaligned() };
            let wide = launch.entry().starts_with("segment_sum");
            let arguments = if wide { launch.arguments[..5].iter().map(read).collect() } else { Vec::new() };
            *self.0.borrow_mut() = Some((launch.entry(), launch.grid(), arguments));
            Ok(())
        }

        fn mismatch(&self, mismatch: Mismatch) -> Mismatch {
            mismatch
        }
    }

    impl Recorder {
        fn last(&self) -> (&'static str, Grid) {
            let (entry, grid, _) = self.0.take().expect("a launch");
            (entry, grid)
        }
    }

    const F32: Option<Real> = Some(Real::F32);
    const BF16: Option<Real> = Some(Real::Bf16);

    fn table<E>(address: u64) -> Table<E> {
        Table(address, PhantomData)
    }

    #[test]
    fn arguments_are_in_the_order_of_the_kernel() {
        let recorder = Recorder::default();
        let (index, pieces) = (table::<u32>(30), table::<Piece>(40));
        let launch = |index| {
            let (x, mut y) = (At(10, BF16), At(50, F32));
            let sum = SegmentSum {
                y: &mut y,
                piece_count: 7,
                width: 1025,
                index,
                pieces: &pieces,
                x: &x,
                x_stride: 20,
            };
            recorder.launch(sum).unwrap();
            recorder.0.take().unwrap()
        };
        let (entry, grid, arguments) = launch(Some(&index));
        assert_eq!((entry, grid.blocks, grid.threads), ("segment_sum_bf16", [7, 2, 1], 128));
        assert_eq!(arguments, [10, 20, 30, 40, 50]);
        assert_eq!(launch(None).2, [10, 20, 0, 40, 50]);
    }

    #[test]
    fn the_variant_follows_from_the_tensors() {
        let recorder = Recorder::default();
        let add = |a, b, y| recorder.launch(Add { a: &At(0, a), b: &At(0, b), y: &mut At(0, y), n: 2049 });
        add(BF16, BF16, BF16).unwrap();
        assert_eq!(recorder.last(), ("add_bf16", Grid { blocks: [2, 1, 1], threads: 256, shared: 0 }));
        add(F32, F32, F32).unwrap();
        assert_eq!(recorder.last().0, "add_f32");
        let mismatch = |given: &str| Err(Mismatch { kernel: "add", given: given.into() });
        assert_eq!(add(F32, BF16, F32), mismatch("a: f32, b: bf16, y: f32"));
        assert_eq!(add(F32, F32, None), mismatch("a: f32, b: f32, y: neither f32 nor bf16"));
        // What is absent fits any; then the first variant runs.
        let backward = |dx: Option<Real>| {
            let (operand, mut of_x) = (At(0, BF16), dx.map(|dx| At(0, Some(dx))));
            let shape = BackwardShape { n: 300, k: 200, weight_blocks: 5, ..BackwardShape::default() };
            let (dy, weight, x) = (&operand, &operand, &operand);
            let dx = of_x.as_mut();
            recorder
                .launch(GemmBackward {
                    dx_blocks: 3,
                    dy,
                    weight,
                    x,
                    so_far: None,
                    dx,
                    dweight: None,
                    dbias: None,
                    shape,
                })
                .unwrap();
            recorder.last()
        };
        let (entry, grid) = backward(None);
        assert_eq!((entry, grid.blocks), ("gemm_backward_bf16", [2, 8, 1]));
        assert_eq!(backward(Some(Real::F32)).0, "gemm_backward_bf16_f32");
    }

    #[test]
    fn the_number_follows_from_the_arguments() {
        let recorder = Recorder::default();
        let forward = |head_size| {
            let attention = Attention { heads: 12, head_size, ..Attention::default() };
            recorder.launch(AttentionForward {
                longest: 130,
                sequences: 4,
                qkv: &At(0, BF16),
                offsets: &table(0),
                out: &mut At(0, BF16),
                lse: &mut At(0, F32),
                attention,
                dropout: Dropout::default(),
            })
        };
        forward(64).unwrap();
        assert_eq!(
            recorder.last(),
            ("attention_forward_64_bf16", Grid { blocks: [3, 12, 4], threads: 128, shared: 0 })
        );
        forward(32).unwrap();
        assert_eq!(recorder.last().0, "attention_forward_32_bf16");
        let mismatch = forward(48).unwrap_err();
        assert_eq!(
            (mismatch.kernel, &mismatch.given[..]),
            ("attention_forward", "qkv: bf16, out: bf16, lse: f32, 48")
        );
    }

    #[test]
    fn threads_and_shared_memory_follow_from_the_arguments() {
        let recorder = Recorder::default();
        for (width, threads) in [(1, 32), (33, 64), (1000, 256)] {
            let (x, mut y) = (At(0, F32), At(0, F32));
            let softmax = SoftmaxForward { rows: 9, x: &x, x_stride: 0, y: &mut y, width, logarithm: 0 };
            recorder.launch(softmax).unwrap();
            let grid = Grid { blocks: [9, 1, 1], threads, shared: 0 };
            assert_eq!(recorder.last(), ("softmax_forward_f32", grid));
        }
        let (real, half, offsets) = (At(0, F32), At(0, BF16), table(0));
        let (mut dresidual, mut dx, mut partials) = (At(0, F32), At(0, BF16), At(0, F32));
        let backward = DropoutAddLayerNormBackward {
            warps: 3,
            dy: &real,
            sum: &real,
            weight: &real,
            mean: &real,
            rstd: &real,
            offsets: &offsets,
            dresidual: &mut dresidual,
            dx: Some(&mut dx),
            partials: &mut partials,
            rows: 65,
            width: 768,
            sequences: 1,
            dropout: Dropout::default(),
        };
        recorder.launch(backward).unwrap();
        let grid = Grid { blocks: [3, 1, 1], threads: 96, shared: 3 * 2 * 768 * 4 };
        assert_eq!(recorder.last(), ("dropout_add_layer_norm_backward_bf16_f32", grid));
        let (mut delta, mut dqkv) = (At(0, F32), At(0, BF16));
        let attention = Attention { heads: 2, head_size: 128, ..Attention::default() };
        let backward = AttentionGeneralBackwardDq {
            longest: 33,
            sequences: 1,
            qkv: &half,
            offsets: &offsets,
            dout: &half,
            lse: &real,
            delta: &mut delta,
            dqkv: &mut dqkv,
            attention,
            dropout: Dropout::default(),
        };
        recorder.launch(backward).unwrap();
        let grid = Grid { blocks: [2, 2, 1], threads: 128, shared: 4 * (128 * 129 + 2176) };
        assert_eq!(recorder.last(), ("attention_general_backward_dq_bf16", grid));
    }
}
