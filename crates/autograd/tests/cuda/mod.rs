//! What the CUDA backend must do, on whatever device there is: shared by `emulated` and `device`.

use libtest_mimic::{Failed, Trial};
use std::sync::Arc;
use vitrine_autograd::cases::{self, Mismatch, OpCase, compare, largest, numbers_of};
use vitrine_tensor::ops::attention::{AttentionOptions, Queries, attention, attention_backward};
use vitrine_tensor::ops::dropout::dropout;
use vitrine_tensor::ops::dropout_add_layer_norm::dropout_add_layer_norm;
use vitrine_tensor::ops::{elementwise, movement, reduce};
use vitrine_tensor::{DType, Device, Dropout, Error, Offsets, Tensor, cuda, random};

const CUDA: Device = Device::Cuda(0);

/// Every row of the operations' table in f32 and bfloat16 against the f64 specification, and what has no row.
pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("copies", copies),
        trial("broadcasts", broadcasts),
        trial("sums", sums),
        trial("maxima_of_what_is_no_number", maxima_of_what_is_no_number),
        trial("y_beside_a_residual_stream", y_beside_a_residual_stream),
        trial("more_rows_than_a_grid_is_high", more_rows_than_a_grid_is_high),
        trial("same_bits_again", same_bits_again),
        trial("the_host_cannot_look", the_host_cannot_look),
        trial("probabilities_of_chosen_heads", probabilities_of_chosen_heads),
        trial("heads_of_every_size", heads_of_every_size),
        trial("events_tell_the_time", events_tell_the_time),
    ];
    for case in cases::all() {
        let case = Arc::new(case);
        let mut add = |dtype: &str, check: fn(&OpCase) -> Result<(), Mismatch>| {
            let (case, name) = (case.clone(), format!("{}/{dtype}", case.name()));
            trials.push(Trial::test(name, move || check(&case).map_err(Failed::from)));
        };
        add("f32", |case| case.check_f32(CUDA));
        if case.has_half() {
            add("bf16", |case| case.check_half(DType::BF16, CUDA));
        }
        // A kernel may get an operand that it is not to read; activations come before the products.
        if case.op == "linear" && case.variant.contains("none") {
            add("frozen/f32", |case| case.check_frozen(DType::F32, CUDA));
            add("frozen/bf16", |case| case.check_frozen(DType::BF16, CUDA));
        }
    }
    trials
}

/// Kernels that no test has run, of those that `ours` says this program should: asked at the end.
#[allow(dead_code, reason = "a real device does not tell")]
pub fn never_ran(ours: impl Fn(&str) -> bool, ran: &[String]) -> Vec<&'static str> {
    let names = vitrine_kernels::MODULES.iter().flat_map(|module| module.entries).copied();
    names.filter(|name| ours(name) && !ran.iter().any(|ran| ran == name)).collect()
}

fn trial(name: &str, run: fn() -> Result<(), Mismatch>) -> Trial {
    Trial::test(name, move || run().map_err(Failed::from))
}

fn numbers(dims: &[usize], seed: u64) -> Tensor {
    let values = random::normal(dims.iter().product(), 1.0, seed, 0);
    Tensor::from_slice(&values, dims).expect("as many values as the shape has")
}

fn same(what: &str, got: &Tensor, expected: &Tensor) -> Result<(), Mismatch> {
    compare(|| what.into(), &numbers_of(got)?, &numbers_of(expected)?, 0.0)
}

/// There and back, views of every kind, concatenation, chosen rows.
fn copies() -> Result<(), Mismatch> {
    let x = numbers(&[3, 4, 5], 1);
    let y = x.to_device(CUDA)?;
    same("there and back", &y, &x)?;
    same("transposed", &y.transpose(0, 2)?.contiguous()?, &x.transpose(0, 2)?)?;
    same("narrowed", &y.narrow(1, 1, 2)?.copy()?, &x.narrow(1, 1, 2)?)?;
    same("reshaped", &y.t()?.reshape(&[15, 4])?, &x.t()?.reshape(&[15, 4])?)?;
    same(
        "repeated",
        &y.narrow(0, 1, 1)?.broadcast_to(&[3, 4, 5])?.contiguous()?,
        &x.narrow(0, 1, 1)?.broadcast_to(&[3, 4, 5])?,
    )?;
    let half = y.to_dtype(DType::BF16)?;
    same("bfloat16", &half, &x.to_dtype(DType::BF16)?)?;
    same("bfloat16, transposed", &half.t()?.contiguous()?, &x.to_dtype(DType::BF16)?.t()?)?;
    same("and back", &half.to_dtype(DType::F32)?, &x.to_dtype(DType::BF16)?)?;
    same("zeros", &Tensor::zeros(&[7], DType::F32, CUDA)?, &Tensor::zeros(&[7], DType::F32, Device::Cpu)?)?;
    same(
        "sevens",
        &Tensor::full(&[9], 7.0, DType::BF16, CUDA)?,
        &Tensor::full(&[9], 7.0, DType::BF16, Device::Cpu)?,
    )?;
    for dim in 0..3 {
        same(
            "cat",
            &movement::cat(&[&y, &y.narrow(dim, 1, 2)?], dim)?,
            &movement::cat(&[&x, &x.narrow(dim, 1, 2)?], dim)?,
        )?;
        same(
            "narrow_backward",
            &movement::narrow_backward(&y, dim, 2, 9)?,
            &movement::narrow_backward(&x, dim, 2, 9)?,
        )?;
    }
    let (x, y) = (x.reshape(&[12, 5])?, y.reshape(&[12, 5])?);
    let rows = [3, 3, 0, 11];
    same("gather_rows", &movement::gather_rows(&y, &rows)?, &movement::gather_rows(&x, &rows)?)?;
    let (dx, dy) = (x.narrow(0, 0, 4)?, y.narrow(0, 0, 4)?);
    same(
        "gather_rows_backward",
        &movement::gather_rows_backward(&dy, &rows, 12)?,
        &movement::gather_rows_backward(&dx, &rows, 12)?,
    )
}

/// Arithmetic under NumPy's broadcasting.
fn broadcasts() -> Result<(), Mismatch> {
    let (a, b) = (numbers(&[3, 1, 5], 1), numbers(&[4, 1], 2));
    let (x, y) = (a.to_device(CUDA)?, b.to_device(CUDA)?);
    type Function = fn(&Tensor, &Tensor) -> vitrine_tensor::Result<Tensor>;
    let functions: [(&str, Function); 4] = [
        ("add", elementwise::add),
        ("sub", elementwise::sub),
        ("mul", elementwise::mul),
        ("div", elementwise::div),
    ];
    for (name, f) in functions {
        let (expected, got) = (numbers_of(&f(&a, &b)?)?, numbers_of(&f(&x, &y)?)?);
        compare(|| name.into(), &got, &expected, 1e-6)?;
    }
    let got = elementwise::add_scalar(&elementwise::scale(&x.t()?, 2.0)?, 1.0)?;
    let expected = elementwise::add_scalar(&elementwise::scale(&a.t()?, 2.0)?, 1.0)?;
    compare(|| "affine".into(), &numbers_of(&got)?, &numbers_of(&expected)?, 1e-6)?;
    type Unary = fn(&Tensor) -> vitrine_tensor::Result<Tensor>;
    let functions: [(&str, Unary); 5] = [
        ("exp", elementwise::exp),
        ("neg", elementwise::neg),
        ("tanh", elementwise::tanh),
        ("relu", elementwise::relu),
        ("sqrt of exp", |x| elementwise::sqrt(&elementwise::exp(x)?)),
    ];
    for (name, f) in functions {
        compare(|| name.into(), &numbers_of(&f(&x)?)?, &numbers_of(&f(&a)?)?, 1e-5)?;
    }
    Ok(())
}

fn sums() -> Result<(), Mismatch> {
    let x = numbers(&[3, 70, 5], 1);
    let y = x.to_device(CUDA)?;
    for dim in 0..3 {
        let (expected, got) = (reduce::sum(&x, dim, false)?, reduce::sum(&y, dim, false)?);
        compare(|| format!("sum over {dim}"), &numbers_of(&got)?, &numbers_of(&expected)?, 1e-4)?;
    }
    let (expected, got) = (reduce::reduce_to_shape(&x, &[70, 1])?, reduce::reduce_to_shape(&y, &[70, 1])?);
    compare(|| "reduce_to_shape".into(), &numbers_of(&got)?, &numbers_of(&expected)?, 1e-4)
}

/// NaN is the largest, and of equals the first one counts; as on the CPU.
fn maxima_of_what_is_no_number() -> Result<(), Mismatch> {
    let (nan, low) = (f32::NAN, f32::NEG_INFINITY);
    let mut rows = vec![low; 5 * 70];
    (rows[70 + 69], rows[70 + 3]) = (2.0, 2.0);
    (rows[2 * 70 + 40], rows[2 * 70 + 8], rows[2 * 70 + 1]) = (nan, nan, f32::INFINITY);
    rows[3 * 70 + 64] = -0.0;
    rows[3 * 70 + 65] = 0.0;
    let x = Tensor::from_slice(&rows, &[5, 70])?;
    for (dim, firsts) in [(1, Some([0, 3, 8, 64, 0])), (0, None)] {
        let (expected, got) = (reduce::max(&x, dim, false)?, reduce::max(&x.to_device(CUDA)?, dim, false)?);
        let indices = got.indices.to_device(Device::Cpu)?;
        assert_eq!(indices.as_slice::<u32>()?, expected.indices.as_slice::<u32>()?);
        assert!(firsts.is_none_or(|firsts| indices.as_slice::<u32>().is_ok_and(|found| found == firsts)));
        let bits = |values: &Tensor| -> vitrine_tensor::Result<Vec<u32>> {
            Ok(values.to_device(Device::Cpu)?.as_slice::<f32>()?.iter().map(|x| x.to_bits()).collect())
        };
        assert_eq!(bits(&got.values)?, bits(&expected.values)?);
    }
    Ok(())
}

/// In half precision beside an F32 residual stream, y comes rounded too: as a conversion of y would round it, on any device.
fn y_beside_a_residual_stream() -> Result<(), Mismatch> {
    for device in [Device::Cpu, CUDA] {
        let [x, residual] = [1, 2].map(|seed| numbers(&[37, 20], seed).to_device(device));
        let [weight, bias] = [3, 4].map(|seed| numbers(&[20], seed).to_device(device));
        let (residual, x) = (residual?, x?.to_dtype(DType::BF16)?);
        let offsets = Offsets::from_lengths([37])?;
        let out = dropout_add_layer_norm(&x, &residual, &weight?, &bias?, 1e-5, None, &offsets)?;
        same("rounded", &out.rounded.expect("two dtypes"), &out.y.to_dtype(DType::BF16)?)?;
    }
    Ok(())
}

/// 128 reviews of 512 tokens are 65,536 rows; a grid has at most 65,535 blocks along y.
fn more_rows_than_a_grid_is_high() -> Result<(), Mismatch> {
    let (rows, x) = (66_000, numbers(&[66_000, 2], 1));
    let y = x.to_device(CUDA)?;
    let reversed: Vec<u32> = (0..rows as u32).rev().collect();
    same("gather_rows", &movement::gather_rows(&y, &reversed)?, &movement::gather_rows(&x, &reversed)?)?;
    let offsets = Offsets::from_lengths([rows - 7, 7])?;
    let settings = Dropout { dropout_p: 0.3, seed: 3, step: 1, site: 2, first_sequence: 0 };
    same("dropout", &dropout(&y, &settings, &offsets)?, &dropout(&x, &settings, &offsets)?)
}

/// Twice the same operation: the same bits, though blocks are given out again.
fn same_bits_again() -> Result<(), Mismatch> {
    for op in ["attention", "linear", "embed_layer_norm", "cross_entropy"] {
        let case = cases::of(op).pop().expect("a row");
        let run = || case.run(DType::BF16, DType::BF16, CUDA);
        let (first, second) = (case.name_results(run()?), case.name_results(run()?));
        for ((name, first), (_, second)) in first.iter().zip(&second) {
            same(name, second, first)?;
        }
    }
    Ok(())
}

/// Of heads out of order, before dropout, of sequences with and without rows; as the CPU's.
fn probabilities_of_chosen_heads() -> Result<(), Mismatch> {
    let dropout = Dropout { dropout_p: 0.3, seed: 3, step: 1, site: 2, first_sequence: 0 };
    let options = AttentionOptions { dropout: Some(dropout), probabilities_for: vec![2, 0] };
    let offsets = Offsets::from_lengths([3, 0, 1, 70])?;
    for (size, dtype) in
        [(5, DType::F32), (128, DType::F32), (24, DType::BF16), (32, DType::BF16), (64, DType::BF16)]
    {
        let x = numbers(&[74, 9 * size], 1).to_dtype(dtype)?;
        let y = x.to_device(CUDA)?;
        for queries in [Queries::All, Queries::First] {
            let scale = (size as f64).sqrt().recip();
            let run = |qkv| attention(qkv, 3, scale, &offsets, queries, &options);
            let (expected, got) = (run(&x)?.probabilities, run(&y)?.probabilities);
            assert_eq!((got.len(), got[3].dims()), (4, expected[3].dims()));
            for (got, expected) in got.iter().zip(&expected) {
                // In bfloat16 both start from the same numbers and sum in F32.
                let what = || format!("heads of {size} in {dtype}, {queries:?}");
                compare(what, &numbers_of(got)?, &numbers_of(expected)?, 1e-5)?;
            }
        }
    }
    Ok(())
}

/// Any size up to 128, forward and backward, and one line for a larger one.
fn heads_of_every_size() -> Result<(), Mismatch> {
    let offsets = Offsets::from_lengths([2, 35])?;
    let options = AttentionOptions::default();
    for dtype in [DType::F32, DType::BF16] {
        for size in [1, 2, 31, 32, 33, 64, 65, 127, 128] {
            let run = |device| -> vitrine_tensor::Result<[Tensor; 2]> {
                let qkv = numbers(&[37, 3 * size], 1).to_dtype(dtype)?.to_device(device)?;
                let dout = numbers(&[37, size], 2).to_dtype(dtype)?.to_device(device)?;
                let forward = attention(&qkv, 1, 0.3, &offsets, Queries::All, &options)?;
                let lse = &forward.lse;
                let dqkv = attention_backward(&dout, &qkv, lse, 1, 0.3, &offsets, Queries::All, &options)?;
                Ok([forward.out, dqkv])
            };
            let tolerance = if dtype == DType::F32 { 1e-5 } else { 2e-2 };
            for (got, expected) in run(CUDA)?.iter().zip(run(Device::Cpu)?) {
                let what = || format!("heads of {size} in {dtype}");
                let expected = numbers_of(&expected)?;
                compare(what, &numbers_of(got)?, &expected, tolerance * largest(&expected))?;
            }
        }
        let qkv = Tensor::zeros(&[37, 3 * 129], dtype, CUDA)?;
        let Err(error) = attention(&qkv, 1, 0.3, &offsets, Queries::All, &options) else {
            panic!("no kernel")
        };
        let text = error.to_string();
        assert!(text.contains("at most 128 channels") && text.contains("129"), "{text}");
    }
    Ok(())
}

fn events_tell_the_time() -> Result<(), Mismatch> {
    let seconds = cuda::seconds_of(0, || Tensor::zeros(&[1 << 20], DType::F32, CUDA)?.copy().map(drop))?;
    assert!(seconds > 0.0 && seconds < 60.0, "{seconds}");
    Ok(())
}

fn the_host_cannot_look() -> Result<(), Mismatch> {
    let x = numbers(&[3], 1).to_device(CUDA)?;
    assert!(matches!(x.as_slice::<f32>(), Err(Error::DeviceMismatch { .. })));
    assert!(matches!(elementwise::add(&x, &numbers(&[3], 1)), Err(Error::DeviceMismatch { .. })));
    let found = Tensor::zeros(&[1], DType::U32, Device::Cpu)?;
    let wrong = reduce::max_backward(&numbers(&[1], 1).to_device(CUDA)?, &found, &[3], 0);
    assert!(matches!(wrong, Err(Error::DeviceMismatch { .. })), "{wrong:?}");
    assert!(matches!(x.to_dtype(DType::F64), Err(Error::NotSupported { .. })));
    Ok(())
}
