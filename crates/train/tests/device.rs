//! Training on a real CUDA device: what `emulated` compares with the CPU. Without a device it is skipped, visibly; with
//! `VITRINE_REQUIRE_CUDA=1` that is a failure.

mod tiny;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let trials = match vitrine_tensor::cuda::describe(0) {
        Ok(device) => {
            eprintln!("{device:?}");
            let run = || {
                tiny::training_is_the_cpu_s();
                Ok(())
            };
            vec![Trial::test("training_is_the_cpu_s", run)]
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
