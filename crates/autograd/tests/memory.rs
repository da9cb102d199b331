//! What a tape holds, counted in the memory of tensors. A test binary of its own with one test: the counters are the process's.

use vitrine_autograd::cases::{self, OpCase};
use vitrine_autograd::{Operand, ParameterId, Result, Tape, Var};
use vitrine_tensor::cpu::{memory, parallel};
use vitrine_tensor::ops::linear::Activation;
use vitrine_tensor::{DType, Device, Tensor};

/// More rows than a product keeps a weight's packed form for.
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

/// x `[ROWS, WIDTH]`, a weight and two vectors.
struct Operands<'t> {
    x: Var<'t>,
    parameters: [Var<'t>; 3],
}

type Function = for<'t> fn(&Operands<'t>) -> Result<Var<'t>>;

/// Those whose bytes are counted here one by one.
const FUNCTIONS: &[(&str, Function)] = &[
    ("linear", |o| o.x.linear(&o.parameters[0], Some(&o.parameters[1]), Activation::None)),
    ("linear + gelu", |o| o.x.linear(&o.parameters[0], Some(&o.parameters[1]), Activation::GeluErf)),
    ("layer_norm", |o| o.x.layer_norm(&o.parameters[1], &o.parameters[2], 1e-5)),
    ("matmul", |o| o.x.matmul(&o.parameters[0])),
];

/// Bytes that a tape says it holds once a function's operands and result are gone.
fn saved(function: Function, x_trainable: bool, parameters_trainable: bool) -> usize {
    let operands = parameters(parameters_trainable);
    let tape = Tape::recording();
    {
        let x = numbers(&[ROWS, WIDTH]);
        let x = if x_trainable { tape.leaf(x) } else { tape.constant(x) };
        let parameters = [0, 1, 2].map(|i| tape.parameter(ParameterId::new(i), operands[i].clone()));
        function(&Operands { x, parameters }).unwrap();
    }
    tape.nodes().iter().map(vitrine_autograd::Node::saved_bytes).sum()
}

#[test]
fn a_tape_holds_what_gradients_take_and_nothing_else() {
    // A thread keeps the panels that it packs: one thread, which has packed once.
    parallel::with_threads(1, || {
        let rows: Vec<OpCase> = cases::all().into_iter().filter(|row| row.backward_cost.is_some()).collect();
        for row in &rows {
            row.held(true).unwrap();
        }
        rows.iter().for_each(every_row);
        count();
    });
}

/// In a frozen branch the tape holds nothing. Else it holds something only if it says so.
fn every_row(row: &OpCase) {
    let name = row.name();
    assert_eq!(row.held(false).unwrap(), (0, 0), "{name}: a frozen branch");
    let (live, saved) = row.held(true).unwrap();
    // What is empty has a block too, of 0 bytes by the tape's count.
    let empty = row.cost.bytes == 0 || row.inputs.iter().any(|input| input.numel() == 0);
    assert!(empty || (live > 0) == (saved > 0), "{name}: {live} bytes in memory, {saved} counted");
}

fn count() {
    const X: usize = 4 * ROWS * WIDTH;
    let of = |name: &str, x, parameters| {
        let (_, function) = FUNCTIONS.iter().find(|(other, _)| *other == name).unwrap();
        saved(*function, x, parameters)
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
