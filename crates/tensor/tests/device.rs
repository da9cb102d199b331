//! The CUDA backend on a real device: the tests of `emulated`. Without a device they are skipped, visibly; with
//! `VITRINE_REQUIRE_CUDA=1` that is a failure.

mod cuda;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let trials = match vitrine_tensor::cuda::describe(0) {
        Ok(device) => {
            eprintln!("{device:?}");
            cuda::trials()
        }
        Err(error) if std::env::var("VITRINE_REQUIRE_CUDA").as_deref() == Ok("1") => {
            vec![Trial::test("a_device", move || Err(Failed::from(error.to_string())))]
        }
        Err(error) => {
            println!("skipped: {error}");
            Vec::new()
        }
    };
    libtest_mimic::run(&arguments, trials).exit();
}
