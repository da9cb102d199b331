//! The techniques of fine-tuning against PyTorch, transformers, scikit-learn and peft (`goldens/techniques.py`), and against their
//! definitions.

mod tiny;

use serde_json::Value;
use std::collections::BTreeMap;
use vitrine_autograd::{Randomness, Tape};
use vitrine_bert::{Place, SequenceClassifier, TokenBatch};
use vitrine_nn::{Builder, Init, Model, ParameterStore, Precision};
use vitrine_tensor::{DType, Tensor};
use vitrine_train::optimizer::groups::{Freeze, Groups, gradient_norms_by_layer};
use vitrine_train::optimizer::{AdamW, Ema, Optimizer, Sgd};
use vitrine_train::schedule::{DecayShape, Schedule, ScheduleKind, Span};
use vitrine_train::techniques::{
    ClassificationLoss, Lora, OptimizerKind, Techniques, balanced_class_weights,
};
use vitrine_train::{MicroBatch, StepSettings, TrainError};

fn goldens() -> Value {
    serde_json::from_str(include_str!("goldens/techniques.json")).unwrap()
}

fn floats(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|value| match value {
            Value::Array(_) => floats(value),
            number => vec![number.as_f64().unwrap()],
        })
        .collect()
}

#[track_caller]
fn assert_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (index, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{what} {index}: got {a}, expected {b}");
    }
}

#[test]
fn every_schedule_equals_the_one_of_transformers() {
    let goldens = goldens();
    let peak = goldens["peak_lr"].as_f64().unwrap();
    let mut names = std::collections::BTreeSet::new();
    for row in goldens["schedules"].as_array().unwrap() {
        let number = |name: &str| row[name].as_f64().unwrap();
        let kind = match row["name"].as_str().unwrap() {
            "polynomial" => {
                ScheduleKind::Polynomial { power: number("power"), end_ratio: number("lr_end") / peak }
            }
            "wsd" => ScheduleKind::Wsd {
                decay: Span::Steps(row["num_decay_steps"].as_u64().unwrap() as usize),
                decay_shape: match row["decay_type"].as_str().unwrap() {
                    "cosine" => DecayShape::Cosine,
                    "linear" => DecayShape::Linear,
                    _ => DecayShape::OneMinusSqrt,
                },
                min_ratio: number("min_lr_ratio"),
            },
            other => other.parse().unwrap(),
        };
        names.insert(kind.to_string());
        let lrs = floats(&row["lr"]);
        let warmup = row["num_warmup_steps"].as_u64().unwrap() as usize;
        let schedule = Schedule { kind, total: lrs.len(), warmup };
        for (k, lr) in lrs.iter().enumerate() {
            let got = peak * schedule.factor(k);
            assert!((got - lr).abs() <= 1e-12 * peak, "{kind} {row:?}, step {k}: {got}, not {lr}");
        }
    }
    assert_eq!(names.len(), 5);
}

fn loss_of(settings: &ClassificationLoss, logits: &[f64], labels: &[u32], dtype: DType) -> (f64, Vec<f64>) {
    let tape = Tape::recording();
    let dims = [labels.len(), logits.len() / labels.len()];
    let logits = tape.leaf(Tensor::from_slice(logits, &dims).unwrap().to_dtype(dtype).unwrap());
    let loss = settings.of(&logits, labels).unwrap();
    let (value, id, leaf) = (loss.value().item().unwrap(), loss.id(), logits.id());
    drop((loss, logits));
    let gradients = tape.backward(id, &[]).unwrap();
    let gradient = gradients.of(leaf).unwrap().unwrap().to_dtype(DType::F64).unwrap();
    (value, gradient.to_vec::<f64>().unwrap())
}

#[test]
fn the_loss_equals_the_one_of_pytorch() {
    for row in goldens()["losses"].as_array().unwrap() {
        let settings = ClassificationLoss {
            label_smoothing: row["label_smoothing"].as_f64().unwrap(),
            class_weights: row["class_weights"].as_array().map(|_| floats(&row["class_weights"])),
            distillation: None,
        };
        let labels: Vec<u32> = floats(&row["labels"]).into_iter().map(|label| label as u32).collect();
        let logits = floats(&row["logits"]);
        for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 1e-6)] {
            let (loss, gradient) = loss_of(&settings, &logits, &labels, dtype);
            assert_close("loss", &[loss], &floats(&Value::from(vec![row["loss"].clone()])), tolerance);
            assert_close("gradient", &gradient, &floats(&row["gradient"]), tolerance);
        }
    }
}

#[test]
fn balanced_weights_are_scikit_learn_s() {
    for row in goldens()["balanced"].as_array().unwrap() {
        let counts: Vec<usize> = floats(&row["counts"]).into_iter().map(|count| count as usize).collect();
        let names = vec!["class".to_owned(); counts.len()];
        assert_close(
            "weights",
            &balanced_class_weights(&counts, &names).unwrap(),
            &floats(&row["weights"]),
            1e-15,
        );
    }
    let error = balanced_class_weights(&[3, 0], &["a".into(), "b".into()]).unwrap_err().to_string();
    assert!(error.contains("`b` has none"), "{error}");
}

/// Three matrices that stand alone.
struct Matrices(ParameterStore);

impl Model for Matrices {
    fn parameters(&self) -> &ParameterStore {
        &self.0
    }

    fn parameters_mut(&mut self) -> &mut ParameterStore {
        &mut self.0
    }
}

impl Matrices {
    fn of(values: &[Vec<f64>]) -> Self {
        let mut builder = Builder::random(0, 1.0);
        for index in 0..values.len() {
            builder.parameter(&[format!("p{index}")], &[2, 3], Init::Normal, Precision::Full).unwrap();
        }
        let mut store = builder.finish().unwrap().0.to_dtype(DType::F64).unwrap();
        for ((_, parameter), value) in store.iter_mut().zip(values) {
            parameter.value = Tensor::from_slice(value, &[2, 3]).unwrap();
        }
        Matrices(store)
    }

    fn values(&self) -> Vec<f64> {
        self.0.iter().flat_map(|(_, parameter)| parameter.value.to_vec::<f64>().unwrap()).collect()
    }

    /// A step on `sum p^4 / 4`.
    fn step(&mut self, optimizer: &mut dyn Optimizer, step: usize) {
        let (seed, lr, max_grad_norm) = (0, 0.05, None);
        let settings =
            StepSettings { seed, step, lr, max_grad_norm, checkpoint_layers: false, profiled: false };
        vitrine_train::step(
            self,
            |model, tape| {
                let mut sum = tape.constant(Tensor::from_slice(&[0f64], &[]).unwrap());
                for (id, parameter) in model.0.iter() {
                    let p = tape.parameter(id, parameter.operand());
                    let square = p.mul(&p)?;
                    sum = sum.add(&square.mul(&square)?.sum_all()?.scale(0.25)?)?;
                }
                Ok(sum)
            },
            optimizer,
            &settings,
        )
        .unwrap();
    }
}

#[test]
fn learning_rates_of_groups_are_those_of_pytorch_s_parameter_groups() {
    for row in goldens()["optimizers"].as_array().unwrap() {
        let first: Vec<Vec<f64>> = row["first"].as_array().unwrap().iter().map(floats).collect();
        let mut model = Matrices::of(&first);
        for ((_, parameter), factor) in model.0.iter_mut().zip(floats(&row["factors"])) {
            parameter.lr_factor = factor;
        }
        let optimizer = match row["name"].as_str().unwrap() {
            "adamw" => OptimizerKind::AdamW { beta1: 0.8, beta2: 0.95, eps: 1e-6 },
            _ => OptimizerKind::Sgd { momentum: 0.9 },
        };
        let mut optimizer = Techniques { optimizer, ..Techniques::default() }.optimizer(0.1);
        for step in 0..5 {
            model.step(optimizer.as_mut(), step);
        }
        assert_close(row["name"].as_str().unwrap(), &model.values(), &floats(&row["last"]), 1e-12);
    }
}

/// An optimizer that sets the weights to given values.
struct Script(Vec<Vec<f64>>);

impl Optimizer for Script {
    fn step(
        &mut self,
        parameters: &mut ParameterStore,
        _: &vitrine_autograd::Gradients,
        _: &vitrine_tensor::ops::adamw::GradNorm,
        _: f64,
        step: usize,
    ) -> vitrine_train::Result<()> {
        for (_, parameter) in parameters.iter_mut() {
            parameter.value = Tensor::from_slice(&self.0[step], &[2, 3])?;
        }
        Ok(())
    }

    fn state(&self, _: &ParameterStore) -> vitrine_train::Result<Vec<(String, Tensor)>> {
        Ok(Vec::new())
    }

    fn set_state(&mut self, _: &ParameterStore, _: BTreeMap<String, Tensor>) -> vitrine_train::Result<()> {
        Ok(())
    }
}

#[test]
fn the_average_of_the_weights_is_pytorch_s() {
    let golden = &goldens()["averages"];
    let rows = |name: &str| golden[name].as_array().unwrap().iter().map(floats).collect::<Vec<_>>();
    let values = rows("values");
    let mut model = Matrices::of(&values[..1]);
    let mut ema = Ema::new(Box::new(Script(values.clone())), golden["decay"].as_f64().unwrap());
    for (step, average) in rows("averages").iter().enumerate() {
        model.step(&mut ema, step);
        assert!(ema.swap_averages(&mut model.0).unwrap());
        assert_close("average", &model.values(), average, 1e-14);
        assert!(ema.state(&model.0).is_err(), "the averages are not the weights to go on from");
        assert!(ema.swap_averages(&mut model.0).unwrap());
        assert_close("weights", &model.values(), &values[step], 0.0);
    }
}

/// A run that goes on from saved weights and a saved state has the same averages, bit for bit.
#[test]
fn an_average_goes_on_where_it_was() {
    let new = || Ema::new(Box::new(AdamW::new(0.1)), 0.9);
    let (mut model, mut whole) = (Matrices::of(&[vec![0.5, -1.0, 2.0, 0.1, 1.5, -0.3]]), new());
    (0..3).for_each(|step| model.step(&mut whole, step));
    let state: BTreeMap<String, Tensor> = whole
        .state(&model.0)
        .unwrap()
        .into_iter()
        .map(|(name, tensor)| {
            (name, Tensor::from_slice(&tensor.to_vec::<f64>().unwrap(), tensor.dims()).unwrap())
        })
        .collect();
    assert!(state.keys().map(String::as_str).eq(["average.p0", "first_moment.p0", "second_moment.p0"]));
    let (mut again, mut continued) = (Matrices::of(&[model.values()]), new());
    let mut other = state.clone();
    other.insert("average.p9".into(), Tensor::from_slice(&[0f64], &[1]).unwrap());
    assert!(continued.set_state(&again.0, other).is_err());
    continued.set_state(&again.0, state).unwrap();
    for step in 3..6 {
        model.step(&mut whole, step);
        again.step(&mut continued, step);
    }
    whole.swap_averages(&mut model.0).unwrap();
    continued.swap_averages(&mut again.0).unwrap();
    assert_eq!(model.values(), again.values());
}

fn prepared(techniques: &Techniques, layers: usize) -> SequenceClassifier {
    let mut model = SequenceClassifier::random(tiny::config(layers), 3).unwrap();
    techniques.prepare(&mut model, 5).unwrap();
    model
}

fn batch(model: &SequenceClassifier, step: usize) -> TokenBatch {
    let (sequences, labels) = tiny::sequences(6, step);
    TokenBatch::new(&sequences, Some(&labels), model.config()).unwrap()
}

#[test]
fn layer_decay_falls_from_the_head_to_the_embeddings() {
    let model = prepared(&Techniques { layer_decay: Some(0.5), ..Techniques::default() }, 3);
    let groups = Groups::of(model.parameters(), model.config());
    let factors: Vec<(&str, f64)> =
        groups.places.iter().map(|group| (group.place.as_str(), group.lr_factor)).collect();
    assert_eq!(
        factors,
        [("embeddings", 0.0625), ("layer 0", 0.125), ("layer 1", 0.25), ("layer 2", 0.5), ("head", 1.0)]
    );
    assert_eq!(groups.decay.parameters + groups.no_decay.parameters, model.parameters().numel());
    for (_, parameter) in model.parameters().iter() {
        assert_eq!(parameter.decay, parameter.value.rank() > 1);
    }
}

#[test]
fn top_layers_and_the_pooler_start_anew() {
    let before = SequenceClassifier::random(tiny::config(3), 3).unwrap();
    let after = prepared(&Techniques { reinit_layers: 2, ..Techniques::default() }, 3);
    let anew = SequenceClassifier::random(tiny::config(3), 5).unwrap();
    let parts = |model: &SequenceClassifier| -> Vec<(String, Vec<f32>)> {
        let parts = model.parameters().parts().unwrap();
        parts.into_iter().map(|(key, value)| (key.to_owned(), value.to_vec::<f32>().unwrap())).collect()
    };
    for (((key, before), (_, after)), (_, anew)) in parts(&before).iter().zip(parts(&after)).zip(parts(&anew))
    {
        let top = ["layer.1.", "layer.2.", "pooler"].iter().any(|part| key.contains(part));
        assert_eq!(&after, if top { &anew } else { before }, "{key}");
    }
}

/// What a step keeps and computes: bytes that the tape saved, and operations with a gradient.
fn cost(freeze: &str, layers: usize) -> (usize, BTreeMap<String, usize>) {
    let freeze: Option<Freeze> = (!freeze.is_empty()).then(|| freeze.parse().unwrap());
    let model = prepared(&Techniques { freeze, ..Techniques::default() }, layers);
    let batch = batch(&model, 0);
    let counts = std::sync::Arc::new(std::sync::Mutex::new(BTreeMap::new()));
    let counted = counts.clone();
    let tape =
        Tape::training(Randomness { seed: 1, step: 0, first_sequence: 0 }).on_gradient(move |_, node, _| {
            *counted.lock().unwrap().entry(node.op.name().to_owned()).or_insert(0) += 1;
        });
    let loss = model.loss(&tape, &batch).unwrap();
    let id = loss.id();
    drop(loss);
    let saved = tape.nodes().iter().map(vitrine_autograd::Node::saved_bytes).sum();
    let gradients = tape.backward(id, &[]).unwrap();
    for (id, parameter) in model.parameters().iter() {
        assert_eq!(gradients.parameter(id).is_some(), parameter.trainable, "{}", parameter.name());
    }
    let counts = std::mem::take(&mut *counts.lock().unwrap());
    (saved, counts)
}

#[test]
fn frozen_layers_cost_neither_gradients_nor_memory() {
    let (all_bytes, all) = cost("", 4);
    let (one_layer_bytes, one_layer) = cost("embeddings,0-2", 4);
    // Below the one layer that is trained nothing is kept, and backward does not go there: what a model of 1 layer costs,
    // without its embeddings.
    let (single_bytes, single) = cost("embeddings", 1);
    assert_eq!((one_layer_bytes, &one_layer), (single_bytes, &single));
    assert!(3 * one_layer_bytes < all_bytes, "{one_layer_bytes} of {all_bytes}");
    assert_eq!(all["attention"], 4);
    assert_eq!(one_layer["attention"], 1);
    // Layers that are frozen above trained ones pass the gradient on, but have none of their own: no parameter, and no input
    // of a product is kept.
    let (above_bytes, above) = cost("1-3", 4);
    assert_eq!(above["linear"], all["linear"]);
    assert_eq!(all["parameter"] - above["parameter"], 3 * 12);
    assert!(above_bytes < all_bytes, "{above_bytes} of {all_bytes}");
    let (head_bytes, head) = cost("encoder", 4);
    assert_eq!(
        (head.get("attention"), head["linear"], head["linear + tanh"], head["parameter"]),
        (None, 1, 1, 4)
    );
    assert!(20 * head_bytes < all_bytes, "{head_bytes} of {all_bytes}");
}

#[test]
fn nonsense_is_refused() {
    let refused = |techniques: Techniques, words: &str| {
        let mut model = SequenceClassifier::random(tiny::config(2), 3).unwrap();
        let error = techniques.prepare(&mut model, 0).unwrap_err();
        assert!(matches!(error, TrainError::Technique { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    let none = Techniques::default;
    refused(
        Techniques { freeze: Some("0-2".parse().unwrap()), ..none() },
        "no layer 2; the model has layers 0 to 1",
    );
    refused(Techniques { reinit_layers: 3, ..none() }, "has 2 layers, not 3");
    let loss = |label_smoothing, class_weights| ClassificationLoss {
        label_smoothing,
        class_weights,
        distillation: None,
    };
    refused(Techniques { loss: loss(1.0, None), ..none() }, "--label-smoothing");
    refused(Techniques { loss: loss(0.0, Some(vec![1.0])), ..none() }, "1 weights for 2 classes");
    refused(
        Techniques { loss: loss(0.0, Some(vec![1.0, f64::NAN])), ..none() },
        "NaN is not a number above 0",
    );
    let lora = |rank, targets: &[&str]| {
        let targets = targets.iter().map(|&name| name.to_owned()).collect();
        Techniques { lora: Some(Lora { rank, alpha: 8.0, targets }), ..none() }
    };
    refused(lora(65, &["query"]), "65 is above 64");
    refused(
        lora(4, &["query", "q_proj"]),
        "`q_proj` is no linear layer of the encoder; there are self.query",
    );
    refused(lora(4, &["word_embeddings"]), "no linear layer");
    for (text, words) in
        [("", "is not"), ("5-2", "comes after"), ("layer1", "is not"), ("0-", "is not"), ("-1", "is not")]
    {
        let error = text.parse::<Freeze>().unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
    }
    let freeze: Freeze = "embeddings, 0-2,7".parse().unwrap();
    assert_eq!(freeze.to_string(), "embeddings,0-2,7");
}

/// 4 x 4 rows are the step of 16, with every technique on, within 1e-6.
#[test]
fn micro_batches_make_the_step_of_the_whole_batch_with_each_technique() {
    let loss = |label_smoothing, weights: Option<[f64; 2]>| ClassificationLoss {
        label_smoothing,
        class_weights: weights.map(Vec::from),
        distillation: None,
    };
    let none = Techniques::default;
    let lora =
        Lora { rank: 4, alpha: 8.0, targets: ["query", "value", "output.dense"].map(str::to_owned).to_vec() };
    let cases = [
        none(),
        Techniques { loss: loss(0.0, Some([0.3, 2.5])), ..none() },
        Techniques { loss: loss(0.1, Some([3.0, 0.2])), layer_decay: Some(0.7), ..none() },
        Techniques { loss: loss(0.2, None), freeze: Some("embeddings,0".parse().unwrap()), ..none() },
        Techniques { ema: Some(0.8), reinit_layers: 1, ..none() },
        Techniques { lora: Some(lora), loss: loss(0.1, Some([0.3, 2.5])), ema: Some(0.8), ..none() },
    ];
    for techniques in cases {
        let run = |micro_batches: &[usize]| {
            let mut model = prepared(&techniques, 2);
            // SGD moves a weight by its gradient; AdamW would divide gradients of nothing but rounding by their own size.
            let sgd = Techniques { optimizer: OptimizerKind::Sgd { momentum: 0.9 }, ..techniques.clone() };
            let mut optimizer = sgd.optimizer(0.01);
            let mut numbers = Vec::new();
            for step in 0..3 {
                let (sequences, labels) = tiny::sequences(16, step);
                let mut start = 0;
                let batches = micro_batches.iter().map(|&count| {
                    let range = start..start + count;
                    start += count;
                    TokenBatch::new(&sequences[range.clone()], Some(&labels[range]), model.config()).unwrap()
                });
                let batches: Vec<TokenBatch> = batches.collect();
                let loss = &techniques.loss;
                let parts: Vec<MicroBatch> = batches.iter().map(|batch| loss.micro_batch(batch)).collect();
                let settings = StepSettings {
                    seed: 9,
                    step,
                    lr: 0.1,
                    max_grad_norm: Some(1.0),
                    checkpoint_layers: false,
                    profiled: false,
                };
                let taken = vitrine_train::accumulating_step(
                    &mut model,
                    &parts,
                    |model, tape, index| Ok(loss.of_batch(model, tape, &batches[index])?.0),
                    optimizer.as_mut(),
                    &settings,
                )
                .unwrap();
                numbers.extend([taken.loss.item().unwrap(), taken.norm.norm().unwrap()]);
            }
            optimizer.swap_averages(model.parameters_mut()).unwrap();
            techniques.finish(&mut model).unwrap();
            for (_, value) in model.parameters().parts().unwrap() {
                numbers
                    .extend(value.contiguous().unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from));
            }
            numbers
        };
        let whole = run(&[16]);
        for micro_batches in [&[4; 4][..], &[1, 7, 8]] {
            let parts = run(micro_batches);
            for (index, (a, b)) in whole.iter().zip(&parts).enumerate() {
                assert!(
                    (a - b).abs() <= 1e-6 * a.abs().max(1.0),
                    "{techniques:?} {micro_batches:?} {index}: {b}, not {a}"
                );
            }
        }
    }
}

#[test]
fn gradient_norms_by_layer_add_up_to_the_norm() {
    let mut model = prepared(&Techniques { freeze: Some("0".parse().unwrap()), ..Techniques::default() }, 2);
    let batch = batch(&model, 0);
    let settings = StepSettings {
        seed: 1,
        step: 0,
        lr: 0.0,
        max_grad_norm: None,
        checkpoint_layers: false,
        profiled: false,
    };
    let taken =
        vitrine_train::step(&mut model, |m, tape| m.loss(tape, &batch), &mut Sgd::new(0.0, 0.0), &settings)
            .unwrap();
    let norms = gradient_norms_by_layer(model.parameters(), model.config(), &taken.gradients).unwrap();
    let places: Vec<Place> = norms.iter().map(|(place, _)| *place).collect();
    assert_eq!(places, [Place::Embeddings, Place::Layer(1), Place::Head]);
    let sum = norms.iter().map(|(_, norm)| norm * norm).sum::<f64>().sqrt();
    assert_close("norm", &[sum], &[taken.norm.norm().unwrap()], 1e-9);
    assert!(norms.iter().all(|(_, norm)| *norm > 0.0));
}
