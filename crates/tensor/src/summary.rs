//! [`Summary`]: the numbers of a tensor in a few numbers.

use crate::{DType, Device, Result, Tensor};

/// Statistics of a tensor's elements, added up in f64. What is not finite is counted and takes part in nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// How many elements there are.
    pub count: usize,
    /// The smallest finite one; none where no element is finite.
    pub min: Option<f64>,
    /// The largest finite one.
    pub max: Option<f64>,
    /// The mean of the finite ones.
    pub mean: Option<f64>,
    /// The root of the sum of the squares of the finite ones.
    pub norm: f64,
    /// How many are 0.
    pub zeros: usize,
    /// How many are NaN or infinite.
    pub non_finite: usize,
}

impl Summary {
    /// Of a tensor of any dtype on any device, strided or not.
    ///
    /// # Errors
    /// Errors of the conversion to f64 and of the copy to the host.
    pub fn of(tensor: &Tensor) -> Result<Self> {
        let values = tensor.contiguous()?.to_device(Device::Cpu)?.to_dtype(DType::F64)?.to_vec::<f64>()?;
        Ok(Self::of_values(&values))
    }

    /// Of numbers.
    pub fn of_values(values: &[f64]) -> Self {
        let mut summary = Summary { count: values.len(), ..Summary::default() };
        let (mut sum, mut squares) = (0.0, 0.0);
        for &value in values {
            if !value.is_finite() {
                summary.non_finite += 1;
                continue;
            }
            summary.zeros += usize::from(value == 0.0);
            summary.min = Some(summary.min.map_or(value, |min| min.min(value)));
            summary.max = Some(summary.max.map_or(value, |max| max.max(value)));
            sum += value;
            squares += value * value;
        }
        let finite = summary.count - summary.non_finite;
        summary.mean = (finite > 0).then(|| sum / finite as f64);
        summary.norm = squares.sqrt();
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_sums_are_those_of_the_elements() {
        let x = Tensor::from_slice(&[3.0f32, 0.0, -4.0, f32::NAN, f32::INFINITY, -0.0], &[2, 3]).unwrap();
        let summary = Summary::of(&x).unwrap();
        let expected = Summary {
            count: 6,
            min: Some(-4.0),
            max: Some(3.0),
            mean: Some(-0.25),
            norm: 5.0,
            zeros: 2,
            non_finite: 2,
        };
        assert_eq!(summary, expected);
        // A column: 3 and NaN.
        let column = Summary::of(&x.narrow(1, 0, 1).unwrap()).unwrap();
        assert_eq!((column.count, column.mean, column.non_finite), (2, Some(3.0), 1));
        let empty = Summary::of_values(&[]);
        assert_eq!((empty.mean, empty.min, empty.norm), (None, None, 0.0));
        assert_eq!(Summary::of_values(&[f64::NAN]).max, None);
        let integers = Summary::of(&Tensor::from_slice(&[1u32, 2], &[2]).unwrap()).unwrap();
        assert_eq!((integers.mean, integers.max), (Some(1.5), Some(2.0)));
    }
}
