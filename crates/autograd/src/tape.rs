//! [`Tape`]: the list of what was done, and the walk back over it.

use crate::error::{Direction, NotFinite};
use crate::{AutogradError, Gradients, Op, Operand, ParameterId, Result, Saved, Segment, Var, rules};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use vitrine_tensor::ops::elementwise::add;
use vitrine_tensor::{DType, Device, Dropout, Error, Shape, Tensor};

/// Which tape of the process: no two have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TapeId(u64);

impl TapeId {
    fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        TapeId(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// A variable's tape and its place there. It may outlive the tape; then it is the name of nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VarId {
    pub(crate) tape: TapeId,
    index: usize,
}

impl VarId {
    /// The index into [`Tape::nodes`]; of a variable that was not recorded, `usize::MAX`.
    pub fn index(self) -> usize {
        self.index
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
    value: Option<Tensor>,
    needs_gradient: bool,
}

impl Node {
    /// The result, on a tape that is [`Tape::keeping_values`].
    pub fn value(&self) -> Option<&Tensor> {
        self.value.as_ref()
    }

    /// Bytes of the activations that are kept for backward.
    pub fn saved_bytes(&self) -> usize {
        self.op.saved().iter().map(|tensor| tensor.bytes()).sum()
    }

    /// Floating-point operations of forward; see [`Op::flops`].
    pub fn flops(&self) -> u64 {
        self.op.flops(self.shape.numel())
    }
}

/// One operation that was timed.
#[derive(Clone, Debug)]
pub struct TimedOp {
    /// Its name.
    pub op: &'static str,
    /// Where in the model.
    pub scope: Arc<str>,
    /// Its place in [`Tape::nodes`]; none inside of a segment and on a tape that does not record.
    pub node: Option<usize>,
    /// Shape of its result, in forward and in backward.
    pub shape: Shape,
    /// When it began.
    pub started: Instant,
    /// Wall-clock seconds; on a CUDA device with those of the kernels.
    pub seconds: f64,
}

/// The operations of a profiled tape, in the order in which they were done.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    operations: Vec<TimedOp>,
}

impl Profile {
    /// Adds the operations of another profile.
    pub fn extend(&mut self, other: Profile) {
        self.operations.extend(other.operations);
    }

    /// Every operation, in order.
    pub fn operations(&self) -> &[TimedOp] {
        &self.operations
    }

    /// (operation, seconds), by name.
    pub fn by_op(&self) -> Vec<(String, f64)> {
        let mut seconds: BTreeMap<&str, f64> = BTreeMap::new();
        for timed in &self.operations {
            *seconds.entry(timed.op).or_default() += timed.seconds;
        }
        seconds.into_iter().map(|(op, seconds)| (op.to_owned(), seconds)).collect()
    }
}

/// Waits for what was launched on a device, so that the time of an operation is that of its kernels.
fn finish(device: Device) -> Result<()> {
    match device {
        Device::Cpu => Ok(()),
        Device::Cuda(ordinal) => Ok(vitrine_tensor::cuda::synchronize(ordinal)?),
    }
}

#[derive(Default)]
struct State {
    nodes: Vec<Node>,
    scopes: Vec<String>,
    profile: Profile,
    /// The parameters that a segment takes, in the order of their first use; none outside of segments.
    taken: Option<Vec<(ParameterId, Operand)>>,
    /// Floating-point operations, on a tape that does not record.
    flops: u64,
}

/// What sees each gradient; see [`Tape::on_gradient`].
type GradientHook = Box<dyn FnMut(VarId, &Node, &Tensor) + Send>;

/// A Wengert list. Saved tensors are owned here and nowhere else, so dropping the tape frees them.
pub struct Tape {
    id: TapeId,
    state: RefCell<State>,
    records: bool,
    randomness: Option<Randomness>,
    profiled: bool,
    checkpoints_layers: bool,
    keeps_values: bool,
    checks: bool,
    on_gradient: Option<GradientHook>,
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
        Tape {
            id: TapeId::new(),
            state: RefCell::default(),
            records,
            randomness,
            profiled: false,
            checkpoints_layers: false,
            keeps_values: false,
            checks: false,
            on_gradient: None,
        }
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

    /// Measures the seconds of every operation. On a CUDA device it waits for each.
    #[must_use]
    pub fn profiled(self) -> Self {
        Tape { profiled: true, ..self }
    }

    /// Asks models to run their layers as [`Segment`]s, which takes about a third more time and much less memory.
    #[must_use]
    pub fn checkpointing_layers(self) -> Self {
        Tape { checkpoints_layers: true, ..self }
    }

    /// Keeps every recorded result until the tape is dropped, for [`Node::value`] and [`Tape::value_of`]: to look into a model,
    /// at the cost of its memory. What is inside of a [`Segment`] is not recorded.
    #[must_use]
    pub fn keeping_values(self) -> Self {
        Tape { keeps_values: true, ..self }
    }

    /// Looks at every result and every gradient that a rule makes, also inside of a [`Segment`], and refuses the first that is
    /// not finite: `NotFinite`, with its operation and scope. Slow, as `torch.autograd.detect_anomaly` is: to find out where a
    /// step broke.
    #[must_use]
    pub fn checking_finite(self) -> Self {
        Tape { checks: true, ..self }
    }

    /// Calls `hook` in backward with every gradient of a recorded variable, in F32 for a parameter of a half type, as soon as
    /// it is complete: last operation first, and parameters and leaves after all operations that use them. The place of a
    /// `torch.Tensor.register_hook`, for norms, histograms and the search for the first NaN. Each
    /// [`Tape::parameter`] is a variable of its own. The gradients inside of a [`Segment`] are not seen.
    #[must_use]
    pub fn on_gradient(self, hook: impl FnMut(VarId, &Node, &Tensor) + Send + 'static) -> Self {
        Tape { on_gradient: Some(Box::new(hook)), ..self }
    }

    /// Whether layers should run as segments; false where nothing is saved anyway.
    pub fn checkpoints_layers(&self) -> bool {
        self.checkpoints_layers && self.records
    }

    /// A recording tape on which a segment is run again.
    pub(crate) fn replay(randomness: Option<Randomness>, checks: bool) -> Self {
        Tape { checks, ..Tape::new(true, randomness) }
    }

    /// Runs a segment without recording what is in it, and records the whole as one operation.
    pub(crate) fn segment<'t>(&'t self, x: &Var<'t>, function: Segment) -> Result<Var<'t>> {
        if !self.records {
            return function.run(self, x);
        }
        let started = Instant::now();
        let (profiled, checks) = (self.profiled, self.checks);
        let inner = Tape { profiled, checks, ..Tape::new(false, self.randomness) };
        inner.state.borrow_mut().taken = Some(Vec::new());
        let y = function.run(&inner, &inner.constant(x.value.clone()))?.into_value();
        let State { profile, taken, flops, .. } = inner.state.into_inner();
        let taken = taken.unwrap_or_default();
        self.state.borrow_mut().profile.extend(profile);
        let parameters = taken.iter().map(|(id, _)| *id).collect();
        let inputs: Vec<Var<'t>> =
            taken.into_iter().map(|(id, operand)| self.parameter(id, operand)).collect();
        let inputs: Vec<&Var<'t>> = [x].into_iter().chain(&inputs).collect();
        let needs = inputs.iter().any(|input| input.needs_gradient);
        let ids = inputs.iter().map(|input| input.id).collect();
        let x = Saved::new(&x.value, needs);
        let op = Op::Segment { x, function, parameters, randomness: self.randomness, checks, flops };
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

    /// Runs one operation and records it. `forward` is told which inputs need a gradient, and saves what these gradients take:
    /// of a frozen branch the tape keeps the line for the reader, and no tensor.
    ///
    /// # Errors
    /// `OtherTape` for an input that is not this tape's; those of `forward`.
    pub(crate) fn apply<'t>(
        &'t self,
        inputs: &[&Var<'t>],
        forward: impl FnOnce(&[bool]) -> vitrine_tensor::Result<(Tensor, Op)>,
    ) -> Result<Var<'t>> {
        let needs: Vec<bool> = inputs.iter().map(|input| input.needs_gradient).collect();
        let started = self.profiled.then(Instant::now);
        let (value, op) = forward(&needs)?;
        if self.profiled {
            finish(value.device())?;
        }
        if self.checks {
            let state = self.state.borrow();
            check_finite(
                &value,
                op.name(),
                state.scopes.last().map_or("", String::as_str),
                Direction::Forward,
            )?;
        }
        let seconds = started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        if inputs.iter().any(|input| input.id.tape != self.id) {
            return Err(AutogradError::OtherTape { op: op.name() });
        }
        if let Some(started) = started {
            let mut state = self.state.borrow_mut();
            let scope = state.scopes.last().map_or("", String::as_str).into();
            let (op, shape) = (op.name(), *value.shape());
            let node = self.records.then_some(state.nodes.len());
            state.profile.operations.push(TimedOp { op, scope, node, shape, started, seconds });
        }
        let ids = if self.records { inputs.iter().map(|input| input.id).collect() } else { Vec::new() };
        Ok(self.push(value, op, ids, needs.contains(&true), seconds))
    }

    pub(crate) fn push(
        &self,
        value: Tensor,
        op: Op,
        inputs: Vec<VarId>,
        needs_gradient: bool,
        seconds: f64,
    ) -> Var<'_> {
        let mut state = self.state.borrow_mut();
        if !self.records {
            state.flops += op.flops(value.numel());
            let id = VarId { tape: self.id, index: usize::MAX };
            return Var { tape: self, id, value, rounded: None, needs_gradient: false };
        }
        let scope = state.scopes.last().map_or("", String::as_str).into();
        let id = VarId { tape: self.id, index: state.nodes.len() };
        let (shape, dtype, device) = (*value.shape(), value.dtype(), value.device());
        let kept = self.keeps_values.then(|| value.clone());
        state.nodes.push(Node {
            op,
            inputs,
            shape,
            dtype,
            device,
            scope,
            seconds,
            value: kept,
            needs_gradient,
        });
        Var { tape: self, id, value, rounded: None, needs_gradient }
    }

    /// What was recorded, in order.
    pub fn nodes(&self) -> std::cell::Ref<'_, [Node]> {
        std::cell::Ref::map(self.state.borrow(), |state| state.nodes.as_slice())
    }

    /// The place of a variable on this tape.
    fn place(&self, op: &'static str, id: VarId) -> Result<usize> {
        if id.tape != self.id {
            return Err(AutogradError::OtherTape { op });
        }
        if id.index >= self.state.borrow().nodes.len() {
            return Err(AutogradError::NotRecorded { op });
        }
        Ok(id.index)
    }

    /// The value of a recorded variable, on a tape that is [`Tape::keeping_values`].
    ///
    /// # Errors
    /// `OtherTape`, `NotRecorded`.
    pub fn value_of(&self, id: VarId) -> Result<Option<Tensor>> {
        let place = self.place("value_of", id)?;
        Ok(self.state.borrow().nodes[place].value.clone())
    }

    /// Seconds of forward by operation, on a profiled tape.
    pub fn profile(&self) -> Profile {
        self.state.borrow().profile.clone()
    }

    /// The gradients of a scalar with respect to parameters, leaves, and the variables in `keep`. What operations saved
    /// is freed on the way.
    ///
    /// # Errors
    /// `NotScalar`, `NotRecorded`, `OtherTape`, errors of the rules.
    pub fn backward(self, loss: VarId, keep: &[VarId]) -> Result<Gradients> {
        Ok(self.backward_profiled(loss, keep)?.0)
    }

    /// [`Tape::backward`], with the seconds of each operation's gradient.
    ///
    /// # Errors
    /// As [`Tape::backward`].
    pub fn backward_profiled(self, loss: VarId, keep: &[VarId]) -> Result<(Gradients, Profile)> {
        let place = self.place("backward", loss)?;
        let (shape, dtype, device) = {
            let node = &self.state.borrow().nodes[place];
            (node.shape, node.dtype, node.device)
        };
        if shape.numel() != 1 {
            return Err(AutogradError::NotScalar { got: shape.to_vec() });
        }
        self.walk(&[(loss, Tensor::full(&shape, 1.0, dtype, device)?)], keep)
    }

    /// The vector-Jacobian product: the gradients of `sum_i sum(y_i * dy_i)` for pairs of a recorded variable `y_i` and a
    /// tensor `dy_i` of its shape, dtype and device. `torch.autograd.grad` with `grad_outputs`, `jax.vjp`.
    ///
    /// # Errors
    /// As [`Tape::backward`]; `ShapeMismatch`, `DTypeMismatch`, `DeviceMismatch` for a `dy_i` that does not fit.
    pub fn vjp(self, outputs: &[(VarId, Tensor)], keep: &[VarId]) -> Result<Gradients> {
        Ok(self.walk(outputs, keep)?.0)
    }

    /// Walks the list in reverse from the last of `outputs`.
    fn walk(mut self, outputs: &[(VarId, Tensor)], keep: &[VarId]) -> Result<(Gradients, Profile)> {
        const OP: &str = "backward";
        keep.iter().try_for_each(|&id| self.place(OP, id).map(drop))?;
        let mut slots: Vec<Option<Tensor>> = Vec::new();
        for (id, dy) in outputs {
            let place = self.place(OP, *id)?;
            let dy = self.state.borrow().nodes[place].checked_output_gradient(OP, dy)?;
            slots.resize(slots.len().max(place + 1), None);
            slots[place] = Some(accumulate(slots[place].take(), dy)?);
        }
        let mut nodes = self.state.into_inner().nodes;
        nodes.truncate(slots.len());
        let mut gradients = Gradients::of_tape(self.id, keep);
        let mut profile = Profile::default();
        while let Some(node) = nodes.pop() {
            let index = nodes.len();
            let Some(dy) = slots[index].take() else { continue };
            let id = VarId { tape: self.id, index };
            if let Some(hook) = &mut self.on_gradient {
                hook(id, &node, &dy);
            }
            if keep.contains(&id) || matches!(node.op, Op::Leaf) {
                gradients.kept.insert(id, dy.clone());
            }
            if let Op::Parameter(parameter) = node.op {
                accumulate(gradients.parameters.remove(&parameter), dy)
                    .map(|sum| gradients.parameters.insert(parameter, sum))?;
                continue;
            }
            let needs: Vec<bool> =
                node.inputs.iter().map(|input| nodes[input.index].needs_gradient).collect();
            if !needs.contains(&true) {
                continue;
            }
            let started = self.profiled.then(Instant::now);
            let input_gradients =
                rules::backward(&node.op, &dy, &needs, |input| slots[node.inputs[input].index].take())?;
            for ((&input, gradient), needed) in node.inputs.iter().zip(input_gradients).zip(needs) {
                let Some(gradient) = gradient.filter(|_| needed) else { continue };
                let gradient = nodes[input.index].fitted(&node, &gradient)?;
                let sum = accumulate(slots[input.index].take(), gradient)?;
                if self.checks {
                    check_finite(&sum, node.op.name(), &node.scope, Direction::Backward)?;
                }
                slots[input.index] = Some(sum);
            }
            if let Some(started) = started {
                finish(node.device)?;
                let (op, scope, shape) = (node.op.name(), node.scope.clone(), node.shape);
                let seconds = started.elapsed().as_secs_f64();
                profile.operations.push(TimedOp { op, scope, node: Some(index), shape, started, seconds });
            }
        }
        Ok((gradients, profile))
    }
}

/// Refuses a tensor with a NaN or an infinity.
fn check_finite(tensor: &Tensor, op: &'static str, scope: &str, direction: Direction) -> Result<()> {
    let values = tensor.contiguous()?.to_device(Device::Cpu)?.to_dtype(DType::F64)?.to_vec::<f64>()?;
    let Some(index) = values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
    let count = values.iter().filter(|value| !value.is_finite()).count();
    let (scope, shape, value) = (scope.to_owned(), tensor.dims().to_vec(), values[index]);
    Err(AutogradError::NotFinite(NotFinite { op, scope, direction, shape, index, value, count }))
}

/// Adds a gradient to what has arrived so far.
fn accumulate(so_far: Option<Tensor>, gradient: Tensor) -> Result<Tensor> {
    match so_far {
        None => Ok(gradient),
        Some(sum) => Ok(add(&sum, &gradient)?),
    }
}

impl Node {
    /// The dtype of this variable's gradient: its own, but the accumulator's for a parameter.
    fn gradient_dtype(&self) -> DType {
        match self.op {
            Op::Parameter(_) => self.dtype.accumulator(),
            _ => self.dtype,
        }
    }

    /// A gradient that a rule made for this variable, in [`Node::gradient_dtype`]: rules make those of weights in the
    /// accumulator's dtype, and those of operands in the operands', whatever the variable is.
    fn fitted(&self, made_by: &Node, gradient: &Tensor) -> Result<Tensor> {
        let dtype = self.gradient_dtype();
        if gradient.dims() == &*self.shape && gradient.dtype().accumulator() == dtype.accumulator() {
            return Ok(gradient.to_dtype(dtype)?);
        }
        Err(AutogradError::GradientMismatch {
            op: made_by.op.name(),
            scope: made_by.scope.to_string(),
            expected: self.shape.to_vec(),
            expected_dtype: dtype,
            got: gradient.dims().to_vec(),
            got_dtype: gradient.dtype(),
        })
    }

    /// A gradient that a caller gives for this variable.
    fn checked_output_gradient(&self, op: &'static str, dy: &Tensor) -> Result<Tensor> {
        if dy.dims() != &*self.shape {
            let expected = format!("the shape {:?} of the output", &*self.shape);
            return Err(Error::ShapeMismatch { op, expected, got: dy.dims().to_vec() }.into());
        }
        if dy.dtype() != self.dtype {
            return Err(Error::DTypeMismatch { op, expected: self.dtype.to_string(), got: dy.dtype() }.into());
        }
        if dy.device() != self.device {
            return Err(Error::DeviceMismatch { op, left: self.device, right: dy.device() }.into());
        }
        Ok(dy.to_dtype(self.gradient_dtype())?)
    }
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
