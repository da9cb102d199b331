//! The models against PyTorch and `transformers` (goldens: `goldens/make_goldens.py`), against themselves, and against finite
//! differences in F64.

mod golden;
mod tapped;

use golden::{Golden, KEY_BIAS, assert_close, compare_with_autocast, gradients_by_key, largest};
use half::bf16;
use std::collections::BTreeMap;
use std::sync::Arc;
use tapped::{golden_taps, numbers};
use vitrine_autograd::{Node, Randomness, Tape};
use vitrine_bert::{
    BaseModel, BertError, Checkpoint, Head, LayerPoint, Loaded, MaskedLm, ModelConfig, Point,
    SequenceClassifier, Taps, TokenBatch, Tokenizer, Weights, load_any,
};
use vitrine_tensor::DType;

/// The weights of a golden file.
fn weights(golden: &Golden) -> Weights {
    Weights::open(golden.folder.path(), &golden.config.family.names).unwrap()
}

/// Every gradient within 1e-4; the keys' bias, which softmax does not see, has none.
fn compare_gradients(got: &BTreeMap<String, Vec<f32>>, golden: &Golden) {
    let expected: Vec<&String> = golden.floats.keys().filter(|name| name.starts_with("grad.")).collect();
    assert_eq!(got.len(), expected.len());
    for name in expected {
        let key = &name["grad.".len()..];
        if let Some(layer) = key.strip_suffix("key.bias") {
            let limit = KEY_BIAS * largest(golden.float(&format!("grad.{layer}query.bias")));
            for values in [&got[key], golden.float(name)] {
                assert!(largest(values) <= limit, "{key}: {} above {limit:e}", largest(values));
            }
        } else {
            assert_close(key, &got[key], golden.float(name), 1e-4);
        }
    }
}

#[test]
fn a_classifier_equals_transformers() {
    for name in ["tiny.safetensors", "tiny_gelu_new.safetensors"] {
        let golden = Golden::read(name, None);
        let (model, report) =
            SequenceClassifier::from_weights(golden.config.clone(), weights(&golden), None).unwrap();
        assert_eq!(report, Default::default());
        let batch = golden.batch();

        let tape = Tape::inference();
        let mut taps = Taps::new();
        let (states, maps) = golden_taps(&mut taps, golden.config.num_hidden_layers);
        let observed = model.forward(&tape, &batch, &taps).unwrap();
        let values = |var: &vitrine_autograd::Var<'_>| var.value().to_vec::<f32>().unwrap();
        assert_close("logits", &values(&observed.logits), golden.float("logits"), 1e-4);
        assert_close("pooled", &values(&observed.pooled), golden.float("pooled"), 1e-4);
        for (index, state) in states.into_iter().enumerate() {
            let name = format!("hidden_states.{index}");
            assert_close(&name, &numbers(&taps, state), golden.float(&name), 1e-4);
        }
        for (layer, map) in maps.into_iter().enumerate() {
            let name = format!("attentions.{layer}");
            assert_close(&name, &numbers(&taps, map), golden.float(&name), 1e-4);
        }
        let short = model.logits(&Tape::inference(), &batch).unwrap().value().to_vec::<f32>().unwrap();
        assert_close("logits of [CLS] rows only", &short, golden.float("logits"), 1e-4);

        let tape = Tape::recording();
        let loss = model.loss(&tape, &batch).unwrap();
        assert_close("loss", &[loss.value().item().unwrap() as f32], golden.float("loss"), 1e-4);
        let id = loss.id();
        let gradients = tape.backward(id, &[]).unwrap();
        compare_gradients(&gradients_by_key(model.parameters(), &gradients), &golden);
    }
}

#[test]
fn a_masked_language_model_equals_transformers() {
    let golden = Golden::read("masked_lm.safetensors", None);
    let (model, report) = MaskedLm::from_weights(golden.config.clone(), weights(&golden)).unwrap();
    assert!(report.unexpected.is_empty(), "{report}");
    let batch = golden.batch();
    let all: Arc<[u32]> = (0..batch.len() as u32).collect();
    let logits = model.logits(&Tape::inference(), &batch, &all).unwrap().value().to_vec::<f32>().unwrap();
    assert_close("logits", &logits, golden.float("logits"), 1e-4);

    let tape = Tape::recording();
    let [rows, targets] = ["positions", "targets"].map(|name| golden.integers[name].as_slice().into());
    let loss = model.loss(&tape, &batch, &rows, &targets).unwrap();
    assert_close("loss", &[loss.value().item().unwrap() as f32], golden.float("loss"), 1e-4);
    let id = loss.id();
    let gradients = tape.backward(id, &[]).unwrap();
    compare_gradients(&gradients_by_key(model.parameters(), &gradients), &golden);
}

/// Of full size: the weights of `vitrine init --config bert-base`, 1.5 GB of gradients.
#[test]
fn mixed_precision_of_bert_base_is_as_exact_as_autocast() {
    let config = ModelConfig::bert_base();
    let golden = Golden::read("minilm.safetensors", Some(config.clone()));
    let mut model = SequenceClassifier::random(config, 42).unwrap();
    compare_with_autocast("autocast_random_base.json", &mut model, &golden.batch());
}

fn small() -> ModelConfig {
    ModelConfig {
        vocab_size: 23,
        hidden_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        intermediate_size: 20,
        max_position_embeddings: 40,
        initializer_range: 0.3,
        ..ModelConfig::default()
    }
}

fn sequences() -> Vec<Vec<u32>> {
    [5, 1, 40, 17].map(|n| (0..n).map(|i| (i * i * 7 + n) % 23).collect()).to_vec()
}

/// Rows of an unpadded batch do not see one another.
#[test]
fn a_row_of_a_batch_equals_the_row_alone() {
    let model = SequenceClassifier::random(small(), 1).unwrap();
    let logits = |sequences: &[Vec<u32>]| {
        let batch = TokenBatch::new(sequences, None, model.config()).unwrap();
        model.logits(&Tape::inference(), &batch).unwrap().value().to_vec::<f32>().unwrap()
    };
    let together = logits(&sequences());
    for (row, sequence) in sequences().into_iter().enumerate() {
        assert_close("logits", &logits(&[sequence]), &together[row * 2..row * 2 + 2], 1e-5);
    }
}

/// Computing only the [CLS] rows of the last layer changes nothing, dropout masks included.
#[test]
fn cls_rows_alone_equal_all_rows() {
    let config = ModelConfig { hidden_dropout_prob: 0.2, attention_probs_dropout_prob: 0.2, ..small() };
    let model = SequenceClassifier::random(config, 2).unwrap();
    let batch = TokenBatch::new(sequences(), Some(&[0, 1, 1, 0]), model.config()).unwrap();
    let run = |taps: &Taps| {
        let tape = Tape::training(Randomness { seed: 3, step: 7, first_sequence: 0 });
        let logits = model.forward(&tape, &batch, taps).unwrap().logits;
        let loss = logits.cross_entropy(batch.labels().unwrap()).unwrap();
        let (values, id) = (logits.value().to_vec::<f32>().unwrap(), loss.id());
        (values, gradients_by_key(model.parameters(), &tape.backward(id, &[]).unwrap()))
    };
    let (short, short_gradients) = run(&Taps::new());
    let mut taps = Taps::new();
    taps.read(Point::Layer(1, LayerPoint::Output));
    let (full, full_gradients) = run(&taps);
    assert_close("logits", &short, &full, 1e-5);
    let largest_gradient = full_gradients.values().map(|g| largest(g)).fold(0.0, f32::max);
    for (key, gradient) in &short_gradients {
        for (a, b) in gradient.iter().zip(&full_gradients[key]) {
            assert!((a - b).abs() <= 1e-5 * largest_gradient, "{key}: {a} and {b}");
        }
    }
    let plain = model.logits(&Tape::inference(), &batch).unwrap().value().to_vec::<f32>().unwrap();
    assert!(plain.iter().zip(&short).any(|(a, b)| (a - b).abs() > 1e-3), "dropout does something");
}

/// Layers that are computed again in backward change no bit, in either precision, and save memory.
#[test]
fn checkpointed_layers_change_nothing() {
    let config = ModelConfig { hidden_dropout_prob: 0.2, attention_probs_dropout_prob: 0.2, ..small() };
    let mut model = SequenceClassifier::random(config, 2).unwrap();
    let batch = TokenBatch::new(sequences(), Some(&[0, 1, 1, 0]), model.config()).unwrap();
    for dtype in [DType::F32, DType::BF16] {
        model.compute_in(dtype).unwrap();
        let run = |tape: Tape| {
            let loss = model.loss(&tape, &batch).unwrap();
            let (value, id) = (loss.value().item().unwrap(), loss.id());
            drop(loss);
            let saved: usize = tape.nodes().iter().map(Node::saved_bytes).sum();
            (value, saved, gradients_by_key(model.parameters(), &tape.backward(id, &[]).unwrap()))
        };
        let randomness = Randomness { seed: 3, step: 7, first_sequence: 0 };
        let plain = run(Tape::training(randomness));
        let checkpointed = run(Tape::training(randomness).checkpointing_layers());
        assert_eq!(checkpointed.0, plain.0, "{dtype}: loss");
        assert_eq!(checkpointed.2, plain.2, "{dtype}: gradients");
        assert!(3 * checkpointed.1 < plain.1, "{dtype}: {} and {} bytes", checkpointed.1, plain.1);
    }
}

/// Each gradient of mixed precision beside that of single precision, in Euclidean norms.
fn compare_mixed_gradients(gradients: &BTreeMap<String, Vec<f32>>, golden: &Golden) {
    for (key, got) in gradients.iter().filter(|(key, _)| !key.ends_with("key.bias")) {
        let expected = golden.float(&format!("grad.{key}"));
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
        let error = norm(&mut got.iter().zip(expected).map(|(a, b)| a - b));
        let size = norm(&mut expected.iter().copied());
        assert!(error <= 0.06 * size, "{key}: the error's norm is {error}, the gradient's {size}");
    }
}

/// Mixed precision computes the same function up to bfloat16's 8 bits: masters, logits and gradients stay F32.
#[test]
fn mixed_precision_is_close_to_single_precision() {
    let golden = Golden::read("tiny.safetensors", None);
    let (mut model, _) =
        SequenceClassifier::from_weights(golden.config.clone(), weights(&golden), None).unwrap();
    model.compute_in(DType::BF16).unwrap();
    let batch = golden.batch();
    let tape = Tape::recording();
    let logits = model.logits(&tape, &batch).unwrap();
    assert_eq!(logits.value().dtype(), DType::F32);
    assert_close("logits", &logits.value().to_vec::<f32>().unwrap(), golden.float("logits"), 0.05);
    let loss = logits.cross_entropy(batch.labels().unwrap()).unwrap().id();
    drop(logits);
    let gradients = gradients_by_key(model.parameters(), &tape.backward(loss, &[]).unwrap());
    compare_mixed_gradients(&gradients, &golden);
    model.compute_in(DType::F32).unwrap();
    let logits = model.logits(&Tape::inference(), &batch).unwrap().value().to_vec::<f32>().unwrap();
    assert_close("logits in F32 again", &logits, golden.float("logits"), 1e-4);
}

/// The product over the vocabulary is a bfloat16 one where gradients are wanted, and logits are F32 all the same.
#[test]
fn a_masked_language_model_in_mixed_precision_is_close_to_single_precision() {
    let golden = Golden::read("masked_lm.safetensors", None);
    let (mut model, _) = MaskedLm::from_weights(golden.config.clone(), weights(&golden)).unwrap();
    model.compute_in(DType::BF16).unwrap();
    let batch = golden.batch();
    let all: Arc<[u32]> = (0..batch.len() as u32).collect();
    for (tape, rounds) in [(Tape::inference(), false), (Tape::recording(), true)] {
        let logits = model.logits(&tape, &batch, &all).unwrap().value().to_vec::<f32>().unwrap();
        assert_close("logits", &logits, golden.float("logits"), 0.05);
        let rounded = |logit: &f32| bf16::from_f32(*logit).to_f32() == *logit;
        assert_eq!(logits.iter().all(rounded), rounds, "whether logits are those of a bfloat16 product");
    }

    let tape = Tape::recording();
    let [rows, targets] = ["positions", "targets"].map(|name| golden.integers[name].as_slice().into());
    let loss = model.loss(&tape, &batch, &rows, &targets).unwrap();
    assert_close("loss", &[loss.value().item().unwrap() as f32], golden.float("loss"), 0.01);
    let id = loss.id();
    drop(loss);
    compare_mixed_gradients(&gradients_by_key(model.parameters(), &tape.backward(id, &[]).unwrap()), &golden);
}

/// The step of a central difference.
const STEP: f64 = 1e-5;

/// The specification: the whole model in F64, each parameter's gradient against central differences.
#[test]
fn gradients_equal_finite_differences_in_f64() {
    let config = ModelConfig { hidden_dropout_prob: 0.1, attention_probs_dropout_prob: 0.1, ..small() };
    let mut model = SequenceClassifier::random(config, 4).unwrap();
    *model.parameters_mut() = model.parameters().to_dtype(DType::F64).unwrap();
    let sequences: Vec<Vec<u32>> = sequences().into_iter().map(|s| s[..s.len().min(9)].to_vec()).collect();
    let batch = TokenBatch::new(sequences, Some(&[0, 1, 1, 0]), model.config()).unwrap();
    let randomness = Randomness { seed: 5, step: 1, first_sequence: 0 };
    let tape = Tape::training(randomness);
    let id = model.loss(&tape, &batch).unwrap().id();
    let gradients = tape.backward(id, &[]).unwrap();
    model.parameters().audit(&gradients).unwrap();
    for (id, parameter) in model.parameters().iter().filter(|(_, p)| p.parts[0].key.ends_with("query.bias")) {
        let parts = parameter.split(gradients.parameter(id).unwrap()).unwrap();
        let [query, key] = [0, 1].map(|i| {
            let values = parts[i].1.to_vec::<f64>().unwrap();
            values.iter().fold(0.0f64, |most, value| most.max(value.abs()))
        });
        assert!(key <= 1e-12 * query, "{}: {key:e} beside {query:e}", parts[1].0);
    }
    let loss = |model: &SequenceClassifier| {
        model.loss(&Tape::training(randomness), &batch).unwrap().value().item().unwrap()
    };
    let expected: Vec<(String, usize, f64)> = model
        .parameters()
        .iter()
        .enumerate()
        .flat_map(|(number, (id, parameter))| {
            let gradient = gradients.parameter(id).unwrap().to_vec::<f64>().unwrap();
            let picks: Vec<usize> = (0..5).map(|i| (i * 7919 + number) % gradient.len()).collect();
            let key = parameter.parts[0].key.clone();
            picks.into_iter().map(move |index| (key.clone(), index, gradient[index])).collect::<Vec<_>>()
        })
        .collect();
    for (key, index, analytic) in expected {
        let mut nudged = |by: f64| {
            let mut all = model.parameters_mut().iter_mut();
            let (_, parameter) = all.find(|(_, p)| p.parts[0].key == key).unwrap();
            parameter.value.as_mut_slice::<f64>().unwrap()[index] += by;
            drop(all);
            loss(&model)
        };
        let above = nudged(STEP);
        let below = nudged(-2.0 * STEP);
        nudged(STEP);
        let numeric = (above - below) / (2.0 * STEP);
        let limit = 1e-7 + 1e-5 * analytic.abs();
        assert!((numeric - analytic).abs() <= limit, "{key}[{index}]: {analytic} against {numeric}");
    }
}

#[test]
fn a_saved_model_is_read_back_bit_for_bit() {
    let vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let words = (5..23).map(|i| format!("word{i}"));
    let text: String = vocabulary.into_iter().chain(words).map(|token| token + "\n").collect();
    let tokenizer = Tokenizer::from_vocabulary(&text).unwrap();
    let names = ["negative", "neutral", "positive"].map(str::to_owned);
    let model = SequenceClassifier::random(small().with_labels(&names), 6).unwrap();
    let folder = tempfile::tempdir().unwrap();
    model.save(folder.path(), &tokenizer).unwrap();
    let Loaded { model: again, tokenizer, .. } = SequenceClassifier::load(folder.path()).unwrap();
    assert_eq!(tokenizer.vocabulary_size(), 23);
    assert_eq!(again.config().label_names(), names);
    for ((key, a), (other, b)) in
        model.parameters().parts().unwrap().into_iter().zip(again.parameters().parts().unwrap())
    {
        assert_eq!(key, other);
        assert_eq!(a.to_vec::<f32>().unwrap(), b.to_vec::<f32>().unwrap(), "{key}");
    }
    // Over itself.
    let before = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    again.save(folder.path(), &tokenizer).unwrap();
    assert_eq!(std::fs::read(folder.path().join("model.safetensors")).unwrap(), before);
    assert_eq!(
        load_any(folder.path()).unwrap().parameters().iter().count(),
        model.parameters().iter().count()
    );
    // A trained head fits as many classes as it was trained on, and no other number.
    let two = ["no", "yes"].map(str::to_owned);
    let head = |head: Head| Checkpoint::open(folder.path()).unwrap().classifier(head);
    let refused = head(Head::KeepOrNew { names: &two, seed: 0 }).err().unwrap();
    assert!(matches!(refused, BertError::Classes { .. }), "{refused}");
    for word in ["3 classes (negative, neutral, positive)", "2 (no, yes)"] {
        assert!(refused.to_string().contains(word), "{refused}");
    }
    let others = ["good", "so-so", "bad"].map(str::to_owned);
    let kept = head(Head::KeepOrNew { names: &others, seed: 0 }).unwrap();
    assert!(kept.notes.is_empty(), "{:?}", kept.notes);
    assert_eq!(kept.model.config().label_names(), others);
    let classifier = |model: &SequenceClassifier| -> Vec<Vec<f32>> {
        let parts = model.parameters().parts().unwrap();
        parts[parts.len() - 2..].iter().map(|(_, value)| value.to_vec::<f32>().unwrap()).collect()
    };
    assert_eq!(classifier(&kept.model), classifier(&again));
    // A new head is a function of the seed; everything else, the pooler too, is the checkpoint's.
    let new = head(Head::New { names: &two, seed: 7 }).unwrap();
    assert_eq!(new.model.config().label_names(), two);
    assert!(new.notes.iter().any(|note| note.contains("of 3 rows, is not used")), "{:?}", new.notes);
    assert!(new.notes.iter().any(|note| note == "new, to be trained: classifier.weight, classifier.bias"));
    let three = head(Head::New { names: &names, seed: 7 }).unwrap();
    assert_ne!(classifier(&three.model), classifier(&again));
    let pooled = |model: &SequenceClassifier| {
        let parts = model.parameters().parts().unwrap();
        let (_, pooler) = parts.iter().find(|(key, _)| *key == "bert.pooler.dense.weight").unwrap();
        pooler.to_vec::<f32>().unwrap()
    };
    assert_eq!(pooled(&new.model), pooled(&again));
    // A tokenizer with more tokens than the model would fail in the middle of a run.
    let larger = Tokenizer::from_vocabulary(&(text + "one more\n")).unwrap();
    again.save(folder.path(), &larger).unwrap();
    let refused = SequenceClassifier::load(folder.path()).err().unwrap();
    assert!(refused.to_string().contains("vocab_size"), "{refused}");
}

#[test]
fn new_heads_are_allowed_only_where_they_will_be_trained() {
    let golden = Golden::read("masked_lm.safetensors", None);
    let load = |seed| SequenceClassifier::from_weights(golden.config.clone(), weights(&golden), seed);
    let message = load(None).err().unwrap().to_string();
    for key in ["classifier.weight", "classifier.bias", "bert.pooler.dense.weight"] {
        assert!(message.contains(key), "{message}");
    }
    let (_, report) = load(Some(1)).unwrap();
    assert_eq!(report.new.len(), 4);
    assert!(report.unexpected.iter().all(|name| name.starts_with("cls.")), "{report}");
    let (_, report) = BaseModel::from_weights(golden.config.clone(), weights(&golden)).unwrap();
    assert!(report.new.is_empty());
}
