//! [`State`]: what an optimizer remembers of each parameter.

use crate::{Result, TrainError};
use std::collections::BTreeMap;
use vitrine_nn::{Parameter, ParameterStore};
use vitrine_tensor::Tensor;
use vitrine_tensor::ops::movement::cat;

/// `N` tensors of the shape of each parameter, 0 at first.
#[derive(Clone, Debug)]
pub(super) struct State<const N: usize> {
    /// What the tensors are called.
    kinds: [&'static str; N],
    /// By the number of the parameter; none before its first update.
    tensors: Vec<Option<[Tensor; N]>>,
}

impl<const N: usize> State<N> {
    pub fn new(kinds: [&'static str; N]) -> Self {
        State { kinds, tensors: Vec::new() }
    }

    /// The tensors of each of `count` parameters, to be changed.
    pub fn slots(&mut self, count: usize) -> impl Iterator<Item = &mut Option<[Tensor; N]>> {
        self.tensors.resize(count, None);
        self.tensors.iter_mut()
    }

    /// The tensors of a slot, on the device of a gradient and in its dtype.
    pub fn of<'a>(slot: &'a mut Option<[Tensor; N]>, gradient: &Tensor) -> Result<&'a mut [Tensor; N]> {
        let mut tensors = Vec::with_capacity(N);
        match slot.take() {
            Some(kept) => {
                for tensor in kept {
                    tensors.push(tensor.to_device(gradient.device())?);
                }
            }
            None => {
                for _ in 0..N {
                    tensors.push(Tensor::zeros(gradient.dims(), gradient.dtype(), gradient.device())?);
                }
            }
        }
        Ok(slot.insert(array(tensors)))
    }

    /// As [`Optimizer::state`](super::Optimizer::state).
    pub fn named(&self, parameters: &ParameterStore) -> Result<Vec<(String, Tensor)>> {
        let mut named = Vec::new();
        for ((_, parameter), tensors) in parameters.iter().zip(&self.tensors) {
            for (kind, tensor) in self.kinds.iter().zip(tensors.iter().flatten()) {
                let parts = parameter.split(tensor)?;
                named.extend(parts.into_iter().map(|(key, part)| (format!("{kind}.{key}"), part)));
            }
        }
        Ok(named)
    }

    /// As [`Optimizer::set_state`](super::Optimizer::set_state).
    pub fn set(&mut self, parameters: &ParameterStore, mut state: BTreeMap<String, Tensor>) -> Result<()> {
        let mut all = Vec::with_capacity(parameters.iter().len());
        for (_, parameter) in parameters.iter() {
            let first = format!("{}.{}", self.kinds[0], parameter.parts[0].key);
            let has_none = !state.contains_key(&first);
            let mut tensors = Vec::with_capacity(N);
            for kind in self.kinds.iter().filter(|_| !has_none) {
                tensors.push(take(kind, parameter, &mut state)?);
            }
            all.push((!has_none).then(|| array(tensors)));
        }
        if let Some(name) = state.into_keys().next() {
            return Err(TrainError::OptimizerState { name, why: "no parameter has such a state" });
        }
        self.tensors = all;
        Ok(())
    }
}

/// Takes one tensor of a parameter out of a state, from its parts.
fn take(kind: &str, parameter: &Parameter, state: &mut BTreeMap<String, Tensor>) -> Result<Tensor> {
    let value = &parameter.value;
    let mut parts = Vec::with_capacity(parameter.parts.len());
    for part in &parameter.parts {
        let name = format!("{kind}.{}", part.key);
        let Some(tensor) = state.remove(&name) else {
            return Err(TrainError::OptimizerState { name, why: "it is missing" });
        };
        let dims = [&[part.rows], value.dims().get(1..).unwrap_or_default()].concat();
        if tensor.dims() != dims || tensor.dtype() != value.dtype() {
            return Err(TrainError::OptimizerState { name, why: "it has another shape or dtype" });
        }
        parts.push(tensor);
    }
    Ok(cat(&parts.iter().collect::<Vec<_>>(), 0)?)
}

fn array<const N: usize>(tensors: Vec<Tensor>) -> [Tensor; N] {
    let mut tensors = tensors.into_iter();
    std::array::from_fn(|_| tensors.next().expect("internal: N tensors were made"))
}
