//! Options of what a run writes about itself.

use clap::Args;
use vitrine_train::measurements::Measurements;

/// What is measured beside the loss.
#[derive(Args, Clone, Debug)]
pub struct Logging {
    /// Measure the gradient norm of every layer in every step, for metrics.jsonl and TensorBoard.
    #[arg(long, help_heading = "Logs")]
    pub log_gradient_norms: bool,
    /// Time every operation of step N (the first is 1): a Chrome trace in --output, which ui.perfetto.dev opens, and bars in
    /// report.html. The first steps are slower than later ones;
    /// default: none.
    #[arg(long, value_name = "N", value_parser = super::count, help_heading = "Logs")]
    pub profile_step: Option<usize>,
}

impl Logging {
    /// As a run takes it.
    pub fn measurements(&self) -> Measurements {
        Measurements { log_gradient_norms: self.log_gradient_norms, profile_step: self.profile_step }
    }
}
