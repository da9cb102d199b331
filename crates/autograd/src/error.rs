//! The one error type of the crate.

/// The crate's result.
pub type Result<T> = std::result::Result<T, AutogradError>;

/// One of the two passes over a tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the inputs to the loss.
    Forward,
    /// From the loss to the gradients.
    Backward,
}

/// The first result, or gradient, with a number that is not finite; of a tape that is
/// [`Tape::checking_finite`](crate::Tape::checking_finite).
#[derive(Clone, Debug, PartialEq)]
pub struct NotFinite {
    /// The operation that made it; in backward, the one whose rule did.
    pub op: &'static str,
    /// Where in the model.
    pub scope: String,
    /// In which pass.
    pub direction: Direction,
    /// The shape of what was made.
    pub shape: Vec<usize>,
    /// The first bad element, in row-major order.
    pub index: usize,
    /// Its value.
    pub value: f64,
    /// How many elements are bad.
    pub count: usize,
}

impl std::fmt::Display for NotFinite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let NotFinite { op, scope, shape, index, value, count, .. } = self;
        let (pass, made) = match self.direction {
            Direction::Forward => ("forward", "result"),
            Direction::Backward => ("backward", "gradient of an input"),
        };
        let numel: usize = shape.iter().product();
        write!(
            f,
            "{op} in `{scope}` made the first number that is not finite, in {pass}: {value} at element {index} of its "
        )?;
        write!(f, "{made} {shape:?} ({count} of {numel} are not finite)")
    }
}

impl std::error::Error for NotFinite {}

/// What can go wrong between recording and the last gradient.
#[derive(Debug, thiserror::Error)]
pub enum AutogradError {
    /// An operation refused its operands.
    #[error(transparent)]
    Tensor(#[from] vitrine_tensor::Error),
    /// A segment's function failed for a reason of its own.
    #[error(transparent)]
    Function(Box<dyn std::error::Error + Send + Sync>),
    /// Backward starts at a scalar.
    #[error("backward: the loss must be one number, got shape {got:?}")]
    NotScalar {
        /// The shape of the variable that was given.
        got: Vec<usize>,
    },
    /// The tape of the variable only infers.
    #[error("{op}: the variable was not recorded; use Tape::training or Tape::recording")]
    NotRecorded {
        /// What was asked for.
        op: &'static str,
    },
    /// The variable is not this tape's.
    #[error(
        "{op}: the variable is of another tape, or of one that backward has consumed; put its value on this tape with Tape::constant or Tape::leaf"
    )]
    OtherTape {
        /// What was asked for.
        op: &'static str,
    },
    /// A rule takes a tensor that its operation did not save.
    #[error("internal: an operation did not save what the gradient of its inputs takes")]
    NotSaved,
    /// An operation made a NaN or an infinity, on a tape that looks for them.
    #[error("{0}")]
    NotFinite(#[source] NotFinite),
    /// A rule returned a gradient that does not fit its variable.
    #[error(
        "internal: the gradient of {op} in `{scope}` has shape {got:?} {got_dtype}, expected {expected:?} {expected_dtype}"
    )]
    GradientMismatch {
        /// The operation whose rule it was.
        op: &'static str,
        /// Where in the model.
        scope: String,
        /// Shape of the variable.
        expected: Vec<usize>,
        /// dtype that the gradient should have.
        expected_dtype: vitrine_tensor::DType,
        /// Shape of the gradient.
        got: Vec<usize>,
        /// dtype of the gradient.
        got_dtype: vitrine_tensor::DType,
    },
}

impl AutogradError {
    /// The error of a [`Segment`](crate::Segment)'s function.
    pub fn function(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        AutogradError::Function(Box::new(error))
    }
}
