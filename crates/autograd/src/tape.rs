//! [`Tape`]: the list of what was done, and the walk back over it.

use crate::{AutogradError, Gradients, Op, Operand, ParameterId, Result, Segment, Var, rules};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use vitrine_tensor::ops::elementwise::add;
use vitrine_tensor::{DType, Device, Dropout, Shape, Tensor};

/// A variable's place on its tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VarId(usize);

impl VarId {
    /// The index into [`Tape::nodes`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// What makes dropout masks a function of the step, wherever and however it is computed.
#[derive(Clone, Copy, Debug)]
pub struct Randomness {
    /// The run's seed.
    pub seed: u64,
    /// The optimizer step.
    pub step: u32,
    /// Index, within the optimizer step, of the batch's first sequence.
    pub first_sequence: u32,
}

/// One recorded operation.
#[derive(Debug)]
pub struct Node {
    /// What was done, and what it saved.
    pub op: Op,
    /// To which variables.
    pub inputs: Vec<VarId>,
    /// Shape of the result.
    pub shape: Shape,
    /// dtype of the result.
    pub dtype: DType,
    /// Where the result is.
    pub device: Device,
    /// Where in the model, such as `encoder.layer.3.attention`.
    pub scope: Arc<str>,
    /// Wall-clock seconds of forward, on a profiled tape.
    pub seconds: f64,
    needs_gradient: bool,
}

impl Node {
    /// Bytes of the activations that are kept for backward.
    pub fn saved_bytes(&self) -> usize {
        self.op.saved().iter().map(|tensor| tensor.bytes()).sum()
    }

    /// Floating-point operations of forward; see [`Op::flops`].
    pub fn flops(&self) -> u64 {
        self.op.flops(self.shape.numel())
    }
}

/// Seconds by operation.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    seconds: BTreeMap<&'static str, f64>,
}

impl Profile {
    fn add(&mut self, op: &'static str, seconds: f64) {
        *self.seconds.entry(op).or_default() += seconds;
    }

    /// (operation, seconds), by name.
    pub fn by_op(&self) -> Vec<(String, f64)> {
        self.seconds.iter().map(|(op, seconds)| ((*op).to_owned(), *seconds)).collect()
    }
}

#[derive(Default)]
struct State {
    nodes: Vec<Node>,
    scopes: Vec<String>,
    profile: Profile,
    /// The parameters that a segment takes, in the order of their first use; none outside of segments.
    taken: Option<Vec<(ParameterId, Operand)>>,
}

/// A Wengert list. Saved tensors are owned here and nowhere else, so dropping the tape frees them.
pub struct Tape {
    state: RefCell<State>,
    records: bool,
    randomness: Option<Randomness>,
    profiled: bool,
    checkpoints_layers: bool,
}

/// Ends a scope when dropped.
pub struct ScopeGuard<'t>(&'t Tape);

impl Drop for ScopeGuard<'_> {
    fn drop(&mut self) {
        self.0.state.borrow_mut().scopes.pop();
    }
}

impl Tape {
    fn new(records: bool, randomness: Option<Randomness>) -> Self {
        Tape { state: RefCell::default(), records, randomness, profiled: false, checkpoints_layers: false }
    }

    /// Records, with dropout.
    pub fn training(randomness: Randomness) -> Self {
        Tape::new(true, Some(randomness))
    }

    /// Records, without dropout: for gradients of a fixed function.
    pub fn recording() -> Self {
        Tape::new(true, None)
    }

    /// Executes and keeps nothing, without dropout.
    pub fn inference() -> Self {
        Tape::new(false, None)
    }

    /// Measures the seconds of every operation.
    #[must_use]
    pub fn profiled(self) -> Self {
        Tape { profiled: true, ..self }
    }

    /// Asks models to run their layers as [`Segment`]s, which takes about a third more time and much less memory.
    #[must_use]
    pub fn checkpointing_layers(self) -> Self {
        Tape { checkpoints_layers: true, ..self }
    }

    /// Whether layers should run as segments; false where nothing is saved anyway.
    pub fn checkpoints_layers(&self) -> bool {
        self.checkpoints_layers && self.records
    }

    /// A recording tape on which a segment is run again.
    pub(crate) fn replay(randomness: Option<Randomness>) -> Self {
        Tape::new(true, randomness)
    }

    /// Runs a segment without recording what is in it, and records the whole as one operation.
    pub(crate) fn segment<'t>(&'t self, x: &Var<'t>, function: Segment) -> Result<Var<'t>> {
        if !self.records {
            return function.run(self, x);
        }
        let started = Instant::now();
        let inner = Tape { profiled: self.profiled, ..Tape::new(false, self.randomness) };
        inner.state.borrow_mut().taken = Some(Vec::new());
        let y = function.run(&inner, &inner.constant(x.value.clone()))?.into_value();
        let State { profile, taken, .. } = inner.state.into_inner();
        let taken = taken.unwrap_or_default();
        for (op, seconds) in profile.seconds {
            self.state.borrow_mut().profile.add(op, seconds);
        }
        let parameters = taken.iter().map(|(id, _)| *id).collect();
        let inputs: Vec<Var<'t>> =
            taken.into_iter().map(|(id, operand)| self.parameter(id, operand)).collect();
        let inputs: Vec<&Var<'t>> = [x].into_iter().chain(&inputs).collect();
        let needs = inputs.iter().any(|input| input.needs_gradient);
        let ids = inputs.iter().map(|input| input.id).collect();
        let op = Op::Segment { x: x.value.clone(), function, parameters, randomness: self.randomness };
        Ok(self.push(y, op, ids, needs, started.elapsed().as_secs_f64()))
    }

    /// Whether operations are recorded, so that saving for backward makes sense.
    pub fn records(&self) -> bool {
        self.records
    }

    /// The settings of a dropout at a site; none when nothing is to be dropped.
    pub fn dropout_at(&self, dropout_p: f64, site: u16) -> Option<Dropout> {
        let Randomness { seed, step, first_sequence } = self.randomness.filter(|_| dropout_p > 0.0)?;
        Some(Dropout { dropout_p: dropout_p as f32, seed, step, site, first_sequence })
    }

    /// Names what is recorded until the guard is dropped; names nest with dots.
    pub fn scope(&self, name: impl Into<String>) -> ScopeGuard<'_> {
        let mut state = self.state.borrow_mut();
        let name = match state.scopes.last() {
            Some(outer) => format!("{outer}.{}", name.into()),
            None => name.into(),
        };
        state.scopes.push(name);
        ScopeGuard(self)
    }

    /// A value that has no gradient.
    pub fn constant(&self, value: Tensor) -> Var<'_> {
        self.push(value, Op::Constant, Vec::new(), false, 0.0)
    }

    /// A value whose gradient is wanted.
    pub fn leaf(&self, value: Tensor) -> Var<'_> {
        self.push(value, Op::Leaf, Vec::new(), true, 0.0)
    }

    /// A parameter of the model; its gradient is found under `id`.
    pub fn parameter(&self, id: ParameterId, operand: Operand) -> Var<'_> {
        if let Some(taken) = &mut self.state.borrow_mut().taken
            && taken.iter().all(|(other, _)| *other != id)
        {
            taken.push((id, operand.clone()));
        }
        let Operand { value, rounded, trainable } = operand;
        Var { rounded, ..self.push(value, Op::Parameter(id), Vec::new(), trainable, 0.0) }
    }

    /// Runs one operation and records it.
    pub(crate) fn apply<'t>(
        &'t self,
        inputs: &[&Var<'t>],
        forward: impl FnOnce() -> vitrine_tensor::Result<(Tensor, Op)>,
    ) -> Result<Var<'t>> {
        let started = self.profiled.then(Instant::now);
        let (value, op) = forward()?;
        let seconds = started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        if self.profiled {
            self.state.borrow_mut().profile.add(op.name(), seconds);
        }
        let needs = inputs.iter().any(|input| input.needs_gradient);
        let ids = if self.records { inputs.iter().map(|input| input.id).collect() } else { Vec::new() };
        // Nobody will ask for this gradient: keep the line for the reader, not the tensors.
        Ok(self.push(value, op, ids, needs, seconds))
    }

    fn push(&self, value: Tensor, op: Op, inputs: Vec<VarId>, needs_gradient: bool, seconds: f64) -> Var<'_> {
        if !self.records {
            return Var { tape: self, id: VarId(usize::MAX), value, rounded: None, needs_gradient: false };
        }
        let mut state = self.state.borrow_mut();
        let scope = state.scopes.last().map_or("", String::as_str).into();
        let id = VarId(state.nodes.len());
        let (shape, dtype, device) = (*value.shape(), value.dtype(), value.device());
        state.nodes.push(Node { op, inputs, shape, dtype, device, scope, seconds, needs_gradient });
        Var { tape: self, id, value, rounded: None, needs_gradient }
    }

    /// What was recorded, in order.
    pub fn nodes(&self) -> std::cell::Ref<'_, [Node]> {
        std::cell::Ref::map(self.state.borrow(), |state| state.nodes.as_slice())
    }

    /// Shape of a recorded variable.
    pub(crate) fn shape_of(&self, id: VarId) -> Option<Shape> {
        self.state.borrow().nodes.get(id.0).map(|node| node.shape)
    }

    /// Seconds of forward by operation, on a profiled tape.
    pub fn profile(&self) -> Profile {
        self.state.borrow().profile.clone()
    }

    /// The gradients of a scalar with respect to parameters, leaves, and the variables in `keep`. What operations saved
    /// is freed on the way.
    ///
    /// # Errors
    /// `NotScalar`, `NotRecorded`, errors of the rules.
    pub fn backward(self, loss: VarId, keep: &[VarId]) -> Result<Gradients> {
        Ok(self.backward_profiled(loss, keep)?.0)
    }

    /// [`Tape::backward`], with the seconds of each operation's gradient.
    ///
    /// # Errors
    /// As [`Tape::backward`].
    pub fn backward_profiled(self, loss: VarId, keep: &[VarId]) -> Result<(Gradients, Profile)> {
        let shape = self.shape_of(loss).ok_or(AutogradError::NotRecorded)?;
        if shape.numel() != 1 {
            return Err(AutogradError::NotScalar { got: shape.to_vec() });
        }
        let (dtype, device) = {
            let node = &self.state.borrow().nodes[loss.0];
            (node.dtype, node.device)
        };
        self.walk(loss, Tensor::full(&shape, 1.0, dtype, device)?, keep)
    }

    /// The gradients of `sum(y * dy)` for a recorded variable y.
    pub(crate) fn backward_from(self, y: VarId, dy: Tensor) -> Result<Gradients> {
        self.shape_of(y).ok_or(AutogradError::NotRecorded)?;
        Ok(self.walk(y, dy, &[])?.0)
    }

    /// Walks the list in reverse from `last`, whose gradient is `dy`.
    fn walk(self, last: VarId, dy: Tensor, keep: &[VarId]) -> Result<(Gradients, Profile)> {
        let mut nodes = self.state.into_inner().nodes;
        nodes.truncate(last.0 + 1);
        let mut slots: Vec<Option<Tensor>> = vec![None; nodes.len()];
        slots[last.0] = Some(dy);
        let mut gradients = Gradients::default();
        let mut profile = Profile::default();
        while let Some(node) = nodes.pop() {
            let id = VarId(nodes.len());
            let Some(dy) = slots[id.0].take() else { continue };
            if keep.contains(&id) || matches!(node.op, Op::Leaf) {
                gradients.kept.insert(id, dy.clone());
            }
            if let Op::Parameter(parameter) = node.op {
                accumulate(gradients.parameters.remove(&parameter), dy)
                    .map(|sum| gradients.parameters.insert(parameter, sum))?;
                continue;
            }
            let needs: Vec<bool> = node.inputs.iter().map(|input| nodes[input.0].needs_gradient).collect();
            if !needs.contains(&true) {
                continue;
            }
            let started = self.profiled.then(Instant::now);
            let input_gradients =
                rules::backward(&node.op, &dy, &needs, |input| slots[node.inputs[input].0].take())?;
            for ((&input, gradient), needed) in node.inputs.iter().zip(input_gradients).zip(needs) {
                let Some(gradient) = gradient.filter(|_| needed) else { continue };
                check(&node, &nodes[input.0], &gradient)?;
                slots[input.0] = Some(accumulate(slots[input.0].take(), gradient)?);
            }
            if let Some(started) = started {
                profile.add(node.op.name(), started.elapsed().as_secs_f64());
            }
        }
        Ok((gradients, profile))
    }
}

/// Adds a gradient to what has arrived so far.
fn accumulate(so_far: Option<Tensor>, gradient: Tensor) -> Result<Tensor> {
    match so_far {
        None => Ok(gradient),
        Some(sum) => Ok(add(&sum, &gradient)?),
    }
}

/// A gradient has its variable's shape and dtype; a parameter's has the accumulator's dtype.
fn check(node: &Node, input: &Node, gradient: &Tensor) -> Result<()> {
    let expected = match input.op {
        Op::Parameter(_) => input.dtype.accumulator(),
        _ => input.dtype,
    };
    if gradient.dims() == &*input.shape && gradient.dtype() == expected {
        return Ok(());
    }
    Err(AutogradError::GradientMismatch {
        op: node.op.name(),
        scope: node.scope.to_string(),
        expected: input.shape.to_vec(),
        expected_dtype: expected,
        got: gradient.dims().to_vec(),
        got_dtype: gradient.dtype(),
    })
}

impl fmt::Display for Tape {
    /// A line an operation: scope, name, result, bytes kept, FLOPs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for node in self.nodes().iter() {
            let (scope, op, shape) = (&node.scope, node.op.name(), &*node.shape);
            let (saved, flops) = (node.saved_bytes(), node.flops());
            writeln!(f, "{scope:<40} {op:<24} {shape:?} {} saved {saved} B, {flops} FLOP", node.dtype)?;
        }
        Ok(())
    }
}
