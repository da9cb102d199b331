//! The tape itself: what it refuses, what it keeps, what it shows.

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use vitrine_autograd::{
    AttentionSettings, AutogradError, Direction, EmbedParameters, Gradients, Node, Op, Operand, ParameterId,
    Randomness, Result, Segment, Tape, TokenIds, Var, VarId,
};
use vitrine_tensor::ops::attention::Queries;
use vitrine_tensor::ops::linear::Activation;
use vitrine_tensor::{DType, Offsets, Tensor, random};

fn tensor(dims: &[usize], stream: u32) -> Tensor {
    let values: Vec<f64> =
        random::normal(dims.iter().product(), 0.7, 11, stream).iter().map(|&x| x.into()).collect();
    Tensor::from_slice(&values, dims).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().to_vec().unwrap()
}

fn offsets() -> Offsets {
    Offsets::from_lengths([3, 1, 5]).unwrap()
}

fn settings() -> AttentionSettings {
    AttentionSettings {
        heads: 2,
        softmax_scale: 0.5,
        queries: Queries::All,
        dropout_p: 0.2,
        site: 4,
        probabilities_for: Vec::new(),
    }
}

// ---- Variables of other tapes ----

/// An operation on a variable and one of another tape.
type Mixed = for<'t> fn(&Var<'t>, &Var<'t>) -> Result<Var<'t>>;

/// Every operation that takes several variables, with the foreign one at each place.
const MIXED: &[(&str, Mixed)] = &[
    ("add", |x, y| x.add(y)),
    ("sub", |x, y| x.sub(y)),
    ("mul", |x, y| x.mul(y)),
    ("div", |x, y| x.div(y)),
    ("matmul", |x, y| x.matmul(y)),
    ("cat", |x, y| x.cat(&[x, y], 0)),
    ("linear", |x, y| x.linear(y, None, Activation::None)),
    ("linear", |x, y| x.linear(x, Some(&y.narrow(0, 0, 1)?.reshape(&[3])?), Activation::None)),
    ("layer_norm", |x, y| x.layer_norm(&row(x)?, &row(y)?, 1e-5)),
    ("dropout_add_layer_norm", |x, y| {
        let offsets = Offsets::from_lengths([3])?;
        x.dropout_add_layer_norm(y, &row(x)?, &row(x)?, 1e-5, (0.0, 0), &offsets)
    }),
    ("embed_layer_norm", |x, y| {
        let ids = || Arc::from([0, 1]);
        let tokens = TokenIds { ids: ids(), token_types: ids(), positions: ids() };
        let (weight, bias) = (&row(x)?, &row(x)?);
        let parameters = EmbedParameters { word: x, position: x, token_type: y, weight, bias, eps: 1e-5 };
        Var::embed_layer_norm(&tokens, &parameters)
    }),
];

fn row<'t>(x: &Var<'t>) -> Result<Var<'t>> {
    x.narrow(0, 0, 1)?.reshape(&[3])
}

#[test]
fn a_variable_of_another_tape_is_refused_by_every_operation() {
    let square = || tensor(&[3, 3], 0);
    let (mine, other, inference) = (Tape::recording(), Tape::recording(), Tape::inference());
    let x = mine.leaf(square());
    for foreign in [other.leaf(square()), other.constant(square()), inference.leaf(square())] {
        for (name, operation) in MIXED {
            let nodes = other.nodes().len();
            operation(&x, &x).unwrap_or_else(|error| panic!("{name} of its own variables: {error}"));
            let Err(error) = operation(&x, &foreign) else { panic!("{name} took a foreign variable") };
            assert!(matches!(&error, AutogradError::OtherTape { op } if op == name), "{name}: {error}");
            assert!(error.to_string().contains("another tape"), "{error}");
            // And the other way round: it is the first operand that is foreign then.
            if operation(&foreign, &x).is_ok() {
                panic!("{name} of a foreign variable took mine");
            }
            assert!(other.nodes().len() <= nodes + 4, "views of operands, and no operation");
        }
    }
    // What was refused left no trace.
    let (id, loss) = (x.id(), x.mul(&x).unwrap().sum_all().unwrap().id());
    drop(x);
    let gradients = mine.backward(loss, &[]).unwrap();
    let doubled: Vec<f64> = values(&square()).iter().map(|x| 2.0 * x).collect();
    assert_eq!(values(gradients.of(id).unwrap().unwrap()), doubled);
}

/// A place on a tape, after the tape has been consumed.
fn consumed() -> VarId {
    let tape = Tape::recording();
    let id = tape.leaf(tensor(&[1], 0)).id();
    tape.backward(id, &[]).unwrap();
    id
}

#[test]
fn backward_refuses_places_of_other_tapes() {
    let other = Tape::recording();
    let elsewhere = other.leaf(tensor(&[1], 0)).id();
    let inferred = Tape::inference().leaf(tensor(&[1], 0)).id();
    for foreign in [elsewhere, inferred, consumed()] {
        let tape = || {
            let tape = Tape::recording();
            let x = tape.leaf(tensor(&[1], 0)).id();
            (tape, x)
        };
        let refused = |result: Result<Gradients>| matches!(result, Err(AutogradError::OtherTape { .. }));
        assert!(refused(tape().0.backward(foreign, &[])));
        let (mine, x) = tape();
        assert!(refused(mine.backward(x, &[x, foreign])));
        let (mine, x) = tape();
        assert!(refused(mine.vjp(&[(x, tensor(&[1], 1)), (foreign, tensor(&[1], 1))], &[])));
        let (mine, x) = tape();
        assert!(matches!(mine.value_of(foreign), Err(AutogradError::OtherTape { .. })));
        let gradients = mine.backward(x, &[]).unwrap();
        assert!(matches!(gradients.of(foreign), Err(AutogradError::OtherTape { .. })));
        assert!(gradients.of(x).unwrap().is_some());
    }
}

#[test]
fn misuse_is_an_error() {
    let tape = Tape::recording();
    let x = tape.leaf(tensor(&[3], 0)).id();
    assert!(matches!(tape.backward(x, &[]), Err(AutogradError::NotScalar { .. })));
    let tape = Tape::inference();
    let x = tape.leaf(tensor(&[1], 0)).id();
    assert!(matches!(tape.value_of(x), Err(AutogradError::NotRecorded { .. })));
    assert!(matches!(tape.backward(x, &[]), Err(AutogradError::NotRecorded { .. })));
    let misfits = [tensor(&[2], 0), tensor(&[3, 1], 0), tensor(&[3], 0).to_dtype(DType::F32).unwrap()];
    for dy in misfits {
        let tape = Tape::recording();
        let x = tape.leaf(tensor(&[3], 0)).id();
        assert!(matches!(tape.vjp(&[(x, dy)], &[]), Err(AutogradError::Tensor(_))));
    }
}

/// A function that returns what it did not compute on its tape has no gradient, and says so.
#[test]
fn a_segment_that_leaves_its_tape_is_an_error() {
    let tape = Tape::recording();
    let x = tape.leaf(tensor(&[3], 0));
    let elsewhere = Segment::new(|_, x| Ok(Box::leak(Box::new(Tape::recording())).leaf(x.value().clone())));
    let y = x.segment(elsewhere).unwrap().sum_all().unwrap().id();
    drop(x);
    assert!(matches!(tape.backward(y, &[]), Err(AutogradError::OtherTape { .. })));
}

// ---- Gradients ----

#[test]
fn the_product_with_the_jacobian_is_the_sum_over_outputs() {
    type Outputs = Vec<(VarId, Tensor)>;
    let run = |outputs: &dyn Fn(&[Var]) -> Outputs| {
        let tape = Tape::recording();
        let x = tape.leaf(tensor(&[2, 3], 0));
        let ys = [x.exp().unwrap(), x.scale(3.0).unwrap(), x.clone()];
        let (outputs, id) = (outputs(&ys), x.id());
        drop((x, ys));
        values(tape.vjp(&outputs, &[]).unwrap().of(id).unwrap().unwrap())
    };
    let dys = [1, 2, 3].map(|stream| tensor(&[2, 3], stream));
    let together = run(&|ys| ys.iter().map(Var::id).zip(dys.clone()).collect());
    let apart = [0, 1, 2].map(|i| run(&|ys| vec![(ys[i].id(), dys[i].clone())]));
    for (i, sum) in together.iter().enumerate() {
        assert!((sum - apart.iter().map(|one| one[i]).sum::<f64>()).abs() < 1e-14);
    }
    // The same output again adds up; none has no gradients.
    let again = run(&|ys| vec![(ys[1].id(), dys[0].clone()), (ys[1].id(), dys[0].clone())]);
    assert_eq!(again, values(&dys[0]).iter().map(|dy| 6.0 * dy).collect::<Vec<_>>());
    let tape = Tape::recording();
    let x = tape.leaf(tensor(&[3], 0)).id();
    assert!(tape.vjp(&[], &[]).unwrap().of(x).unwrap().is_none());
}

/// Rules make the gradient of a weight in F32 and that of an operand in bfloat16; a variable gets its own, whichever it is.
#[test]
fn a_gradient_has_its_variable_s_dtype() {
    let tape = Tape::recording();
    let [x, w, table] = [(&[4, 3][..], 0), (&[5, 3], 1), (&[4, 3], 2)]
        .map(|(dims, stream)| tape.leaf(tensor(dims, stream).to_dtype(DType::BF16).unwrap()));
    let y = x.add(&table.embedding(&[3, 1, 1, 0]).unwrap()).unwrap();
    let y = y.linear(&w, None, Activation::None).unwrap();
    let (ids, loss) = ([x.id(), w.id(), table.id()], y.sum_all().unwrap().id());
    drop((x, w, table, y));
    let gradients = tape.backward(loss, &[]).unwrap();
    for id in ids {
        assert_eq!(gradients.of(id).unwrap().unwrap().dtype(), DType::BF16);
    }

    // A parameter that is computed with in bfloat16 has its gradient in F32, as its master is.
    let id = ParameterId::new(0);
    let value = tensor(&[4, 3], 0).to_dtype(DType::BF16).unwrap();
    let tape = Tape::recording();
    let w = tape.parameter(id, Operand { value, rounded: None, trainable: true });
    let loss = w.mul(&w).unwrap().sum_all().unwrap().id();
    drop(w);
    assert_eq!(tape.backward(loss, &[]).unwrap().parameter(id).unwrap().dtype(), DType::F32);
}

const WEIGHT: usize = 0;
const BIAS: usize = 1;

fn parameters() -> [Operand; 2] {
    [(&[3, 4][..], 0), (&[3], 1)].map(|(dims, stream)| {
        let value = tensor(dims, stream).to_dtype(DType::F32).unwrap();
        Operand { value, rounded: None, trainable: true }
    })
}

fn run(parameters: &[Operand; 2]) -> Gradients {
    let tape = Tape::recording();
    let x = tape.constant(tensor(&[5, 4], 5).to_dtype(DType::F32).unwrap());
    let _scope = tape.scope("layer");
    let [w, b] =
        [WEIGHT, BIAS].map(|index| tape.parameter(ParameterId::new(index), parameters[index].clone()));
    let y = x.linear(&w, Some(&b), Activation::GeluErf).unwrap().sum_all().unwrap().id();
    drop((w, b, x, _scope));
    assert!(tape.to_string().contains("linear + gelu_erf"), "{tape}");
    assert!(tape.nodes().iter().any(|node| node.op.name() == "parameter" && &*node.scope == "layer"));
    tape.backward(y, &[]).unwrap()
}

#[test]
fn a_frozen_parameter_gets_no_gradient() {
    let mut parameters = parameters();
    parameters[WEIGHT].trainable = false;
    let gradients = run(&parameters);
    assert!(gradients.parameter(ParameterId::new(WEIGHT)).is_none());
    assert!(gradients.parameter(ParameterId::new(BIAS)).is_some());
}

#[test]
fn after_backward_parameters_can_be_updated_in_place() {
    let mut parameters = parameters();
    let gradients = run(&parameters);
    assert_eq!(gradients.parameters().count(), 2);
    for parameter in &mut parameters {
        parameter.value.as_mut_slice::<f32>().expect("the tape holds it no more")[0] = 1.0;
    }
}

#[test]
fn kept_variables_have_their_gradient() {
    let tape = Tape::recording();
    let x = tape.leaf(tensor(&[3], 0));
    let y = x.scale(2.0).unwrap();
    let (kept, loss) = (y.id(), y.scale(3.0).unwrap().sum_all().unwrap().id());
    drop((x, y));
    let gradients = tape.backward(loss, &[kept]).unwrap();
    assert_eq!(values(gradients.of(kept).unwrap().unwrap()), [3.0; 3]);
}

// ---- What a tape shows ----

#[test]
fn recorded_values_can_be_read_where_they_are_kept() {
    let read = |tape: Tape| {
        let x = tape.leaf(tensor(&[3], 0));
        let y = x.exp().unwrap();
        let value = tape.value_of(y.id()).unwrap();
        let by_node = tape.nodes()[y.id().index()].value().map(values);
        assert_eq!(value.as_ref().map(values), by_node);
        value.map(|value| (values(&value), values(y.value())))
    };
    let (kept, computed) = read(Tape::recording().keeping_values()).unwrap();
    assert_eq!(kept, computed);
    assert!(read(Tape::recording()).is_none());
}

#[test]
fn hooks_see_every_gradient_as_it_is_made() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let hook = move |id: VarId, node: &Node, dy: &Tensor| {
        let sum: f64 = values(dy).iter().sum();
        sink.lock().unwrap().push((id, format!("{}/{}", node.scope, node.op.name()), sum));
    };
    let tape = Tape::recording().on_gradient(hook);
    let x = tape.leaf(tensor(&[4], 0));
    let outer = tape.scope("outer");
    // x is used twice: its gradient is complete, and seen, once.
    let y = x.scale(2.0).unwrap().add(&x).unwrap();
    drop(outer);
    let (ids, loss) = ((x.id(), y.id()), y.sum_all().unwrap().id());
    drop((x, y));
    let gradients = tape.backward(loss, &[]).unwrap();
    let seen = seen.lock().unwrap();
    let lines: Vec<(&str, f64)> = seen.iter().map(|(_, name, sum)| (name.as_str(), *sum)).collect();
    let expected =
        [("/sum", 1.0), ("/reshape", 4.0), ("outer/add", 4.0), ("outer/scale", 4.0), ("/leaf", 12.0)];
    assert_eq!(lines, expected);
    assert_eq!((seen[4].0, seen[2].0), ids);
    assert_eq!(values(gradients.of(ids.0).unwrap().unwrap()), [3.0; 4]);
}

/// What a checking tape refuses: (operation, scope, direction, first bad element, number of bad ones).
fn refused(error: &AutogradError) -> (&'static str, &str, Direction, usize, usize) {
    let AutogradError::NotFinite(found) = error else { panic!("{error}") };
    (found.op, &found.scope, found.direction, found.index, found.count)
}

#[test]
fn a_checking_tape_refuses_the_first_number_that_is_not_finite() {
    let numbers = |values: &[f64]| Tensor::from_slice(values, &[values.len()]).unwrap();
    let tape = Tape::recording().checking_finite();
    let scope = tape.scope("layer");
    let x = tape.leaf(numbers(&[1.0, -1.0, -2.0]));
    let error = x.ln().err().unwrap();
    assert_eq!(refused(&error), ("ln", "layer", Direction::Forward, 1, 2));
    // Its results are finite, and the root's slope at 0 is not.
    let y = tape.leaf(numbers(&[4.0, 0.0])).sqrt().unwrap();
    drop(scope);
    let loss = y.scale(2.0).unwrap().sum_all().unwrap().id();
    drop((x, y));
    let error = tape.backward(loss, &[]).err().unwrap();
    assert_eq!(refused(&error), ("sqrt", "layer", Direction::Backward, 1, 1));

    // Inside of a segment, in both directions.
    for (input, direction) in [(-1.0, Direction::Forward), (0.0, Direction::Backward)] {
        let tape = Tape::recording().checking_finite();
        let x = tape.leaf(numbers(&[input]));
        let segment = x.segment(Segment::new(|tape, x| {
            let _scope = tape.scope("inside");
            x.scale(1.0)?.sqrt()
        }));
        let error = match segment {
            Err(error) => error,
            Ok(y) => {
                let loss = y.sum_all().unwrap().id();
                drop((x, y));
                tape.backward(loss, &[]).err().unwrap()
            }
        };
        assert_eq!(refused(&error), ("sqrt", "inside", direction, 0, 1));
    }
    // Others pass it on.
    assert!(values(Tape::recording().leaf(numbers(&[-1.0])).ln().unwrap().value())[0].is_nan());
}

/// The search for the first operation whose gradient is no number.
#[test]
fn a_hook_finds_the_first_nan() {
    let first = Arc::new(Mutex::new(None));
    let sink = first.clone();
    let tape = Tape::recording().on_gradient(move |_, node, dy| {
        if values(dy).iter().any(|dy| dy.is_nan()) {
            sink.lock().unwrap().get_or_insert(node.op.name());
        }
    });
    let x = tape.leaf(Tensor::from_slice(&[0.0, 1.0], &[2]).unwrap());
    // The root's slope at 0 is infinite, and 0 times that is no number.
    let y = x.scale(0.0).unwrap().sqrt().unwrap().scale(0.0).unwrap().sum_all().unwrap().id();
    drop(x);
    tape.backward(y, &[]).unwrap();
    assert_eq!(*first.lock().unwrap(), Some("scale"));
}

#[test]
fn inference_gives_the_values_of_recording_and_keeps_nothing() {
    let values = |tape: Tape| {
        let count = Cell::new(0);
        let x = tape.constant(tensor(&[9, 24], 0));
        let y = x.attention(&offsets(), &settings()).unwrap().0;
        let y = y.dropout(0.5, 3, &offsets()).unwrap().softmax().unwrap();
        count.set(tape.nodes().len());
        (y.into_value().to_vec::<f64>().unwrap(), count.get())
    };
    let (recorded, nodes) = values(Tape::recording());
    let (inferred, none) = values(Tape::inference());
    assert_eq!(recorded, inferred);
    assert_eq!((nodes, none), (3, 0));
}

/// A segment counts what is inside of it, which the tape does not record.
#[test]
fn a_segment_has_the_flops_of_its_inside() {
    let tape = Tape::training(Randomness { seed: 1, step: 1, first_sequence: 0 });
    let x = tape.leaf(tensor(&[9, 4], 0));
    let inside = Segment::new(|_, x| x.dropout(0.3, 5, &offsets())?.gelu_erf()?.mul(x));
    let y = x.segment(inside).unwrap();
    assert_eq!(tape.nodes()[y.id().index()].flops(), 36 * (1 + 5 + 1));
}

// ---- For readers ----

#[test]
fn a_profile_names_its_nodes_and_segments_have_none() {
    let tape = Tape::recording().profiled();
    let x = tape.leaf(tensor(&[3, 3], 0));
    let y = x.exp().unwrap().mul(&x).unwrap();
    let y = y.segment(Segment::new(|_, x| x.tanh())).unwrap();
    let loss = y.sum_all().unwrap().id();
    drop((x, y));
    let forward = tape.profile();
    let names: Vec<&str> = tape.nodes().iter().map(|node| node.op.name()).collect();
    let inside = |timed: &&vitrine_autograd::TimedOp| timed.node.is_none();
    assert_eq!(
        forward.operations().iter().filter(inside).map(|timed| timed.op).collect::<Vec<_>>(),
        ["tanh"]
    );
    let (_, backward) = tape.backward_profiled(loss, &[]).unwrap();
    for profile in [&forward, &backward] {
        let named: Vec<(usize, &str)> =
            profile.operations().iter().filter_map(|timed| Some((timed.node?, timed.op))).collect();
        assert!(named.len() >= 4, "{named:?}");
        assert!(named.iter().all(|&(node, op)| names[node] == op), "{named:?} {names:?}");
    }
    assert_eq!(backward.operations().last().and_then(|timed| timed.node), Some(1));
}

#[test]
fn every_operation_has_a_place_in_the_source() {
    let given = ["constant", "leaf", "parameter", "segment"];
    for (variant, name) in Op::VARIANTS {
        let source = vitrine_tensor::ops::source::source(name);
        assert_eq!(
            source.is_none(),
            given.contains(name),
            "{variant}: a line in ops/source.rs is missing or too many"
        );
    }
    assert_eq!(Op::AddScalar.source().map(|source| source.formula), Some("y = x + term"));
    assert_eq!(Op::VARIANTS.len(), vitrine_tensor::ops::source::SOURCES.len() + given.len());
}
