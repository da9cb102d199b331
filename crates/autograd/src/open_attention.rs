//! Attention of which some heads are open: their scores and probabilities are variables on the tape, to be read, edited, and
//! differentiated.
//!
//! The fused [`Var::attention`] never holds a matrix of probabilities. [`Var::open_attention`] computes the chosen heads in the
//! textbook's form instead, of general operations: `P = softmax(softmax_scale * Q K^T)`, `O = dropout(P) V`. The other heads stay
//! in the fused kernel, and are not computed if there are none. So gradients of probabilities, blocked edges and patched
//! probabilities need no kernels of their own, and work on every device. Open heads compute in F32 (F64 in the reference) also where
//! qkv is in a half type. Memory: `S * S` for each open head of each sequence, a few times.

use crate::{AttentionSettings, Result, Var};
use vitrine_tensor::ops::attention::Queries;
use vitrine_tensor::{DType, Device, Dropout, Error, Offsets, Tensor};

/// A matrix of attention that an open head shows: `[heads, queries, S]` for each sequence of `S` rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttentionMatrix {
    /// `softmax_scale * Q K^T`, before the softmax.
    Scores,
    /// The softmax of the scores, before dropout.
    Probabilities,
}

/// What may be done with a matrix: it is given the matrix, the sequence and the variable, and returns what goes on.
pub type Look<'a, 't> = &'a mut dyn FnMut(AttentionMatrix, usize, Var<'t>) -> Result<Var<'t>>;

/// An edge of attention: from a query's row to a key's row of the same sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The sequence of the batch; all without one.
    pub sequence: Option<usize>,
    /// The head; all without one.
    pub head: Option<usize>,
    /// The row that attends, counted from its sequence's first.
    pub query: usize,
    /// The row that is attended to.
    pub key: usize,
}

/// What a blocked edge means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// A score of minus infinity: the query's other probabilities still sum to 1. "Attention knockout" of Geva et al. 2023,
    /// arXiv 2304.14767.
    Renormalise,
    /// A probability of zero after the softmax: the query's other probabilities stay what they are.
    KnockOut,
}

/// Edges whose probability is zero.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockedEdges {
    /// The edges.
    pub edges: Vec<Edge>,
    /// What blocking means for all of them.
    pub blocking: Blocking,
}

impl BlockedEdges {
    /// The matrix that blocking edits.
    pub fn matrix(&self) -> AttentionMatrix {
        match self.blocking {
            Blocking::Renormalise => AttentionMatrix::Scores,
            Blocking::KnockOut => AttentionMatrix::Probabilities,
        }
    }

    /// Blocks the edges of one sequence in its [`matrix`](Self::matrix) `[heads, queries, keys]`, whose heads are these.
    ///
    /// # Errors
    /// `IndexOutOfRange` for a query or key that the sequence does not have; `InvalidArgument` for a query all of whose edges are
    /// blocked, where probabilities are to sum to 1.
    pub fn apply<'t>(&self, x: &Var<'t>, sequence: usize, heads: &[usize]) -> Result<Var<'t>> {
        const OP: &str = "block_edges";
        let &[_, queries, keys] = x.dims() else {
            let (expected, got) = ("[heads, queries, keys]".to_owned(), x.dims().to_vec());
            return Err(Error::ShapeMismatch { op: OP, expected, got }.into());
        };
        let (open, blocked) = match self.blocking {
            Blocking::Renormalise => (0.0, f64::NEG_INFINITY),
            Blocking::KnockOut => (1.0, 0.0),
        };
        let mut mask = vec![open; heads.len() * queries * keys];
        let concerned = |edge: &&Edge| edge.sequence.is_none_or(|asked| asked == sequence);
        for edge in self.edges.iter().filter(concerned) {
            if let Some(&index) = [edge.query, edge.key].iter().find(|&&row| row >= keys) {
                return Err(Error::IndexOutOfRange { op: OP, index, len: keys }.into());
            }
            let of_head = |place: &usize| edge.head.is_none_or(|head| heads[*place] == head);
            for place in (0..heads.len()).filter(of_head).filter(|_| edge.query < queries) {
                mask[(place * queries + edge.query) * keys + edge.key] = blocked;
            }
        }
        if self.blocking == Blocking::Renormalise
            && let Some(row) = mask.chunks(keys.max(1)).position(|row| row.iter().all(|&x| x == blocked))
        {
            let (name, expected) = ("edges", "a query with at least one key, to be renormalised");
            let got = format!("every edge from row {} of sequence {sequence}", row % queries);
            return Err(Error::InvalidArgument { op: OP, name, expected, got }.into());
        }
        let mask = x.tape().constant(filled(&mask, x)?);
        match self.blocking {
            Blocking::Renormalise => x.add(&mask),
            Blocking::KnockOut => x.mul(&mask),
        }
    }
}

/// Numbers as a tensor of the shape, dtype and device of `like`.
fn filled(numbers: &[f64], like: &Var<'_>) -> vitrine_tensor::Result<Tensor> {
    let tensor = Tensor::from_slice(numbers, like.dims())?.to_dtype(like.value().dtype())?;
    tensor.to_device(like.value().device())
}

impl<'t> Var<'t> {
    /// [`Var::attention`] of `self: [T, 3C]` to `[T, C]` (`[B, C]` under [`Queries::First`]), in which the heads `open` show their
    /// matrices to `look`, sequence by sequence: scores, then probabilities, `[open, queries, S]` in the accumulator's dtype. What
    /// it returns, of the same shape and dtype, goes on. `open` is in ascending order.
    ///
    /// # Errors
    /// As [`Var::attention`]; `IndexOutOfRange` and `InvalidArgument` for `open`; `ShapeMismatch` and `DTypeMismatch` for a result
    /// of `look`; errors of `look`.
    pub fn open_attention(
        &self,
        offsets: &Offsets,
        settings: &AttentionSettings,
        open: &[usize],
        look: Look<'_, 't>,
    ) -> Result<Var<'t>> {
        const OP: &str = "open_attention";
        let heads = settings.heads;
        if !open.is_sorted_by(|a, b| a < b) {
            let (name, expected, got) = ("open", "heads in ascending order", format!("{open:?}"));
            return Err(Error::InvalidArgument { op: OP, name, expected, got }.into());
        }
        if let Some(&index) = open.iter().find(|&&head| head >= heads) {
            return Err(Error::IndexOutOfRange { op: OP, index, len: heads }.into());
        }
        let rows = match settings.queries {
            Queries::All => offsets.total(),
            Queries::First => offsets.sequences(),
        };
        let fits = matches!(*self.dims(), [total, width]
            if total == offsets.total() && heads > 0 && width.is_multiple_of(3 * heads));
        // What does not fit is refused by the kernel, in its words.
        if open.is_empty() || rows == 0 || !fits {
            return Ok(self.attention(offsets, settings)?.0);
        }
        let mut outputs = Vec::with_capacity(offsets.sequences());
        for sequence in 0..offsets.sequences() {
            outputs.extend(self.open_sequence(offsets, settings, open, sequence, look)?);
        }
        let opened = joined(&outputs, 0)?.to_dtype(self.value.dtype())?;
        let width = self.dims()[1] / 3;
        if open.len() == heads {
            return opened.reshape(&[rows, width]);
        }
        let fused = self.attention(offsets, settings)?.0.reshape(&[rows, heads, width / heads])?;
        fused.with_chosen(1, open, &opened)?.reshape(&[rows, width])
    }

    /// The open heads' output for one sequence, `[queries, open, D]`; none for a sequence without query rows.
    fn open_sequence(
        &self,
        offsets: &Offsets,
        settings: &AttentionSettings,
        open: &[usize],
        sequence: usize,
        look: Look<'_, 't>,
    ) -> Result<Option<Var<'t>>> {
        let (range, wide) = (offsets.range(sequence), self.value.dtype().accumulator());
        let (len, size) = (range.len(), self.dims()[1] / 3 / settings.heads);
        if len == 0 {
            // Under `First` an empty sequence has a row of zeros.
            let zeros = |device| Tensor::zeros(&[1, open.len(), size], wide, device);
            let is_first = settings.queries == Queries::First;
            return Ok(is_first
                .then(|| zeros(self.value.device()))
                .transpose()?
                .map(|zeros| self.tape.constant(zeros)));
        }
        let rows = self.narrow(0, range.start, len)?.to_dtype(wide)?;
        let parts = rows.reshape(&[len, 3 * settings.heads, size])?.transpose(0, 1)?;
        let part = |which: usize| {
            let columns: Vec<usize> = open.iter().map(|head| which * settings.heads + head).collect();
            parts.chosen(0, &columns)
        };
        let (query, key, value) = (part(0)?, part(1)?, part(2)?);
        let query = match settings.queries {
            Queries::All => query,
            Queries::First => query.narrow(1, 0, 1)?,
        };
        let scores = query.scale(settings.softmax_scale)?.matmul(&key.transpose(1, 2)?)?;
        let scores = looked_at(AttentionMatrix::Scores, sequence, scores, look)?;
        let probabilities = looked_at(AttentionMatrix::Probabilities, sequence, scores.softmax()?, look)?;
        let kept = match self.tape.dropout_at(settings.dropout_p, settings.site) {
            Some(dropout) if dropout.threshold() > 0 => {
                let mask = dropout_mask(&dropout, open, sequence, probabilities.dims());
                probabilities.mul(&self.tape.constant(filled(&mask, &probabilities)?))?
            }
            _ => probabilities,
        };
        Ok(Some(kept.matmul(&value)?.transpose(0, 1)?))
    }

    /// Multiplies the columns of each head of `self: [T, C]` by that head's factor, `factors: [H]` in the accumulator's dtype. On
    /// the output of attention this is the head mask of Michel et al. 2019, arXiv 1905.10650, where the gradient of the factors at 1
    /// is a head's importance, and a factor of 0 ablates it.
    ///
    /// # Errors
    /// `ShapeMismatch` unless the number of factors divides C.
    pub fn scale_heads(&self, factors: &Var<'t>) -> Result<Var<'t>> {
        let (&[rows, width], &[heads]) = (self.dims(), factors.dims()) else {
            let (expected, got) = ("[T, C] by factors [H]".to_owned(), factors.dims().to_vec());
            return Err(Error::ShapeMismatch { op: "scale_heads", expected, got }.into());
        };
        if heads == 0 || !width.is_multiple_of(heads) {
            let (expected, got) = (format!("factors [H], H a divisor of {width}"), vec![heads]);
            return Err(Error::ShapeMismatch { op: "scale_heads", expected, got }.into());
        }
        let wide = self.to_dtype(factors.value.dtype())?.reshape(&[rows, heads, width / heads])?;
        let scaled = wide.mul(&factors.reshape(&[heads, 1])?)?.reshape(&[rows, width])?;
        scaled.to_dtype(self.value.dtype())
    }
}

impl<'t> Var<'t> {
    /// The elements `indices` of dimension `dim`, in this order.
    ///
    /// # Errors
    /// As [`Var::narrow`]; as [`Var::cat`] for no indices.
    pub fn chosen(&self, dim: usize, indices: &[usize]) -> Result<Var<'t>> {
        let runs = indices.chunk_by(|a, b| a + 1 == *b);
        let runs: Vec<Var<'t>> =
            runs.map(|run| self.narrow(dim, run[0], run.len())).collect::<Result<_>>()?;
        joined(&runs, dim)
    }

    /// `self` with the elements `indices` of dimension `dim`, in ascending order, replaced by those of `other`.
    ///
    /// # Errors
    /// As [`Var::narrow`] and [`Var::cat`].
    pub fn with_chosen(&self, dim: usize, indices: &[usize], other: &Var<'t>) -> Result<Var<'t>> {
        let all: Vec<usize> = (0..self.dims()[dim]).collect();
        let mut place = 0;
        let mut parts = Vec::new();
        for run in all.chunk_by(|a, b| indices.contains(a) == indices.contains(b)) {
            parts.push(if indices.contains(&run[0]) {
                place += run.len();
                other.narrow(dim, place - run.len(), run.len())?
            } else {
                self.narrow(dim, run[0], run.len())?
            });
        }
        joined(&parts, dim)
    }
}

/// The variables one after the other; one alone as it is.
fn joined<'t>(parts: &[Var<'t>], dim: usize) -> Result<Var<'t>> {
    match parts {
        [only] => Ok(only.clone()),
        [first, others @ ..] => first.cat(&others.iter().collect::<Vec<_>>(), dim),
        [] => {
            let (name, expected, got) = ("indices", "at least one", "none".to_owned());
            Err(Error::InvalidArgument { op: "cat", name, expected, got }.into())
        }
    }
}

/// Shows a matrix, and checks what comes back.
fn looked_at<'t>(
    matrix: AttentionMatrix,
    sequence: usize,
    x: Var<'t>,
    look: Look<'_, 't>,
) -> Result<Var<'t>> {
    let (shape, dtype, device): (_, DType, Device) = (*x.value.shape(), x.value.dtype(), x.value.device());
    let y = look(matrix, sequence, x)?;
    y.check_replaces(&shape, dtype, device)?;
    Ok(y)
}

/// What dropout multiplies probabilities `[heads, queries, keys]` by: 0 or `1 / (1 - p)`.
fn dropout_mask(dropout: &Dropout, heads: &[usize], sequence: usize, dims: &[usize]) -> Vec<f64> {
    let (queries, keys) = (dims[1], dims[2]);
    let scale = f64::from(dropout.scale());
    let rows = |head: usize| (0..queries).map(move |query| (head, query));
    let keep = |(head, query): (usize, usize)| {
        (0..keys).map(move |key| {
            let draw = dropout.attention_draw(head as u32, sequence as u32, query as u32, key as u32);
            if draw < dropout.threshold() { 0.0 } else { scale }
        })
    };
    heads.iter().flat_map(|&head| rows(head)).flat_map(keep).collect()
}

impl Var<'_> {
    /// Refuses a variable that cannot take the place of one with this shape, dtype and device.
    ///
    /// # Errors
    /// `ShapeMismatch`, `DTypeMismatch`, `DeviceMismatch`.
    pub fn check_replaces(&self, dims: &[usize], dtype: DType, device: Device) -> Result<()> {
        const OP: &str = "replace";
        if self.dims() != dims {
            let expected = format!("the shape {dims:?} of what is replaced");
            return Err(Error::ShapeMismatch { op: OP, expected, got: self.dims().to_vec() }.into());
        }
        if self.value.dtype() != dtype {
            let (expected, got) = (format!("{dtype}, as what is replaced"), self.value.dtype());
            return Err(Error::DTypeMismatch { op: OP, expected, got }.into());
        }
        if self.value.device() != device {
            return Err(Error::DeviceMismatch { op: OP, left: device, right: self.value.device() }.into());
        }
        Ok(())
    }
}
