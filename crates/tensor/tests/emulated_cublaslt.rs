//! Products through cuBLASLt, emulated: the rows that multiply matrices, and that the library was really asked.

mod cuda;

use libtest_mimic::{Arguments, Failed, Trial};
use vitrine_tensor::ops::linear::Activation;
use vitrine_tensor::{DType, Device, cases, cuda as backend};

fn main() {
    vitrine_emulator::install();
    vitrine_emulator_cublaslt::install();
    let mut trials: Vec<Trial> = cuda::trials();
    trials.retain(|trial| trial.name().starts_with("linear/") || trial.name().starts_with("matmul/"));
    assert!(trials.len() > 20, "the rows of products");
    trials.push(Trial::test("the_library_is_asked", || {
        assert!(backend::describe(0)?.cublaslt);
        // Forward and all gradients are products of the library, and nothing else; bias and its gradient too.
        for case in [cases::matmul(70, 130, 50), cases::linear(6, 17, 9, Activation::None)] {
            let before = vitrine_emulator::counters().launches;
            case.run(DType::F32, DType::F32, Device::Cuda(0))?;
            let launches = vitrine_emulator::counters().launches - before;
            if launches > 0 {
                return Err(Failed::from(format!("{}: {launches} kernels of our own", case.name())));
            }
        }
        Ok(())
    }));
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit();
}
