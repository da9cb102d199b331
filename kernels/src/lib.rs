//! The CUDA kernels as data: the PTX of each op family, and what each kernel takes.
//!
//! The sources are the `.cu` files beside this package's manifest, each with a header on ownership, layouts, preconditions and
//! cost; `ptx/` is generated from them (see the README) and committed, so that a build needs no CUDA and a user only the
//! driver. A launcher wraps each kernel in one typed function, checked against [`Kernel::parameters`]: the driver sees
//! only addresses of arguments and cannot.

mod table;

pub use table::MODULES;
pub use table::{
    ADAMW, ATTENTION, ATTENTION_GENERAL, CAST, CROSS_ENTROPY, DROPOUT, DROPOUT_ADD_LAYER_NORM, ELEMENTWISE,
    EMBEDDING, GELU, GEMM, GEMM_SIMT, LAYER_NORM, REDUCE, ROWS, SOFTMAX,
};

/// What the driver passes for one argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// A device address.
    Pointer,
    /// `uint32_t`.
    U32,
    /// `uint64_t`.
    U64,
    /// `float`.
    F32,
    /// A structure by value, of this many bytes.
    Struct(usize),
}

/// One entry point.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// The name in the module.
    pub name: &'static str,
    /// The types of its arguments, in order.
    pub parameters: &'static [Parameter],
}

/// The kernels of one `.cu` file.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// The file's name without extension.
    pub name: &'static str,
    /// PTX for `compute_80`, ISA 8.4: drivers from 550 on, devices from Ampere on.
    pub ptx: &'static str,
    /// Its entry points.
    pub kernels: &'static [Kernel],
}

/// `struct Dropout` of `primitives.cuh`, passed by value. The all-zero value means no dropout where a kernel allows that.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dropout {
    /// The Philox key.
    pub seed: u64,
    /// The optimizer step.
    pub step: u32,
    /// Where in the model.
    pub site: u32,
    /// The first sequence's index within the optimizer step.
    pub first_sequence: u32,
    /// A 16-bit draw below this drops; 0 for no dropout.
    pub threshold: u32,
    /// `65536 / (65536 - threshold)`.
    pub scale: f32,
    /// Padding that is written, so that equal settings are equal bytes.
    pub reserved: u32,
}

/// `struct Attention` of `attention.cuh`, passed by value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Attention {
    /// Elements between rows of qkv.
    pub qkv_stride: u64,
    /// H.
    pub heads: u32,
    /// D.
    pub head_size: u32,
    /// Rows of the output: T, or B if `first_only`.
    pub rows: u32,
    /// 1 if only each sequence's first row asks, else 0.
    pub first_only: u32,
    /// What scores are multiplied by.
    pub softmax_scale: f32,
    /// 1: `backward_dq` sums `delta_i = sum_j P_ij dP_ij` itself, as the CPU does, at `4 D` FLOPs a pair; 0: it reads
    /// `O_i . dO_i` from `attention_delta`, which in bf16 leaves the keys' bias a gradient of rounding errors.
    pub sum_delta: u32,
}

/// A row of `adamw.cu`'s table of tensors; addresses are the device's.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamwTensor {
    /// The f32 master.
    pub param: u64,
    /// Its f32 gradient.
    pub grad: u64,
    /// f32.
    pub first_moment: u64,
    /// f32.
    pub second_moment: u64,
    /// The bf16 copy that the model computes with, or 0.
    pub compute: u64,
    /// The number of elements.
    pub len: u64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// A row of `adamw.cu`'s table of chunks: 2048 elements from `2048 * index` on of one tensor.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdamwChunk {
    /// The row in the table of tensors.
    pub tensor: u32,
    /// Which chunk of it.
    pub index: u32,
}

/// `struct Settings` of `adamw.cu`, read from device memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamwSettings {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// `1 - beta1^step`.
    pub correction1: f64,
    /// `1 - beta2^step`.
    pub correction2: f64,
    /// Gradients with a larger global norm are scaled down to it; 0 for no clipping.
    pub max_grad_norm: f64,
}

/// `struct Gemm` of `gemm_simt.cu`, passed by value; strides in elements.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GemmSimt {
    /// Between rows of A (M x K).
    pub a_row: u64,
    /// Between columns of A.
    pub a_column: u64,
    /// Between matrices of A.
    pub a_batch: u64,
    /// Between rows of B (K x N).
    pub b_row: u64,
    /// Between columns of B.
    pub b_column: u64,
    /// Between matrices of B.
    pub b_batch: u64,
    /// M.
    pub m: u32,
    /// N.
    pub n: u32,
    /// K.
    pub k: u32,
    /// Padding that is written.
    pub reserved: u32,
}

/// `struct Shape` of `gemm.cu`, passed by value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GemmShape {
    /// M.
    pub m: u32,
    /// N.
    pub n: u32,
    /// K.
    pub k: u32,
    /// Elements between the stored rows of A: a multiple of 8.
    pub lda: u32,
    /// Elements between the stored rows of B: a multiple of 8.
    pub ldb: u32,
}

/// `struct Backward` of `gemm.cu`, passed by value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GemmBackward {
    /// T.
    pub rows: u32,
    /// N.
    pub n: u32,
    /// K.
    pub k: u32,
    /// Elements between rows of dy: a multiple of 8, as the next two.
    pub dy_stride: u32,
    /// Elements between rows of the weight.
    pub weight_stride: u32,
    /// Elements between rows of x.
    pub x_stride: u32,
    /// Parts of T, for the weight's gradient.
    pub splits: u32,
    /// `splits` times the tiles of rows of the weight's gradient, or 0 where it is not wanted.
    pub weight_blocks: u32,
}

/// `struct View` of `elementwise.cu`, passed by value: a tensor of up to six dimensions, leading ones of length 1.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The result's dimensions.
    pub dims: [u64; 6],
    /// The source's strides, in elements; 0 repeats.
    pub strides: [u64; 6],
}

/// `struct Piece` of `rows.cu`: `y[row]` becomes the sum over `begin..end`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The row that is written.
    pub row: u32,
    /// The first place in the index.
    pub begin: u32,
    /// One past the last.
    pub end: u32,
}
