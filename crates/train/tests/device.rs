//! Training on a real CUDA device: what `emulated` compares with the CPU.

#[path = "../../autograd/tests/cuda/on_a_device.rs"]
mod on_a_device;
mod tiny;

use libtest_mimic::Trial;

fn main() {
    on_a_device::run(|| {
        let run = || {
            tiny::training_is_the_cpu_s();
            Ok(())
        };
        vec![Trial::test("training_is_the_cpu_s", run)]
    });
}
