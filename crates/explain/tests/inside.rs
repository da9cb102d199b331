//! Ablations, the lens and attention maps, beside runs of the model one at a time.

mod tiny;

use std::sync::Arc;
use tiny::{UNWATCHED, assert_close, classifier, masked_lm, text, tokenizer};
use vitrine_autograd::Tape;
use vitrine_bert::{LayerPoint, Point, Taps, TokenBatch};
use vitrine_explain::{Blocks, Edge, LayerChange, LayerPart, Lens, Patched, Pooling, Subject, Text, drift};
use vitrine_tensor::{DType, Tensor};

#[test]
fn subjects_may_be_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Subject>();
}

fn edge(layer: Option<usize>, head: Option<usize>, query: usize, key: usize) -> Edge {
    Edge { layer, head, query, key }
}

#[test]
fn ablated_heads_equal_runs_one_at_a_time() {
    let subject = classifier(DType::F64);
    let text = text(&subject);
    let blocks = Blocks { heads: vec![(0, 1)], edges: vec![edge(None, None, 3, 2)] };
    let logit = |blocks: &Blocks| subject.predict(&text, blocks).unwrap().unwrap().logits[1];
    let got = subject.ablate_heads(&text, &blocks, 1, UNWATCHED).unwrap();
    assert_close("logit", &[f64::from(got.logit)], &[f64::from(logit(&blocks))], 1e-6);
    let mut expected = Vec::new();
    for layer in 0..3 {
        for head in 0..2 {
            let mut more = blocks.clone();
            more.heads.push((layer, head));
            expected.push(f64::from(logit(&more) - logit(&blocks)));
        }
    }
    let flat: Vec<f64> = got.changes.iter().flatten().map(|&change| f64::from(change)).collect();
    assert_close("changes", &flat, &expected, 1e-4);
    assert_eq!(got.changes[0][1], 0.0, "a head that is blocked already");
    assert!(got.ranked().is_sorted_by(|a, b| a.2.abs() >= b.2.abs()));
}

/// Runs one at a time, with a value that is set for the whole text; and the whole layer by hand.
#[test]
fn ablated_layers_equal_runs_one_at_a_time() {
    let (model, subject) = (tiny::model(DType::F64), classifier(DType::F64));
    let text = text(&subject);
    let got = subject.ablate_layers(&text, &Blocks::none(), 1, UNWATCHED).unwrap();
    assert_eq!((got.class, got.parts.len()), (1, 9));
    let batch = TokenBatch::new([text.ids()], None, model.config()).unwrap();
    let logit = |taps: &Taps| {
        let tape = Tape::inference();
        let logits = model.forward(&tape, &batch, taps).unwrap().logits;
        logits.value().to_vec::<f64>().unwrap()[1]
    };
    let whole = logit(&Taps::new());
    assert!((got.logit - whole).abs() < 1e-9);
    for &LayerChange { layer, part, change } in &got.parts {
        let mut taps = Taps::new();
        match part {
            LayerPart::Attention => {
                taps.replace(Point::Layer(layer, LayerPoint::AttentionOutput), |x, _| x.scale(0.0));
            }
            LayerPart::FeedForward => {
                taps.replace(Point::Layer(layer, LayerPoint::FeedForwardOutput), |x, _| x.scale(0.0));
            }
            LayerPart::Layer => {
                let before = match layer {
                    0 => Point::Embeddings,
                    _ => Point::Layer(layer - 1, LayerPoint::Output),
                };
                let mut read = Taps::new();
                let tap = read.read(before);
                logit(&read);
                taps.set(Point::Layer(layer, LayerPoint::Output), read.values(tap).unwrap());
            }
        }
        let expected = logit(&taps) - whole;
        assert!((change - expected).abs() < 1e-9, "{part:?} of layer {layer}: {change}, expected {expected}");
        assert!(change.abs() > 1e-6, "{part:?} of layer {layer} does nothing");
    }
    assert!(got.parts.is_sorted_by(|a, b| a.change.abs() >= b.change.abs()));
    // Blocked heads stay blocked.
    let blocks = Blocks { heads: vec![(0, 1)], edges: vec![] };
    let blocked = subject.ablate_layers(&text, &blocks, 1, UNWATCHED).unwrap();
    let expected = subject.predict(&text, &blocks).unwrap().unwrap().logits[1];
    assert!((blocked.logit - f64::from(expected)).abs() < 1e-6 && blocked.logit != got.logit);
}

/// So many that they take several batches, in which edges count for their own sequence only.
#[test]
fn ablated_edges_equal_runs_one_at_a_time() {
    let subject = classifier(DType::F64);
    let text = subject.read(&"it was not a bad film . ".repeat(4)).unwrap();
    let all: Vec<usize> = (0..text.size()).collect();
    assert!(text.size() * text.size() > 4 * 4096 / text.size(), "several batches");
    let blocks = Blocks { heads: vec![(1, 1)], edges: vec![edge(Some(0), None, 1, 2)] };
    let got = subject.ablate_edges(&text, &blocks, 1, (&all, &all), UNWATCHED).unwrap();
    assert_eq!(got.edges.len(), text.size() * text.size());
    let logit = |blocks: &Blocks| f64::from(subject.predict(&text, blocks).unwrap().unwrap().logits[1]);
    for change in got.edges.iter().step_by(37) {
        let mut more = blocks.clone();
        more.edges.push(edge(None, None, change.query, change.key));
        let expected = logit(&more) - logit(&blocks);
        assert!((change.change - expected).abs() < 2e-6, "{change:?}, expected {expected}");
    }
    assert!(got.edges[0].change.abs() > 1e-3);
    assert!(subject.ablate_edges(&text, &blocks, 1, (&[99], &all), UNWATCHED).unwrap_err().is_usage());
    let empty = subject.ablate_edges(&text, &blocks, 1, (&[], &all), UNWATCHED).unwrap();
    assert!(empty.edges.is_empty() && (empty.logit - logit(&blocks)).abs() < 1e-6);
}

#[test]
fn the_lens_of_the_last_layer_is_the_models_guess() {
    let (model, subject) = (masked_lm(), Subject::from_masked_lm(masked_lm(), tokenizer()));
    let text = text(&subject);
    let rows: Arc<[u32]> = [2, 3, 4].into();
    let batch = TokenBatch::new([text.ids()], None, model.config()).unwrap();
    let tape = Tape::inference();
    let expected = model.logits(&tape, &batch, &rows).unwrap().softmax().unwrap();
    let expected = expected.value().to_vec::<f32>().unwrap();
    let Lens::Words { from, layers } = subject.lens(&text, &Blocks::none(), 2..5, 17).unwrap() else {
        panic!("it has a head")
    };
    assert_eq!((from, layers.len(), layers[0].len(), layers[0][0].len()), (2, 4, 3, 17));
    for (row, guesses) in layers[3].iter().enumerate() {
        assert!(guesses.is_sorted_by(|a, b| a.probability >= b.probability));
        for guess in guesses {
            let expected = expected[row * 17 + guess.id as usize];
            assert!((guess.probability - expected).abs() < 1e-6, "{guess:?}, expected {expected}");
            assert_eq!(Some(&guess.word), subject.tokenizer().token(guess.id).as_ref());
        }
        assert_ne!(layers[0][row], *guesses, "the embeddings know less");
    }
    let blocked = subject.lens(&text, &Blocks { heads: vec![(0, 0)], edges: vec![] }, 2..5, 1).unwrap();
    let Lens::Words { layers: blocked, .. } = blocked else { panic!("it has a head") };
    assert_eq!(blocked[0][0][0], layers[0][0][0]);
    assert_ne!(blocked[1][0][0].probability, layers[1][0][0].probability);
    assert!(subject.lens(&text, &Blocks::none(), 2..99, 1).unwrap_err().is_usage());
    assert!(subject.predict(&text, &Blocks::none()).unwrap().is_none());
}

#[test]
fn without_a_head_there_is_no_lens() {
    let subject = classifier(DType::F32);
    let text = text(&subject);
    let Lens::Unavailable { unavailable } = subject.lens(&text, &Blocks::none(), 0..2, 1).unwrap() else {
        panic!("it has no head")
    };
    assert!(unavailable.contains("no masked-language-model head"), "{unavailable}");
}

#[test]
fn maps_show_what_is_blocked() {
    let subject = classifier(DType::F32);
    let text = text(&subject);
    let size = text.size();
    let blocks = Blocks { heads: vec![(0, 0)], edges: vec![edge(Some(1), Some(1), 3, 2)] };
    let [open, blocked] = [Blocks::none(), blocks].map(|blocks| {
        let attention = subject.attention(&text, &blocks).unwrap();
        // Reading the last layer computes all its rows, which may round otherwise.
        let expected = subject.predict(&text, &blocks).unwrap().unwrap();
        let got = attention.prediction.as_ref().unwrap();
        for (got, expected) in got.logits.iter().zip(&expected.logits) {
            assert!((got - expected).abs() < 1e-5, "{got} {expected}");
        }
        for (layer, head) in (0..3).flat_map(|layer| (0..2).map(move |head| (layer, head))) {
            for row in attention.map(layer, head).chunks(size) {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            }
        }
        for row in attention.rollout().chunks(size) {
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-5);
        }
        attention
    });
    assert_eq!(blocked.map(1, 1)[3 * size + 2], 0.0);
    assert!(open.map(1, 1)[3 * size + 2] > 0.0);
    assert_eq!(open.map(0, 1), blocked.map(0, 1));
    assert_ne!(open.prediction, blocked.prediction);
    assert!((open.numbers(0, 0).entropy - blocked.numbers(0, 0).entropy).abs() < 1e-6);
}

/// Patching a value of the text itself changes nothing; patching the whole embedding of the only token that differs gives the clean run.
#[test]
fn patching_recovers_what_it_brings() {
    let subject = classifier(DType::F64);
    let clean = subject.read("it was not a bad film .").unwrap();
    let corrupted = subject.read("it was not a good film .").unwrap();
    let place = (0..clean.size()).find(|&place| clean.tokens[place] != corrupted.tokens[place]).unwrap();
    let patch = |patched| subject.patch(&clean, &corrupted, &Blocks::none(), patched, UNWATCHED).unwrap();
    let found = patch(Patched::Stream);
    let logits = |text| subject.predict(text, &Blocks::none()).unwrap().unwrap().logits;
    let difference = |text| {
        let logits = logits(text);
        f64::from(logits[found.class] - logits[found.against])
    };
    assert_close("clean", &[found.clean], &[difference(&clean)], 1e-5);
    assert_close("corrupted", &[found.corrupted], &[difference(&corrupted)], 1e-5);
    assert_eq!(found.points[0], "embeddings");
    assert_eq!(found.points.len(), 4);
    for (token, &recovered) in found.recovered[0].iter().enumerate() {
        let expected = if token == place { 1.0 } else { 0.0 };
        assert!((recovered - expected).abs() < 1e-9, "token {token}: {recovered}");
    }
    // After the last layer only the first token counts.
    for (token, &recovered) in found.recovered[3].iter().enumerate() {
        let expected = if token == 0 { 1.0 } else { 0.0 };
        assert!((recovered - expected).abs() < 1e-9, "token {token}: {recovered}");
    }
    for patched in [Patched::Attention, Patched::FeedForward] {
        let found = patch(patched);
        assert_eq!(
            (found.points.len(), found.recovered.len(), found.recovered[0].len()),
            (3, 3, clean.size())
        );
        assert!(found.recovered.iter().flatten().any(|recovered| recovered.abs() > 1e-3));
    }
    let refused = |a: &Text, b: &Text| {
        let error = subject.patch(a, b, &Blocks::none(), Patched::Stream, UNWATCHED).unwrap_err();
        assert!(error.is_usage(), "{error}");
        error.to_string()
    };
    assert!(refused(&clean, &subject.read("a film").unwrap()).contains("9 tokens and the second 4"));
    assert!(refused(&clean, &clean).contains("nothing to recover"));
}

/// One patched value equals a run in which a tap sets that row, written by hand.
#[test]
fn a_patch_equals_a_run_with_one_row_set() {
    let (model, subject) = (tiny::model(DType::F64), classifier(DType::F64));
    let clean = subject.read("it was not a bad film .").unwrap();
    let corrupted = subject.read("it was very bad good film .").unwrap();
    let found = subject.patch(&clean, &corrupted, &Blocks::none(), Patched::FeedForward, UNWATCHED).unwrap();
    let (layer, token) = (1, 3);
    let point = Point::Layer(layer, LayerPoint::FeedForwardOutput);
    let run = |ids: Vec<u32>, taps: &Taps| {
        let batch = TokenBatch::new([ids], None, model.config()).unwrap();
        model.forward(&Tape::inference(), &batch, taps).unwrap().logits.value().to_vec::<f64>().unwrap()
    };
    let read = |ids: Vec<u32>| {
        let mut taps = Taps::new();
        let tap = taps.read(point);
        run(ids, &taps);
        taps.value(tap).unwrap().to_vec::<f64>().unwrap()
    };
    let (source, mut value) = (read(clean.ids()), read(corrupted.ids()));
    value[token * 12..][..12].copy_from_slice(&source[token * 12..][..12]);
    let mut taps = Taps::new();
    taps.set(point, vec![Tensor::from_slice(&value, &[clean.size(), 12]).unwrap()]);
    let logits = run(corrupted.ids(), &taps);
    let difference = logits[found.class] - logits[found.against];
    let expected = (difference - found.corrupted) / (found.clean - found.corrupted);
    assert_close("recovered", &[found.recovered[layer][token]], &[expected], 1e-9);
}

/// The gradient with respect to a layer's states, by central differences along themselves and along a word's embedding.
#[test]
fn the_backward_lens_equals_central_differences() {
    const STEP: f64 = 1e-5;
    let (model, subject) = (tiny::model(DType::F64), classifier(DType::F64));
    let text = text(&subject);
    let lens = subject.backward_lens(&text, &Blocks::none(), 1, 2..4, 17).unwrap();
    assert_eq!((lens.norms.len(), lens.words.len(), lens.words[0].len()), (4, 4, 2));
    let run = |taps: &Taps| {
        let batch = TokenBatch::new([text.ids()], None, model.config()).unwrap();
        model.forward(&Tape::inference(), &batch, taps).unwrap().logits.value().to_vec::<f64>().unwrap()[1]
    };
    let (point, token) = (Point::Layer(1, LayerPoint::Output), 3);
    let mut taps = Taps::new();
    let tap = taps.read(point);
    run(&taps);
    let states = taps.value(tap).unwrap().to_vec::<f64>().unwrap();
    // The slope of the logit when the token's state moves along a direction.
    let slope = |direction: &[f64]| {
        let moved = |by: f64| {
            let mut states = states.clone();
            states[token * 12..][..12].iter_mut().zip(direction).for_each(|(x, d)| *x += by * d);
            let mut taps = Taps::new();
            taps.set(point, vec![Tensor::from_slice(&states, &[text.size(), 12]).unwrap()]);
            run(&taps)
        };
        (moved(STEP) - moved(-STEP)) / (2.0 * STEP)
    };
    let unit = |column: usize| (0..12).map(|c| if c == column { 1.0 } else { 0.0 }).collect::<Vec<f64>>();
    let gradient: Vec<f64> = (0..12).map(|column| slope(&unit(column))).collect();
    let norm = |a: &[f64]| a.iter().map(|x| x * x).sum::<f64>().sqrt();
    assert_close("norm", &[lens.norms[2][token]], &[norm(&gradient)], 1e-6);
    let state = &states[token * 12..][..12];
    assert_close("cosine", &[lens.cosines[2][token]], &[slope(state) / norm(state) / norm(&gradient)], 1e-5);
    let parts = model.parameters().parts().unwrap();
    let table = parts.iter().find(|(name, _)| *name == "bert.embeddings.word_embeddings.weight").unwrap();
    let table = table.1.to_vec::<f64>().unwrap();
    let words = &lens.words[2][token - 2];
    assert_eq!(words.len(), 17);
    assert!(words.is_sorted_by(|a, b| a.rise >= b.rise));
    for word in words {
        let embedding = &table[word.id as usize * 12..][..12];
        assert_close(&word.word, &[word.rise], &[slope(embedding) / norm(embedding)], 1e-4);
    }
    // In the last layer only the first token is read.
    assert!(lens.norms[3][0] > 0.0 && lens.norms[3][1..].iter().all(|&norm| norm == 0.0));
}

/// Rows of many texts in batches equal those of each text alone.
#[test]
fn pooled_states_are_those_of_each_text() {
    let subject = classifier(DType::F32);
    let all: Vec<Text> =
        (0..200).map(|i| subject.read(&"it was not a bad film . ".repeat(1 + i % 5)).unwrap()).collect();
    assert!(all.iter().map(Text::size).sum::<usize>() > 4096, "several batches");
    let pooled = subject.pooled_states(&all, &Pooling::ALL, UNWATCHED).unwrap();
    assert_eq!((pooled.len(), pooled[0].len(), pooled[0][0].count()), (4, 3, 200));
    for index in [0, 7, 199] {
        let alone = subject.pooled_states(&all[index..=index], &Pooling::ALL, UNWATCHED).unwrap();
        for (rows, alone) in pooled.iter().flatten().zip(alone.iter().flatten()) {
            assert_close("states", rows.iter().nth(index).unwrap(), &alone.values, 1e-5);
        }
    }
}

#[test]
fn weights_that_moved_are_measured() {
    let (first, mut second) = (tiny::model(DType::F32), tiny::model(DType::F32));
    let same = drift(first.parameters(), second.parameters()).unwrap();
    assert!(same.parameters.iter().all(|moved| moved.distance == 0.0) && same.relative == Some(0.0));
    for (_, parameter) in second.parameters_mut().iter_mut() {
        if parameter.name() == "classifier.weight" {
            let doubled: Vec<f32> =
                parameter.value.to_vec::<f32>().unwrap().iter().map(|x| 2.0 * x).collect();
            parameter.value = Tensor::from_slice(&doubled, parameter.value.dims()).unwrap();
        }
    }
    let found = drift(first.parameters(), second.parameters()).unwrap();
    for moved in &found.parameters {
        let expected = if moved.key == "classifier.weight" { Some(1.0) } else { Some(0.0) };
        // Biases start at zero.
        assert!(moved.norm == 0.0 || moved.relative == expected, "{moved:?}");
    }
    assert!(found.relative > Some(0.0) && found.relative < Some(1.0));
    let lm = masked_lm();
    let found = drift(first.parameters(), lm.parameters()).unwrap();
    assert!(found.only_first.contains(&"classifier.weight".to_owned()), "{found:?}");
    assert!(found.only_second.contains(&"cls.predictions.bias".to_owned()), "{found:?}");
    assert!(found.other_shapes.is_empty());
}
