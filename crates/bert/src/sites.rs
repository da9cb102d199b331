//! [`Site`]: the numbering of dropout's places.

use vitrine_nn::Dropout;

/// Places of dropout. A site, the number that a mask depends on, is a function of the place alone:
///
/// | place | site |
/// |---|---|
/// | after the embeddings' LayerNorm | 0 |
/// | before the classifier | 1 |
/// | before the layer in front of it, in some families | 2 |
/// | layer l: attention probabilities | 4 + 4 l |
/// | layer l: after the attention's output projection | 5 + 4 l |
/// | layer l: after the feed-forward's second projection | 6 + 4 l |
#[derive(Clone, Copy)]
pub(crate) enum Site {
    Embeddings,
    Classifier,
    HeadInput,
    AttentionProbabilities(usize),
    AttentionOutput(usize),
    FeedForwardOutput(usize),
}

impl Site {
    /// Dropout with this probability here.
    pub fn dropout(self, dropout_p: f64) -> Dropout {
        // The config bounds the number of layers.
        let site = match self {
            Site::Embeddings => 0,
            Site::Classifier => 1,
            Site::HeadInput => 2,
            Site::AttentionProbabilities(layer) => 4 + 4 * layer as u16,
            Site::AttentionOutput(layer) => 5 + 4 * layer as u16,
            Site::FeedForwardOutput(layer) => 6 + 4 * layer as u16,
        };
        Dropout { dropout_p, site }
    }
}
