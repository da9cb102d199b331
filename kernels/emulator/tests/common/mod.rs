//! Launches test kernels through cudarc's driver calls.

#![allow(dead_code)] // Each test binary uses a part.

use cudarc::driver::{DriverError, result, sys};
use std::ffi::{CString, c_void};

/// What a kernel is given for one argument.
#[derive(Clone, Debug)]
pub enum Given {
    /// An array with these bytes.
    Array(Vec<u8>),
    /// An array of so many bytes that nobody has written.
    Room(usize),
    /// The same, freed before the launch.
    Freed(usize),
    /// A number.
    Int(i32),
}

/// An array of floats.
pub fn floats(values: impl IntoIterator<Item = f32>) -> Given {
    Given::Array(values.into_iter().flat_map(f32::to_le_bytes).collect())
}

/// The floats that an array holds.
pub fn to_floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// Loads PTX on the emulated device.
pub fn load(ptx: &str) -> Result<sys::CUmodule, DriverError> {
    vitrine_emulator::install();
    result::init()?;
    let device = result::device::get(0)?;
    let image = CString::new(ptx).unwrap();
    // SAFETY: the device exists, its context is never released, and the image is text that ends with a zero.
    unsafe {
        result::ctx::set_current(result::primary_ctx::retain(device)?)?;
        result::module::load_data(image.as_ptr().cast())
    }
}

/// Runs a kernel; what its arrays hold afterwards, by argument (empty for numbers).
pub fn launch(
    module: sys::CUmodule,
    kernel: &str,
    blocks: u32,
    threads: u32,
    shared: u32,
    arguments: &[Given],
) -> Result<Vec<Vec<u8>>, DriverError> {
    let stream = std::ptr::null_mut();
    // SAFETY: arguments are those that the test's table says of the kernel; addresses stay valid until they are freed here,
    // and an access that leaves them is what the emulator finds.
    unsafe {
        let function = result::module::get_function(module, CString::new(kernel).unwrap())?;
        let mut values: Vec<u64> = Vec::new();
        let mut lens = Vec::new();
        for argument in arguments {
            let len = match argument {
                Given::Array(bytes) => bytes.len(),
                Given::Room(len) | Given::Freed(len) => *len,
                Given::Int(value) => {
                    values.push(*value as u32 as u64);
                    lens.push(0);
                    continue;
                }
            };
            let address = result::malloc_sync(len)?;
            match argument {
                Given::Array(bytes) => result::memcpy_htod_sync(address, bytes)?,
                Given::Freed(_) => result::free_sync(address)?,
                _ => {}
            }
            values.push(address);
            lens.push(len);
        }
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|v| (&raw mut *v).cast()).collect();
        let status =
            result::launch_kernel(function, (blocks, 1, 1), (threads, 1, 1), shared, stream, &mut pointers);
        let mut arrays = Vec::new();
        for ((argument, &address), &len) in arguments.iter().zip(&values).zip(&lens) {
            let mut bytes = vec![0; len];
            if matches!(argument, Given::Array(_) | Given::Room(_)) {
                result::memcpy_dtoh_sync(&mut bytes, address)?;
                result::free_sync(address)?;
            }
            arrays.push(bytes);
        }
        status.map(|()| arrays)
    }
}
