//! A parameter that something still holds when the optimizer runs: an error that names it, and nothing is changed.

use vitrine_autograd::{Gradients, ParameterId, Tape};
use vitrine_nn::{Parameter, ParameterStore, Part, Precision};
use vitrine_tensor::ops::adamw::GradNorm;
use vitrine_tensor::ops::linear::Activation;
use vitrine_tensor::{DType, Device, Tensor};
use vitrine_train::TrainError;
use vitrine_train::optimizer::{AdamW, Optimizer};

fn numbers(dims: &[usize]) -> Tensor {
    Tensor::full(dims, 0.5, DType::F32, Device::Cpu).unwrap()
}

/// Two parameters, of which the second has a copy in bfloat16.
fn model() -> (ParameterStore, [ParameterId; 2]) {
    let mut store = ParameterStore::default();
    let ids = ["first", "second"].map(|key| {
        let part = Part { key: key.into(), rows: 4 };
        let precision = if key == "second" { Precision::Mixed } else { Precision::Full };
        store.add(Parameter::new(vec![part], numbers(&[4, 4]), true, precision).unwrap())
    });
    store.compute_in(DType::BF16).unwrap();
    (store, ids)
}

fn gradients(store: &ParameterStore, ids: [ParameterId; 2]) -> Gradients {
    let tape = Tape::recording();
    let x = tape.constant(numbers(&[3, 4]));
    let [first, second] = ids.map(|id| tape.parameter(id, store.get(id).operand()));
    let y = x.linear(&first, None, Activation::None).unwrap();
    let y = y.linear(&second, None, Activation::None).unwrap().to_dtype(DType::F32).unwrap();
    let loss = y.sum_all().unwrap().id();
    drop((x, first, second, y));
    tape.backward(loss, &[]).unwrap()
}

#[test]
fn a_variable_that_is_still_alive_is_named() {
    let (mut store, ids) = model();
    let gradients = gradients(&store, ids);
    let mut optimizer = AdamW::new(0.01);
    let norm = GradNorm::fixed(1.0, Device::Cpu).unwrap();
    let before: Vec<Vec<f32>> =
        store.iter().map(|(_, parameter)| parameter.value.to_vec().unwrap()).collect();
    for (id, name) in ids.into_iter().zip(["first", "second"]) {
        // An inference tape borrows nothing of the store, so nothing but this error tells.
        let tape = Tape::inference();
        let alive = tape.parameter(id, store.get(id).operand());
        let error = optimizer.step(&mut store, &gradients, &norm, 0.1, 0).unwrap_err();
        assert!(matches!(&error, TrainError::ParameterInUse { name: held } if held == name), "{error}");
        assert!(error.to_string().contains("drop them"), "{error}");
        for ((_, parameter), before) in store.iter().zip(&before) {
            assert_eq!(&parameter.value.to_vec::<f32>().unwrap(), before, "nothing is changed");
        }
        drop(alive);
    }
    optimizer.step(&mut store, &gradients, &norm, 0.1, 0).unwrap();
    for ((_, parameter), before) in store.iter().zip(&before) {
        assert_ne!(&parameter.value.to_vec::<f32>().unwrap(), before);
    }
}
