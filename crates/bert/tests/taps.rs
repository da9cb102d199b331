//! What taps read and change, beside central differences and beside the model itself.

use vitrine_autograd::{BlockedEdges, Blocking, Edge, Randomness, Tape};
use vitrine_bert::{
    BaseModel, LayerPoint, MaskedLm, ModelConfig, Point, SequenceClassifier, Tap, TappedModel, Taps,
    TokenBatch,
};
use vitrine_tensor::{DType, Tensor};

fn config() -> ModelConfig {
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

fn batch() -> TokenBatch {
    let sequences = [5, 1, 9].map(|n: u32| (0..n).map(|i| (i * i * 7 + n) % 23).collect::<Vec<u32>>());
    TokenBatch::new(sequences, Some(&[0, 1, 1]), &config()).unwrap()
}

fn classifier(dtype: DType) -> SequenceClassifier {
    let mut model = SequenceClassifier::random(config(), 2).unwrap();
    if dtype == DType::F64 {
        *model.parameters_mut() = model.parameters().to_dtype(DType::F64).unwrap();
    } else {
        model.compute_in(dtype).unwrap();
    }
    model
}

fn at(layer: usize, point: LayerPoint) -> Point {
    Point::Layer(layer, point)
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().contiguous().unwrap().to_vec().unwrap()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, value| most.max(value.abs()))
}

#[track_caller]
fn assert_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let limit = tolerance * largest(expected).max(1e-3);
    for (index, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= limit, "{what}[{index}]: got {a}, expected {b}");
    }
}

fn logits(model: &SequenceClassifier, taps: &Taps) -> Vec<f64> {
    numbers(model.forward(&Tape::inference(), &batch(), taps).unwrap().logits.value())
}

/// The shape that the table promises.
fn promised(point: Point, len: usize) -> Vec<usize> {
    use vitrine_bert::Extent;
    let size = |&extent: &Extent| match extent {
        Extent::Tokens => 15,
        Extent::Sequences => 3,
        Extent::Rows => 2,
        Extent::Sequence => len,
        other => TappedModel::size(&config(), other).unwrap(),
    };
    point.shape().iter().map(size).collect()
}

fn check_shapes(points: &[Point], run: impl Fn(&Taps)) {
    let mut taps = Taps::new();
    let all: Vec<(Point, Tap)> = points.iter().map(|&point| (point, taps.read(point))).collect();
    run(&taps);
    for (point, tap) in all {
        let values = taps.values(tap).unwrap();
        assert_eq!(values.len(), if point.by_sequence() { 3 } else { 1 }, "{point}");
        for (value, len) in values.iter().zip([5, 1, 9]) {
            assert_eq!(value.dims(), promised(point, len), "{point}");
        }
    }
}

#[test]
fn values_have_the_shapes_of_the_table() {
    let (batch, tape) = (batch(), Tape::inference);
    let model = BaseModel::random(config(), 1).unwrap();
    check_shapes(&model.points(), |taps| drop(model.forward(&tape(), &batch, taps).unwrap().into_value()));
    let model = SequenceClassifier::random(config(), 1).unwrap();
    check_shapes(&model.points(), |taps| {
        drop(model.forward(&tape(), &batch, taps).unwrap().logits.into_value());
    });
    let model = MaskedLm::random(config(), 1).unwrap();
    let rows = [3, 7].into();
    check_shapes(&model.points(), |taps| {
        drop(model.forward(&tape(), &batch, &rows, taps).unwrap().into_value());
    });
}

/// Reading changes no bit, of the logits or of any gradient: but where scores or gradients of probabilities are wanted, or the word
/// embeddings by themselves, whose fused operations are then taken apart.
#[test]
fn reading_changes_no_bit() {
    let opened = [LayerPoint::Scores].map(|point| [at(0, point), at(1, point)]).concat();
    for dtype in [DType::F32, DType::BF16] {
        let model = classifier(dtype);
        let run = |taps: &Taps| {
            let tape = Tape::training(Randomness { seed: 3, step: 7, first_sequence: 0 });
            let out = model.forward(&tape, &batch(), taps).unwrap().logits;
            let loss = out.cross_entropy(&[0, 1, 1]).unwrap().id();
            let values = out.value().to_vec::<f32>().unwrap();
            drop(out);
            let gradients = tape.backward(loss, &[]).unwrap();
            let all: Vec<Vec<f32>> = gradients.parameters().map(|(_, g)| g.to_vec().unwrap()).collect();
            (values, all)
        };
        let mut all_rows = Taps::new();
        all_rows.read(at(1, LayerPoint::Output));
        let mut taps = Taps::new();
        let whole = |point: &Point| *point != Point::Words && !opened.contains(point);
        model.points().into_iter().filter(whole).for_each(|point| {
            taps.read(point);
        });
        let (expected, got) = (run(&all_rows), run(&taps));
        assert_eq!(got.0, expected.0, "{dtype}");
        // Reading queries, keys and values by themselves adds their gradients up in another way.
        assert!(expected.1.iter().zip(&got.1).all(|(a, b)| a == b), "{dtype}");
    }
}

/// The gradient at every point is that of the logits' weighted sum, by central differences along a direction.
#[test]
fn gradients_at_every_point_equal_central_differences() {
    const STEP: f64 = 1e-5;
    let model = classifier(DType::F64);
    for point in model.points() {
        let mut taps = Taps::new();
        let tap = taps.read_with_gradient(point);
        let tape = Tape::recording();
        let out = model.forward(&tape, &batch(), &taps).unwrap().logits;
        let weights = Tensor::from_slice(&[0.7, -1.1, 0.4, 0.3, -0.2, 0.9], &[3, 2]).unwrap();
        let id = out.id();
        drop(out);
        let gradients = tape.vjp(&[(id, weights.clone())], &taps.ids()).unwrap();
        let gradients = taps.gradients(tap, &gradients).unwrap();
        let direction = |index: usize| ((index * 37 + 11) % 17) as f64 / 17.0 - 0.4;
        let analytic: f64 = gradients
            .iter()
            .map(|g| numbers(g).iter().enumerate().map(|(i, g)| g * direction(i)).sum::<f64>())
            .sum();
        let moved = |by: f64| {
            let mut taps = Taps::new();
            taps.replace(point, move |x, _| {
                let step: Vec<f64> = (0..x.value().numel()).map(|i| by * direction(i)).collect();
                x.add(&x.tape().constant(Tensor::from_slice(&step, x.dims())?))
            });
            let out = numbers(model.forward(&Tape::inference(), &batch(), &taps).unwrap().logits.value());
            out.iter().zip(numbers(&weights)).map(|(y, w)| y * w).sum::<f64>()
        };
        let numeric = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
        assert!(
            (numeric - analytic).abs() <= 1e-7 + 1e-6 * analytic.abs(),
            "{point}: {analytic} and {numeric}"
        );
        assert!(
            largest(&gradients.iter().flat_map(numbers).collect::<Vec<_>>()) > 1e-6,
            "{point}: nothing flows"
        );
    }
}

/// A head with factor 0 is a head whose columns of the context are zero; the gradient of factors is the sum over the head's columns.
#[test]
fn a_head_that_is_scaled_to_zero_is_gone() {
    let model = classifier(DType::F64);
    let mut scaled = Taps::new();
    let factors = scaled.scale_heads(0, vec![1.0, 0.0, 1.0]);
    let mut zeroed = Taps::new();
    zeroed.replace(at(0, LayerPoint::Context), |x, _| {
        let keep: Vec<f64> = (0..12).map(|c| if (4..8).contains(&c) { 0.0 } else { 1.0 }).collect();
        x.mul(&x.tape().constant(Tensor::from_slice(&keep, &[12])?))
    });
    let mut cut = Taps::new();
    cut.replace_heads(at(0, LayerPoint::Probabilities), &[1], |x, _| x.scale(0.0));
    let expected = logits(&model, &zeroed);
    assert_close("factor 0", &logits(&model, &scaled), &expected, 1e-12);
    assert_close("no probabilities", &logits(&model, &cut), &expected, 1e-12);
    assert!(largest(&logits(&model, &Taps::new())) > 0.0 && logits(&model, &Taps::new()) != expected);

    let mut taps = Taps::new();
    let factors_at_one = taps.scale_heads(0, vec![1.0; 3]);
    let context = taps.read_with_gradient(at(0, LayerPoint::Context));
    let tape = Tape::recording();
    let loss = model.forward(&tape, &batch(), &taps).unwrap().logits.cross_entropy(&[0, 1, 1]).unwrap().id();
    let gradients = tape.backward(loss, &taps.ids()).unwrap();
    let (c, dc) = (taps.value(context).unwrap(), taps.gradient(context, &gradients).unwrap());
    let mut expected = [0.0; 3];
    numbers(&c).iter().zip(numbers(&dc)).enumerate().for_each(|(i, (c, dc))| expected[i % 12 / 4] += c * dc);
    assert_close(
        "importance",
        &numbers(&taps.gradient(factors_at_one, &gradients).unwrap()),
        &expected,
        1e-12,
    );
    assert_eq!(scaled.values(factors).unwrap()[0].dims(), [3]);
}

#[test]
fn blocked_edges_have_no_probability() {
    let model = classifier(DType::F32);
    let edge = Edge { sequence: Some(2), head: Some(1), query: 0, key: 4 };
    let maps = |blocking: Option<Blocking>| {
        let mut taps = Taps::new();
        if let Some(blocking) = blocking {
            taps.block(1, BlockedEdges { edges: vec![edge], blocking });
        }
        let tap = taps.read(at(1, LayerPoint::Probabilities));
        logits(&model, &taps);
        taps.values(tap).unwrap().iter().map(numbers).collect::<Vec<_>>()
    };
    let open = maps(None);
    let row = 9 * 9..9 * 9 + 9;
    let p = open[2][row.start + 4];
    for (blocking, factor) in [(Blocking::KnockOut, 1.0), (Blocking::Renormalise, 1.0 / (1.0 - p))] {
        let mut expected = open.clone();
        expected[2][row.clone()].iter_mut().for_each(|p| *p *= factor);
        expected[2][row.start + 4] = 0.0;
        let got = maps(Some(blocking));
        for (got, expected) in got.iter().zip(&expected) {
            assert_close("map", got, expected, 1e-5);
        }
        assert_eq!(got[2][row.start + 4], 0.0);
    }
}

/// Values of one pass set in another make it that one: activation patching.
#[test]
fn a_patched_value_takes_the_place_of_the_models_own() {
    let model = classifier(DType::F32);
    let other = TokenBatch::new([[3, 9, 4, 1, 20], [8; 5]], None, &config()).unwrap();
    let mine = TokenBatch::new([[2, 2, 17, 6, 5], [11; 5]], None, &config()).unwrap();
    let run = |batch: &TokenBatch, taps: &Taps| {
        numbers(model.forward(&Tape::inference(), batch, taps).unwrap().logits.value())
    };
    for point in [Point::Words, Point::Embeddings, at(0, LayerPoint::Output), Point::Pooler] {
        let mut reads = Taps::new();
        let tap = reads.read(point);
        let expected = run(&other, &reads);
        let mut sets = Taps::new();
        sets.set(point, reads.values(tap).unwrap());
        assert_close(&point.to_string(), &run(&mine, &sets), &expected, 1e-5);
    }
    // All probabilities of a layer, which are a value for each sequence.
    let point = at(0, LayerPoint::Probabilities);
    let mut reads = Taps::new();
    let tap = reads.read(point);
    let expected = run(&mine, &reads);
    let mut sets = Taps::new();
    sets.set(point, reads.values(tap).unwrap());
    let again = sets.read(point);
    assert_close("probabilities", &run(&mine, &sets), &expected, 1e-5);
    let (set, read) = (sets.values(again).unwrap(), reads.values(tap).unwrap());
    assert_eq!(numbers(&set[1]), numbers(&read[1]));
}

/// Layers with taps are recorded as they are, the others computed again in backward.
#[test]
fn taps_work_beside_checkpointed_layers() {
    for dtype in [DType::F32, DType::BF16] {
        let model = classifier(dtype);
        let run = |checkpoint: bool| {
            let mut taps = Taps::new();
            let map = taps.read_with_gradient(at(0, LayerPoint::Probabilities));
            let hidden = taps.read_with_gradient(Point::Embeddings);
            let tape = Tape::training(Randomness { seed: 3, step: 7, first_sequence: 0 });
            let tape = if checkpoint { tape.checkpointing_layers() } else { tape };
            let loss =
                model.forward(&tape, &batch(), &taps).unwrap().logits.cross_entropy(&[0, 1, 1]).unwrap().id();
            let segments = tape.nodes().iter().filter(|node| node.op.name() == "segment").count();
            assert_eq!(segments, usize::from(checkpoint));
            let gradients = tape.backward(loss, &taps.ids()).unwrap();
            let maps = taps.gradients(map, &gradients).unwrap();
            [maps, vec![taps.gradient(hidden, &gradients).unwrap()]]
                .concat()
                .iter()
                .map(numbers)
                .collect::<Vec<_>>()
        };
        assert_eq!(run(false), run(true), "{dtype}");
    }
}

/// In a frozen model, what is tapped becomes a leaf: no gradient of a weight is computed for it.
#[test]
fn a_frozen_model_has_gradients_at_its_taps() {
    let mut model = classifier(DType::F64);
    let gradient = |model: &SequenceClassifier| {
        let mut taps = Taps::new();
        let tap = taps.read_with_gradient(Point::Words);
        let tape = Tape::recording();
        let loss =
            model.forward(&tape, &batch(), &taps).unwrap().logits.cross_entropy(&[0, 1, 1]).unwrap().id();
        let gradients = tape.backward(loss, &taps.ids()).unwrap();
        (numbers(&taps.gradient(tap, &gradients).unwrap()), gradients.parameters().count())
    };
    let (expected, trained) = gradient(&model);
    model.parameters_mut().iter_mut().for_each(|(_, parameter)| parameter.trainable = false);
    let (got, frozen) = gradient(&model);
    assert_close("gradient", &got, &expected, 1e-14);
    assert!(trained > 0 && frozen == 0);
}

#[test]
fn what_does_not_fit_is_refused_in_one_line() {
    let model = classifier(DType::F32);
    let refused = |set: &dyn Fn(&mut Taps) -> Tap| {
        let mut taps = Taps::new();
        set(&mut taps);
        model.forward(&Tape::inference(), &batch(), &taps).map(drop).unwrap_err().to_string()
    };
    let edge = |sequence, head, query, key| {
        move |taps: &mut Taps| {
            let edges = vec![Edge { sequence, head, query, key }];
            taps.block(0, BlockedEdges { edges, blocking: Blocking::Renormalise })
        }
    };
    let cases: [(String, &str); 9] = [
        (
            refused(&|taps| taps.read(at(2, LayerPoint::Output))),
            "tap layer.2.output: this model has 2 layers",
        ),
        (refused(&|taps| taps.read(Point::MaskedLogits)), "tap mlm.logits: this model has no such point"),
        (refused(&|taps| taps.read_heads(at(0, LayerPoint::Scores), &[3], false)), "there is no head 3"),
        (refused(&|taps| taps.read_heads(Point::Pooler, &[0], false)), "chosen by head"),
        (refused(&|taps| taps.scale_heads(0, vec![1.0])), "1 factors for 3 heads"),
        (refused(&edge(Some(3), None, 0, 0)), "there is no sequence 3"),
        (refused(&edge(Some(0), None, 0, 5)), "index 5 is out of range for length 5"),
        (refused(&edge(Some(1), None, 0, 0)), "every edge from row 0 of sequence 1"),
        (refused(&|taps| taps.replace(Point::Pooler, |x, _| x.transpose(0, 1))), "the shape [3, 12]"),
    ];
    for (message, expected) in cases {
        assert!(message.contains(expected) && !message.contains('\n'), "{message}");
    }
    let mut taps = Taps::new();
    let (read, with_gradient) = (taps.read(Point::Pooler), taps.read_with_gradient(Point::Logits));
    assert!(taps.value(read).unwrap_err().to_string().contains("no forward pass yet"));
    let tape = Tape::recording();
    let loss = model.forward(&tape, &batch(), &taps).unwrap().logits.cross_entropy(&[0, 1, 1]).unwrap().id();
    let gradients = tape.backward(loss, &[]).unwrap();
    let message = taps.gradient(with_gradient, &gradients).unwrap_err().to_string();
    assert!(message.contains("Taps::ids()"), "{message}");
    assert!(taps.gradient(read, &gradients).unwrap_err().to_string().contains("read_with_gradient"));
}
