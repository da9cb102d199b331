//! What a run measures of its inside on request: gradient norms by layer, and the time of each operation of one step.

use serde::Serialize;

/// Requests. They change no result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Measurements {
    /// Whether the norm of each layer's gradient is measured in every step.
    pub log_gradient_norms: bool,
    /// The step, counted from 1, of which every operation is timed.
    pub profile_step: Option<usize>,
}

impl Measurements {
    /// The names of the settings, as they are serialized.
    pub const NAMES: [&str; 2] = ["log_gradient_norms", "profile_step"];
}
