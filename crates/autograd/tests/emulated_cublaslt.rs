//! Products through cuBLASLt, emulated: the rows that multiply matrices, and that the library was really asked.

mod cuda;

use libtest_mimic::{Arguments, Failed, Trial};
use vitrine_autograd::cases;
use vitrine_tensor::ops::linear::Activation;
use vitrine_tensor::{DType, Device, cuda as backend};

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
    trials.push(Trial::test("a_shape_is_searched_once", || {
        let searches = |rows: usize| -> Result<u64, Failed> {
            let before = vitrine_emulator_cublaslt::searches();
            cases::linear(rows, 19, 11, Activation::None).run(DType::BF16, DType::BF16, Device::Cuda(0))?;
            Ok(vitrine_emulator_cublaslt::searches() - before)
        };
        // Forward, dx, dweight.
        assert_eq!([searches(6)?, searches(6)?, searches(7)?, searches(6)?], [3, 0, 3, 0]);
        Ok(())
    }));
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let conclusion = libtest_mimic::run(&arguments, trials);
    if arguments.filter.is_none() && arguments.skip.is_empty() && !arguments.list && !conclusion.has_failed()
    {
        let left_out = cuda::never_ran(|name| name.starts_with("bias_"), &vitrine_emulator::launched());
        assert!(left_out.is_empty(), "kernels that no test ran: {left_out:?}");
    }
    conclusion.exit();
}
