//! The files of a run that people and other tools read: TensorBoard's event files, Chrome's traces, `report.html`, and the model
//! card.
//!
//! The crate knows the files of a run folder and no other crate of Vitrine: a report is made of a run that has ended, still goes,
//! or was copied from another machine.
//!
//! Reading order: [`run`] for what is read, [`html`] for the page, [`plot`] for what is drawn in it.

pub mod card;
mod error;
pub mod html;
pub mod plot;
pub mod run;
pub mod sentence;
pub mod tensorboard;
pub mod timeline;
pub mod trace;

pub use error::{ReportError, Result};
pub use html::{GENERATOR, report};
pub use run::Run;

/// Name of the page in a run's folder.
pub const REPORT_PAGE: &str = "report.html";
