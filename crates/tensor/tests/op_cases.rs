//! Every row of [`cases`] on every path, each as a test of its own: `row/path`.
//!
//! `cargo test -p vitrine-tensor --test op_cases -- layer_norm/3x17` runs the tests of one row.

use libtest_mimic::{Arguments, Failed, Trial};
use std::sync::Arc;
use vitrine_tensor::cases::{self, Mismatch, OpCase, check_count, compare, largest, numbers_of};
use vitrine_tensor::cpu::isa::{Isa, with_isa};
use vitrine_tensor::cpu::parallel;
use vitrine_tensor::{DType, Device, Tensor};

type Outcome = Result<(), Mismatch>;

fn main() {
    let mut trials = vec![
        planted("wrong_gradient", |gradient| scale_one(gradient, 1.0 + 1e-5)),
        planted("nan", |gradient| scale_one(gradient, f64::NAN)),
        planted("missing_row", |gradient| gradient.narrow(0, 0, 2).expect("rows")),
    ];
    for case in cases::all() {
        let case = Arc::new(case);
        let mut add = |path: String, isa: Isa, check: fn(&OpCase) -> Outcome| {
            let (case, name) = (case.clone(), format!("{}/{path}", case.name()));
            let run = move || with_isa(isa, || check(&case)).map_err(Failed::from)?.map_err(Failed::from);
            trials.push(Trial::test(name, run));
        };
        if case.backward.is_some() {
            add("central_differences".into(), Isa::detect(), OpCase::check_gradients);
        }
        if case.naive.is_some() {
            add("textbook".into(), Isa::detect(), textbook);
        }
        add("threads".into(), Isa::detect(), threads);
        for isa in Isa::available() {
            add(format!("f32/{isa}"), isa, |case| case.check_f32(Device::Cpu));
            if case.has_half() {
                add(format!("bf16/{isa}"), isa, |case| case.check_half(DType::BF16, Device::Cpu));
                add(format!("f16/{isa}"), isa, |case| case.check_half(DType::F16, Device::Cpu));
            }
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// F64 against the textbook version: both are the formula, so only their order of summation differs.
fn textbook(case: &OpCase) -> Outcome {
    let naive = case.naive_numbers(DType::F32, DType::F64)?;
    let results = case.name_results(case.run(DType::F32, DType::F64, Device::Cpu)?);
    check_count(naive.len(), results.len())?;
    for ((name, tensor), expected) in results.iter().zip(&naive) {
        let tolerance = 1e-12 * largest(expected).max(1e-3);
        compare(|| name.clone(), &numbers_of(tensor)?, expected, tolerance)?;
    }
    Ok(())
}

/// The same bits on one thread and on three.
fn threads(case: &OpCase) -> Outcome {
    let run = |count| parallel::with_threads(count, || case.run(DType::F32, DType::F32, Device::Cpu));
    let (one, three) = (case.name_results(run(1)?), case.name_results(run(3)?));
    for ((name, one), (_, three)) in one.iter().zip(&three) {
        compare(|| format!("{name} on three threads"), &numbers_of(three)?, &numbers_of(one)?, 0.0)?;
    }
    Ok(())
}

/// A test that passes only if the check of gradients finds the bug that `plant` puts into one.
fn planted(name: &str, plant: fn(&Tensor) -> Tensor) -> Trial {
    Trial::test(format!("planted_bug/{name}"), move || {
        let mut case = cases::layer_norm(3, 17);
        let right = case.backward.take().expect("layer_norm has a gradient");
        case.backward = Some(Box::new(move |inputs, saved, douts| {
            let mut gradients = right(inputs, saved, douts)?;
            gradients[0] = gradients[0].as_ref().map(plant);
            Ok(gradients)
        }));
        match case.check_gradients() {
            Err(Mismatch::Element { .. } | Mismatch::Length { .. }) => Ok(()),
            other => Err(format!("the planted bug was not found: {other:?}").into()),
        }
    })
}

/// The tensor with the largest of the elements that [`OpCase::check_gradients`] looks at multiplied by `factor`.
fn scale_one(tensor: &Tensor, factor: f64) -> Tensor {
    let mut numbers = numbers_of(tensor).expect("floats");
    let probed = OpCase::probes(numbers.len());
    let largest = probed.max_by(|&a, &b| numbers[a].abs().total_cmp(&numbers[b].abs())).expect("an element");
    numbers[largest] *= factor;
    Tensor::from_slice(&numbers, tensor.dims()).expect("the same shape")
}
