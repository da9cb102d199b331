//! [`Taps`]: points of a model that a caller reads or changes during a forward pass.
//!
//! A model calls [`Pass::tap`](crate::Pass::tap) at each of its points. Without taps that returns the variable as it is. Taps at one
//! point act in the order in which they were added, so a value that is read after it was replaced is the new one. A tap that is
//! only read changes no bit of the model's results. Everything else is recorded on the same tape, so gradients pass through it.

mod point;
mod select;

pub use point::{Extent, LayerPoint, Point, UnknownPoint};
pub use select::NothingChosen;

use crate::{NnError, Result};
use std::cell::RefCell;
use std::collections::BTreeSet;
use vitrine_autograd::{AttentionMatrix, AttentionSettings, BlockedEdges, Gradients, Var, VarId};
use vitrine_tensor::{Offsets, Tensor};

/// Where a function of [`Taps::replace`] is called.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The point.
    pub point: Point,
    /// The sequence of the batch, at a point that has a value for each.
    pub sequence: Option<usize>,
    /// The heads whose matrices the value has, in order; empty at other points.
    pub heads: &'a [usize],
}

type Function = dyn for<'t> Fn(&Var<'t>, &At<'_>) -> vitrine_autograd::Result<Var<'t>>;

/// What is done at a point.
enum Action {
    Read { gradient: bool },
    Replace(Box<Function>),
    Block(BlockedEdges),
    ScaleHeads(Vec<f32>),
}

struct Entry {
    point: Point,
    /// Of scores and probabilities; all heads without.
    heads: Option<Vec<usize>>,
    action: Action,
}

/// One value that a tap has seen.
struct Seen {
    value: Tensor,
    /// None where the value is not on the tape.
    id: Option<VarId>,
    /// Which rows of the value are the tap's heads; all without.
    rows: Option<Vec<usize>>,
}

/// The name of one tap among those of its [`Taps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tap(usize);

/// Points that are read or changed, and what was seen there in the last forward pass.
///
/// The values of a point that has one for each sequence (scores and probabilities) are tensors `[heads, S, S]`, one a sequence; those
/// of other points one tensor of the whole batch, without padding.
#[derive(Default)]
pub struct Taps {
    entries: Vec<Entry>,
    seen: RefCell<Vec<Vec<Seen>>>,
}

impl Taps {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn add(&mut self, point: Point, heads: Option<&[usize]>, action: Action) -> Tap {
        let heads = heads.map(|heads| heads.iter().copied().collect::<BTreeSet<_>>().into_iter().collect());
        self.entries.push(Entry { point, heads, action });
        Tap(self.entries.len() - 1)
    }

    /// Keeps the value.
    pub fn read(&mut self, point: Point) -> Tap {
        self.add(point, None, Action::Read { gradient: false })
    }

    /// Keeps the value, and its gradient after a backward pass that was told to [keep](Self::ids) it. A value that needs no gradient,
    /// as in a frozen model, becomes a leaf. Scores and probabilities are then computed in F32 in the textbook's form, which may round
    /// the model's results otherwise.
    pub fn read_with_gradient(&mut self, point: Point) -> Tap {
        self.add(point, None, Action::Read { gradient: true })
    }

    /// As [`read`](Self::read) and [`read_with_gradient`](Self::read_with_gradient), of these heads' scores or probabilities only. The
    /// value's heads are in ascending order.
    pub fn read_heads(&mut self, point: Point, heads: &[usize], gradient: bool) -> Tap {
        self.add(point, Some(heads), Action::Read { gradient })
    }

    /// Replaces the value by a function of it, of the same shape, dtype and device. For scores and probabilities the function is called
    /// for each sequence.
    pub fn replace(
        &mut self,
        point: Point,
        function: impl for<'t> Fn(&Var<'t>, &At<'_>) -> vitrine_autograd::Result<Var<'t>> + 'static,
    ) -> Tap {
        self.add(point, None, Action::Replace(Box::new(function)))
    }

    /// As [`replace`](Self::replace), of these heads' scores or probabilities only.
    pub fn replace_heads(
        &mut self,
        point: Point,
        heads: &[usize],
        function: impl for<'t> Fn(&Var<'t>, &At<'_>) -> vitrine_autograd::Result<Var<'t>> + 'static,
    ) -> Tap {
        self.add(point, Some(heads), Action::Replace(Box::new(function)))
    }

    /// Replaces the value by this one, such as one that was read in another pass: activation patching. One tensor, or one a sequence for
    /// scores and probabilities. It is converted to the dtype of what it replaces.
    pub fn set(&mut self, point: Point, values: Vec<Tensor>) -> Tap {
        self.replace(point, move |x, at| {
            let place = at.sequence.unwrap_or(0);
            let len = values.len();
            let missing = vitrine_tensor::Error::IndexOutOfRange { op: "replace", index: place, len };
            let value = values.get(place).ok_or(missing)?;
            Ok(x.tape().constant(value.to_dtype(x.value().dtype())?))
        })
    }

    /// Multiplies the output of each head of a layer by its factor: 0 ablates a head. `factors` has one for each head. The tap's gradient
    /// is that of the factors, the importance score of Michel et al. 2019 (arXiv 1905.10650).
    pub fn scale_heads(&mut self, layer: usize, factors: Vec<f32>) -> Tap {
        self.add(Point::Layer(layer, LayerPoint::Context), None, Action::ScaleHeads(factors))
    }

    /// Sets the probability of edges of a layer to zero.
    pub fn block(&mut self, layer: usize, edges: BlockedEdges) -> Tap {
        let point = Point::Layer(layer, layer_point(edges.matrix()));
        self.add(point, None, Action::Block(edges))
    }

    /// What a backward pass has to keep, for the gradients that are wanted of the last forward pass.
    pub fn ids(&self) -> Vec<VarId> {
        let seen = self.seen.borrow();
        let wanted = self.entries.iter().zip(&*seen).filter(|(entry, _)| entry.wants_gradient());
        wanted.flat_map(|(_, seen)| seen.iter().filter_map(|seen| seen.id)).collect()
    }

    /// What a tap saw in the last forward pass: one tensor, or one a sequence. For [`scale_heads`](Self::scale_heads) the factors.
    ///
    /// # Errors
    /// `Tap` for one that sees nothing, or before a forward pass.
    pub fn values(&self, tap: Tap) -> Result<Vec<Tensor>> {
        self.seen_by(tap, |seen| seen.iter().map(|seen| seen.chosen(&seen.value)).collect())
    }

    /// The one value of a point that has one for the batch.
    ///
    /// # Errors
    /// As [`values`](Self::values), and `Tap` for several.
    pub fn value(&self, tap: Tap) -> Result<Tensor> {
        self.only(tap, self.values(tap)?)
    }

    /// The gradients of what a tap saw: zeros where it took no part in the loss.
    ///
    /// # Errors
    /// `Tap` for one that was read without gradient; `NotRecorded` after an inference; `OtherTape` for gradients of another pass.
    pub fn gradients(&self, tap: Tap, gradients: &Gradients) -> Result<Vec<Tensor>> {
        if self.entries.get(tap.0).is_some_and(|entry| !entry.wants_gradient()) {
            return Err(self.error(tap, "it was set without a gradient; use read_with_gradient"));
        }
        let of = |seen: &Seen| -> Result<Tensor> {
            let Some(id) = seen.id else { return Err(self.error(tap, "its value is not on the tape")) };
            match gradients.of(id)? {
                Some(gradient) => seen.chosen(gradient),
                None if !gradients.was_asked_for(id) => {
                    Err(self.error(tap, "backward was not told to keep its gradient; give it Taps::ids()"))
                }
                None => {
                    let (value, dtype) = (seen.chosen(&seen.value)?, seen.value.dtype());
                    Ok(Tensor::zeros(value.dims(), dtype, value.device())?)
                }
            }
        };
        self.seen_by(tap, |seen| seen.iter().map(of).collect())
    }

    /// The one gradient of a point that has one value for the batch.
    ///
    /// # Errors
    /// As [`gradients`](Self::gradients), and `Tap` for several.
    pub fn gradient(&self, tap: Tap, gradients: &Gradients) -> Result<Tensor> {
        self.only(tap, self.gradients(tap, gradients)?)
    }

    fn only(&self, tap: Tap, mut tensors: Vec<Tensor>) -> Result<Tensor> {
        match (tensors.pop(), tensors.is_empty()) {
            (Some(only), true) => Ok(only),
            _ => Err(self.error(tap, "it has a value for each sequence; use values or gradients")),
        }
    }

    fn seen_by<T>(&self, tap: Tap, f: impl FnOnce(&[Seen]) -> Result<T>) -> Result<T> {
        match self.seen.borrow().get(tap.0) {
            Some(seen) if !seen.is_empty() => f(seen),
            _ => {
                Err(self.error(tap, "it has seen nothing; it was not read, or there was no forward pass yet"))
            }
        }
    }

    fn error(&self, tap: Tap, why: &str) -> NnError {
        let name = self.entries.get(tap.0).map_or_else(|| "?".to_owned(), |entry| entry.point.to_string());
        NnError::Tap { name, why: why.to_owned() }
    }

    /// Begins a forward pass of a model that has these points and heads, over a batch of that many sequences: forgets what was seen.
    ///
    /// # Errors
    /// `Tap` for a point, head or sequence that does not exist.
    pub fn begin(&self, points: &[Point], heads: usize, sequences: usize) -> Result<()> {
        let refuse = |entry: &Entry, why: String| NnError::Tap { name: entry.point.to_string(), why };
        for entry in &self.entries {
            if !points.contains(&entry.point) {
                return Err(refuse(entry, missing(entry.point, points)));
            }
            let is_matrix = entry.point.by_sequence();
            if entry.heads.is_some() && !is_matrix {
                return Err(refuse(entry, "only scores and probabilities are chosen by head".into()));
            }
            if entry.heads.as_ref().is_some_and(Vec::is_empty) {
                return Err(refuse(entry, "no head is chosen".into()));
            }
            let edges = match &entry.action {
                Action::Block(blocked) => &blocked.edges[..],
                _ => &[],
            };
            let mut named = entry.heads.iter().flatten().copied().chain(edges.iter().filter_map(|e| e.head));
            if let Some(head) = named.find(|&head| head >= heads) {
                return Err(refuse(
                    entry,
                    format!("there is no head {head}; a layer has {heads}, from 0 on"),
                ));
            }
            if let Some(sequence) = edges.iter().filter_map(|e| e.sequence).find(|&s| s >= sequences) {
                let why = format!("there is no sequence {sequence}; the batch has {sequences}, from 0 on");
                return Err(refuse(entry, why));
            }
            if let Action::ScaleHeads(factors) = &entry.action
                && factors.len() != heads
            {
                return Err(refuse(entry, format!("{} factors for {heads} heads", factors.len())));
            }
        }
        *self.seen.borrow_mut() = self.entries.iter().map(|_| Vec::new()).collect();
        Ok(())
    }

    /// Whether there is a tap in this layer.
    pub fn touches_layer(&self, layer: usize) -> bool {
        self.entries.iter().any(|entry| entry.point.layer() == Some(layer))
    }

    /// Whether there is a tap at this point.
    pub(crate) fn touches(&self, point: Point) -> bool {
        self.entries.iter().any(|entry| entry.point == point)
    }

    /// Does what taps do at a point, and returns what goes on. `heads` are those whose matrices `x` has.
    pub(crate) fn apply<'t>(
        &self,
        point: Point,
        sequence: Option<usize>,
        heads: &[usize],
        mut x: Var<'t>,
    ) -> vitrine_autograd::Result<Var<'t>> {
        for (place, entry) in self.entries.iter().enumerate().filter(|(_, entry)| entry.point == point) {
            let rows = entry.rows(heads);
            let at = At { point, sequence, heads: entry.heads.as_deref().unwrap_or(heads) };
            match &entry.action {
                Action::Read { gradient } => {
                    if *gradient && !x.needs_gradient() {
                        x = x.tape().leaf(x.into_value());
                    }
                    self.keep(place, Seen { value: x.value().clone(), id: Some(x.id()), rows });
                }
                Action::Replace(function) => {
                    let old = rows.as_ref().map_or_else(|| Ok(x.clone()), |rows| x.chosen(0, rows))?;
                    let new = function(&old, &at)?;
                    new.check_replaces(old.dims(), old.value().dtype(), old.value().device())?;
                    x = rows.map_or_else(|| Ok(new.clone()), |rows| x.with_chosen(0, &rows, &new))?;
                }
                Action::Block(edges) => x = edges.apply(&x, sequence.unwrap_or(0), heads)?,
                Action::ScaleHeads(factors) => {
                    let (dtype, device) = (x.value().dtype().accumulator(), x.value().device());
                    let value =
                        Tensor::from_slice(factors, &[factors.len()])?.to_dtype(dtype)?.to_device(device)?;
                    let factors = x.tape().leaf(value);
                    x = x.scale_heads(&factors)?;
                    let id = Some(factors.id());
                    self.keep(place, Seen { value: factors.into_value(), id, rows: None });
                }
            }
        }
        Ok(x)
    }

    fn keep(&self, place: usize, seen: Seen) {
        self.seen.borrow_mut()[place].push(seen);
    }

    /// Attention of a layer whose scores or probabilities may be tapped. Heads that are changed, or whose gradients are wanted, are
    /// [open](Var::open_attention); if they are only read, the fused kernel computes their probabilities beside the result.
    pub(crate) fn attend<'t>(
        &self,
        layer: usize,
        qkv: &Var<'t>,
        offsets: &Offsets,
        settings: &AttentionSettings,
    ) -> Result<Var<'t>> {
        let [scores, probabilities] =
            [LayerPoint::Scores, LayerPoint::Probabilities].map(|point| Point::Layer(layer, point));
        let mut asked = BTreeSet::new();
        let mut must_open = false;
        for entry in self.entries.iter().filter(|entry| [scores, probabilities].contains(&entry.point)) {
            asked.extend(entry.heads_of(settings.heads));
            must_open |= entry.point == scores || !matches!(entry.action, Action::Read { gradient: false });
        }
        let heads: Vec<usize> = asked.into_iter().collect();
        if must_open {
            let mut look = |matrix, sequence, x| {
                self.apply(Point::Layer(layer, layer_point(matrix)), Some(sequence), &heads, x)
            };
            return Ok(qkv.open_attention(offsets, settings, &heads, &mut look)?);
        }
        let settings = AttentionSettings { probabilities_for: heads.clone(), ..settings.clone() };
        let (context, maps) = qkv.attention(offsets, &settings)?;
        for (place, entry) in
            self.entries.iter().enumerate().filter(|(_, entry)| entry.point == probabilities)
        {
            for map in &maps {
                self.keep(place, Seen { value: map.clone(), id: None, rows: entry.rows(&heads) });
            }
        }
        Ok(context)
    }
}

/// The point of a matrix.
fn layer_point(matrix: AttentionMatrix) -> LayerPoint {
    match matrix {
        AttentionMatrix::Scores => LayerPoint::Scores,
        AttentionMatrix::Probabilities => LayerPoint::Probabilities,
    }
}

/// Why a model lacks a point.
fn missing(point: Point, points: &[Point]) -> String {
    let layers = points.iter().filter_map(|point| point.layer()).max().map_or(0, |last| last + 1);
    match point.layer() {
        Some(layer) if layer >= layers => format!("this model has {layers} layers, from 0 on"),
        _ => "this model has no such point; `vitrine tap --list --model DIR` prints those that it has"
            .to_owned(),
    }
}

impl Entry {
    fn wants_gradient(&self) -> bool {
        matches!(self.action, Action::Read { gradient: true } | Action::ScaleHeads(_))
    }

    /// The heads that it concerns, of that many.
    fn heads_of(&self, count: usize) -> Vec<usize> {
        match (&self.heads, &self.action) {
            (Some(heads), _) => heads.clone(),
            (None, Action::Block(blocked)) if blocked.edges.iter().all(|edge| edge.head.is_some()) => {
                blocked.edges.iter().filter_map(|edge| edge.head).collect()
            }
            _ => (0..count).collect(),
        }
    }

    /// The places of its heads among these; none for all of them.
    fn rows(&self, heads: &[usize]) -> Option<Vec<usize>> {
        let chosen = self.heads.as_ref().filter(|chosen| *chosen != heads)?;
        Some(chosen.iter().filter_map(|head| heads.iter().position(|other| other == head)).collect())
    }
}

impl Seen {
    /// The rows of a tensor that are the tap's.
    fn chosen(&self, tensor: &Tensor) -> Result<Tensor> {
        let Some(rows) = &self.rows else { return Ok(tensor.clone()) };
        let parts: Vec<Tensor> =
            rows.iter().map(|&row| tensor.narrow(0, row, 1)).collect::<vitrine_tensor::Result<_>>()?;
        Ok(vitrine_tensor::ops::movement::cat(&parts.iter().collect::<Vec<_>>(), 0)?)
    }
}
