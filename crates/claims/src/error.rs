//! The one error type of the crate.

/// The crate's result.
pub type Result<T> = std::result::Result<T, ClaimError>;

/// Why a claim could not be tested.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ClaimError {
    #[error("stopped before its end")]
    Stopped,
    #[error("{claim} needs {needed}; {got}")]
    Data { claim: &'static str, needed: String, got: String },
    #[error(transparent)]
    Bert(#[from] vitrine_bert::BertError),
    #[error(transparent)]
    Explain(#[from] vitrine_explain::ExplainError),
    #[error(transparent)]
    Train(#[from] vitrine_train::TrainError),
    #[error(transparent)]
    Autograd(#[from] vitrine_autograd::AutogradError),
    #[error(transparent)]
    Tensor(#[from] vitrine_tensor::Error),
    #[error(transparent)]
    Nn(#[from] vitrine_nn::NnError),
}
