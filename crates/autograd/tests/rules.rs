//! That every rule is checked: each variant of [`Op`] by a row of the table, through the walk that ships.

use vitrine_autograd::cases::{self, OpCase};
use vitrine_autograd::{Op, Tape};
use vitrine_tensor::{DType, Device, Tensor};

/// Variants that stand for values: they have no inputs, and so no rule.
const VALUES: [&str; 3] = ["Constant", "Leaf", "Parameter"];

/// Whether a row among these has a gradient that central differences confirm, and that the variant's rule took part in.
fn is_checked(variant: &str, rows: &[OpCase]) -> bool {
    rows.iter().any(|row| {
        let ops = row.check_gradients().unwrap_or_default();
        ops.iter().any(|op| op.variant().0 == variant)
    })
}

/// `Op::VARIANTS` is complete, or `op.rs` does not compile; so a new variant needs a row of its name.
#[test]
fn every_operation_is_checked_by_its_rows() {
    let unchecked: Vec<&str> = Op::VARIANTS
        .iter()
        .filter(|(variant, name)| !VALUES.contains(variant) && !is_checked(variant, &cases::of(name)))
        .map(|(variant, _)| *variant)
        .collect();
    assert!(unchecked.is_empty(), "no row confirms the rule of Op::{}", unchecked.join(", Op::"));
}

/// What that test is worth: a name in the list is not enough, nor a row that runs another rule or nothing.
#[test]
fn a_row_in_name_only_checks_nothing() {
    assert!(!is_checked("Relu", &[]));
    assert!(!is_checked("Relu", &cases::of("tanh")));
    assert!(!is_checked("LayerNorm", &[cases::layer_norm(0, 5)]));
    assert!(is_checked("LayerNorm", &[cases::layer_norm(3, 5)]));
}

/// The counts of `Op::flops` are those that rows derive for themselves.
#[test]
fn operations_count_the_flops_of_their_rows() {
    for row in cases::all().iter().filter(|row| row.backward_cost.is_some()) {
        let operands = row.operands(DType::F32, DType::F32, Device::Cpu).unwrap();
        assert_eq!(row.record(&operands).unwrap().flops(), row.cost.flops as u64, "{}", row.name());
    }
}

/// The gradient of a conversion is converted the same way: rounded.
#[test]
fn cast_rounds_the_gradient() {
    let numbers = |seed: u32| -> Vec<f64> {
        vitrine_tensor::random::normal(15, 0.7, 11, seed).into_iter().map(f64::from).collect()
    };
    let dy = Tensor::from_slice(&numbers(1), &[3, 5]).unwrap();
    let tape = Tape::recording();
    let x = tape.leaf(Tensor::from_slice(&numbers(0), &[3, 5]).unwrap());
    let narrow = x.to_dtype(DType::BF16).unwrap();
    assert_eq!(narrow.to_dtype(DType::BF16).unwrap().id(), narrow.id());
    let (x, y) = (x.id(), narrow.to_dtype(DType::F64).unwrap().id());
    drop(narrow);
    let gradients = tape.vjp(&[(y, dy.clone())], &[]).unwrap();
    let rounded = dy.to_dtype(DType::BF16).unwrap().to_dtype(DType::F64).unwrap();
    let dx = gradients.of(x).unwrap().unwrap();
    assert_eq!(dx.to_vec::<f64>().unwrap(), rounded.to_vec::<f64>().unwrap());
}
