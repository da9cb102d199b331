//! A model that is built of layers from outside of the crate: gradients, precision by part, saving and loading.

use vitrine_autograd::{Randomness, Segment, Tape, Var};
use vitrine_nn::{
    Builder, Dropout, Embedding, Embeddings, FeedForward, Init, KeyReport, LayerNorm, Linear,
    MultiHeadAttention, Names, NnError, ParameterStore, Pass, Precision, Result, SavedWeights, WEIGHTS_FILE,
    Weights,
};
use vitrine_tensor::ops::attention::Queries;
use vitrine_tensor::ops::linear::Activation;
use vitrine_tensor::{DType, Offsets};

const NAMES: Names = Names {
    base: "toy",
    inside: &["words|positions|norm|up|down|out|in|query|key|value.*", "norm_in.*", "unused"],
    heads: &["head.*"],
    tied: &[],
};

/// One block and a head; `[V, C] = [11, 6]`, 2 heads, 3 classes.
struct Toy {
    embeddings: Embeddings,
    attention: MultiHeadAttention,
    norm: LayerNorm,
    dropout: Dropout,
    feed_forward: FeedForward,
    head: Linear,
}

impl Toy {
    fn build(mut builder: Builder) -> Result<(Self, ParameterStore, KeyReport)> {
        let b = &mut builder;
        let toy = Toy {
            embeddings: Embeddings {
                word: Embedding::new(b, "toy.words", 11, 6)?,
                position: Embedding::new(b, "toy.positions", 5, 6)?,
                token_type: None,
                norm: LayerNorm::new(b, "toy.norm_in", 6, 1e-5)?,
            },
            attention: MultiHeadAttention::new(
                b,
                &["toy.query", "toy.key", "toy.value"],
                "toy.out",
                6,
                2,
                Dropout { dropout_p: 0.2, site: 0 },
            )?,
            norm: LayerNorm::new(b, "toy.norm", 6, 1e-5)?,
            dropout: Dropout { dropout_p: 0.2, site: 1 },
            feed_forward: FeedForward::new(b, "toy.up", "toy.down", 6, 10, Activation::GeluErf)?,
            head: Linear::new(b, &["head"], 3, 6, Precision::Full)?,
        };
        let (store, report) = builder.finish()?;
        Ok((toy, store, report))
    }

    fn random() -> (Self, ParameterStore) {
        let (toy, store, _) = Toy::build(Builder::random(1, 0.5)).unwrap();
        (toy, store)
    }

    /// The loss of two sequences of 4 and 2 tokens.
    fn loss<'t>(&self, tape: &'t Tape, parameters: &ParameterStore) -> Result<Var<'t>> {
        let pass = Pass::new(tape, parameters);
        let offsets = Offsets::from_lengths([4, 2])?;
        let tokens = vitrine_autograd::TokenIds {
            ids: [1, 10, 0, 1, 7, 3].into(),
            token_types: [0; 6].into(),
            positions: [0, 1, 2, 3, 0, 1].into(),
        };
        let x = self.embeddings.forward(&pass, &tokens)?;
        let attended = self.attention.forward(&pass, &x, Queries::All, &offsets)?;
        let x = self.norm.forward_residual(&pass, &attended, &x, &self.dropout, &offsets)?;
        let inner = self.feed_forward.forward(&pass, &x)?;
        let x = self.norm.forward_residual(&pass, &inner, &x, &self.dropout, &offsets)?;
        let x = self.norm.forward(&pass, &x)?;
        let x = self.dropout.forward(&x, &offsets)?.gather_rows(offsets.firsts())?;
        Ok(self.head.forward(&pass, &x, Activation::None)?.cross_entropy(&[2, 0])?)
    }
}

#[test]
fn gradients_of_layers_equal_central_differences() {
    const STEP: f64 = 1e-5;
    let (toy, store) = Toy::random();
    let mut store = store.to_dtype(DType::F64).unwrap();
    let tape = || Tape::training(Randomness { seed: 2, step: 3, first_sequence: 0 });
    let recorded = tape();
    let id = toy.loss(&recorded, &store).unwrap().id();
    let gradients = recorded.backward(id, &[]).unwrap();
    store.audit(&gradients).unwrap();
    let ids: Vec<_> = store.iter().map(|(id, _)| id).collect();
    for id in ids {
        let gradient = gradients.parameter(id).unwrap().to_vec::<f64>().unwrap();
        for index in (0..gradient.len()).step_by(7) {
            let mut moved = |by: f64| {
                store.get_mut(id).value.as_mut_slice::<f64>().unwrap()[index] += by;
                toy.loss(&tape(), &store).unwrap().value().item().unwrap()
            };
            let (above, below) = (moved(STEP), moved(-2.0 * STEP));
            moved(STEP);
            let (numeric, analytic) = ((above - below) / (2.0 * STEP), gradient[index]);
            // Truncation is O(STEP^2), cancellation about 1e-16 / STEP.
            let close = (numeric - analytic).abs() <= 1e-8 + 1e-6 * analytic.abs();
            assert!(close, "{}[{index}]: {analytic} and {numeric}", store.get(id).name());
        }
    }
}

/// A segment finds the parameters that its function takes, and gives them the same gradients.
#[test]
fn a_segment_of_layers_changes_no_gradient() {
    let (toy, store) = Toy::random();
    let run = |segmented: bool| {
        let tape = Tape::recording();
        let pass = Pass::new(&tape, &store);
        let x = toy.embeddings.word.forward(&pass, &[3, 4, 3]).unwrap();
        let layer = toy.feed_forward;
        let y = if segmented {
            let owned = store.clone();
            let function = Segment::new(move |tape, x| {
                let y = layer.forward(&Pass::new(tape, &owned), x);
                y.map_err(vitrine_autograd::AutogradError::function)
            });
            x.segment(function).unwrap()
        } else {
            layer.forward(&pass, &x).unwrap()
        };
        let id = y.sum_all().unwrap().id();
        drop((x, y));
        let gradients = tape.backward(id, &[]).unwrap();
        let values: Vec<_> =
            gradients.parameters().map(|(id, g)| (id.index(), g.to_vec::<f32>().unwrap())).collect();
        values
    };
    let plain = run(false);
    assert_eq!(plain.len(), 5);
    assert_eq!(run(true), plain);
}

#[test]
fn a_trainable_parameter_without_a_gradient_is_an_error_that_names_it() {
    let mut builder = Builder::random(0, 0.1);
    let unused = builder.parameter(&["toy.unused"], &[2], Init::Constant(0.0), Precision::Full).unwrap();
    let (toy, mut store, _) = Toy::build(builder).unwrap();
    let audit = |store: &ParameterStore| {
        let tape = Tape::recording();
        let id = toy.loss(&tape, store).unwrap().id();
        store.audit(&tape.backward(id, &[]).unwrap())
    };
    let error = audit(&store).unwrap_err();
    assert!(matches!(&error, NnError::MissingGradient { keys } if keys == &["toy.unused"]), "{error}");
    store.get_mut(unused).trainable = false;
    audit(&store).unwrap();
}

/// Attention and feed-forward compute in the chosen dtype, whatever their keys are; everything else stays F32.
#[test]
fn precision_belongs_to_layers() {
    let (toy, mut store) = Toy::random();
    let loss = |store: &ParameterStore| toy.loss(&Tape::inference(), store).unwrap().value().item().unwrap();
    let exact = loss(&store);
    store.compute_in(DType::BF16).unwrap();
    let mixed: Vec<&str> = store
        .iter()
        .filter(|(_, parameter)| parameter.compute.is_some())
        .flat_map(|(_, parameter)| parameter.parts.iter().map(|part| part.key.as_str()))
        .filter(|key| key.ends_with("weight"))
        .collect();
    assert_eq!(
        mixed,
        ["query", "key", "value", "out", "up", "down"].map(|name| format!("toy.{name}.weight"))
    );
    let rounded = loss(&store);
    assert!(rounded != exact && (rounded - exact).abs() < 0.05, "{rounded} and {exact}");
    store.compute_in(DType::F32).unwrap();
    assert_eq!(loss(&store), exact);
}

#[test]
fn saved_weights_are_read_back_bit_for_bit() {
    for (dtype, size) in [(DType::F32, 4), (DType::F16, 2), (DType::BF16, 2)] {
        let (_, mut store) = Toy::random();
        store.round_to(dtype).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let saved = SavedWeights::new(&store, dtype).unwrap().fetched().unwrap();
        let mut bytes = Vec::new();
        saved.write(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, saved.size());
        let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        assert_eq!(bytes.len(), 8 + header + size * store.numel());
        std::fs::write(folder.path().join(WEIGHTS_FILE), bytes).unwrap();
        let weights = Weights::open(folder.path(), &NAMES).unwrap();
        let (_, again, report) = Toy::build(Builder::from_weights(weights, 5, 0.1)).unwrap();
        assert_eq!(report, KeyReport::default());
        for ((key, a), (other, b)) in store.parts().unwrap().into_iter().zip(again.parts().unwrap()) {
            assert_eq!((key, a.to_vec::<f32>().unwrap()), (other, b.to_vec::<f32>().unwrap()), "{dtype}");
        }
    }
    let (_, store) = Toy::random();
    assert!(SavedWeights::new(&store, DType::F64).is_err());
}

#[test]
fn a_weight_that_a_type_has_no_place_for_is_an_error_and_nothing_is_rounded() {
    let (_, mut store) = Toy::random();
    let values = |store: &ParameterStore| -> Vec<f32> {
        store.parts().unwrap().iter().flat_map(|(_, value)| value.to_vec::<f32>().unwrap()).collect()
    };
    let last = store.iter_mut().last().unwrap().1;
    last.value.as_mut_slice::<f32>().unwrap()[0] = -65_505.0;
    let key = last.parts[0].key.clone();
    let before = values(&store);
    let error = store.round_to(DType::F16).unwrap_err();
    assert!(matches!(&error, NnError::Overflow { key: found, .. } if *found == key), "{error}");
    assert!(values(&store) == before);
    store.round_to(DType::BF16).unwrap();
    assert!(values(&store) != before && values(&store).iter().all(|value| value.is_finite()));
}
