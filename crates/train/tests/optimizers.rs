//! Optimizers against their definitions, computed number by number in f64.

use std::collections::BTreeMap;
use vitrine_autograd::{Tape, Var};
use vitrine_nn::{Builder, Init, Model, ParameterStore, Precision};
use vitrine_tensor::{DType, Tensor};
use vitrine_train::optimizer::{AdamW, Optimizer, Sgd};
use vitrine_train::{StepSettings, TrainError};

const LR: f64 = 0.05;
const CLIP: f64 = 1.5;

/// A matrix of two parts, which decays, and a vector, which does not.
struct Toy {
    store: ParameterStore,
}

impl Model for Toy {
    fn parameters(&self) -> &ParameterStore {
        &self.store
    }

    fn parameters_mut(&mut self) -> &mut ParameterStore {
        &mut self.store
    }
}

impl Toy {
    fn new(dtype: DType) -> Self {
        let mut builder = Builder::random(3, 1.0);
        builder.parameter(&["a", "b"], &[2, 3], Init::Normal, Precision::Mixed).unwrap();
        builder.parameter(&["c"], &[3], Init::Normal, Precision::Full).unwrap();
        Toy { store: builder.finish().unwrap().0.to_dtype(dtype).unwrap() }
    }

    /// `sum(exp(w c))` over rows: no gradient is constant.
    fn loss<'t>(&self, tape: &'t Tape) -> vitrine_bert::Result<Var<'t>> {
        let parameters: Vec<_> =
            self.store.iter().map(|(id, parameter)| tape.parameter(id, parameter.operand())).collect();
        let product = parameters[0].mul(&parameters[1]).unwrap();
        Ok(product.scale(0.5).unwrap().exp().unwrap().sum_all().unwrap())
    }

    fn values(&self) -> Vec<f64> {
        let values = self.store.iter().map(|(_, p)| p.value.to_dtype(DType::F64).unwrap());
        values.flat_map(|value| value.to_vec::<f64>().unwrap()).collect()
    }

    fn step(&mut self, optimizer: &mut dyn Optimizer, step: usize) -> f64 {
        let settings = StepSettings {
            seed: 0,
            step,
            lr: LR,
            max_grad_norm: Some(CLIP),
            checkpoint_layers: false,
            profiled: false,
        };
        let taken = vitrine_train::step(self, Toy::loss, optimizer, &settings).unwrap();
        taken.norm.norm().unwrap()
    }
}

/// The gradient of [`Toy::loss`] by hand, clipped: `w` are the first 12 numbers, `c` the last 3.
fn clipped_gradient(p: &[f64]) -> Vec<f64> {
    let mut gradient = [0.0; 15];
    for i in 0..12 {
        let (w, c) = (p[i], p[12 + i % 3]);
        let y = 0.5 * (0.5 * w * c).exp();
        gradient[i] = y * c;
        gradient[12 + i % 3] += y * w;
    }
    let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
    let factor = (CLIP / (norm + 1e-6)).min(1.0);
    gradient.iter().map(|g| g * factor).collect()
}

/// `torch.optim.SGD`.
fn sgd(p: &mut [f64], buffer: &mut [f64], momentum: f64, weight_decay: f64) {
    let gradient = clipped_gradient(p);
    for i in 0..p.len() {
        let decay = if i < 12 { weight_decay } else { 0.0 };
        buffer[i] = momentum * buffer[i] + gradient[i] + decay * p[i];
        p[i] -= LR * buffer[i];
    }
}

/// `torch.optim.AdamW`.
fn adamw(p: &mut [f64], m: &mut [f64], v: &mut [f64], step: i32, weight_decay: f64) {
    let gradient = clipped_gradient(p);
    for i in 0..p.len() {
        let decay = if i < 12 { weight_decay } else { 0.0 };
        m[i] = 0.9 * m[i] + 0.1 * gradient[i];
        v[i] = 0.999 * v[i] + 0.001 * gradient[i] * gradient[i];
        let (m, v) = (m[i] / (1.0 - 0.9f64.powi(step)), v[i] / (1.0 - 0.999f64.powi(step)));
        p[i] = p[i] * (1.0 - LR * decay) - LR * m / (v.sqrt() + 1e-8);
    }
}

#[track_caller]
fn assert_close(got: &[f64], expected: &[f64], tolerance: f64) {
    for (index, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{index}: got {a}, expected {b}");
    }
}

/// F64 to its last digits, and F32 to its own.
const DTYPES: [(DType, f64); 2] = [(DType::F64, 1e-12), (DType::F32, 3e-6)];

#[test]
fn sgd_is_its_definition() {
    for (dtype, tolerance) in DTYPES {
        for (momentum, weight_decay) in [(0.0, 0.0), (0.9, 0.0), (0.9, 0.1), (0.0, 0.1)] {
            let mut toy = Toy::new(dtype);
            let (mut p, mut buffer) = (toy.values(), vec![0.0; 15]);
            let mut optimizer = Sgd::new(momentum, weight_decay);
            let mut clipped = 0;
            for step in 0..10 {
                clipped += usize::from(toy.step(&mut optimizer, step) > CLIP);
                sgd(&mut p, &mut buffer, momentum, weight_decay);
                assert_close(&toy.values(), &p, tolerance);
            }
            assert!(clipped > 0, "no step was clipped");
        }
    }
}

#[test]
fn adamw_is_its_definition() {
    for (dtype, tolerance) in DTYPES {
        let mut toy = Toy::new(dtype);
        let (mut p, mut m, mut v) = (toy.values(), vec![0.0; 15], vec![0.0; 15]);
        let mut optimizer = AdamW::new(0.1);
        for step in 0..10 {
            toy.step(&mut optimizer, step);
            adamw(&mut p, &mut m, &mut v, step as i32 + 1, 0.1);
            assert_close(&toy.values(), &p, tolerance);
        }
    }
}

fn optimizers() -> [Box<dyn Optimizer>; 2] {
    [Box::new(AdamW::new(0.1)), Box::new(Sgd::new(0.9, 0.1))]
}

/// A run that goes on from saved parameters and a saved state is the run that never stopped, bit for bit.
#[test]
fn a_state_by_name_goes_on_where_it_was() {
    for ((mut whole, mut continued), mut without) in
        optimizers().into_iter().zip(optimizers()).zip(optimizers())
    {
        let mut toy = Toy::new(DType::F32);
        for step in 0..3 {
            toy.step(&mut *whole, step);
        }
        let state: BTreeMap<String, Tensor> = whole.state(&toy.store).unwrap().into_iter().collect();
        let mut names: Vec<&str> = state.keys().map(String::as_str).collect();
        names.retain(|name| !name.starts_with("second_moment."));
        assert!(names.iter().map(|name| &name[name.len() - 2..]).eq([".a", ".b", ".c"]), "{names:?}");
        // Copies, not tensors that share their memory.
        let wide = toy.store.to_dtype(DType::F64).unwrap();
        let [mut again, mut forgetful] = [(); 2].map(|()| Toy { store: wide.to_dtype(DType::F32).unwrap() });
        continued.set_state(&again.store, state).unwrap();
        for step in 3..6 {
            toy.step(&mut *whole, step);
            again.step(&mut *continued, step);
            forgetful.step(&mut *without, step);
        }
        assert_eq!(toy.values(), again.values());
        // A state that was forgotten would show.
        assert_ne!(toy.values(), forgetful.values());
    }
}

#[test]
fn a_state_of_another_model_is_refused_by_name() {
    for mut optimizer in optimizers() {
        let mut toy = Toy::new(DType::F32);
        toy.step(&mut *optimizer, 0);
        let state =
            || -> BTreeMap<String, Tensor> { optimizer.state(&toy.store).unwrap().into_iter().collect() };
        let last = state().into_keys().next_back().unwrap();
        let mut cases =
            vec![("unknown".to_owned(), state()), (last.clone(), state()), (last.clone(), state())];
        cases[0].1.insert("unknown".into(), Tensor::from_slice(&[0f32], &[1]).unwrap());
        cases[1].1.insert(last.clone(), Tensor::from_slice(&[0f32; 2], &[2]).unwrap());
        cases[2].1.insert(last.clone(), Tensor::from_slice(&[0f64; 3], &[3]).unwrap());
        for (name, state) in cases {
            let error = optimizer.set_state(&toy.store, state).unwrap_err();
            let TrainError::OptimizerState { name: named, .. } = &error else { panic!("{error}") };
            assert_eq!(*named, name, "{error}");
        }
    }
}

#[test]
fn copies_in_the_compute_dtype_follow_the_masters() {
    for mut optimizer in optimizers() {
        let mut toy = Toy::new(DType::F32);
        toy.store.compute_in(DType::BF16).unwrap();
        let before = toy.values();
        // The copy is an operand of a product with F32, so this loss is not computed: only the update is.
        let gradients = {
            let exact = Toy::new(DType::F32);
            let tape = Tape::recording();
            let id = exact.loss(&tape).unwrap().id();
            tape.backward(id, &[]).unwrap()
        };
        let norm = vitrine_tensor::ops::adamw::GradNorm::of(&[], None).unwrap();
        optimizer.step(&mut toy.store, &gradients, &norm, LR, 0).unwrap();
        assert_ne!(toy.values(), before);
        for (_, parameter) in toy.store.iter() {
            let Some(copy) = &parameter.compute else { continue };
            let bits = |t: &Tensor| t.to_dtype(DType::F32).unwrap().to_vec::<f32>().unwrap();
            assert_eq!(bits(copy), bits(&parameter.value.to_dtype(DType::BF16).unwrap()));
        }
    }
}
