//! The loss of distillation against its closed form, in f64, and in parts.

mod tiny;

use vitrine_autograd::{Tape, Var};
use vitrine_bert::{ModelConfig, SequenceClassifier, TokenBatch};
use vitrine_tensor::Tensor;
use vitrine_tensor::random::philox;
use vitrine_train::techniques::{
    ClassificationLoss, Distillation, OptimizerKind, Techniques, teacher_layers,
};
use vitrine_train::{MicroBatch, StepSettings};

/// Numbers between -3 and 3.
fn numbers(count: usize, seed: u32) -> Vec<f64> {
    let words = (0..count as u32).map(|i| philox([i, 0, 0, 0], [seed, 0])[0]);
    words.map(|word| f64::from(word) / f64::from(u32::MAX) * 6.0 - 3.0).collect()
}

fn softmax(row: &[f64], temperature: f64) -> Vec<f64> {
    let exponentials: Vec<f64> = row.iter().map(|z| (z / temperature).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|e| e / sum).collect()
}

/// A batch of rows of one token with a teacher.
fn batch(labels: &[u32], teacher: &[f64], labelled: &[bool], classes: usize) -> TokenBatch {
    let config = ModelConfig::bert_mini().with_labels(&vec![String::new(); classes]);
    let teacher: Vec<f32> = teacher.iter().map(|&z| z as f32).collect();
    let sequences = vec![[1u32]; labels.len()];
    TokenBatch::new(&sequences, Some(labels), &config)
        .unwrap()
        .with_teacher(&teacher, labelled, &config)
        .unwrap()
}

/// Loss and gradient by the formulas, in scalars: the gradient of `T^2 KL(p || softmax(x / T))` is `T (softmax(x / T) - p)`.
fn closed_form(
    loss: &ClassificationLoss,
    logits: &[f64],
    labels: &[u32],
    teacher: &[f64],
    labelled: &[bool],
) -> (f64, Vec<f64>) {
    let (rows, Distillation { weight, temperature, .. }) = (labels.len(), loss.distillation.unwrap());
    let classes = logits.len() / rows;
    let of_class = |class: usize| loss.class_weights.as_ref().map_or(1.0, |weights| weights[class]);
    let v: Vec<f64> =
        (0..rows).map(|b| if labelled[b] { of_class(labels[b] as usize) } else { 1.0 }).collect();
    let all: f64 = v.iter().sum();
    let (mut value, mut gradient) = (0.0, Vec::new());
    for b in 0..rows {
        let (x, z) = (&logits[b * classes..][..classes], &teacher[b * classes..][..classes]);
        let (p, q, student) = (softmax(z, temperature), softmax(x, temperature), softmax(x, 1.0));
        let even = loss.label_smoothing / classes as f64;
        let hit = |k: usize| if labels[b] as usize == k { 1.0 - loss.label_smoothing } else { 0.0 };
        let t: Vec<f64> =
            (0..classes).map(|k| if labelled[b] { of_class(k) * (hit(k) + even) } else { 0.0 }).collect();
        let sum_t: f64 = t.iter().sum();
        for k in 0..classes {
            value -= (1.0 - weight) * t[k] * student[k].ln() / all;
            value += weight * v[b] * temperature.powi(2) * p[k] * (p[k] / q[k]).ln() / all;
            let hard = (1.0 - weight) * (sum_t * student[k] - t[k]);
            gradient.push((hard + weight * v[b] * temperature * (q[k] - p[k])) / all);
        }
    }
    (value, gradient)
}

#[test]
fn loss_and_gradient_are_the_closed_form() {
    let (rows, classes) = (7, 3);
    let labels: Vec<u32> = (0..rows as u32).map(|row| row * 5 % 3).collect();
    // What a teacher says is kept in f32.
    let teacher: Vec<f64> = numbers(rows * classes, 2).iter().map(|&z| f64::from(z as f32)).collect();
    let logits = numbers(rows * classes, 1);
    let some: Vec<bool> = (0..rows).map(|row| row % 3 != 1).collect();
    for (weight, temperature) in [(0.5, 2.0), (1.0, 1.0), (0.0, 3.0), (0.9, 0.5)] {
        for labelled in [&vec![true; rows], &some, &vec![false; rows]] {
            for (label_smoothing, class_weights) in [(0.0, None), (0.1, Some(vec![0.3, 2.5, 1.0]))] {
                let distillation = Some(Distillation { weight, temperature, hidden: 0.0 });
                let loss = ClassificationLoss { label_smoothing, class_weights, distillation };
                let batch = batch(&labels, &teacher, labelled, classes);
                let tape = Tape::recording();
                let x = tape.leaf(Tensor::from_slice(&logits, &[rows, classes]).unwrap());
                let of = loss.distillation.unwrap().of(&loss, &x, &labels, batch.teacher().unwrap()).unwrap();
                let (id, x_id) = (of.id(), x.id());
                let got = of.into_value().item().unwrap();
                drop(x);
                let gradients = tape.backward(id, &[x_id]).unwrap();
                let gradient = gradients.of(x_id).unwrap().unwrap().to_vec::<f64>().unwrap();
                let (value, expected) = closed_form(&loss, &logits, &labels, &teacher, labelled);
                assert!(
                    (got - value).abs() <= 1e-12 * value.abs().max(1.0),
                    "{loss:?}: {got} is not {value}"
                );
                assert_eq!(gradient.len(), expected.len());
                for (got, expected) in gradient.iter().zip(&expected) {
                    assert!((got - expected).abs() <= 1e-12, "{loss:?}: {got} is not {expected}");
                }
            }
        }
    }
    // Where they agree, there is nothing to learn.
    let loss = ClassificationLoss {
        distillation: Some(Distillation { weight: 1.0, ..Default::default() }),
        ..Default::default()
    };
    let (value, gradient) = closed_form(&loss, &teacher, &labels, &teacher, &some);
    assert!(value.abs() < 1e-12 && gradient.iter().all(|g| g.abs() < 1e-12));
}

#[test]
fn hidden_states_are_compared_by_direction() {
    let (rows, layers, width) = (5, 2, 3);
    let labels: Vec<u32> = (0..rows as u32).map(|row| row % 2).collect();
    let labelled = [true, false, true, true, false];
    let class_weights = vec![0.3, 2.5];
    let v: Vec<f64> =
        (0..rows).map(|row| if labelled[row] { class_weights[labels[row] as usize] } else { 1.0 }).collect();
    let all: f64 = v.iter().sum();
    let hidden = 0.7;
    let distillation = Distillation { hidden, ..Default::default() };
    let loss = ClassificationLoss {
        class_weights: Some(class_weights),
        distillation: Some(distillation),
        ..Default::default()
    };
    let said: Vec<f64> =
        numbers(rows * (2 + layers * width), 6).iter().map(|&z| f64::from(z as f32)).collect();
    let batch = batch(&labels, &said, &labelled, 2);
    let states: Vec<Vec<f64>> = (0..layers as u32).map(|layer| numbers(rows * width, 7 + layer)).collect();

    let tape = Tape::recording();
    let leaf = |state: &Vec<f64>| tape.leaf(Tensor::from_slice(state, &[rows, width]).unwrap());
    let firsts: Vec<_> = states.iter().map(leaf).collect();
    let ids: Vec<_> = firsts.iter().map(Var::id).collect();
    let of = distillation.of_hidden(&loss, &firsts, &labels, batch.teacher().unwrap()).unwrap();
    let (id, got) = (of.id(), of.value().item().unwrap());
    drop((of, firsts));
    let gradients = tape.backward(id, &ids).unwrap();

    let mut expected = 0.0;
    for (layer, (state, id)) in states.iter().zip(ids).enumerate() {
        let gradient = gradients.of(id).unwrap().unwrap().to_vec::<f64>().unwrap();
        assert_eq!(gradient.len(), rows * width);
        for row in 0..rows {
            let s = &state[row * width..][..width];
            let t = &said[row * (2 + layers * width) + 2 + layer * width..][..width];
            let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
            let (s_norm, t_norm) = (norm(s), norm(t));
            let share = v[row] / all * hidden / layers as f64;
            let unit: Vec<(f64, f64)> = s.iter().zip(t).map(|(s, t)| (s / s_norm, t / t_norm)).collect();
            expected += share * unit.iter().map(|(s, t)| (s - t).powi(2)).sum::<f64>();
            let cosine: f64 = unit.iter().map(|(s, t)| s * t).sum();
            for (got, (s, t)) in gradient[row * width..].iter().zip(&unit) {
                let expected = -2.0 * share * (t - cosine * s) / s_norm;
                assert!((got - expected).abs() <= 1e-12, "layer {layer}, row {row}: {got} is not {expected}");
            }
        }
    }
    assert!((got - expected).abs() <= 1e-12, "{got} is not {expected}");
}

/// A teacher that is the student has its logits and states: what is left is the entropy of nothing, 0.
#[test]
fn a_student_that_is_its_teacher_has_nothing_to_learn() {
    let model = SequenceClassifier::random(tiny::config(2), 3).unwrap();
    let (sequences, labels) = tiny::sequences(6, 0);
    let layers: Vec<usize> = (0..model.config().num_hidden_layers).collect();
    let tape = Tape::inference();
    let batch = TokenBatch::new(&sequences, Some(&labels), model.config()).unwrap();
    let (found, firsts) = model.forward_with_firsts(&tape, &batch).unwrap();
    let plain = model.logits(&tape, &batch).unwrap().value().to_vec::<f32>().unwrap();
    let logits = found.logits.value().to_vec::<f32>().unwrap();
    assert_eq!(logits, plain, "other logits than without the states");
    let width = model.config().hidden_size;
    let firsts: Vec<Vec<f32>> = firsts.iter().map(|first| first.value().to_vec::<f32>().unwrap()).collect();
    assert_eq!(firsts.len(), layers.len());
    let mut said = Vec::new();
    for row in 0..6 {
        said.extend_from_slice(&logits[2 * row..2 * row + 2]);
        firsts.iter().for_each(|first| said.extend_from_slice(&first[width * row..width * (row + 1)]));
    }
    let loss = |hidden| ClassificationLoss {
        distillation: Some(Distillation { weight: 1.0, temperature: 2.0, hidden }),
        ..Default::default()
    };
    let value = |said: &[f32], hidden| {
        let batch = batch.clone().with_teacher(said, &[true; 6], model.config()).unwrap();
        let tape = Tape::inference();
        loss(hidden).of_batch(&model, &tape, &batch).unwrap().0.value().item().unwrap()
    };
    assert!(value(&said, 5.0).abs() < 1e-5, "{}", value(&said, 5.0));
    // Another state of the first layer counts, and only if it should.
    let mut other = said.clone();
    other[2] += 1.0;
    assert!(value(&other, 5.0) > 1e-3 && value(&other, 0.0).abs() < 1e-5);
}

#[test]
fn layers_of_a_teacher_are_spread_over_the_student() {
    assert_eq!(teacher_layers(2, 6), [2, 5]);
    assert_eq!(teacher_layers(4, 6), [1, 2, 4, 5]);
    assert_eq!(teacher_layers(3, 3), [0, 1, 2]);
    assert_eq!(teacher_layers(3, 1), [0, 0, 0]);
}

/// 4 x 4 rows are the step of 16, some without labels, with class weights.
#[test]
fn micro_batches_make_the_step_of_the_whole_batch() {
    let loss = ClassificationLoss {
        label_smoothing: 0.1,
        class_weights: Some(vec![0.3, 2.5]),
        distillation: Some(Distillation { weight: 0.7, temperature: 3.0, hidden: 0.4 }),
    };
    let sgd = Techniques {
        optimizer: OptimizerKind::Sgd { momentum: 0.9 },
        loss: loss.clone(),
        ..Default::default()
    };
    let run = |parts: &[usize]| {
        let mut model = SequenceClassifier::random(tiny::config(2), 3).unwrap();
        sgd.prepare(&mut model, 5).unwrap();
        let mut optimizer = sgd.optimizer(0.01);
        let (sequences, labels) = tiny::sequences(16, 0);
        // Two logits, and a state for each layer.
        let width = 2 + model.config().num_hidden_layers * model.config().hidden_size;
        let teacher: Vec<f32> = numbers(16 * width, 4).iter().map(|&z| z as f32).collect();
        let labelled: Vec<bool> = (0..16).map(|row| row % 5 != 0 && row < 12).collect();
        let mut start = 0;
        let batches: Vec<TokenBatch> = parts
            .iter()
            .map(|&count| {
                let range = start..start + count;
                start += count;
                let batch =
                    TokenBatch::new(&sequences[range.clone()], Some(&labels[range.clone()]), model.config());
                let said = &teacher[width * range.start..width * range.end];
                batch.unwrap().with_teacher(said, &labelled[range], model.config()).unwrap()
            })
            .collect();
        let weights: Vec<MicroBatch> = batches.iter().map(|batch| loss.micro_batch(batch)).collect();
        let (seed, lr, max_grad_norm) = (9, 0.1, Some(1.0));
        let mut found = Vec::new();
        for step in 0..2 {
            let settings =
                StepSettings { seed, step, lr, max_grad_norm, checkpoint_layers: false, profiled: false };
            let taken = vitrine_train::accumulating_step(
                &mut model,
                &weights,
                |model, tape, index| Ok(loss.of_batch(model, tape, &batches[index])?.0),
                optimizer.as_mut(),
                &settings,
            )
            .unwrap();
            found.extend([taken.loss.item().unwrap(), taken.norm.norm().unwrap()]);
        }
        found
    };
    let whole = run(&[16]);
    for parts in [&[4; 4][..], &[1, 7, 8]] {
        for (a, b) in whole.iter().zip(run(parts)) {
            assert!((a - b).abs() <= 1e-6 * a.abs().max(1.0), "{parts:?}: {b} is not {a}");
        }
    }
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    for (weight, temperature) in [(1.5, 2.0), (-0.1, 2.0), (f64::NAN, 2.0), (0.5, 0.0), (0.5, f64::INFINITY)]
    {
        assert!(Distillation { weight, temperature, hidden: 0.0 }.check().is_err(), "{weight} {temperature}");
    }
    for hidden in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(Distillation { hidden, ..Default::default() }.check().is_err(), "{hidden}");
    }
    assert!(Distillation::default().check().is_ok());
}
