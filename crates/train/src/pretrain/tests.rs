use super::*;
use crate::checkpoint::Checkpoints;
use proptest::prelude::*;
use std::collections::BTreeSet;
use vitrine_autograd::Tape;
use vitrine_bert::{BaseModel, ModelConfig, TokenBatch, Tokenizer};
use vitrine_tensor::cpu::parallel;
use vitrine_tensor::{DType, random};

/// Texts in which every word follows from its neighbours: eight fixed phrases of words that no other has, in any order.
fn texts(count: u32) -> Vec<String> {
    let phrase = |n: u32| {
        let words = ["wonderful", "playing", "the", "unbelievable", "an", "actor"];
        words.iter().map(|word| format!("{word}{}", char::from(b'a' + n as u8))).collect::<Vec<_>>().join(" ")
    };
    let text = |i: u32| {
        let draws =
            random::philox([i, 0, 0, 0], [7, 7]).into_iter().chain(random::philox([i, 1, 0, 0], [7, 7]));
        draws.take(3 + i as usize % 6).map(|draw| phrase(draw % 8)).collect::<Vec<_>>().join(" ")
    };
    (0..count).map(text).collect()
}

fn documents(texts: &[String], tokenizer: &Tokenizer) -> Documents {
    Documents::new(texts, tokenizer, 0.05, &mut |_| {}).unwrap()
}

fn config(tokenizer: &Tokenizer) -> ModelConfig {
    ModelConfig {
        vocab_size: tokenizer.vocabulary_size(),
        hidden_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 128,
        max_position_embeddings: 32,
        hidden_dropout_prob: 0.1,
        attention_probs_dropout_prob: 0.1,
        ..ModelConfig::bert_mini()
    }
}

fn settings(steps: usize) -> PretrainSettings {
    PretrainSettings {
        steps,
        batch_tokens: 512,
        max_length: 32,
        mask_share: 0.15,
        lr: 3e-3,
        schedule: ScheduleKind::Linear,
        warmup_steps: steps / 10,
        weight_decay: 0.01,
        beta2: 0.98,
        eps: 1e-6,
        max_grad_norm: 1.0,
        seed: 5,
        eval_every: 4,
        checkpoint_layers: false,
    }
}

/// Five in a thousand million draws lie outside of six standard deviations.
#[track_caller]
fn is_share(found: usize, of: usize, share: f64) {
    let (expected, deviation) = (of as f64 * share, (of as f64 * share * (1.0 - share)).sqrt());
    assert!(
        (found as f64 - expected).abs() < 6.0 * deviation,
        "{found} of {of}, expected {expected} +- {deviation}"
    );
}

#[test]
fn masks_are_those_of_the_paper() {
    let texts = texts(2000);
    let tokenizer = Tokenizer::train(&texts, 60).unwrap();
    let masking = Masking::new(&tokenizer, 0.15, 3).unwrap();
    let ids: Vec<u32> = texts
        .iter()
        .flat_map(|text| {
            let ids = tokenizer.encode(text, 1 << 20).unwrap().ids;
            ids[1..ids.len() - 1].to_vec()
        })
        .collect();
    let piece = Piece { document: 9, start: 0, tokens: ids.len() as u32 };
    let (hidden, places) = masking.hide(&ids, &piece, 0);
    let (cls, sep) = tokenizer.ends();
    let mask = tokenizer.mask().unwrap().1;
    assert_eq!((hidden[0], hidden[hidden.len() - 1], hidden.len()), (cls, sep, ids.len() + 2));

    let starts: Vec<usize> = (0..ids.len()).filter(|&i| !tokenizer.continues_word(ids[i])).collect();
    let ends = starts.iter().skip(1).copied().chain([ids.len()]);
    let chosen: BTreeSet<usize> = places.iter().map(|&place| place as usize - 1).collect();
    assert_eq!(chosen.len(), places.len());
    assert!(starts.len() < ids.len(), "some words have several tokens");
    let mut words = 0;
    for (&start, end) in starts.iter().zip(ends) {
        let count = (start..end).filter(|i| chosen.contains(i)).count();
        assert!(count == 0 || count == end - start, "a part of the word at {start} is hidden");
        words += usize::from(count > 0);
    }
    is_share(words, starts.len(), 0.15);
    let count = |what: &dyn Fn(usize) -> bool| chosen.iter().filter(|&&i| what(i)).count();
    let ordinary = masking.ordinary.len() as f64;
    is_share(count(&|i| hidden[i + 1] == mask), places.len(), 0.8);
    // A random token may be the very one that stood there.
    is_share(count(&|i| hidden[i + 1] == ids[i]), places.len(), 0.1 + 0.1 / ordinary);
    let special = tokenizer.special_ids();
    assert_eq!(count(&|i| hidden[i + 1] != mask && special.contains(&hidden[i + 1])), 0);
    let random: BTreeSet<u32> = chosen.iter().map(|&i| hidden[i + 1]).filter(|&id| id != mask).collect();
    assert!(random.len() > masking.ordinary.len() * 9 / 10, "{} of {ordinary} tokens", random.len());
    let changed: Vec<usize> = (0..ids.len()).filter(|&i| hidden[i + 1] != ids[i]).collect();
    assert!(changed.iter().all(|i| chosen.contains(i)), "what is not to be predicted stays");

    // Another epoch, document or seed is another mask: two of 15 % have 15 % of either in common.
    let others = [
        masking.hide(&ids, &piece, 1).1,
        masking.hide(&ids, &Piece { document: 10, ..piece }, 0).1,
        Masking::new(&tokenizer, 0.15, 4).unwrap().hide(&ids, &piece, 0).1,
    ];
    for other in others {
        let common = other.iter().filter(|&&place| chosen.contains(&(place as usize - 1))).count();
        assert!(
            (common as f64) < 0.25 * places.len() as f64,
            "{common} of {} masks are the same",
            places.len()
        );
    }
    // However a document is cut, its masks stay: a draw belongs to the place in the document.
    let cut = starts[starts.len() / 2];
    let rest = Piece { start: cut as u32, tokens: (ids.len() - cut) as u32, ..piece };
    let (second, second_places) = masking.hide(&ids[cut..], &rest, 0);
    assert_eq!(second[1..], hidden[cut + 1..]);
    let after: Vec<u32> =
        places.iter().filter(|&&place| place as usize > cut).map(|place| place - cut as u32).collect();
    assert_eq!(second_places, after);
}

#[test]
fn every_piece_has_something_to_predict() {
    let tokenizer = Tokenizer::train(&texts(100), 60).unwrap();
    let masking = Masking::new(&tokenizer, 0.001, 3).unwrap();
    let ids = tokenizer.encode("wonderfula [UNK] thea", 20).unwrap().ids;
    let ids = &ids[1..ids.len() - 1];
    for document in 0..200 {
        let (_, places) = masking.hide(ids, &Piece { document, start: 0, tokens: ids.len() as u32 }, 0);
        assert!(!places.is_empty());
        assert!(places.iter().all(|&place| ids[place as usize - 1] != 1), "[UNK] is never predicted");
    }
    assert!(!masking.has_words(&[0, 1, 2, 3, 4]) && masking.has_words(&[1, 5]));
}

#[test]
fn documents_are_held_out_by_their_text_alone() {
    let tokenizer = Tokenizer::train(&texts(100), 60).unwrap();
    let some: Vec<String> = (0..4000).map(|i| format!("wonderfula {i}")).collect();
    let first = Documents::new(&some, &tokenizer, 0.05, &mut |_| {}).unwrap();
    is_share(first.held_out(), some.len(), 0.05);
    let reversed: Vec<String> = some.iter().rev().cloned().collect();
    let second = Documents::new(&reversed, &tokenizer, 0.05, &mut |_| {}).unwrap();
    assert!(first.held_out.iter().eq(second.held_out.iter().rev()));
    // Few documents: one on each side; a single one is trained on.
    for (count, held_out) in [(1, 0), (2, 1), (3, 1)] {
        let few = Documents::new(&some[..count], &tokenizer, 1e-9, &mut |_| {}).unwrap();
        assert_eq!(few.held_out(), held_out);
    }
    assert_eq!(Documents::new(&some, &tokenizer, 0.0, &mut |_| {}).unwrap().held_out(), 0);
    let threads = parallel::with_threads(3, || documents(&some, &tokenizer));
    assert_eq!(threads.sha256(), parallel::with_threads(1, || documents(&some, &tokenizer)).sha256());
    assert_ne!(threads.sha256(), documents(&some[1..], &tokenizer).sha256());
    assert!(Documents::new(&[""], &tokenizer, 0.1, &mut |_| {}).is_err());
}

proptest! {
    #[test]
    fn no_token_is_lost_and_no_budget_exceeded(
        max_length in 3usize..40, budget in 8usize..300, seed in any::<u64>(), epoch in 0u32..9, count in 2u32..60
    ) {
        let texts = texts(count);
        let tokenizer = Tokenizer::train(&texts, 70).unwrap();
        let documents = documents(&texts, &tokenizer);
        let mut tokens = 0;
        for held_out in [false, true] {
            let pieces = documents.pieces(held_out, max_length, |id| tokenizer.continues_word(id));
            let mut next = (u32::MAX, 0);
            for piece in &pieces {
                // Consecutive: a piece begins where the one before in its document ended.
                prop_assert_eq!(piece.start, if piece.document == next.0 { next.1 } else { 0 });
                next = (piece.document, piece.start + piece.tokens);
                prop_assert!(piece.tokens > 0 && piece.length() <= max_length);
                let ids = documents.ids(piece);
                // Words of these texts have at most 13 tokens.
                prop_assert!(max_length < 16 || !tokenizer.continues_word(ids[0]));
                tokens += ids.len();
            }
            let batches = epoch_batches(&pieces, budget, seed, epoch);
            let length = |batch: &[usize]| batch.iter().map(|&piece| pieces[piece].length()).sum::<usize>();
            prop_assert!(batches.iter().all(|batch| length(batch) <= budget || batch.len() == 1));
            let mut seen = batches.concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..pieces.len()).collect::<Vec<_>>());
        }
        prop_assert_eq!(tokens, documents.tokens());
    }
}

/// Keeps the log, saves checkpoints, and stops after a step.
#[derive(Default)]
struct Watch<'a> {
    losses: Vec<(usize, f64)>,
    evaluations: Vec<(usize, f64, f64)>,
    checkpoints: Option<&'a mut Checkpoints>,
    stop_after: Option<usize>,
}

impl PretrainObserver for Watch<'_> {
    fn step(&mut self, record: &StepRecord, _: usize) -> Result<()> {
        self.losses.push((record.step, record.loss));
        Ok(())
    }

    fn evaluated(&mut self, step: usize, _: f64, evaluation: &MaskedEvaluation) -> Result<()> {
        self.evaluations.push((step, evaluation.loss, evaluation.accuracy));
        Ok(())
    }

    fn after_step(
        &mut self,
        progress: &PretrainProgress,
        parameters: &ParameterStore,
        optimizer: &dyn Optimizer,
    ) -> Result<()> {
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.save(progress.step, parameters, optimizer, progress, None)?;
        }
        match self.stop_after == Some(progress.step) {
            true => Err(TrainError::Interrupted { step: progress.step, total: 0, checkpoint: None }),
            false => Ok(()),
        }
    }
}

fn data(count: u32) -> (PretrainData, Tokenizer) {
    let texts = texts(count);
    let tokenizer = Tokenizer::train(&texts, 70).unwrap();
    let masking = Masking::new(&tokenizer, 0.15, 5).unwrap();
    (PretrainData::new(documents(&texts, &tokenizer), masking, 32).unwrap(), tokenizer)
}

fn weights(model: &MaskedLm) -> Vec<Vec<u32>> {
    let parts = model.parameters().parts().unwrap();
    parts
        .iter()
        .map(|(_, value)| value.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect())
        .collect()
}

#[test]
fn a_model_learns_more_than_how_frequent_tokens_are() {
    let (data, tokenizer) = data(400);
    let mut model = MaskedLm::random(config(&tokenizer), 1).unwrap();
    let settings = PretrainSettings { eval_every: 200, ..settings(400) };
    let mut watch = Watch::default();
    let before = evaluate_masked(&model, &data, 512).unwrap();
    let summary = pretrain(
        &mut model,
        &mut settings.optimizer(),
        &data,
        &settings,
        &mut PretrainProgress::default(),
        &mut watch,
    )
    .unwrap();
    let (step, loss, accuracy) = *watch.evaluations.last().unwrap();
    let entropy = data.unigram_entropy();
    assert_eq!((step, summary.steps), (400, 400));
    assert!((before.loss - (tokenizer.vocabulary_size() as f64).ln()).abs() < 0.2, "{before:?}");
    assert!(loss < 0.6 * entropy, "held-out loss {loss}, entropy of the tokens {entropy}");
    assert!(accuracy > 0.5, "{accuracy}");
    // Another evaluation has the same masks.
    let again = evaluate_masked(&model, &data, 100_000).unwrap();
    assert!((again.loss - loss).abs() < 1e-4 && again.masked == before.masked, "{again:?}");
}

#[test]
fn a_resumed_run_is_the_run() {
    let (data, tokenizer) = data(60);
    // Several epochs of a few steps, so that runs stop in the middle of some and at the end of others.
    let per_epoch = data.steps(1, 512, 5);
    let settings = settings(3 * per_epoch + 1);
    for dtype in [DType::F32, DType::BF16] {
        let start = || {
            let mut model = MaskedLm::random(config(&tokenizer), 1).unwrap();
            model.compute_in(dtype).unwrap();
            model
        };
        let (mut whole, mut log) = (start(), Watch::default());
        let mut progress = PretrainProgress::default();
        pretrain(&mut whole, &mut settings.optimizer(), &data, &settings, &mut progress, &mut log).unwrap();
        // Layers that are computed again in backward are the same layers.
        let again = PretrainSettings { checkpoint_layers: true, ..settings.clone() };
        let (mut model, mut watch) = (start(), Watch::default());
        let mut from = PretrainProgress::default();
        pretrain(&mut model, &mut again.optimizer(), &data, &again, &mut from, &mut watch).unwrap();
        assert!(weights(&model) == weights(&whole), "{dtype}: checkpointing layers changes weights");
        for stop_after in [1, per_epoch, per_epoch + 2, settings.steps - 1] {
            let folder = tempfile::tempdir().unwrap();
            let mut checkpoints = Checkpoints::new(folder.path(), 2, serde_json::Map::new()).unwrap();
            let mut first = Watch {
                checkpoints: Some(&mut checkpoints),
                stop_after: Some(stop_after),
                ..Watch::default()
            };
            let stopped = pretrain(
                &mut start(),
                &mut settings.optimizer(),
                &data,
                &settings,
                &mut PretrainProgress::default(),
                &mut first,
            );
            assert!(matches!(stopped, Err(TrainError::Interrupted { .. })));
            let Watch { losses, evaluations, .. } = first;

            let (mut model, mut optimizer) = (start(), settings.optimizer());
            let (found, notes) = checkpoints.newest::<PretrainProgress>().unwrap();
            assert!(notes.is_empty());
            let found = found.unwrap();
            found.restore(model.parameters_mut(), &mut optimizer).unwrap();
            let mut second = Watch { losses, evaluations, ..Watch::default() };
            let mut resumed = found.state;
            // Another number of threads changes nothing either.
            parallel::with_threads(3, || {
                pretrain(&mut model, &mut optimizer, &data, &settings, &mut resumed, &mut second).unwrap();
            });
            assert_eq!(second.losses, log.losses, "{dtype}, stopped after {stop_after}");
            assert_eq!(second.evaluations, log.evaluations);
            assert!(weights(&model) == weights(&whole), "{dtype}, stopped after {stop_after}: other weights");
            assert_eq!(
                (resumed.step, resumed.tokens, resumed.loss_sum),
                (progress.step, progress.tokens, progress.loss_sum)
            );
        }
    }
}

#[test]
fn what_fits_of_another_model_is_taken() {
    let (_, tokenizer) = data(60);
    let folder = tempfile::tempdir().unwrap();
    let other = MaskedLm::random(config(&tokenizer), 1).unwrap();
    other.save(&folder.path().join("other"), &tokenizer).unwrap();
    let source = vitrine_bert::load_any(&folder.path().join("other")).unwrap();

    // Another vocabulary, one layer more, more positions.
    let theirs = tokenizer;
    let tokenizer =
        Tokenizer::train(&["wonderfula playinga some other wordsthat wordsthat other"], 60).unwrap();
    let config = ModelConfig { num_hidden_layers: 3, max_position_embeddings: 40, ..config(&tokenizer) };
    let new = MaskedLm::random(config.clone(), 2).unwrap();
    let mut model = MaskedLm::random(config, 2).unwrap();
    let adopted = adopt(&mut model, &tokenizer, &source, &theirs, None).unwrap();
    let value = |model: &MaskedLm, key: &str| {
        let parts = model.parameters().parts().unwrap();
        parts.iter().find(|(there, _)| *there == key).unwrap().1.to_vec::<f32>().unwrap()
    };
    let find = |key: &str| adopted.iter().find(|tensor| tensor.key == key).unwrap();
    for key in ["bert.encoder.layer.1.attention.self.key.weight", "cls.predictions.transform.dense.weight"] {
        assert_eq!(value(&model, key), value(&other, key));
        assert_eq!(find(key).why, None);
    }
    let third = "bert.encoder.layer.2.attention.self.key.weight";
    assert_eq!((value(&model, third), find(third).taken), (value(&new, third), 0));
    let position = "bert.embeddings.position_embeddings.weight";
    assert_eq!(value(&model, position)[..32 * 64], value(&other, position)[..]);
    assert_eq!(value(&model, position)[32 * 64..], value(&new, position)[32 * 64..]);
    let word = "bert.embeddings.word_embeddings.weight";
    let (mine, old, fresh) = (value(&model, word), value(&other, word), value(&new, word));
    let mut shared = 0;
    for id in 0..tokenizer.vocabulary_size() {
        let row = &mine[id * 64..][..64];
        match theirs.id(&tokenizer.token(id as u32).unwrap()) {
            Some(their) => {
                shared += 1;
                assert_eq!(row, &old[their as usize * 64..][..64]);
            }
            None => assert_eq!(row, &fresh[id * 64..][..64]),
        }
    }
    assert!(shared > 5 && shared < tokenizer.vocabulary_size());
    assert_eq!(find(word).taken, shared);
    assert_eq!(find("cls.predictions.bias").taken, shared);
}

#[test]
fn layers_may_be_chosen() {
    let (_, tokenizer) = data(60);
    let folder = tempfile::tempdir().unwrap();
    let other = MaskedLm::random(config(&tokenizer), 1).unwrap();
    other.save(&folder.path().join("other"), &tokenizer).unwrap();
    let source = vitrine_bert::load_any(&folder.path().join("other")).unwrap();
    let config = ModelConfig { num_hidden_layers: 1, ..config(&tokenizer) };
    let mut model = MaskedLm::random(config, 2).unwrap();
    adopt(&mut model, &tokenizer, &source, &tokenizer, Some(&[1])).unwrap();
    let parts = |model: &MaskedLm| -> Vec<(String, Vec<f32>)> {
        let parts = model.parameters().parts().unwrap().into_iter();
        parts.map(|(key, value)| (key.to_owned(), value.to_vec::<f32>().unwrap())).collect()
    };
    let theirs = parts(&other);
    for (key, value) in parts(&model) {
        let key = key.replace(".layer.0.", ".layer.1.");
        assert_eq!(theirs.iter().find(|(there, _)| *there == key).unwrap().1, value, "{key}");
    }
    // A layer for which none was chosen is new, although the other model has one of its number.
    let mut model = MaskedLm::random(self::config(&tokenizer), 2).unwrap();
    let adopted = adopt(&mut model, &tokenizer, &source, &tokenizer, Some(&[1])).unwrap();
    for tensor in adopted {
        assert_eq!(tensor.taken > 0, !tensor.key.contains(".layer.1."), "{}", tensor.key);
    }
}

/// A teacher with twice the layers, whose tokens have other ids.
fn teacher(tokenizer: &Tokenizer) -> (BaseModel, Tokenizer) {
    let size = tokenizer.vocabulary_size() as u32;
    let tokens = |ids: &mut dyn Iterator<Item = u32>| -> Vec<String> {
        ids.map(|id| tokenizer.token(id).unwrap()).collect()
    };
    let special = tokenizer.special_ids().len() as u32;
    let mut words = tokens(&mut (0..special));
    words.push("other".into());
    words.extend(tokens(&mut (special..size).rev()));
    let theirs = Tokenizer::from_vocabulary(&words.join("\n")).unwrap();
    let config = ModelConfig { num_hidden_layers: 4, ..config(&theirs) };
    (BaseModel::random(config, 8).unwrap(), theirs)
}

#[test]
fn hidden_states_of_a_teacher_count_as_the_formula_says() {
    let (data, tokenizer) = data(40);
    let student = MaskedLm::random(config(&tokenizer), 1).unwrap();
    let (model, theirs) = teacher(&tokenizer);
    let weight = 3.0;
    let teacher = HiddenTeacher::new(model, &theirs, student.config(), &tokenizer, 32, weight).unwrap();
    let pieces = &data.train[..5];
    let masked = data.masking.batch(&data.documents, pieces, 0, student.config()).unwrap();
    let said = teacher.states(&data.masking, &data.documents, pieces).unwrap();

    // The teacher reads the words themselves, whatever is hidden from the student.
    let theirs_of = |id: &u32| theirs.id(&tokenizer.token(*id).unwrap()).unwrap();
    let (cls, sep) = theirs.ends();
    let encoded: Vec<Vec<u32>> = pieces
        .iter()
        .map(|piece| {
            let ids = data.documents.ids(piece).iter().map(theirs_of);
            [cls].into_iter().chain(ids).chain([sep]).collect()
        })
        .collect();
    let batch = TokenBatch::new(&encoded, None, teacher.model().config()).unwrap();
    let tape = Tape::inference();
    let states = teacher.model().hidden_states(&tape, &batch).unwrap();
    assert_eq!(said.len(), 2);
    for (said, layer) in said.iter().zip([1, 3]) {
        assert_eq!(said.to_vec::<f32>().unwrap(), states[layer].value().to_vec::<f32>().unwrap());
    }

    let tape = Tape::inference();
    let loss = teacher.loss(&student, &tape, &masked, &said).unwrap().value().item().unwrap();
    let words = student.loss(&tape, &masked.batch, &masked.rows, &masked.targets).unwrap();
    let words = words.value().item().unwrap();
    let mut distance = 0.0;
    for (state, said) in student.hidden_states(&tape, &masked.batch).unwrap().iter().zip(&said) {
        let (state, said) = (state.value().to_vec::<f32>().unwrap(), said.to_vec::<f32>().unwrap());
        for (s, t) in state.chunks(64).zip(said.chunks(64)) {
            let norm = |x: &[f32]| x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let (s_norm, t_norm) = (norm(s), norm(t));
            distance += s
                .iter()
                .zip(t)
                .map(|(&s, &t)| (f64::from(s) / s_norm - f64::from(t) / t_norm).powi(2))
                .sum::<f64>();
        }
    }
    let expected = words + weight * distance / (2 * masked.batch.len()) as f64;
    assert!(distance > 1.0 && (loss - expected).abs() < 1e-4 * expected, "{loss} is not {expected}");
}

#[test]
fn a_student_comes_closer_to_its_teacher() {
    let (data, tokenizer) = data(100);
    let mut student = MaskedLm::random(config(&tokenizer), 1).unwrap();
    let (model, theirs) = teacher(&tokenizer);
    let teacher = HiddenTeacher::new(model, &theirs, student.config(), &tokenizer, 32, 10.0).unwrap();
    let data = data.with_teacher(teacher);
    let distance = |student: &MaskedLm| {
        let pieces = &data.held_out[..2];
        let masked = data.masking.batch(&data.documents, pieces, 0, student.config()).unwrap();
        let teacher = data.teacher().unwrap();
        let said = teacher.states(&data.masking, &data.documents, pieces).unwrap();
        let tape = Tape::inference();
        let with = teacher.loss(student, &tape, &masked, &said).unwrap().value().item().unwrap();
        with - student
            .loss(&tape, &masked.batch, &masked.rows, &masked.targets)
            .unwrap()
            .value()
            .item()
            .unwrap()
    };
    let before = distance(&student);
    let settings = settings(60);
    let mut progress = PretrainProgress::default();
    let mut watch = Watch::default();
    pretrain(&mut student, &mut settings.optimizer(), &data, &settings, &mut progress, &mut watch).unwrap();
    let after = distance(&student);
    assert!(after < 0.3 * before, "{before} before, {after} after");
}

#[test]
fn a_teacher_that_does_not_fit_is_refused() {
    let (_, tokenizer) = data(10);
    let refused = |config: &ModelConfig, theirs: &Tokenizer, max_length, weight| {
        let (model, _) = teacher(&tokenizer);
        let error = HiddenTeacher::new(model, theirs, config, &tokenizer, max_length, weight).err().unwrap();
        error.to_string()
    };
    let (_, theirs) = teacher(&tokenizer);
    let fits = config(&tokenizer);
    let wide = ModelConfig { hidden_size: 32, ..fits.clone() };
    assert!(
        refused(&wide, &theirs, 32, 1.0).contains("its states have 64 numbers and those of the new model 32")
    );
    assert!(refused(&fits, &theirs, 33, 1.0).contains("at most 32 tokens"));
    assert!(refused(&fits, &theirs, 32, f64::NAN).contains("--distill-hidden: NaN"));
    let others = Tokenizer::train(&vec!["zebra stripes".to_owned(); 9], 40).unwrap();
    assert!(refused(&fits, &others, 32, 1.0).contains("does not know the token"));
}
