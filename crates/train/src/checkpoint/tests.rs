use super::*;
use crate::optimizer::{AdamW, Sgd};
use crate::{StepSettings, step};
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;
use vitrine_bert::{Family, ModelConfig, SequenceClassifier, TokenBatch};

fn config(hidden_size: usize) -> ModelConfig {
    ModelConfig {
        vocab_size: 50,
        hidden_size,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 16,
        max_position_embeddings: 16,
        ..ModelConfig::defaults(Family::named("bert").unwrap())
    }
}

fn model(hidden_size: usize, dtype: DType) -> SequenceClassifier {
    let mut model = SequenceClassifier::random(config(hidden_size), 1).unwrap();
    model.compute_in(dtype).unwrap();
    model
}

fn steps(model: &mut SequenceClassifier, optimizer: &mut dyn Optimizer, range: std::ops::Range<usize>) {
    for step_number in range {
        let rows: Vec<Vec<u32>> = (0..4)
            .map(|row| (0..5 + row).map(|t| ((7 * t + row + step_number) % 50) as u32).collect())
            .collect();
        let batch = TokenBatch::new(&rows, Some(&[0, 1, 0, 1]), model.config()).unwrap();
        let settings = StepSettings {
            seed: 3,
            step: step_number,
            lr: 1e-3,
            max_grad_norm: Some(1.0),
            checkpoint_layers: false,
            profiled: false,
        };
        step(model, |model, tape| model.loss(tape, &batch), optimizer, &settings).unwrap();
    }
}

fn settings(lr: f64) -> Map<String, Value> {
    let Value::Object(map) = json!({"lr": lr, "optimizer": {"name": "adamw"}, "micro": null}) else {
        unreachable!()
    };
    map
}

/// The bits of masters and of copies in the compute dtype.
fn bits(model: &SequenceClassifier) -> Vec<u64> {
    let values = model.parameters().iter().flat_map(|(_, parameter)| {
        let copy = parameter.compute.as_ref().unwrap_or(&parameter.value);
        let copy = copy.to_dtype(DType::F32).unwrap().to_vec::<f32>().unwrap();
        parameter.value.to_vec::<f32>().unwrap().into_iter().zip(copy)
    });
    values.map(|(value, copy)| u64::from(value.to_bits()) << 32 | u64::from(copy.to_bits())).collect()
}

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct State {
    #[serde(with = "exact")]
    loss_sum: f64,
}

const STATE: State = State { loss_sum: 0.123_456_789_012_345_68 + 1.0 / 3.0 };

#[test]
fn a_run_goes_on_bit_for_bit() {
    let optimizers: [fn() -> Box<dyn Optimizer>; 2] =
        [|| Box::new(AdamW::new(0.01)), || Box::new(Sgd::new(0.9, 0.01))];
    for (dtype, new) in
        [(DType::F32, optimizers[0]), (DType::BF16, optimizers[0]), (DType::BF16, optimizers[1])]
    {
        let folder = TempDir::new().unwrap();
        let mut checkpoints = Checkpoints::new(folder.path(), 2, settings(5e-5)).unwrap();
        let (mut whole, mut optimizer) = (model(8, dtype), new());
        steps(&mut whole, &mut *optimizer, 0..3);
        checkpoints.save(3, whole.parameters(), &*optimizer, &STATE, None).unwrap();
        let after_three = bits(&whole);
        steps(&mut whole, &mut *optimizer, 3..7);

        let mut again = Checkpoints::new(folder.path(), 2, settings(5e-5)).unwrap();
        let (found, notes) = again.newest::<State>().unwrap();
        let (found, mut resumed, mut optimizer) = (found.unwrap(), model(8, dtype), new());
        assert!(notes.is_empty() && found.step == 3);
        assert_eq!(found.state.loss_sum.to_bits(), STATE.loss_sum.to_bits());
        steps(&mut resumed, &mut *optimizer, 0..1);
        found.restore(resumed.parameters_mut(), &mut *optimizer).unwrap();
        assert!(bits(&resumed) == after_three, "{dtype}: restored weights or their copies differ");
        steps(&mut resumed, &mut *optimizer, 3..7);
        assert!(bits(&resumed) == bits(&whole), "{dtype}: the resumed run differs");
    }
}

/// A folder with checkpoints of steps 1, 2 and 3.
fn three() -> (TempDir, SequenceClassifier, AdamW) {
    let folder = TempDir::new().unwrap();
    let mut checkpoints = Checkpoints::new(folder.path(), 3, settings(5e-5)).unwrap();
    let (mut model, mut optimizer) = (model(8, DType::F32), AdamW::new(0.01));
    for step in 0..3 {
        steps(&mut model, &mut optimizer, step..step + 1);
        checkpoints.save(step + 1, model.parameters(), &optimizer, &STATE, None).unwrap();
    }
    (folder, model, optimizer)
}

fn newest(folder: &Path) -> (Option<usize>, Vec<String>) {
    let mut checkpoints = Checkpoints::new(folder, 3, settings(5e-5)).unwrap();
    let (found, notes) = checkpoints.newest::<State>().unwrap();
    (found.map(|found| found.step), notes)
}

#[test]
fn the_newest_and_the_best_stay_and_a_future_that_was_cut_off_goes() {
    let (folder, model, optimizer) = three();
    let mut checkpoints = Checkpoints::new(folder.path(), 2, settings(5e-5)).unwrap();
    let mut save = |step, best| {
        checkpoints.save(step, model.parameters(), &optimizer, &STATE, best).unwrap();
        checkpoints.steps().unwrap()
    };
    assert_eq!(save(4, Some(2)), [2, 3, 4]);
    assert_eq!(save(5, Some(2)), [2, 4, 5]);
    assert_eq!(save(6, Some(6)), [2, 5, 6]);
    assert_eq!(save(7, Some(6)), [6, 7]);
    assert_eq!(save(5, Some(5)), [5]);
    fs::create_dir(folder.path().join("checkpoints/.step-00000009.1.partial")).unwrap();
    fs::write(folder.path().join("checkpoints/notes.txt"), "mine").unwrap();
    let mut checkpoints = Checkpoints::new(folder.path(), 2, settings(5e-5)).unwrap();
    assert_eq!(checkpoints.names().unwrap().len(), 2);
    checkpoints.clear().unwrap();
    assert_eq!(checkpoints.names().unwrap(), ["notes.txt"]);
}

#[test]
fn a_checkpoint_without_its_best_model_is_damaged() {
    let (folder, model, optimizer) = three();
    let mut checkpoints = Checkpoints::new(folder.path(), 2, settings(5e-5)).unwrap();
    checkpoints.save(4, model.parameters(), &optimizer, &STATE, Some(2)).unwrap();
    fs::remove_file(checkpoints.path(2).join(MODEL_FILE)).unwrap();
    let (step, notes) = newest(folder.path());
    assert_eq!(step, Some(3));
    assert!(notes.len() == 1 && notes[0].contains("step-00000004") && notes[0].contains("best"), "{notes:?}");
}

#[test]
fn other_settings_are_refused_with_a_table() {
    let (folder, ..) = three();
    let mut checkpoints = Checkpoints::new(folder.path(), 2, settings(1e-4)).unwrap();
    let error = checkpoints.newest::<State>().unwrap_err().to_string();
    for part in ["step-00000003", "setting  checkpoint  now", "lr       0.00005     0.0001"] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    assert!(!error.contains("micro") && !error.contains("optimizer"), "{error}");
}

#[test]
fn a_checkpoint_of_another_model_or_optimizer_changes_nothing() {
    let (folder, ..) = three();
    let mut checkpoints = Checkpoints::new(folder.path(), 2, settings(5e-5)).unwrap();
    let found = checkpoints.newest::<State>().unwrap().0.unwrap();
    let mut other = model(16, DType::F32);
    let before = bits(&other);
    let error = found.restore(other.parameters_mut(), &mut AdamW::new(0.0)).unwrap_err().to_string();
    assert!(error.contains("another model's") && error.contains("model.safetensors"), "{error}");
    assert!(bits(&other) == before);
    let error = found.restore(model(8, DType::F32).parameters_mut(), &mut Sgd::new(0.9, 0.0)).unwrap_err();
    assert!(matches!(error, TrainError::OptimizerState { .. }), "{error}");
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "it is only read")]
    struct Other {
        tokens: usize,
    }
    let (found, notes) = checkpoints.newest::<Other>().unwrap();
    assert!(found.is_none() && notes.len() == 3 && notes[0].contains("another kind of run"), "{notes:?}");
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_those_before() {
    let (folder, model, optimizer) = three();
    let mut checkpoints = Checkpoints::new(folder.path(), 1, settings(5e-5)).unwrap();
    checkpoints.newest::<State>().unwrap();
    // A folder has the name of the temporary one.
    fs::create_dir(checkpoints.partial(4)).unwrap();
    let error = checkpoints.save(4, model.parameters(), &optimizer, &STATE, None).unwrap_err().to_string();
    for part in ["step-00000004", "MiB", "free", "step-00000003"] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    assert_eq!(newest(folder.path()), (Some(3), Vec::new()));
}

#[test]
fn damage_is_named_and_skipped() {
    let (folder, ..) = three();
    let path = folder.path().join("checkpoints/step-00000003");
    let state = fs::read_to_string(path.join(STATE_FILE)).unwrap();
    let (model, optimizer) =
        (fs::read(path.join(MODEL_FILE)).unwrap(), fs::read(path.join(OPTIMIZER_FILE)).unwrap());
    /// A state.json of other text, under the right sum.
    fn signed(body: &str) -> Vec<u8> {
        format!("{SUM_START}{}{SUM_END}{body}", tensors::hex(&Sha256::digest(body))).into_bytes()
    }
    let body = state.split_once(SUM_END).unwrap().1;
    let mut cases: Vec<(&str, Option<Vec<u8>>)> = Vec::new();
    for name in [MODEL_FILE, OPTIMIZER_FILE, STATE_FILE] {
        let whole = fs::read(path.join(name)).unwrap();
        cases.push((name, None));
        for cut in [0, 7, 8, whole.len() / 2, whole.len() - 1] {
            cases.push((name, Some(whole[..cut].to_vec())));
        }
        for bit in [0, 8 * 70, 4 * whole.len(), 8 * whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            cases.push((name, Some(flipped)));
        }
        cases.push((name, Some([whole.as_slice(), b"\0"].concat())));
    }
    cases.push((MODEL_FILE, Some(optimizer.clone())));
    cases.push((OPTIMIZER_FILE, Some(model.clone())));
    let other = fs::read(folder.path().join("checkpoints/step-00000001").join(STATE_FILE)).unwrap();
    cases.push((STATE_FILE, Some(other)));
    let nonsense = [
        "",
        "{}",
        "[]",
        "null",
        "\"\"",
        "{\"sha256\": 1}",
        "\u{0}",
        "{\"sha256\": \"",
        "{\"sha256\": \"\",\n",
    ];
    cases.extend(nonsense.map(|text| (STATE_FILE, Some(text.as_bytes().to_vec()))));
    for (from, to) in [
        ("\"step\": 3", "\"step\": -3"),
        ("\"step\": 3", "\"step\": 4"),
        ("checkpoint 1", "checkpoint 2"),
        ("\"loss_sum\"", "\"loss_mean\""),
        (MODEL_FILE, "weights.safetensors"),
        ("\"bytes\": ", "\"bytes\": -"),
        ("\"files\"", "\"folders\""),
        ("}", ""),
    ] {
        assert!(body.contains(from), "{from}");
        cases.push((STATE_FILE, Some(signed(&body.replacen(from, to, 1)))));
    }
    cases.push((STATE_FILE, Some(signed(&"[".repeat(200_000)))));
    assert!(cases.len() > 50);
    for (number, (name, content)) in cases.iter().enumerate() {
        match content {
            Some(content) => fs::write(path.join(name), content).unwrap(),
            None => fs::remove_file(path.join(name)).unwrap(),
        }
        let (step, notes) = newest(folder.path());
        assert_eq!(step, Some(2), "case {number} of {name}: {notes:?}");
        assert!(notes.len() == 1 && notes[0].contains("step-00000003"), "case {number} of {name}: {notes:?}");
        assert!(notes[0].lines().count() == 1, "{notes:?}");
        fs::write(path.join(MODEL_FILE), &model).unwrap();
        fs::write(path.join(OPTIMIZER_FILE), &optimizer).unwrap();
        fs::write(path.join(STATE_FILE), &state).unwrap();
    }
    // A file in the place of a folder, a folder in the place of a file.
    fs::remove_file(path.join(STATE_FILE)).unwrap();
    fs::create_dir(path.join(STATE_FILE)).unwrap();
    assert_eq!(newest(folder.path()).0, Some(2));
    fs::remove_dir_all(&path).unwrap();
    fs::write(&path, "no folder").unwrap();
    assert_eq!(newest(folder.path()).0, Some(2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_changed_bit_is_used(file in 0usize..3, place in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (folder, ..) = three();
        let path = folder.path().join("checkpoints/step-00000003").join([MODEL_FILE, OPTIMIZER_FILE, STATE_FILE][file]);
        let mut content = fs::read(&path).unwrap();
        let place = place.index(content.len());
        content[place] ^= 1 << bit;
        fs::write(&path, content).unwrap();
        let (step, notes) = newest(folder.path());
        prop_assert_eq!(step, Some(2));
        prop_assert_eq!(notes.len(), 1);
    }
}
