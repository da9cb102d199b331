//! Views against an index function: whatever chain of views is taken, every element is the one that the definition of
//! each view says, and casts round as their types do.

use proptest::prelude::*;
use vitrine_tensor::cpu::isa::{every_path, with_isa};
use vitrine_tensor::{DType, Element, Tensor};

/// A tensor as its definition: a shape and the value at an index.
#[derive(Clone)]
struct Model {
    dims: Vec<usize>,
    values: Vec<u32>,
}

impl Model {
    fn at(&self, index: &[usize]) -> u32 {
        self.values[index.iter().zip(&self.dims).fold(0, |position, (i, length)| position * length + i)]
    }

    /// The model with shape `dims` whose element at `index` is that of `self` at `source(index)`.
    fn viewed(&self, dims: Vec<usize>, source: impl Fn(&[usize]) -> Vec<usize>) -> Model {
        let values = (0..dims.iter().product())
            .map(|mut position| {
                let mut index = vec![0; dims.len()];
                for d in (0..dims.len()).rev() {
                    index[d] = position % dims[d];
                    position /= dims[d];
                }
                self.at(&source(&index))
            })
            .collect();
        Model { dims, values }
    }
}

/// One view. Numbers are reduced to what the tensor at hand allows.
#[derive(Clone, Debug)]
enum View {
    Transpose(usize, usize),
    Narrow(usize, usize, usize),
    Select(usize, usize),
    Unsqueeze(usize),
    Broadcast(usize),
    Reshape(usize),
    Contiguous,
}

fn view() -> impl Strategy<Value = View> {
    let n = 0..64usize;
    prop_oneof![
        (n.clone(), n.clone()).prop_map(|(a, b)| View::Transpose(a, b)),
        (n.clone(), n.clone(), n.clone()).prop_map(|(d, start, len)| View::Narrow(d, start, len)),
        (n.clone(), n.clone()).prop_map(|(d, i)| View::Select(d, i)),
        n.clone().prop_map(View::Unsqueeze),
        n.clone().prop_map(View::Broadcast),
        n.prop_map(View::Reshape),
        Just(View::Contiguous),
    ]
}

/// Takes the view of the tensor and of the model; unchanged where the view does not apply.
fn take(view: &View, tensor: Tensor, model: Model) -> (Tensor, Model) {
    let (dims, rank) = (model.dims.clone(), model.dims.len());
    match *view {
        View::Transpose(a, b) if rank > 0 => {
            let (a, b) = (a % rank, b % rank);
            let swapped = |mut index: Vec<usize>| {
                index.swap(a, b);
                index
            };
            (tensor.transpose(a, b).unwrap(), model.viewed(swapped(dims), |index| swapped(index.to_vec())))
        }
        View::Narrow(d, start, len) if rank > 0 => {
            let d = d % rank;
            let start = start % (dims[d] + 1);
            let len = len % (dims[d] - start + 1);
            let mut narrowed = dims;
            narrowed[d] = len;
            let source = |index: &[usize]| {
                let mut index = index.to_vec();
                index[d] += start;
                index
            };
            (tensor.narrow(d, start, len).unwrap(), model.viewed(narrowed, source))
        }
        View::Select(d, i) if rank > 0 && dims[d % rank] > 0 => {
            let d = d % rank;
            let i = i % dims[d];
            let mut selected = dims;
            selected.remove(d);
            let source = |index: &[usize]| {
                let mut index = index.to_vec();
                index.insert(d, i);
                index
            };
            (tensor.select(d, i).unwrap(), model.viewed(selected, source))
        }
        View::Unsqueeze(d) if rank < 5 => {
            let d = d % (rank + 1);
            let mut longer = dims;
            longer.insert(d, 1);
            let source = |index: &[usize]| {
                let mut index = index.to_vec();
                index.remove(d);
                index
            };
            (tensor.unsqueeze(d).unwrap(), model.viewed(longer, source))
        }
        View::Broadcast(times) => {
            let wide: Vec<usize> =
                dims.iter().map(|&length| if length == 1 { times % 4 } else { length }).collect();
            let source = |index: &[usize]| {
                index.iter().zip(&dims).map(|(&i, &length)| if length == 1 { 0 } else { i }).collect()
            };
            (tensor.broadcast_to(&wide).unwrap(), model.viewed(wide.clone(), source))
        }
        View::Reshape(parts) if !model.values.is_empty() => {
            let numel = model.values.len();
            let first = (1..=numel).filter(|n| numel.is_multiple_of(*n)).nth(parts % 3).unwrap_or(1);
            let reshaped = vec![first, numel / first];
            (tensor.reshape(&reshaped).unwrap(), Model { dims: reshaped, values: model.values })
        }
        View::Contiguous => (tensor.contiguous().unwrap(), model),
        _ => (tensor, model),
    }
}

fn assert_same(tensor: &Tensor, model: &Model) {
    assert_eq!(tensor.dims(), model.dims);
    assert_eq!(tensor.to_vec::<u32>().unwrap(), model.values, "{tensor:?}");
    let contiguous = tensor.contiguous().unwrap();
    assert_eq!(contiguous.as_slice::<u32>().unwrap(), model.values);
    assert_eq!(tensor.as_slice::<u32>().is_ok(), tensor.is_contiguous());
    for (index, position) in tensor.layout().positions().enumerate() {
        assert_eq!(tensor.layout().position(index), position, "element {index} of {tensor:?}");
    }
    // Seen as rows, a tensor has the same elements; what has no such form says so.
    assert_eq!(tensor.as_rows::<u32>("test").is_ok(), tensor.layout().row_stride().is_some());
    if let Ok(rows) = tensor.as_rows::<u32>("test") {
        let elements: Vec<u32> = (0..rows.count).flat_map(|row| rows.row(row).to_vec()).collect();
        assert_eq!(elements, model.values, "{tensor:?}");
    } else {
        assert!(!tensor.is_contiguous(), "{tensor:?}");
    }
}

proptest! {
    #[test]
    fn chains_of_views_select_the_elements_of_their_definition(
        dims in prop::collection::vec(0..5usize, 0..4),
        views in prop::collection::vec(view(), 0..7),
    ) {
        let values: Vec<u32> = (0..dims.iter().product::<usize>() as u32).collect();
        let mut tensor = Tensor::from_slice(&values, &dims).unwrap();
        let mut model = Model { dims, values };
        for view in &views {
            (tensor, model) = take(view, tensor, model);
            assert_same(&tensor, &model);
        }
    }

    #[test]
    fn views_that_leave_the_tensor_are_errors(dim in 0..9usize, start in any::<usize>(), len in any::<usize>()) {
        let tensor = Tensor::from_slice(&[0u32; 24], &[2, 3, 4]).unwrap();
        let inside = dim < 3 && start.checked_add(len).is_some_and(|end| end <= tensor.dims()[dim]);
        prop_assert_eq!(tensor.narrow(dim, start, len).is_ok(), inside);
        prop_assert_eq!(tensor.transpose(0, dim).is_ok(), dim < 3);
        prop_assert!(tensor.select(dim, start.max(4)).is_err());
        prop_assert_eq!(tensor.reshape(&[start, len]).is_ok(), start.checked_mul(len) == Some(24));
    }

    #[test]
    fn casts_round_trip_where_the_wider_type_holds_the_narrower_on_every_path(bits in prop::collection::vec(any::<u16>(), 1..40)) {
        let bf16: Vec<half::bf16> = bits.iter().map(|&b| half::bf16::from_bits(b)).filter(|x| !x.is_nan()).collect();
        let f16: Vec<half::f16> = bits.iter().map(|&b| half::f16::from_bits(b)).filter(|x| !x.is_nan()).collect();
        let ids: Vec<u32> = bits.iter().map(|&b| u32::from(b) << 8 | 1).collect();
        for (isa, wide) in every_path().into_iter().flat_map(|isa| [(isa, DType::F32), (isa, DType::F64)]) {
            let there_and_back = |x: Tensor| {
                let dtype = x.dtype();
                with_isa(isa, || x.to_dtype(wide).unwrap().to_dtype(dtype).unwrap())
            };
            let back = there_and_back(Tensor::from_slice(&bf16, &[bf16.len()]).unwrap());
            prop_assert_eq!(back.as_slice::<half::bf16>().unwrap(), &bf16[..], "{}", isa);
            let back = there_and_back(Tensor::from_slice(&f16, &[f16.len()]).unwrap());
            prop_assert_eq!(back.as_slice::<half::f16>().unwrap(), &f16[..], "{}", isa);
        }
        for wide in [DType::F32, DType::F64, DType::I64] {
            let x = Tensor::from_slice(&ids, &[ids.len()]).unwrap();
            let back = x.to_dtype(wide).unwrap().to_dtype(DType::U32).unwrap();
            prop_assert_eq!(back.as_slice::<u32>().unwrap(), &ids[..]);
        }
    }
}

#[test]
fn casts_round_to_nearest_even() {
    let x = Tensor::from_slice(&[1.0f32 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 65520.0, -0.0], &[4]).unwrap();
    let values = |dtype| x.to_dtype(dtype).unwrap().to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap();
    assert_eq!(values(DType::BF16), [1.0, 1.015_625, 65536.0, 0.0]);
    assert_eq!(values(DType::F16), [1.003_906_25, 1.011_718_75, f64::INFINITY, 0.0]);
    assert_eq!(values(DType::I64), [1.0, 1.0, 65520.0, 0.0]);
}

/// Casts `x` on every path, also from the third element on, and compares all bits.
fn assert_cast<X: Element, Y: Element>(
    x: &[X],
    expected: &[Y],
    bits: impl Fn(&Y) -> u32,
    name: impl Fn(usize) -> String,
) {
    let whole = Tensor::from_slice(x, &[x.len()]).unwrap();
    for (isa, start) in every_path().into_iter().flat_map(|isa| [(isa, 0), (isa, 3)]) {
        // An odd length, so that the rest after the whole vectors is not empty.
        let end = x.len() - 1 + start % 2;
        let part = whole.narrow(0, start, end - start).unwrap();
        let y = with_isa(isa, || part.to_dtype(Y::DTYPE)).unwrap();
        for (i, (got, expected)) in y.as_slice::<Y>().unwrap().iter().zip(&expected[start..]).enumerate() {
            let (got, expected) = (bits(got), bits(expected));
            assert_eq!(got, expected, "{isa}: {} became {got:#x}, not {expected:#x}", name(start + i));
        }
    }
}

/// All 65,536 numbers of both half types, infinities and NaN with their bits.
#[test]
fn halves_become_singles_exactly_on_every_path() {
    let name = |i| format!("half {i:#06x}");
    let x: Vec<half::bf16> = (0..=u16::MAX).map(half::bf16::from_bits).collect();
    let expected: Vec<f32> = (0..=u16::MAX).map(|bits| f32::from_bits(u32::from(bits) << 16)).collect();
    assert_cast(&x, &expected, |y| y.to_bits(), name);

    let single = |bits: u16| {
        let (sign, exponent, mantissa) = (u32::from(bits >> 15) << 31, bits >> 10 & 31, bits & 1023);
        let size = match exponent {
            0 => f32::from(mantissa) * 2f32.powi(-24),
            31 if mantissa == 0 => f32::INFINITY,
            // NaN, a signalling one made quiet.
            31 => f32::from_bits(0x7fc0_0000 | u32::from(mantissa) << 13),
            _ => (1024.0 + f32::from(mantissa)) * 2f32.powi(i32::from(exponent) - 25),
        };
        f32::from_bits(sign | size.to_bits())
    };
    let x: Vec<half::f16> = (0..=u16::MAX).map(half::f16::from_bits).collect();
    let expected: Vec<f32> = (0..=u16::MAX).map(single).collect();
    assert_cast(&x, &expected, |y| y.to_bits(), name);
}

/// Around every number of both half types and every tie between two, subnormal ones among them; overflow; NaN.
#[test]
fn singles_become_the_nearest_halves_on_every_path() {
    // bfloat16 is the upper half of an F32, so all patterns of it are followed by all interesting lower halves.
    let patterns: Vec<u32> = (0..=u16::MAX)
        .flat_map(|upper| [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|lower| u32::from(upper) << 16 | lower))
        .collect();
    let nearest = |&bits: &u32| {
        let rounded =
            if f32::from_bits(bits).is_nan() { bits | 0x0040_0000 } else { bits + 0x7fff + (bits >> 16 & 1) };
        half::bf16::from_bits((rounded >> 16) as u16)
    };
    let x: Vec<f32> = patterns.iter().map(|&bits| f32::from_bits(bits)).collect();
    let expected: Vec<half::bf16> = patterns.iter().map(nearest).collect();
    assert_cast(&x, &expected, |y| u32::from(y.to_bits()), |i| format!("{:#010x}", patterns[i]));

    // binary16: each number, the tie above it, and an F32's last bit on either side of both.
    let value = |bits: u32| match bits >> 10 {
        0 => bits as f32 * 2f32.powi(-24),
        // Infinity stands for the number that would follow.
        exponent => (1024 + (bits & 1023)) as f32 * 2f32.powi(exponent as i32 - 25),
    };
    let mut pairs: Vec<(u32, u32)> = Vec::new();
    for bits in 0..0x7c00u32 {
        let (low, high) = (value(bits), value(bits + 1));
        let tie = ((low + high) / 2.0).to_bits();
        let even = bits + (bits & 1);
        pairs.extend([(low.to_bits(), bits), (low.to_bits() + 1, bits), (tie - 1, bits), (tie, even)]);
        pairs.extend([(tie + 1, bits + 1), (high.to_bits() - 1, bits + 1)]);
    }
    pairs.extend([(0x7f7f_ffff, 0x7c00), (0x7f80_0000, 0x7c00), (1, 0), (0x0080_0000, 0)]);
    // NaN keeps its upper bits and becomes quiet.
    pairs.extend((0..1024).map(|upper| (0x7f80_0001 | upper << 13, 0x7e00 | upper)));
    pairs.extend(pairs.clone().into_iter().map(|(x, y)| (x | 1 << 31, y | 1 << 15)));
    let x: Vec<f32> = pairs.iter().map(|&(x, _)| f32::from_bits(x)).collect();
    let expected: Vec<half::f16> = pairs.iter().map(|&(_, y)| half::f16::from_bits(y as u16)).collect();
    assert_cast(&x, &expected, |y| u32::from(y.to_bits()), |i| format!("{:#010x}", pairs[i].0));
}
