//! The CUDA kernels: the PTX of each op family, and a typed launch of each kernel.
//!
//! The sources are the `.cu` files beside this package's manifest, each with a header on ownership, layouts, preconditions and
//! cost. From them the `ptx` tool makes (see the README), and the repository holds, so that a build needs no CUDA:
//! - `ptx/`, the compiled kernels, packed;
//! - a module here for each `.cu`: its constants, the structures that its kernels take, and for each kernel a structure whose
//!   fields are the kernel's arguments.
//!
//! A launch is `launcher.launch(LayerNormForward { x: &x, y: &mut y, .. })`. The compiler sees the name and type of every
//! argument, what is read and what is written, and what may be absent; the grid, the threads and the variant for the tensors'
//! dtypes follow from the arguments. The package knows no driver: a [`Launcher`] does.

#[cfg(any(test, feature = "nvrtc"))]
pub mod generate;
#[rustfmt::skip]
mod generated;
mod launch;

pub use generated::*;
pub use launch::{Argument, Grid, Kernel, Launch, Launcher, Mismatch, Pointer, Real, Reals};

use flate2::read::GzDecoder;
use std::fmt;
use std::io::{self, Read};

/// The kernels of one `.cu` file.
#[derive(Debug)]
pub struct Module {
    /// The file's name without extension.
    pub name: &'static str,
    /// Its entry points.
    pub entries: &'static [&'static str],
    /// PTX for `compute_80`, ISA 8.4 (drivers from 550 on, devices from Ampere on), as gzip.
    packed: &'static [u8],
}

/// The most bytes of PTX that a module may have: ten times the largest today.
const MOST_BYTES: u64 = 16 << 20;

/// A module's packed PTX is damaged: the executable is not what was built.
#[derive(Debug)]
pub struct Damaged {
    module: &'static str,
    why: String,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "internal: the packed PTX of {} is damaged: {}", self.module, self.why)
    }
}

impl std::error::Error for Damaged {}

/// The text of a gzip; not more than [`MOST_BYTES`] of it.
fn unpack(packed: &[u8]) -> io::Result<String> {
    let mut text = String::new();
    GzDecoder::new(packed).take(MOST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!("it has more than {MOST_BYTES} bytes")));
    }
    Ok(text)
}

impl Module {
    /// The PTX, with the line information that the compiler gave.
    ///
    /// # Errors
    /// [`Damaged`], as gzip's checksum tells.
    pub fn ptx(&self) -> Result<String, Damaged> {
        unpack(self.packed).map_err(|error| Damaged { module: self.name, why: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_and_endless_ptx_is_an_error() {
        let whole = gelu::MODULE.packed;
        let cut: &'static [u8] = &whole[..whole.len() - 1];
        let mut changed = whole.to_vec();
        changed[whole.len() / 2] ^= 1;
        // 64 MiB of zeros.
        let zeros = generate::packed(&vec![0; 64 << 20]);
        for packed in [&[], cut, changed.leak(), zeros.leak()] {
            let module = Module { name: "gelu", entries: &[], packed };
            let text = module.ptx().unwrap_err().to_string();
            assert!(text.starts_with("internal: the packed PTX of gelu is damaged: "), "{text}");
        }
    }
}
