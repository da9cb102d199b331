//! The CUDA backend on the emulator: the real launch path, the very PTX, every access checked. Needs no GPU.

mod cuda;

use libtest_mimic::{Arguments, Failed, Trial};
use vitrine_tensor::ops::adamw::{AdamW, GradNorm, Update, adamw_step};
use vitrine_tensor::{DType, Device, Error, Tensor};

fn main() {
    vitrine_emulator::install();
    // SAFETY: the only thread so far. A real cuBLASLt cannot read the emulated device.
    unsafe { std::env::set_var("VITRINE_GEMM", "own") };
    let mut trials = cuda::trials();
    let only_on_the_emulator: [(&str, fn()); 5] = [
        ("out_of_memory", out_of_memory),
        ("a_second_round_allocates_nothing", a_second_round_allocates_nothing),
        ("no_second_device", no_second_device),
        ("an_update_is_three_launches", an_update_is_three_launches),
        ("uploads_wait_for_their_place", uploads_wait_for_their_place),
    ];
    for (name, test) in only_on_the_emulator {
        trials.push(Trial::test(name, move || {
            test();
            Ok::<(), Failed>(())
        }));
    }
    // The device is one, and these tests count what it does.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let conclusion = libtest_mimic::run(&arguments, trials);
    if arguments.filter.is_none() && arguments.skip.is_empty() && !arguments.list && !conclusion.has_failed()
    {
        // A bias beside an activation is added by a kernel of its own only after cuBLASLt's product.
        let left_out = cuda::never_ran(|name| !name.starts_with("bias_"), &vitrine_emulator::launched());
        assert!(left_out.is_empty(), "kernels that no test ran: {left_out:?}");
    }
    conclusion.exit();
}

fn out_of_memory() {
    let held = Tensor::zeros(&[1 << 20], DType::F32, Device::Cuda(0)).unwrap();
    let in_use = (16 << 30) - vitrine_tensor::cuda::describe(0).unwrap().free;
    let total = in_use + (1 << 20);
    vitrine_emulator::set_capacity(total);
    // All of the device, with what the pool gives back.
    let result = Tensor::zeros(&[total / 4], DType::F32, Device::Cuda(0));
    vitrine_emulator::set_capacity(16 << 30);
    let Err(Error::OutOfMemory { asked, held: ours, free, total: of, .. }) = result else {
        panic!("{result:?}")
    };
    assert!(asked >= total && of == total, "{asked} asked for, of {of}");
    assert!(ours >= held.bytes() && ours + free <= total, "{ours} in use here, {free} free of {total}");
    Tensor::zeros(&[total / 4], DType::F32, Device::Cuda(0)).unwrap();
}

fn a_second_round_allocates_nothing() {
    let round = || {
        for case in ["linear", "attention", "adamw", "embed_layer_norm"] {
            for case in vitrine_autograd::cases::of(case) {
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
    assert_eq!(why, "no such CUDA device; the last one here is cuda:0");
}

/// However many parameters: one launch for the squares, one for the norm, one for the update; no wait.
fn an_update_is_three_launches() {
    let new = |len: usize, value: f64| Tensor::full(&[len], value, DType::F32, Device::Cuda(0)).unwrap();
    let lens = || (0..40).map(|i| 1 + 331 * i);
    let grads: Vec<Tensor> = lens().map(|len| new(len, 0.5)).collect();
    let mut state: Vec<[Tensor; 3]> =
        lens().map(|len| [1.0, 0.0, 0.0].map(|value| new(len, value))).collect();
    let before = vitrine_emulator::counters();
    let norm = GradNorm::of(&grads.iter().collect::<Vec<_>>(), Some(1.0)).unwrap();
    let mut updates: Vec<Update> = state
        .iter_mut()
        .zip(&grads)
        .map(|([param, first_moment, second_moment], grad)| Update {
            param,
            grad,
            first_moment,
            second_moment,
            compute: None,
            weight_decay: 0.01,
        })
        .collect();
    let settings = AdamW { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, step: 1 };
    adamw_step(&mut updates, &settings, &norm).unwrap();
    let after = vitrine_emulator::counters();
    assert_eq!(after.launches - before.launches, 3);
    assert_eq!(after.synchronisations - before.synchronisations, 0);
    let expected = 0.5 * (lens().sum::<usize>() as f64).sqrt();
    assert!((norm.norm().unwrap() - expected).abs() <= 1e-6 * expected);
    // The first step moves by the learning rate, after the decay.
    let param = state[39][0].to_vec::<f32>().unwrap();
    assert!(param.iter().all(|&x| (f64::from(x) - (1.0 - 0.1 * 0.01 - 0.1)).abs() < 1e-5), "{}", param[0]);
}

/// More uploads than both halves of the staging memory hold, with nothing read in between: the emulator finds a half that is
/// filled again before its copies were waited for.
fn uploads_wait_for_their_place() {
    let values = |i: usize| vec![i as f32; 800_000];
    let sent: Vec<Tensor> = (0..6)
        .map(|i| Tensor::from_slice(&values(i), &[800_000]).unwrap().to_device(Device::Cuda(0)).unwrap())
        .collect();
    vitrine_tensor::cuda::synchronize(0).unwrap();
    for (i, tensor) in sent.iter().enumerate() {
        assert_eq!(tensor.to_vec::<f32>().unwrap(), values(i));
    }
}
