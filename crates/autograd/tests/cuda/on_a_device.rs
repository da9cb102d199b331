//! What the test binaries called `device` share: they need a real GPU.

use libtest_mimic::{Arguments, Failed, Trial};

/// Runs trials where there is a CUDA device. Without one they are skipped, visibly; with `VITRINE_REQUIRE_CUDA=1` that is a
/// failure.
pub fn run(trials: impl FnOnce() -> Vec<Trial>) -> ! {
    let arguments = Arguments::from_args();
    let trials = match vitrine_tensor::cuda::describe(0) {
        Ok(device) => {
            eprintln!("{device:?}");
            trials()
        }
        Err(error) if std::env::var("VITRINE_REQUIRE_CUDA").as_deref() == Ok("1") => {
            vec![Trial::test("a_device", move || Err(Failed::from(error.to_string())))]
        }
        Err(error) => {
            println!("skipped: {error}");
            Vec::new()
        }
    };
    libtest_mimic::run(&arguments, trials).exit()
}
