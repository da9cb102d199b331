//! A run that is stopped at every few steps and goes on is the run that was never stopped: on the CPU, and on the emulated
//! CUDA device.

use std::cell::Cell;
use tempfile::TempDir;
use vitrine_bert::{Family, ModelConfig, SequenceClassifier, Tokenizer};
use vitrine_tensor::{DType, Device};
use vitrine_train::data::batching::EvalBatch;
use vitrine_train::data::sampling::{Sample, stratified};
use vitrine_train::measurements::Measurements;
use vitrine_train::schedule::ScheduleKind;
use vitrine_train::techniques::{ClassificationLoss, Lora, OptimizerKind, Techniques};
use vitrine_train::{
    BestBy, Checkpoints, Evaluation, EvaluationRecord, Every, Observer, Rows, SaveEvery, Saving, StepRecord,
    TokenizedDataset, TrainError, TrainSettings, TrainState, TrainSummary, ValidationSettings, corpus, train,
};

/// Two sets of reviews, and the sizes of a model for them.
struct Task {
    train: TokenizedDataset,
    validation: TokenizedDataset,
    config: ModelConfig,
    device: Device,
    dtype: DType,
}

impl Task {
    fn new(device: Device, dtype: DType) -> Self {
        let tokenizer = Tokenizer::from_vocabulary(&corpus::vocabulary()).unwrap();
        let splits = corpus::splits(0);
        let tokenized = |rows: &vitrine_train::data::Dataset, count| {
            let rows = rows.subset(&stratified(rows, Sample::Total(count), 1));
            TokenizedDataset::new(&rows, &tokenizer, 24).unwrap()
        };
        let config = ModelConfig {
            vocab_size: tokenizer.vocabulary_size(),
            hidden_size: 64,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 64,
            max_position_embeddings: 24,
            ..ModelConfig::defaults(Family::named("bert").unwrap())
        };
        let (train, validation) = (tokenized(&splits.train, 21), tokenized(&splits.test.unwrap(), 12));
        Task { train, validation, config, device, dtype }
    }

    fn model(&self, techniques: &Techniques) -> SequenceClassifier {
        let mut model = SequenceClassifier::random(self.config.clone(), 3).unwrap();
        techniques.prepare(&mut model, 3).unwrap();
        model.to_device(self.device).unwrap();
        model.compute_in(self.dtype).unwrap();
        model
    }
}

fn settings(
    group_by_length: bool,
    micro_batch_size: Option<usize>,
    validation: ValidationSettings,
) -> TrainSettings {
    TrainSettings {
        epochs: 3,
        batch_size: 4,
        micro_batch_size,
        eval_batch: EvalBatch::Rows(2),
        lr: 1e-3,
        schedule: ScheduleKind::Cosine,
        warmup_steps: 2,
        weight_decay: 0.01,
        max_grad_norm: 1.0,
        seed: 7,
        shuffle: true,
        group_by_length,
        checkpoint_layers: false,
        measurements: Measurements::default(),
        validation,
        techniques: Techniques::default(),
    }
}

/// Settings with state of their own: averages that are evaluated, adapters, momentum.
fn with_techniques(settings: &TrainSettings) -> TrainSettings {
    let targets = ["query", "output.dense"].map(str::to_owned).to_vec();
    let techniques = Techniques {
        optimizer: OptimizerKind::Sgd { momentum: 0.9 },
        loss: ClassificationLoss {
            label_smoothing: 0.1,
            class_weights: Some(vec![0.5, 2.0]),
            distillation: None,
        },
        layer_decay: Some(0.8),
        ema: Some(0.7),
        lora: Some(Lora { rank: 4, alpha: 8.0, targets }),
        ..Techniques::default()
    };
    TrainSettings { lr: 0.1, techniques, ..settings.clone() }
}

/// Keeps what a run reports, and stops it after so many steps, or when it has looked so often whether it should.
struct Log {
    records: Vec<String>,
    steps_left: usize,
    looks_left: Cell<usize>,
}

impl Observer for Log {
    fn step(&mut self, record: &StepRecord, _: usize) -> vitrine_train::Result<()> {
        let StepRecord { step, loss, grad_norm, lr, tokens, epoch, .. } = record;
        self.steps_left -= 1;
        self.records.push(format!(
            "{step} {:x} {:x} {lr} {tokens} {epoch}",
            loss.to_bits(),
            grad_norm.to_bits()
        ));
        Ok(())
    }

    fn evaluation(
        &mut self,
        record: &EvaluationRecord,
        evaluation: &Evaluation,
    ) -> vitrine_train::Result<()> {
        self.records.push(format!("{record:?} {:?}", evaluation.metrics));
        Ok(())
    }

    fn wants_to_stop(&self) -> bool {
        self.looks_left.set(self.looks_left.get() - 1);
        self.steps_left == 0 || self.looks_left.get() == 0
    }
}

/// What two equal runs have in common.
#[derive(PartialEq)]
struct Outcome {
    weights: Vec<u32>,
    records: Vec<String>,
    summary: String,
}

/// Runs to the end in as many processes as it takes, one after the other, each of so many steps or looks at most, of which there
/// is one more in each process.
fn run(task: &Task, settings: &TrainSettings, (steps, looks): (usize, usize)) -> (Outcome, usize) {
    let folder = TempDir::new().unwrap();
    let mut records = Vec::new();
    for starts in 1.. {
        let mut model = task.model(&settings.techniques);
        let mut checkpoints = Checkpoints::new(folder.path(), 1, settings.mathematics()).unwrap();
        let (from, notes) = checkpoints.newest::<TrainState>().unwrap();
        assert!(notes.is_empty() && from.is_some() == (starts > 1), "{notes:?}");
        // As the log of a run is cut: an evaluation that the checkpoint does not know comes again.
        if let Some(TrainState { step, evaluated, .. }) = from.as_ref().map(|found| &found.state)
            && *evaluated != Some(*step)
        {
            let of_this_step = format!("EvaluationRecord {{ step: {step},");
            records.retain(|record: &String| !record.starts_with(&of_this_step));
        }
        let mut log = Log { records, steps_left: steps, looks_left: Cell::new(looks.saturating_add(starts)) };
        let rows = Rows { train: &task.train, validation: Some(&task.validation) };
        let saving = Saving { checkpoints: &mut checkpoints, every: SaveEvery::Never, from };
        let trained: Result<TrainSummary, TrainError> =
            train(&mut model, rows, settings, Some(saving), &mut log);
        records = log.records;
        match trained {
            Err(TrainError::Interrupted { checkpoint: Some(_), .. }) => {}
            Err(error) => panic!("{error}"),
            Ok(TrainSummary { steps, tokens, mean_loss, final_loss, stopped_early, best, .. }) => {
                let summary = format!("{steps} {tokens} {mean_loss} {final_loss} {stopped_early} {best:?}");
                let values = model.parameters().iter().flat_map(|(_, p)| p.value.to_vec::<f32>().unwrap());
                let weights = values.map(f32::to_bits).collect();
                return (Outcome { weights, records, summary }, starts);
            }
        }
    }
    unreachable!()
}

fn goes_on(task: &Task, settings: &TrainSettings, at_a_time: &[usize]) {
    let (whole, starts) = run(task, settings, (usize::MAX, usize::MAX));
    assert_eq!(starts, 1);
    let by_looks = settings.validation.eval_every.map(|_| (usize::MAX, 1));
    for at_most in at_a_time.iter().map(|&steps| (steps, usize::MAX)).chain(by_looks) {
        let (stopped, starts) = run(task, settings, at_most);
        assert!(starts > 1, "{starts}");
        assert_eq!(stopped.records, whole.records);
        assert_eq!(stopped.summary, whole.summary);
        assert!(stopped == whole, "the weights differ, with {at_most:?} steps or looks at a time");
    }
}

#[test]
fn a_run_that_is_stopped_goes_on_as_if_it_had_not_been() {
    let evaluated = |eval_every, keep_best| ValidationSettings {
        eval_every: Some(eval_every),
        patience: None,
        keep_best,
    };
    let cases = [
        (DType::F32, settings(false, None, ValidationSettings::default())),
        (DType::BF16, settings(true, Some(3), evaluated(Every::Epoch, None))),
        (DType::BF16, settings(false, Some(1), evaluated(Every::Steps(5), Some(BestBy::Loss)))),
        (
            DType::F32,
            with_techniques(&settings(false, Some(3), evaluated(Every::Steps(2), Some(BestBy::Loss)))),
        ),
    ];
    for (dtype, settings) in &cases {
        goes_on(&Task::new(Device::Cpu, *dtype), settings, &[1, 4]);
    }
    vitrine_emulator::install();
    // SAFETY: nothing else reads or changes the environment in this one test. A real cuBLASLt cannot read the emulated device.
    unsafe { std::env::set_var("VITRINE_GEMM", "own") };
    let (_, settings) = &cases[2];
    goes_on(&Task::new(Device::Cuda(0), DType::BF16), settings, &[7]);
}
