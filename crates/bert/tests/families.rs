//! Every model family against PyTorch and `transformers` (goldens: `goldens/make_families.py`), and its folders.

mod tapped;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tapped::{golden_taps, numbers};
use vitrine_autograd::{Gradients, Tape};
use vitrine_bert::{
    BaseModel, Checkpoint, Family, Head, MaskedLm, ModelConfig, SequenceClassifier, Taps, TokenBatch,
    Tokenizer, Weights, load_any,
};
use vitrine_nn::ParameterStore;

/// One section of a family's golden file.
struct Golden {
    floats: BTreeMap<String, Vec<f32>>,
    integers: BTreeMap<String, Vec<u32>>,
    config: ModelConfig,
    folder: tempfile::TempDir,
}

impl Golden {
    fn read(family: &Family, section: &str) -> Self {
        let name = format!("{}.safetensors", family.model_type);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name);
        let bytes = std::fs::read(path).expect("every family has a golden file");
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let text = &header.metadata().as_ref().unwrap()[&format!("{section}.config")];
        let (mut floats, mut integers, mut weights) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for (name, view) in file.tensors() {
            let Some(name) = name.strip_prefix(section).and_then(|name| name.strip_prefix('.')) else {
                continue;
            };
            if let Some(key) = name.strip_prefix("weight.") {
                let copy = TensorView::new(view.dtype(), view.shape().to_vec(), view.data()).unwrap();
                weights.push((key.to_owned(), copy));
            }
            let bytes = view.data();
            match view.dtype() {
                Dtype::F32 => {
                    let value = |b: &[u8]| f32::from_le_bytes(b.try_into().unwrap());
                    floats.insert(name.to_owned(), bytes.chunks_exact(4).map(value).collect());
                }
                Dtype::I64 => {
                    let value = |b: &[u8]| i64::from_le_bytes(b.try_into().unwrap()) as u32;
                    integers.insert(name.to_owned(), bytes.chunks_exact(8).map(value).collect());
                }
                other => panic!("{name} is {other}"),
            }
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.safetensors"), serialize(weights, None).unwrap()).unwrap();
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        let config = ModelConfig::parse(text, Path::new("golden")).unwrap();
        assert_eq!(config.family, family);
        Golden { floats, integers, config, folder }
    }

    fn weights(&self) -> Weights {
        Weights::open(self.folder.path(), &self.config.family.names).unwrap()
    }

    fn batch(&self) -> TokenBatch {
        let ids = &self.integers["ids"];
        let ends = self.integers["offsets"].windows(2);
        let sequences = ends.map(|pair| &ids[pair[0] as usize..pair[1] as usize]);
        let labels = self.integers.get("labels").map(Vec::as_slice);
        let batch = TokenBatch::new(sequences, labels, &self.config).unwrap();
        batch.with_token_types(&self.integers["token_types"], &self.config).unwrap()
    }

    /// `max|a - b| <= 1e-4 max|b|`; NaN fails.
    #[track_caller]
    fn compare(&self, name: &str, got: &[f32]) {
        let expected = &self.floats[name];
        assert_eq!(got.len(), expected.len(), "{name}: number of elements");
        let limit = 1e-4 * largest(expected);
        for (index, (a, b)) in got.iter().zip(expected).enumerate() {
            assert!((a - b).abs() <= limit, "{name}[{index}]: got {a}, expected {b}, limit {limit:e}");
        }
    }

    /// Every gradient; the keys' bias, which softmax does not see, has none.
    fn compare_gradients(&self, parameters: &ParameterStore, gradients: &Gradients) {
        parameters.audit(gradients).unwrap();
        let is_key = |key: &str| key.ends_with("key.bias") || key.ends_with("k_lin.bias");
        let mut compared = 0;
        for (id, parameter) in parameters.iter() {
            let parts = parameter.split(gradients.parameter(id).unwrap()).unwrap();
            let values: Vec<_> =
                parts.iter().map(|(key, part)| (*key, part.to_vec::<f32>().unwrap())).collect();
            for (key, got) in &values {
                compared += 1;
                if !is_key(key) {
                    self.compare(&format!("grad.{key}"), got);
                    continue;
                }
                // Beside the queries' bias, the parameter's first part.
                let limit = 1e-6 * largest(&values[0].1);
                assert!(largest(got) <= limit, "{key}: {} above {limit:e}", largest(got));
            }
        }
        let expected = self.floats.keys().filter(|name| name.starts_with("grad.")).count();
        assert_eq!(compared, expected);
    }
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, value| most.max(value.abs()))
}

#[test]
fn classifiers_equal_transformers() {
    for family in Family::all() {
        let golden = Golden::read(family, "classifier");
        let (model, report) =
            SequenceClassifier::from_weights(golden.config.clone(), golden.weights(), None).unwrap();
        assert_eq!(report, Default::default());
        let batch = golden.batch();
        let tape = Tape::inference();
        let mut taps = Taps::new();
        let (states, maps) = golden_taps(&mut taps, golden.config.num_hidden_layers);
        let observed = model.forward(&tape, &batch, &taps).unwrap();
        golden.compare("logits", &observed.logits.value().to_vec::<f32>().unwrap());
        for (index, state) in states.into_iter().enumerate() {
            golden.compare(&format!("hidden_states.{index}"), &numbers(&taps, state));
        }
        for (layer, map) in maps.into_iter().enumerate() {
            golden.compare(&format!("attentions.{layer}"), &numbers(&taps, map));
        }
        let short = model.logits(&Tape::inference(), &batch).unwrap().value().to_vec::<f32>().unwrap();
        golden.compare("logits", &short);

        let tape = Tape::recording();
        let loss = model.loss(&tape, &batch).unwrap();
        golden.compare("loss", &[loss.value().item().unwrap() as f32]);
        let id = loss.id();
        golden.compare_gradients(model.parameters(), &tape.backward(id, &[]).unwrap());
    }
}

#[test]
fn masked_language_models_equal_transformers() {
    for family in Family::all() {
        let golden = Golden::read(family, "masked_lm");
        let (model, report) = MaskedLm::from_weights(golden.config.clone(), golden.weights()).unwrap();
        assert_eq!(report, Default::default());
        let batch = golden.batch();
        let all: Arc<[u32]> = (0..batch.len() as u32).collect();
        let tape = Tape::inference();
        let logits = model.logits(&tape, &batch, &all).unwrap();
        golden.compare("logits", &logits.value().to_vec::<f32>().unwrap());

        let tape = Tape::recording();
        let [rows, targets] = ["positions", "targets"].map(|name| golden.integers[name].as_slice().into());
        let loss = model.loss(&tape, &batch, &rows, &targets).unwrap();
        golden.compare("loss", &[loss.value().item().unwrap() as f32]);
        let id = loss.id();
        golden.compare_gradients(model.parameters(), &tape.backward(id, &[]).unwrap());
    }
}

/// What a folder of a family holds is found by its `model_type` alone, and saving writes the family's own names.
#[test]
fn folders_are_read_and_written_under_the_family_s_names() {
    let vocabulary: String = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"]
        .map(|token| format!("{token}\n"))
        .concat();
    let tokenizer = Tokenizer::from_vocabulary(&vocabulary).unwrap();
    for family in Family::all() {
        let golden = Golden::read(family, "classifier");
        let folder = golden.folder.path();
        for (name, text) in tokenizer.files(&golden.config) {
            std::fs::write(folder.join(name), text.as_bytes()).unwrap();
        }
        let loaded = SequenceClassifier::load(folder).unwrap();
        assert_eq!(loaded.model.config().num_labels(), 3);
        let saved = tempfile::tempdir().unwrap();
        loaded.model.save(saved.path(), &loaded.tokenizer).unwrap();
        let read = |folder: &Path, name: &str| std::fs::read(folder.join(name)).unwrap();
        let config = |folder: &Path| -> serde_json::Value {
            serde_json::from_slice(&read(folder, "config.json")).unwrap()
        };
        let (before, after) = (config(folder), config(saved.path()));
        for (field, value) in before.as_object().unwrap() {
            let rewritten = ["dtype", "torch_dtype", "transformers_version", "architectures", "problem_type"];
            if !rewritten.contains(&field.as_str()) {
                let same = after[field] == *value
                    || (after[field].is_number() && after[field].as_f64() == value.as_f64())
                    || (value.is_null() && after[field].is_null());
                assert!(same, "{}: {field} was {value} and is {}", family.model_type, after[field]);
            }
        }
        assert_eq!(after["architectures"][0], family.architecture("ForSequenceClassification"));
        let keys = |folder: &Path| -> Vec<String> {
            let bytes = read(folder, "model.safetensors");
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let mut names: Vec<String> = file.names().into_iter().map(str::to_owned).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(keys(saved.path()), keys(folder));
        assert_eq!(load_any(saved.path()).unwrap().config().num_labels(), 3);

        // A new head for other classes; what belongs to the base model stays.
        let names = ["a", "b"].map(str::to_owned);
        let new =
            Checkpoint::open(saved.path()).unwrap().classifier(Head::New { names: &names, seed: 1 }).unwrap();
        assert_eq!(new.model.config().label_names(), names);
        let base = family.names.base;
        let changed: Vec<&str> = {
            let (old, new) =
                (loaded.model.parameters().parts().unwrap(), new.model.parameters().parts().unwrap());
            let values = |t: &vitrine_tensor::Tensor| t.to_vec::<f32>().unwrap();
            old.iter()
                .zip(&new)
                .filter(|((_, a), (_, b))| values(a) != values(b))
                .map(|((key, _), _)| *key)
                .collect()
        };
        assert!(changed.len() >= 2 && changed.iter().all(|key| !key.starts_with(base)), "{changed:?}");

        // An encoder alone has no classifier, and says so.
        let bare = BaseModel::random(golden.config.clone(), 3).unwrap();
        bare.save(saved.path(), &tokenizer).unwrap();
        let message = SequenceClassifier::load(saved.path()).err().unwrap().to_string();
        assert!(message.contains("no classifier in it, only an encoder"), "{message}");
        Checkpoint::open(saved.path()).unwrap().classifier(Head::New { names: &names, seed: 1 }).unwrap();
    }
}

#[test]
fn another_model_type_is_refused_with_those_that_there_are() {
    let refused = |text: &str| ModelConfig::parse(text, Path::new("config.json")).unwrap_err().to_string();
    let message = refused(r#"{"model_type": "electra"}"#);
    let all: Vec<&str> = Family::all().iter().map(|family| family.model_type).collect();
    assert!(message.contains("model_type = electra") && message.contains(&all.join(", ")), "{message}");
    for family in Family::all() {
        let text = format!(r#"{{"model_type": "{}", "pruned_heads": {{"0": [1]}}}}"#, family.model_type);
        assert!(refused(&text).contains("pruned_heads"), "{text}");
    }
}
