//! What a tape holds, counted in the memory of tensors. A test binary of its own with one test: the counters are the process's.

use vitrine_autograd::{AttentionSettings, Operand, ParameterId, Randomness, Result, Segment, Tape, Var};
use vitrine_tensor::cpu::{memory, parallel};
use vitrine_tensor::ops::attention::Queries;
use vitrine_tensor::ops::linear::Activation;
use vitrine_tensor::{DType, Device, Offsets, Tensor};

/// More rows than a product keeps a weight's packed form for, and a width for attention's three parts.
const ROWS: usize = 300;
const WIDTH: usize = 96;

fn numbers(dims: &[usize]) -> Tensor {
    Tensor::full(dims, 0.5, DType::F32, Device::Cpu).unwrap()
}

fn parameters(trainable: bool) -> [Operand; 3] {
    [&[WIDTH, WIDTH][..], &[WIDTH], &[WIDTH]].map(|dims| Operand {
        value: numbers(dims),
        rounded: None,
        trainable,
    })
}

/// x `[ROWS, WIDTH]`, another variable of that shape, and a weight and two vectors.
struct Operands<'t> {
    x: Var<'t>,
    other: Var<'t>,
    parameters: [Var<'t>; 3],
}

type Function = for<'t> fn(&Operands<'t>) -> Result<Var<'t>>;

const FUNCTIONS: &[(&str, Function)] = &[
    ("linear", |o| o.x.linear(&o.parameters[0], Some(&o.parameters[1]), Activation::None)),
    ("linear + gelu", |o| o.x.linear(&o.parameters[0], Some(&o.parameters[1]), Activation::GeluErf)),
    ("linear + tanh", |o| o.x.linear(&o.parameters[0], None, Activation::Tanh)),
    ("layer_norm", |o| o.x.layer_norm(&o.parameters[1], &o.parameters[2], 1e-5)),
    ("dropout_add_layer_norm", |o| {
        let (weight, bias) = (&o.parameters[1], &o.parameters[2]);
        o.x.dropout_add_layer_norm(&o.other, weight, bias, 1e-5, (0.1, 1), &Offsets::from_lengths([ROWS])?)
    }),
    ("attention", |o| {
        let settings = AttentionSettings {
            heads: 2,
            softmax_scale: 0.25,
            queries: Queries::All,
            dropout_p: 0.1,
            site: 2,
            probabilities_for: Vec::new(),
        };
        Ok(o.x.attention(&Offsets::from_lengths([ROWS])?, &settings)?.0)
    }),
    ("mul", |o| o.x.mul(&o.other)),
    ("div", |o| o.x.div(&o.other)),
    ("matmul", |o| o.x.matmul(&o.parameters[0])),
    ("exp", |o| o.x.exp()),
    ("ln", |o| o.x.ln()),
    ("sqrt", |o| o.x.sqrt()),
    ("tanh", |o| o.x.tanh()),
    ("relu", |o| o.x.relu()),
    ("gelu_erf", |o| o.x.gelu_erf()),
    ("gelu_tanh", |o| o.x.gelu_tanh()),
    ("softmax", |o| o.x.softmax()),
    ("log_softmax", |o| o.x.log_softmax()),
    ("max", |o| o.x.max(0, false)),
    ("cross_entropy", |o| o.x.cross_entropy(&[1; ROWS])),
    ("segment", |o| o.x.segment(Segment::new(|_, x| x.scale(2.0)))),
];

/// Bytes that a tape holds once a function's operands and result are gone: in memory, and by its own count.
fn held(function: Function, x_trainable: bool, parameters_trainable: bool) -> (usize, usize) {
    let operands = parameters(parameters_trainable);
    let tape = Tape::training(Randomness { seed: 1, step: 1, first_sequence: 0 });
    let before = memory::stats().live;
    {
        // Neither is held by anybody but the tape.
        let [x, other] = [0, 1].map(|_| {
            let leaf = numbers(&[ROWS, WIDTH]);
            if x_trainable { tape.leaf(leaf) } else { tape.constant(leaf) }
        });
        let parameters = [0, 1, 2].map(|i| tape.parameter(ParameterId::new(i), operands[i].clone()));
        function(&Operands { x, other, parameters }).unwrap();
    }
    let saved = tape.nodes().iter().map(vitrine_autograd::Node::saved_bytes).sum();
    (memory::stats().live - before, saved)
}

#[test]
fn a_tape_holds_what_gradients_take_and_nothing_else() {
    // A thread keeps the panels that it packs: one thread, which has packed once.
    parallel::with_threads(1, || {
        for (_, function) in FUNCTIONS {
            held(*function, true, true);
        }
        count();
    });
}

fn count() {
    const X: usize = 4 * ROWS * WIDTH;
    for (name, function) in FUNCTIONS {
        assert_eq!(held(*function, false, false), (0, 0), "{name}: a frozen branch");
        let (live, saved) = held(*function, true, true);
        assert!(live > 0 && saved > 0, "{name}: {live} bytes in memory, {saved} counted");
    }
    let of = |name: &str, x, parameters| {
        let (_, function) = FUNCTIONS.iter().find(|(other, _)| *other == name).unwrap();
        held(*function, x, parameters).1
    };
    // A linear layer's weight gets its gradient from x, and x from the weight.
    assert_eq!([of("linear", true, false), of("linear", false, true)], [0, X]);
    assert_eq!([of("linear + gelu", true, false), of("linear + gelu", false, true)], [X, 2 * X]);
    // LayerNorm's bias takes nothing that is saved; its other gradients are made together, from x and the statistics.
    assert_eq!([of("layer_norm", true, false), of("layer_norm", false, true)], [X + 8 * ROWS; 2]);
    // `a` of a product gets it from `b`: here b is the parameter, which is trained or not.
    assert_eq!([of("matmul", false, true), of("matmul", true, true)], [X, X + 4 * WIDTH * WIDTH]);
    assert_eq!(of("matmul", true, false), 4 * WIDTH * WIDTH);

    let tape = Tape::recording();
    let (x, weight) = (tape.constant(numbers(&[ROWS, WIDTH])), tape.constant(numbers(&[WIDTH])));
    let y = x.layer_norm(&weight, &tape.leaf(numbers(&[WIDTH])), 1e-5).unwrap();
    assert_eq!(tape.nodes()[y.id().index()].saved_bytes(), 0, "the bias alone");

    // Real memory, too: of x times a constant, the tape holds the constant alone.
    let tape = Tape::recording();
    let before = memory::stats().live;
    let constant = tape.constant(numbers(&[8, WIDTH]));
    let kept = memory::stats().live - before;
    let y = tape.leaf(numbers(&[ROWS, 8, WIDTH])).mul(&constant).unwrap();
    drop((y, constant));
    assert_eq!(memory::stats().live - before, kept);
    drop(tape);
    assert_eq!(memory::stats().live, before);
}
