//! The explorer: a page that shows a text, what a model says of it, and where that comes from; and its server.
//!
//! The page is plain HTML, CSS and ES modules ([`FILES`]). It talks to a server by the requests and answers of [`contract`], or reads
//! recorded answers from the same file ([`self_contained`]). [`server`] serves the page and the answers
//! of an [`engine`]; [`ModelEngine`] is the one over real models. [`record`] makes the answers of a saved page.
//!
//! ## The contract
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /api/models` | | [`contract::Models`] |
//! | `POST /api/run` | [`contract::Input`] | [`contract::Run`] |
//! | `POST /api/attention` | [`contract::AttentionRequest`] | [`contract::Attention`] |
//! | `POST /api/attributions` | [`contract::AttributionsRequest`] | [`contract::Attributions`] |
//! | `POST /api/lens` | [`contract::LensRequest`] | [`contract::Lens`] |
//! | `POST /api/ablations` | [`contract::AblationsRequest`] | [`contract::Ablations`] |
//!
//! An error has a status of 4xx or 5xx and [`contract::ErrorLine`] as its body. The page shows the line and stays usable. It aborts a
//! request that a newer one overtakes, so the server sees closed connections. Layers, heads, tokens and classes count from 0.
//!
//! Every file is served with the policy [`CONTENT_SECURITY_POLICY`], which the page keeps: no inline script, no style attribute.

pub mod base64;
pub mod contract;
pub mod engine;
mod model;
mod page;
mod record;
pub mod server;

pub use contract::Snapshot;
pub use model::ModelEngine;
pub use page::{CONTENT_SECURITY_POLICY, FILES, self_contained};
pub use record::{Recorded, record};
