//! Which operands fit which operation. What runs an instruction relies on it: every operand that it reads is there.

use super::{Op, Operand, Place};

fn result(operand: &Operand) -> bool {
    matches!(operand, Operand::Register(_) | Operand::Sink)
}

fn value(operand: &Operand) -> bool {
    matches!(
        operand,
        Operand::Register(_) | Operand::Immediate(_) | Operand::Special(_) | Operand::Symbol(..)
    )
}

fn address(operand: &Operand) -> bool {
    let base =
        |base: &Operand| matches!(base, Operand::Register(_) | Operand::Immediate(_) | Operand::Symbol(..));
    matches!(operand, Operand::Address { base: at, .. } if base(at))
}

/// One operand of this sort, or a vector of several.
fn several(operand: &Operand, count: usize, sort: fn(&Operand) -> bool) -> bool {
    match operand {
        Operand::Vector(parts) => parts.len() == count && parts.iter().all(sort),
        one => count == 1 && sort(one),
    }
}

/// One result, or a pair of them: `%r1|%p1`.
fn one_or_two(operand: &Operand) -> bool {
    result(operand) || several(operand, 2, result)
}

/// Whether the first operand is a result and the others are values.
fn function(operands: &[Operand], values: usize) -> bool {
    operands.len() == values + 1 && result(&operands[0]) && operands[1..].iter().all(value)
}

/// Whether an operation can run with these operands.
pub(super) fn fit(op: &Op, operands: &[Operand]) -> bool {
    match (*op, operands) {
        (Op::Lanes(lanewise), _) => function(operands, lanewise.arity()),
        (Op::Pack(_), [Operand::Vector(parts), whole]) => parts.iter().all(result) && value(whole),
        (Op::Pack(_), [whole, Operand::Vector(parts)]) => result(whole) && parts.iter().all(value),
        (Op::Carry(carry), [operands @ .., Operand::Register(_)]) => {
            function(operands, if carry.product.is_some() { 3 } else { 2 })
        }
        (Op::Load(_, _, count), [to, from]) => several(to, count, result) && address(from),
        (Op::Store(_, _, count), [to, from]) => address(to) && several(from, count, value),
        (Op::Atomic { returns, kind, .. }, _) => {
            let (results, rest) = operands.split_at(usize::from(returns).min(operands.len()));
            let values = if kind == super::Atomic::CompareAndSwap { 2 } else { 1 };
            results.iter().all(result)
                && rest.len() == 1 + values
                && address(&rest[0])
                && rest[1..].iter().all(value)
        }
        (Op::ConvertAddress(..) | Op::IsSpace(_), _) => function(operands, 1),
        (Op::Barrier, _) => operands.len() <= 2 && operands.iter().all(value),
        (Op::Arrive, [barrier, threads]) => value(barrier) && value(threads),
        (Op::WarpSync, [mask]) => value(mask),
        (Op::Shuffle(_), [to, values @ ..]) => {
            one_or_two(to) && values.len() == 4 && values.iter().all(value)
        }
        (Op::Match(..), [to, values @ ..]) => one_or_two(to) && values.len() == 2 && values.iter().all(value),
        (Op::Vote(_) | Op::Reduce(..), _) => function(operands, 2),
        (Op::ActiveMask, _) => function(operands, 0),
        (Op::CopyAsync, [to, from, sizes @ ..]) => {
            address(to) && address(from) && (1..=2).contains(&sizes.len()) && sizes.iter().all(value)
        }
        (Op::LoadMatrix(_), [to @ Operand::Vector(parts), from]) => {
            several(to, parts.len(), result) && address(from)
        }
        (Op::MatrixMultiply(..), [d, factors @ ..]) => {
            let registers = |operand: &Operand, sort: fn(&Operand) -> bool| match operand {
                Operand::Vector(parts) => parts.iter().all(sort),
                one => sort(one),
            };
            registers(d, result) && factors.iter().all(|factor| registers(factor, value))
        }
        (Op::Call(_), [Operand::Vector(results), Operand::Vector(arguments)]) => {
            results.iter().chain(arguments).all(|o| matches!(o, Operand::Symbol(Place::Local, _)))
        }
        (Op::WaitCopies, operands) => matches!(operands, [] | [Operand::Immediate(_)]),
        (Op::Exit | Op::Trap | Op::Fence | Op::CommitCopies, operands) => operands.is_empty(),
        // Hints have operands that nothing reads.
        (Op::Nothing, _) => true,
        _ => false,
    }
}
