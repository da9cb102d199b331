//! Every rule against central differences in F64, and the audit that no operation lacks a case.

use std::cell::Cell;
use vitrine_autograd::{
    AttentionSettings, AutogradError, EmbedParameters, Gradients, Op, Operand, ParameterId, Randomness,
    Result, Segment, Tape, TokenIds, Var,
};
use vitrine_tensor::ops::attention::Queries;
use vitrine_tensor::ops::linear::Activation;
use vitrine_tensor::{DType, Offsets, Tensor, random};

/// The name of the case that covers an operation. No wildcard: a new operation without a case does not compile.
fn case_of(op: &Op) -> &'static str {
    match op {
        Op::Parameter(_) => "parameters",
        Op::EmbedLayerNorm { .. } => "embed_layer_norm",
        Op::Linear { .. } => "linear",
        Op::Attention { .. } => "attention",
        Op::Dropout { .. } => "dropout",
        Op::DropoutAddLayerNorm { .. } => "dropout_add_layer_norm",
        Op::Segment { .. } => "segment",
        Op::GatherRows { .. } => "gather_rows",
        Op::CrossEntropy { .. } => "cross_entropy",
        Op::Constant | Op::Leaf | Op::Add { .. } => "add",
        Op::Sub { .. } => "sub",
        Op::Mul { .. } => "mul",
        Op::Div { .. } => "div",
        Op::Scale { .. } => "scale",
        Op::AddScalar => "add_scalar",
        Op::Exp { .. } => "exp",
        Op::Ln { .. } => "ln",
        Op::Sqrt { .. } => "sqrt",
        Op::Tanh { .. } => "tanh",
        Op::Relu { .. } => "relu",
        Op::GeluErf { .. } => "gelu_erf",
        Op::GeluTanh { .. } => "gelu_tanh",
        Op::Softmax { .. } => "softmax",
        Op::LogSoftmax { .. } => "log_softmax",
        Op::LayerNorm { .. } => "layer_norm",
        Op::Embedding { .. } => "embedding",
        Op::Matmul { .. } => "matmul",
        Op::Transpose { .. } => "transpose",
        Op::Reshape { .. } => "reshape",
        Op::Cast { .. } => "cast",
        Op::Narrow { .. } => "narrow",
        Op::BroadcastTo { .. } => "broadcast_to",
        Op::Cat { .. } => "cat",
        Op::Max { .. } => "max",
        Op::Sum { .. } => "sum",
    }
}

fn tensor(dims: &[usize], stream: u32) -> Tensor {
    let values: Vec<f64> =
        random::normal(dims.iter().product(), 0.7, 11, stream).iter().map(|&x| x.into()).collect();
    Tensor::from_slice(&values, dims).unwrap()
}

/// The same, away from zero and positive: for logarithms, roots, quotients, and the kink of relu.
fn positive(dims: &[usize], stream: u32) -> Tensor {
    let values: Vec<f64> =
        tensor(dims, stream).to_vec::<f64>().unwrap().iter().map(|x| 0.5 + x.abs()).collect();
    Tensor::from_slice(&values, dims).unwrap()
}

type Function = for<'a, 't> fn(&'a [Var<'t>]) -> Result<Var<'t>>;

fn tape() -> Tape {
    Tape::training(Randomness { seed: 3, step: 1, first_sequence: 2 })
}

/// A scalar from any result: a sum with fixed weights, so that every element of dy differs.
fn loss<'t>(y: &Var<'t>) -> Result<Var<'t>> {
    let weights = y.tape().constant(tensor(y.dims(), 99));
    y.mul(&weights)?.sum_all()
}

fn evaluate(inputs: &[Tensor], function: Function) -> f64 {
    let tape = tape();
    let leaves: Vec<Var> = inputs.iter().map(|input| tape.leaf(input.clone())).collect();
    loss(&function(&leaves).unwrap()).unwrap().value().item().unwrap()
}

/// Compares the gradient of every input element with central differences, and checks that the tape holds the operation.
#[expect(clippy::needless_pass_by_value, reason = "a case makes its inputs in the call")]
fn check(name: &'static str, inputs: Vec<Tensor>, function: Function) {
    const STEP: f64 = 1e-5;
    let tape = tape();
    let leaves: Vec<Var> = inputs.iter().map(|input| tape.leaf(input.clone())).collect();
    let ids: Vec<_> = leaves.iter().map(Var::id).collect();
    let y = loss(&function(&leaves).unwrap()).unwrap().id();
    drop(leaves);
    assert!(
        tape.nodes().iter().any(|node| case_of(&node.op) == name),
        "the case {name} does not record its operation"
    );
    let gradients = tape.backward(y, &[]).unwrap();
    for (which, (input, id)) in inputs.iter().zip(ids).enumerate() {
        let gradient = gradients.of(id).unwrap_or_else(|| panic!("{name}: no gradient of input {which}"));
        let gradient = gradient.to_vec::<f64>().unwrap();
        let values = input.to_vec::<f64>().unwrap();
        let scale = gradient.iter().fold(1.0, |scale: f64, g| scale.max(g.abs()));
        for i in 0..values.len() {
            let at = |delta: f64| {
                let mut moved = values.clone();
                moved[i] += delta;
                let mut inputs = inputs.clone();
                inputs[which] = Tensor::from_slice(&moved, input.dims()).unwrap();
                evaluate(&inputs, function)
            };
            let difference = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            // Truncation is O(STEP^2), cancellation about 1e-16 / STEP; both far below this.
            let close = (difference - gradient[i]).abs() <= 2e-7 * scale;
            assert!(
                close,
                "{name}, input {which}, element {i}: {} by the rule, {difference} by differences",
                gradient[i]
            );
        }
    }
}

fn offsets() -> Offsets {
    Offsets::from_lengths([3, 1, 5]).unwrap()
}

fn settings(queries: Queries) -> AttentionSettings {
    AttentionSettings {
        heads: 2,
        softmax_scale: 0.5,
        queries,
        dropout_p: 0.2,
        site: 4,
        probabilities_for: Vec::new(),
    }
}

#[test]
fn segment() {
    check("segment", vec![tensor(&[9, 4], 0)], |v| {
        let function = Segment::new(|_, x| x.dropout(0.3, 5, &offsets())?.gelu_erf()?.mul(x));
        v[0].segment(function)
    });
}

/// Central differences cannot see through a rounding: the gradient is that of the identity, rounded the same way.
#[test]
fn cast() {
    let x = tensor(&[3, 5], 0);
    let tape = tape();
    let leaf = tape.leaf(x.clone());
    let narrow = leaf.to_dtype(DType::BF16).unwrap();
    assert_eq!(narrow.value().dtype(), DType::BF16);
    assert_eq!(narrow.to_dtype(DType::BF16).unwrap().id(), narrow.id());
    let y = loss(&narrow.to_dtype(DType::F64).unwrap()).unwrap().id();
    assert_eq!(tape.nodes().iter().filter(|node| case_of(&node.op) == "cast").count(), 2);
    let id = leaf.id();
    drop((leaf, narrow));
    let gradient = tape.backward(y, &[]).unwrap().of(id).unwrap().to_vec::<f64>().unwrap();
    let expected = tensor(&[3, 5], 99).to_dtype(DType::BF16).unwrap().to_dtype(DType::F64).unwrap();
    assert_eq!(gradient, expected.to_vec::<f64>().unwrap());
}

#[test]
fn arithmetic() {
    check("add", vec![tensor(&[3, 4], 0), tensor(&[4], 1)], |v| v[0].add(&v[1]));
    check("add", vec![tensor(&[3, 4], 0)], |v| v[0].add(&v[0]));
    check("sub", vec![tensor(&[3, 1], 0), tensor(&[1, 4], 1)], |v| v[0].sub(&v[1]));
    check("mul", vec![tensor(&[2, 3], 0), tensor(&[2, 1], 1)], |v| v[0].mul(&v[1]));
    check("div", vec![tensor(&[2, 3], 0), positive(&[3], 1)], |v| v[0].div(&v[1]));
    check("scale", vec![tensor(&[5], 0)], |v| v[0].scale(-2.5));
    check("add_scalar", vec![tensor(&[5], 0)], |v| v[0].add_scalar(3.0));
}

#[test]
fn functions() {
    check("exp", vec![tensor(&[7], 0)], |v| v[0].exp());
    check("ln", vec![positive(&[7], 0)], |v| v[0].ln());
    check("sqrt", vec![positive(&[7], 0)], |v| v[0].sqrt());
    check("tanh", vec![tensor(&[7], 0)], |v| v[0].tanh());
    check("relu", vec![positive(&[7], 0)], |v| v[0].relu());
    check("relu", vec![positive(&[7], 0)], |v| v[0].scale(-1.0)?.relu());
    check("gelu_erf", vec![tensor(&[7], 0)], |v| v[0].gelu_erf());
    check("gelu_tanh", vec![tensor(&[7], 0)], |v| v[0].gelu_tanh());
    check("log_softmax", vec![tensor(&[3, 5], 0)], |v| v[0].log_softmax());
    check("softmax", vec![tensor(&[3, 5], 0)], |v| v[0].softmax());
}

#[test]
fn movement_and_reduction() {
    check("transpose", vec![tensor(&[2, 3, 4], 0)], |v| v[0].transpose(0, 2));
    check("reshape", vec![tensor(&[2, 6], 0)], |v| v[0].reshape(&[3, 4]));
    check("narrow", vec![tensor(&[2, 6], 0)], |v| v[0].narrow(1, 2, 3));
    check("broadcast_to", vec![tensor(&[3, 1], 0)], |v| v[0].broadcast_to(&[2, 3, 4]));
    check("cat", vec![tensor(&[2, 3], 0), tensor(&[2, 1], 1)], |v| v[0].cat(&[&v[1], &v[0]], 1));
    check("cat", vec![tensor(&[2, 3], 0), tensor(&[1, 3], 1)], |v| v[0].cat(&[&v[1]], 0));
    check("max", vec![tensor(&[2, 5, 3], 0)], |v| v[0].max(1, false));
    check("max", vec![tensor(&[4, 5], 0)], |v| v[0].max(1, true));
    check("sum", vec![tensor(&[2, 3, 4], 0)], |v| v[0].sum(1, false));
    check("sum", vec![tensor(&[2, 3], 0)], |v| v[0].sum(1, true));
    check("gather_rows", vec![tensor(&[5, 3], 0)], |v| v[0].gather_rows(&[4, 0, 4]));
    check("embedding", vec![tensor(&[6, 3], 0)], |v| v[0].embedding(&[5, 1, 1, 0]));
}

#[test]
fn products() {
    check("matmul", vec![tensor(&[3, 4], 0), tensor(&[4, 5], 1)], |v| v[0].matmul(&v[1]));
    check("matmul", vec![tensor(&[2, 3, 4], 0), tensor(&[4, 2], 1)], |v| v[0].matmul(&v[1]));
    let operands = || vec![tensor(&[4, 3], 0), tensor(&[5, 3], 1), tensor(&[5], 2)];
    check("linear", operands(), |v| v[0].linear(&v[1], Some(&v[2]), Activation::None));
    check("linear", operands(), |v| v[0].linear(&v[1], Some(&v[2]), Activation::GeluErf));
    check("linear", operands(), |v| v[0].linear(&v[1], Some(&v[2]), Activation::GeluTanh));
    check("linear", operands(), |v| v[0].linear(&v[1], Some(&v[2]), Activation::Tanh));
    check("linear", operands()[..2].to_vec(), |v| v[0].linear(&v[1], None, Activation::GeluErf));
}

#[test]
fn normalisation_and_dropout() {
    let layer = || vec![tensor(&[9, 6], 0), positive(&[6], 1), tensor(&[6], 2)];
    check("layer_norm", layer(), |v| v[0].layer_norm(&v[1], &v[2], 1e-12));
    check("dropout", vec![tensor(&[9, 6], 0)], |v| v[0].dropout(0.3, 1, &offsets()));
    let inputs = || vec![tensor(&[9, 6], 0), tensor(&[9, 6], 1), positive(&[6], 2), tensor(&[6], 3)];
    check("dropout_add_layer_norm", inputs(), |v| {
        v[0].dropout_add_layer_norm(&v[1], &v[2], &v[3], 1e-12, (0.3, 2), &offsets())
    });
    check("dropout_add_layer_norm", inputs(), |v| {
        v[0].dropout_add_layer_norm(&v[1], &v[2], &v[3], 1e-12, (0.0, 2), &offsets())
    });
}

#[test]
fn attention_with_dropout() {
    check("attention", vec![tensor(&[9, 24], 0)], |v| {
        Ok(v[0].attention(&offsets(), &settings(Queries::All))?.0)
    });
    check("attention", vec![tensor(&[9, 24], 0)], |v| {
        Ok(v[0].attention(&offsets(), &settings(Queries::First))?.0)
    });
}

#[test]
fn embeddings_and_loss() {
    let tables =
        vec![tensor(&[7, 6], 0), tensor(&[5, 6], 1), tensor(&[2, 6], 2), positive(&[6], 3), tensor(&[6], 4)];
    check("embed_layer_norm", tables, |v| {
        let ids = |ids: &[u32]| ids.into();
        let tokens = TokenIds {
            ids: ids(&[6, 1, 1, 3]),
            token_types: ids(&[0, 1, 1, 0]),
            positions: ids(&[0, 1, 2, 0]),
        };
        let [word, position, token_type, weight, bias] = [0, 1, 2, 3, 4].map(|i| &v[i]);
        Var::embed_layer_norm(
            &tokens,
            &EmbedParameters { word, position, token_type, weight, bias, eps: 1e-12 },
        )
    });
    check("cross_entropy", vec![tensor(&[4, 3], 0)], |v| v[0].cross_entropy(&[2, 0, 1, 1]));
}

fn parameters() -> Vec<(Tensor, bool)> {
    [(&[3, 4][..], 0), (&[3], 1)]
        .map(|(dims, stream)| (tensor(dims, stream).to_dtype(DType::F32).unwrap(), true))
        .to_vec()
}

/// The gradients of a layer of these two parameters, of which each is trainable or not.
fn run(parameters: &[(Tensor, bool)]) -> Gradients {
    let tape = Tape::recording();
    let x = tape.constant(tensor(&[5, 4], 5).to_dtype(DType::F32).unwrap());
    let _scope = tape.scope("layer");
    let parameter = |index: usize| {
        let (value, trainable) = parameters[index].clone();
        tape.parameter(ParameterId::new(index), Operand { value, rounded: None, trainable })
    };
    let y = x.linear(&parameter(0), Some(&parameter(1)), Activation::GeluErf).unwrap();
    let y = y.sum_all().unwrap().id();
    drop((x, _scope));
    assert!(tape.to_string().contains("linear + gelu_erf"), "{tape}");
    assert!(tape.nodes().iter().any(|node| case_of(&node.op) == "parameters" && &*node.scope == "layer"));
    tape.backward(y, &[]).unwrap()
}

#[test]
fn a_frozen_parameter_gets_no_gradient() {
    let mut parameters = parameters();
    let with_gradients =
        |gradients: &Gradients| gradients.parameters().map(|(id, _)| id.index()).collect::<Vec<_>>();
    assert_eq!(with_gradients(&run(&parameters)), [0, 1]);
    parameters[0].1 = false;
    let gradients = run(&parameters);
    assert_eq!(with_gradients(&gradients), [1]);
    assert!(gradients.parameter(ParameterId::new(0)).is_none());
}

#[test]
fn after_backward_parameters_can_be_updated_in_place() {
    let mut parameters = parameters();
    let gradients = run(&parameters);
    for (id, _) in gradients.parameters() {
        let (value, _) = &mut parameters[id.index()];
        value.as_mut_slice::<f32>().expect("the tape holds it no more")[0] = 1.0;
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
    assert_eq!(gradients.of(kept).unwrap().to_vec::<f64>().unwrap(), [3.0; 3]);
}

#[test]
fn misuse_is_an_error() {
    let tape = Tape::recording();
    let x = tape.leaf(tensor(&[3], 0)).id();
    assert!(matches!(tape.backward(x, &[]), Err(AutogradError::NotScalar { .. })));
    let tape = Tape::inference();
    let x = tape.leaf(tensor(&[1], 0)).id();
    assert!(matches!(tape.backward(x, &[]), Err(AutogradError::NotRecorded)));
}

#[test]
fn inference_gives_the_values_of_recording_and_keeps_nothing() {
    let values = |tape: Tape| {
        let count = Cell::new(0);
        let x = tape.constant(tensor(&[9, 24], 0));
        let y = x.attention(&offsets(), &settings(Queries::All)).unwrap().0;
        let y = y.dropout(0.5, 3, &offsets()).unwrap().softmax().unwrap();
        count.set(tape.nodes().len());
        (y.into_value().to_vec::<f64>().unwrap(), count.get())
    };
    let (recorded, nodes) = values(Tape::recording());
    let (inferred, none) = values(Tape::inference());
    assert_eq!(recorded, inferred);
    assert_eq!((nodes, none), (3, 0));
}
