//! The CUDA backend on a real device: the tests of `emulated`.

mod cuda;
#[path = "cuda/on_a_device.rs"]
mod on_a_device;

fn main() {
    on_a_device::run(cuda::trials);
}
