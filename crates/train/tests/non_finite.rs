//! A NaN or an infinity ends a run before it reaches the weights, is traced to the operation that made it, and can be replayed;
//! and a model that has stopped learning is noticed.

mod tiny;

use std::cell::RefCell;
use vitrine_autograd::{Direction, NotFinite};
use vitrine_bert::{SequenceClassifier, StagedFiles, TokenBatch};
use vitrine_tensor::{DType, Device, Tensor};
use vitrine_train::measurements::Measurements;
use vitrine_train::techniques::{FailedStep, Lora, ReplayedStep, Techniques};
use vitrine_train::{Finding, MicroBatch, StepSettings, TrainError, accumulating_step};

fn settings(checkpoint_layers: bool) -> StepSettings {
    StepSettings { seed: 3, step: 4, lr: 1e-3, max_grad_norm: Some(1.0), checkpoint_layers, profiled: false }
}

fn batches(model: &SequenceClassifier) -> Vec<TokenBatch> {
    let (sequences, labels) = tiny::sequences(8, 0);
    let rows = sequences.chunks(4).zip(labels.chunks(4));
    rows.map(|(sequences, labels)| TokenBatch::new(sequences, Some(labels), model.config()).unwrap())
        .collect()
}

/// Multiplies a parameter by a factor.
fn scale(model: &mut SequenceClassifier, key: &str, factor: f32) {
    let (_, parameter) =
        model.parameters_mut().iter_mut().find(|(_, parameter)| parameter.name().contains(key)).unwrap();
    let values: Vec<f32> =
        parameter.value.to_vec::<f32>().unwrap().iter().map(|value| value * factor).collect();
    parameter.value = Tensor::from_slice(&values, parameter.value.dims()).unwrap();
}

fn weights(model: &SequenceClassifier) -> Vec<Vec<f32>> {
    model.parameters().iter().map(|(_, parameter)| parameter.value.to_vec().unwrap()).collect()
}

/// Takes a step that must break, and says what was found. The weights must be those of before.
fn broken(model: &mut SequenceClassifier, techniques: &Techniques, settings: &StepSettings) -> Finding {
    let batches = batches(model);
    let parts: Vec<MicroBatch> = batches.iter().map(|batch| techniques.loss.micro_batch(batch)).collect();
    let mut optimizer = techniques.optimizer(0.01);
    let before = weights(model);
    let taken = accumulating_step(
        model,
        &parts,
        |model, tape, index| Ok(techniques.loss.of_batch(model, tape, &batches[index])?.0),
        optimizer.as_mut(),
        settings,
    );
    assert_eq!(weights(model), before, "the update did not happen");
    assert!(optimizer.state(model.parameters()).unwrap().is_empty());
    let Err(TrainError::NonFinite { step: 5, finding, .. }) = taken else { panic!("the step did not break") };
    finding
}

fn operation(finding: &Finding) -> &NotFinite {
    let Finding::Operation { found, .. } = finding else { panic!("{finding}") };
    found
}

#[test]
fn the_first_operation_and_its_layer_are_named() {
    for checkpoint_layers in [false, true] {
        // Its product overflows F32: 1e30 from layer 1's LayerNorm, 1e30 from the weight.
        let mut model = SequenceClassifier::random(tiny::config(3), 3).unwrap();
        scale(&mut model, "layer.1.attention.output.LayerNorm.weight", 1e30);
        scale(&mut model, "layer.1.intermediate.dense.weight", 1e30);
        let finding = broken(&mut model, &Techniques::default(), &settings(checkpoint_layers));
        let found = operation(&finding);
        assert_eq!(found.op, "linear + gelu_erf");
        assert_eq!(found.scope, "encoder.layer.1.feed_forward");
        assert_eq!(found.direction, Direction::Forward);
        assert!(found.value.is_infinite() || found.value.is_nan());
        let text = finding.to_string();
        assert!(
            text.contains(
                "`encoder.layer.1.feed_forward` made the first number that is not finite, in forward"
            ),
            "{text}"
        );

        // Every result is finite, and a gradient is not: tanh saturates nowhere near 0, its weight is huge.
        let mut model = SequenceClassifier::random(tiny::config(3), 3).unwrap();
        for key in ["layer.2.output.LayerNorm.weight", "layer.2.output.LayerNorm.bias"] {
            scale(&mut model, key, 1e-30);
        }
        scale(&mut model, "pooler.dense.weight", 1e30);
        scale(&mut model, "classifier.weight", 1e12);
        let finding = broken(&mut model, &Techniques::default(), &settings(checkpoint_layers));
        assert_eq!(
            (operation(&finding).direction, operation(&finding).op),
            (Direction::Backward, "linear + tanh")
        );
        assert_eq!(operation(&finding).scope, "pooler");
    }
}

#[test]
fn a_weight_that_was_not_finite_is_named() {
    let mut model = SequenceClassifier::random(tiny::config(2), 3).unwrap();
    scale(&mut model, "layer.1.output.dense.weight", f32::NAN);
    // NaN is not equal to itself, so the weights cannot be compared.
    let batches = batches(&model);
    let mut optimizer = Techniques::default().optimizer(0.0);
    let taken = vitrine_train::step(
        &mut model,
        |m, tape| m.loss(tape, &batches[0]),
        optimizer.as_mut(),
        &settings(false),
    );
    let Err(TrainError::NonFinite { finding: Finding::Weight { key }, .. }) = taken else { panic!() };
    assert_eq!(key, "bert.encoder.layer.1.output.dense.weight");
}

/// Saved, read and computed again, in both precisions and with LoRA: the same finding, word for word.
#[test]
fn a_saved_step_finds_the_same() {
    let targets = ["query", "intermediate.dense"].map(str::to_owned).to_vec();
    let lora = Techniques { lora: Some(Lora { rank: 4, alpha: 8.0, targets }), ..Techniques::default() };
    for (dtype, techniques) in
        [(DType::F32, Techniques::default()), (DType::BF16, Techniques::default()), (DType::F32, lora)]
    {
        let mut model = SequenceClassifier::random(tiny::config(2), 3).unwrap();
        scale(&mut model, "layer.1.attention.output.LayerNorm.weight", 1e30);
        scale(&mut model, "layer.1.intermediate.dense.weight", 1e30);
        techniques.prepare(&mut model, 1).unwrap();
        model.compute_in(dtype).unwrap();
        let (settings, finding) = (settings(false), broken(&mut model, &techniques, &settings(false)));
        let batches = batches(&model);
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("replay");
        let failed = FailedStep {
            model: &model,
            batches: &batches,
            settings: &settings,
            techniques: &techniques,
            finding: &finding,
        };
        let mut files = StagedFiles::new(&at).unwrap();
        failed.save(&mut files).unwrap();
        files.commit().unwrap();
        for path in [at.clone(), at.join("step.json"), folder.path().to_owned()] {
            let mut replayed = ReplayedStep::read(&path).unwrap();
            assert_eq!((replayed.rows(), replayed.dtype), (8, dtype));
            assert_eq!(replayed.finding, finding.to_string());
            assert_eq!(replayed.run(dtype, Device::Cpu).unwrap().to_string(), finding.to_string());
        }
        damaged_files_are_refused(&at);
    }
}

fn damaged_files_are_refused(folder: &std::path::Path) {
    for name in ["step.json", "weights.safetensors", "config.json"] {
        let path = folder.join(name);
        let good = std::fs::read(&path).unwrap();
        let mut flipped = good.clone();
        flipped[20] ^= 0x55;
        for bad in [good[..good.len() / 2].to_vec(), Vec::new(), flipped] {
            std::fs::write(&path, &bad).unwrap();
            // A flipped bit in a value is another value; everything else is an error, and nothing panics.
            if let Err(error) = ReplayedStep::read(folder) {
                assert!(!error.to_string().contains('\n') && !error.to_string().is_empty(), "{error}");
            } else {
                assert_eq!(bad.len(), good.len(), "{name}: a cut file was read");
            }
        }
        std::fs::remove_file(&path).unwrap();
        assert!(ReplayedStep::read(folder).is_err());
        std::fs::write(&path, good).unwrap();
    }
    let error = ReplayedStep::read(&folder.join("nothing.json")).err().unwrap().to_string();
    assert!(error.contains("nothing.json"), "{error}");
}

mod runs {
    use super::*;
    use vitrine_bert::Tokenizer;
    use vitrine_train::data::batching::EvalBatch;
    use vitrine_train::schedule::ScheduleKind;
    use vitrine_train::{
        Observer, Rows, StepRecord, TokenizedDataset, TrainSettings, ValidationSettings, corpus, train,
    };

    #[derive(Default)]
    struct Seen {
        steps: Vec<StepRecord>,
        warnings: Vec<(usize, String)>,
        failed: RefCell<Option<usize>>,
    }

    impl Observer for Seen {
        fn step(&mut self, record: &StepRecord, _: usize) -> vitrine_train::Result<()> {
            self.steps.push(*record);
            Ok(())
        }

        fn warning(&mut self, step: usize, text: &str) -> vitrine_train::Result<()> {
            self.warnings.push((step, text.to_owned()));
            Ok(())
        }

        fn failed_step(&mut self, failed: &FailedStep<'_>) {
            *self.failed.borrow_mut() = Some(failed.settings.step + 1);
        }
    }

    fn run(
        change: impl FnOnce(&mut SequenceClassifier),
        lr: f64,
        epochs: usize,
    ) -> (Seen, vitrine_train::Result<()>) {
        let tokenizer = Tokenizer::from_vocabulary(&corpus::vocabulary()).unwrap();
        let config = vitrine_bert::ModelConfig { vocab_size: tokenizer.vocabulary_size(), ..tiny::config(2) };
        let mut model = SequenceClassifier::random(config, 3).unwrap();
        change(&mut model);
        let rows = TokenizedDataset::new(&corpus::splits(0).train, &tokenizer, 32).unwrap();
        let settings = TrainSettings {
            epochs,
            batch_size: 32,
            micro_batch_size: None,
            eval_batch: EvalBatch::default(),
            lr,
            schedule: ScheduleKind::Constant,
            warmup_steps: 0,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            seed: 1,
            shuffle: true,
            group_by_length: false,
            checkpoint_layers: false,
            validation: ValidationSettings::default(),
            techniques: Techniques::default(),
            measurements: Measurements::default(),
        };
        let mut seen = Seen::default();
        let rows = Rows { train: &rows, validation: None };
        let trained = train(&mut model, rows, &settings, None, &mut seen).map(drop);
        (seen, trained)
    }

    #[test]
    fn a_sound_run_is_not_warned_of() {
        let (seen, trained) = run(|_| {}, 1e-3, 1);
        trained.unwrap();
        assert!(seen.steps.len() > 100, "{}", seen.steps.len());
        assert_eq!(seen.warnings, []);
    }

    #[test]
    fn a_model_that_cannot_tell_rows_apart_is_warned_of_once() {
        // The last LayerNorm gives every row its bias: the same class for all, and no gradient below.
        let (seen, trained) = run(
            |model| {
                scale(model, "layer.1.output.LayerNorm.weight", 0.0);
                for (_, parameter) in model.parameters_mut().iter_mut() {
                    parameter.trainable = !parameter.name().contains("layer.1.output.LayerNorm.weight");
                }
            },
            1e-9,
            1,
        );
        trained.unwrap();
        let steps: Vec<usize> = seen.warnings.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, [50, 50], "{:?}", seen.warnings);
        assert!(seen.warnings[0].1.contains("the model predicted `"), "{:?}", seen.warnings);
        assert!(
            seen.warnings[1].1.contains("the gradient of embeddings has vanished"),
            "{:?}",
            seen.warnings
        );
    }

    #[test]
    fn a_run_that_diverges_ends_with_the_step_that_broke() {
        let (seen, trained) = run(|_| {}, 1e30, 1);
        let error = trained.unwrap_err();
        let TrainError::NonFinite { step, finding: Finding::Operation { .. }, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(seen.steps.len(), step - 1);
        assert_eq!(*seen.failed.borrow(), Some(*step));
        assert!(seen.steps.iter().all(|record| record.loss.is_finite() && record.grad_norm.is_finite()));
    }
}
