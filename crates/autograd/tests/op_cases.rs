//! Every row of [`cases`], each check a test of its own: what depends on the instruction set as `every_path/row/dtype/isa`.
//!
//! A new row is in the group `every_path` without further ado. What this machine lacks is listed as an ignored test, so that
//! `.ci/every-path` and a reader see which paths a run left out. `cargo test -p vitrine-autograd --test op_cases -- layer_norm/3x17` runs the tests of one row.

use libtest_mimic::{Arguments, Failed, Trial};
use std::sync::Arc;
use vitrine_autograd::cases::{self, Function, Mismatch, OpCase, compare, numbers_of};
use vitrine_tensor::cpu::isa::{Available, Isa, every_path, with_isa};
use vitrine_tensor::cpu::parallel;
use vitrine_tensor::{DType, Device, Tensor};

type Outcome = Result<(), Mismatch>;

fn main() {
    let mut trials = vec![
        planted("wrong_gradient", |gradient| scale_one(gradient, 1.0 + 1e-5)),
        planted("nan", |gradient| scale_one(gradient, f64::NAN)),
        planted("missing_row", |gradient| gradient.narrow(0, 0, 2).expect("rows")),
        planted_in_function("past_the_tape", |right| {
            Box::new(move |v| {
                let mut inputs = v.to_vec();
                inputs[1] = v[1].tape().constant(v[1].value().clone());
                right(&inputs)
            })
        }),
        planted_in_function("wrong_factor", |right| {
            Box::new(move |v| {
                // As if the rule of the operation lost a factor: forward is that of y + y / 1000, the gradient that of y.
                let y = &right(v)?[0];
                Ok(vec![y.add(&y.tape().constant(y.value().clone()).scale(1e-3)?)?])
            })
        }),
    ];
    trials.push(Trial::test("planted_bug/tolerance_of_ten_percent", || {
        let case = cases::layer_norm(3, 17).allowing(0.1 * 2f64.powi(24));
        match case.check_f32(Device::Cpu) {
            Err(Mismatch::Loose { .. }) => Ok(()),
            other => Err(format!("the tolerance was not refused: {other:?}").into()),
        }
    }));
    for case in cases::all() {
        let case = Arc::new(case);
        let row = case.name();
        let mut add = |name: String, isa: Available, check: fn(&OpCase) -> Outcome| {
            let case = case.clone();
            trials.push(Trial::test(name, move || with_isa(isa, || check(&case)).map_err(Failed::from)));
        };
        if case.backward_cost.is_some() {
            add(format!("{row}/central_differences"), Isa::detect(), |case| case.check_gradients().map(drop));
            add(format!("{row}/frozen"), Isa::detect(), |case| case.check_frozen(DType::F32, Device::Cpu));
        }
        add(format!("{row}/textbook"), Isa::detect(), OpCase::check_textbook);
        add(format!("{row}/threads"), Isa::detect(), threads);
        for isa in every_path() {
            add(format!("every_path/{row}/f32/{isa}"), isa, |case| case.check_f32(Device::Cpu));
            if case.has_half() {
                add(format!("every_path/{row}/bf16/{isa}"), isa, |case| {
                    case.check_half(DType::BF16, Device::Cpu)
                });
                add(format!("every_path/{row}/f16/{isa}"), isa, |case| {
                    case.check_half(DType::F16, Device::Cpu)
                });
            }
        }
    }
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
        let lacking = move || Err(format!("this machine lacks {isa}; .ci/every-path emulates it").into());
        trials.push(Trial::test(format!("every_path/all/{isa}"), lacking).with_ignored_flag(true));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
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
        let case = cases::layer_norm(3, 17);
        let mut gradients = case.run(DType::F32, DType::F64, Device::Cpu)?.gradients;
        case.compare_gradients(&gradients)?;
        gradients[0] = gradients[0].as_ref().map(plant);
        found(case.compare_gradients(&gradients))
    })
}

/// The same for a bug in what the tape records: a variable that an operation reads past the tape has no gradient.
fn planted_in_function(name: &str, plant: impl FnOnce(Function) -> Function + Send + 'static) -> Trial {
    Trial::test(format!("planted_bug/{name}"), move || {
        let mut case = cases::layer_norm(3, 17);
        case.function = plant(case.function);
        found(case.check_gradients().map(drop))
    })
}

fn found(outcome: Outcome) -> Result<(), Failed> {
    match outcome {
        Err(Mismatch::Element { .. } | Mismatch::Length { .. }) => Ok(()),
        other => Err(format!("the planted bug was not found: {other:?}").into()),
    }
}

/// The tensor with the largest of the elements that [`OpCase::check_gradients`] looks at multiplied by `factor`.
fn scale_one(tensor: &Tensor, factor: f64) -> Tensor {
    let mut numbers = numbers_of(tensor).expect("floats");
    let probed = OpCase::probes(numbers.len());
    let largest = probed.max_by(|&a, &b| numbers[a].abs().total_cmp(&numbers[b].abs())).expect("an element");
    numbers[largest] *= factor;
    Tensor::from_slice(&numbers, tensor.dims()).expect("the same shape")
}
