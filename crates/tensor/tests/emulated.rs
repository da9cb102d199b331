//! The CUDA backend on the emulator: the real launch path, the very PTX, every access checked. Needs no GPU.

mod cuda;

use libtest_mimic::{Arguments, Failed, Trial};
use vitrine_tensor::{DType, Device, Error, Tensor};

fn main() {
    vitrine_emulator::install();
    // SAFETY: the only thread so far. A real cuBLASLt cannot read the emulated device.
    unsafe { std::env::set_var("VITRINE_GEMM", "own") };
    let mut trials = cuda::trials();
    let only_on_the_emulator: [(&str, fn()); 3] = [
        ("out_of_memory", out_of_memory),
        ("a_second_round_allocates_nothing", a_second_round_allocates_nothing),
        ("no_second_device", no_second_device),
    ];
    for (name, test) in only_on_the_emulator {
        trials.push(Trial::test(name, move || {
            test();
            Ok::<(), Failed>(())
        }));
    }
    // The device is one, and these tests count what it does.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit();
}

fn out_of_memory() {
    let held = Tensor::zeros(&[1 << 20], DType::F32, Device::Cuda(0)).unwrap();
    let in_use = (16 << 30) - vitrine_tensor::cuda::describe(0).unwrap().free;
    vitrine_emulator::set_capacity(in_use + (1 << 20));
    let result = Tensor::zeros(&[1 << 21], DType::F32, Device::Cuda(0));
    vitrine_emulator::set_capacity(16 << 30);
    let Err(Error::OutOfMemory { asked, .. }) = result else { panic!("{result:?}") };
    assert_eq!(asked, 4 << 21);
    drop(held);
    Tensor::zeros(&[1 << 21], DType::F32, Device::Cuda(0)).unwrap();
}

fn a_second_round_allocates_nothing() {
    let round = || {
        for case in ["linear", "attention", "adamw", "embed_layer_norm"] {
            for case in vitrine_tensor::cases::of(case) {
                case.run(DType::F32, DType::F32, Device::Cuda(0)).unwrap();
            }
        }
        vitrine_emulator::counters().allocations
    };
    assert_eq!(round(), round());
}

fn no_second_device() {
    let result = Tensor::zeros(&[1], DType::F32, Device::Cuda(7));
    let Err(Error::CudaUnavailable { why, .. }) = result else { panic!("{result:?}") };
    assert_eq!(why, "there are 1 CUDA devices, numbered from 0");
}
