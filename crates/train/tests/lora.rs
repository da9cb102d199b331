//! LoRA against `peft` (`goldens/techniques.py` makes `goldens/lora.safetensors`): initialisation, logits, gradients, the adapter's file,
//! the merged weights; and that it trains every family.

mod tiny;

use safetensors::SafeTensors;
use serde_json::Value;
use std::path::Path;
use vitrine_autograd::Tape;
use vitrine_bert::{Family, ModelConfig, SequenceClassifier, TokenBatch};
use vitrine_tensor::{DType, Tensor};
use vitrine_train::StepSettings;
use vitrine_train::techniques::{Lora, Techniques};

#[track_caller]
fn assert_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (index, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{what} {index}: got {a}, expected {b}");
    }
}

/// `lora.safetensors`: a small BERT under `peft`.
#[test]
fn lora_computes_what_peft_does() {
    let bytes = include_bytes!("goldens/lora.safetensors");
    let golden = SafeTensors::deserialize(bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    let config =
        ModelConfig::parse(&header.metadata().as_ref().unwrap()["config"], Path::new("golden")).unwrap();
    let values = |name: &str| -> Vec<f64> {
        let view = golden.tensor(name).unwrap_or_else(|_| panic!("no {name}"));
        let bytes = view.data().chunks_exact(4);
        bytes.map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()))).collect()
    };
    let integers = |name: &str| -> Vec<u32> {
        let bytes =
            golden.tensor(name).unwrap().data().chunks_exact(8).map(|bytes| bytes.try_into().unwrap());
        bytes.map(|bytes| i64::from_le_bytes(bytes) as u32).collect()
    };
    let mut model = SequenceClassifier::random(config, 0).unwrap();
    let targets = ["query", "value", "intermediate.dense"].map(str::to_owned).to_vec();
    let lora = Lora { rank: 4, alpha: 6.0, targets };
    Techniques { lora: Some(lora.clone()), ..Techniques::default() }.prepare(&mut model, 0).unwrap();
    // peft's initialisation: A uniform within 1 / sqrt K, B zero.
    for (key, value) in model.parameters().parts().unwrap() {
        let value = value.to_vec::<f32>().unwrap();
        let most = value.iter().fold(0f32, |most, value| most.max(value.abs()));
        if key.contains("lora_A") {
            assert!(most <= 0.25 && most > 0.2, "{key}: {most}");
        } else if key.contains("lora_B") {
            assert_eq!(most, 0.0, "{key}");
        }
    }
    // The golden's weights, in the order of the store.
    for (_, parameter) in model.parameters_mut().iter_mut() {
        let mut numbers = Vec::new();
        for part in &parameter.parts {
            let kind = if part.key.contains("lora") { "adapter" } else { "weight" };
            numbers.extend(values(&format!("{kind}.{}", part.key)).iter().map(|&value| value as f32));
        }
        parameter.value = Tensor::from_slice(&numbers, parameter.value.dims()).unwrap();
    }
    let (ids, labels) = (integers("ids"), integers("labels"));
    let batch = TokenBatch::new(ids.chunks(9), Some(&labels), model.config()).unwrap();
    let logits = |model: &SequenceClassifier| {
        let logits = model.logits(&Tape::inference(), &batch).unwrap().value().to_dtype(DType::F64).unwrap();
        logits.to_vec::<f64>().unwrap()
    };
    assert_close("logits", &logits(&model), &values("logits"), 2e-6);

    for checkpointing in [false, true] {
        let tape = if checkpointing { Tape::recording().checkpointing_layers() } else { Tape::recording() };
        let loss = model.loss(&tape, &batch).unwrap();
        let id = loss.id();
        drop(loss);
        let gradients = tape.backward(id, &[]).unwrap();
        let mut compared = 0;
        for (id, parameter) in model.parameters().iter() {
            let Some(gradient) = gradients.parameter(id) else {
                assert!(!parameter.trainable, "{}", parameter.name());
                continue;
            };
            let key = &parameter.parts[0].key;
            let name = match key.starts_with("base_model") {
                true => format!("grad.{key}"),
                false => format!("grad.base_model.model.{key}"),
            };
            let gradient = gradient.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap();
            assert_close(&name, &gradient, &values(&name), 2e-6);
            compared += 1;
        }
        // 2 layers of 3 matrices with A and B; and the head.
        assert_eq!(compared, 2 * 3 * 2 + 4);
        assert_eq!(
            model.parameters().trainable_numel(),
            2 * (4 * (2 * 32) + 4 * (16 + 32)) + 16 * 17 + 3 * 17
        );
    }

    // The adapter alone has peft's keys and values.
    let adapter = lora.export(model.parameters(), model.config(), Some("base")).unwrap();
    let mut file = Vec::new();
    adapter.weights.write(&mut file).unwrap();
    let saved = SafeTensors::deserialize(&file).unwrap();
    let mut names: Vec<&str> = saved.names();
    names.sort_unstable();
    let gradients = golden.names().into_iter().filter_map(|name| name.strip_prefix("grad."));
    let mut expected: Vec<&str> = gradients.collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    let json: Value = serde_json::from_str(&adapter.config).unwrap();
    assert_eq!(json["r"], 4);
    assert_eq!(json["modules_to_save"], serde_json::json!(["pooler.dense", "classifier"]));
    assert_eq!(json["target_modules"].as_array().unwrap().len(), 6);

    // Merged, the model computes the same without adapters.
    let before = logits(&model);
    model.parameters_mut().merge_adapters().unwrap();
    assert!(!model.parameters().is_adapted());
    for (key, value) in model.parameters().parts().unwrap() {
        assert!(!key.contains("lora"), "{key}");
        if ["query.weight", "value.weight", "intermediate.dense.weight"].iter().any(|end| key.ends_with(end))
        {
            let value = value.contiguous().unwrap().to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap();
            assert_close(key, &value, &values(&format!("merged.{key}")), 1e-6);
        }
    }
    assert_close("logits", &logits(&model), &before, 2e-6);
}

/// LoRA trains on every family, from names of its own, and in bfloat16.
#[test]
fn lora_trains_every_family() {
    for family in Family::all() {
        let mut model = SequenceClassifier::random(tiny::config_of(family, 2), 3).unwrap();
        let targets = family.query_value_modules().map(str::to_owned).to_vec();
        let lora = Lora { rank: 8, alpha: 16.0, targets };
        let techniques = Techniques { lora: Some(lora), ..Techniques::default() };
        techniques.prepare(&mut model, 5).unwrap();
        model.compute_in(DType::BF16).unwrap();
        let mut optimizer = techniques.optimizer(0.0);
        let frozen: Vec<Vec<f32>> = frozen_values(&model);
        let (sequences, labels) = tiny::sequences(6, 0);
        let batch = TokenBatch::new(&sequences, Some(&labels), model.config()).unwrap();
        let mut losses = Vec::new();
        for step in 0..30 {
            let settings = StepSettings {
                seed: 1,
                step,
                lr: 3e-3,
                max_grad_norm: Some(1.0),
                checkpoint_layers: false,
                profiled: false,
            };
            let taken = vitrine_train::step(
                &mut model,
                |m, tape| m.loss(tape, &batch),
                optimizer.as_mut(),
                &settings,
            );
            losses.push(taken.unwrap().loss.item().unwrap());
        }
        assert!(losses[29] < 0.5 * losses[0], "{}: {losses:?}", family.model_type);
        assert_eq!(frozen_values(&model), frozen, "{}", family.model_type);
        let adapted = model.parameters().parts().unwrap().iter().any(|(key, value)| {
            key.contains("lora_B") && value.to_vec::<f32>().unwrap().iter().all(|value| *value != 0.0)
        });
        assert!(adapted);
    }
}

fn frozen_values(model: &SequenceClassifier) -> Vec<Vec<f32>> {
    let frozen = model.parameters().iter().filter(|(_, parameter)| !parameter.trainable);
    frozen.map(|(_, parameter)| parameter.value.to_vec::<f32>().unwrap()).collect()
}
