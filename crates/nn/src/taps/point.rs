//! [`Point`]: the named points of a model, in one table.

use std::fmt;
use std::str::FromStr;

/// A size in the shape of a point's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All tokens of the batch: `T`.
    Tokens,
    /// The sequences of the batch: `B`.
    Sequences,
    /// The rows that a masked language model predicts: `N`.
    Rows,
    /// The tokens of one sequence: `S`. A point with this extent has a value for each sequence.
    Sequence,
    /// The hidden width: `C`.
    Width,
    /// The attention heads: `H`.
    Heads,
    /// The inner width of the feed-forward network: `I`.
    Inner,
    /// The classes.
    Labels,
    /// The words of the vocabulary: `V`.
    Vocabulary,
}

impl Extent {
    /// The letter that stands for it.
    pub fn letter(self) -> &'static str {
        match self {
            Extent::Tokens => "T",
            Extent::Sequences => "B",
            Extent::Rows => "N",
            Extent::Sequence => "S",
            Extent::Width => "C",
            Extent::Heads => "H",
            Extent::Inner => "I",
            Extent::Labels => "K",
            Extent::Vocabulary => "V",
        }
    }
}

/// A point inside of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the table below documents each")]
pub enum LayerPoint {
    Query,
    Key,
    Value,
    Scores,
    Probabilities,
    Context,
    AttentionOutput,
    AttentionNorm,
    Hidden,
    FeedForwardOutput,
    Output,
}

/// A point of a model where a forward pass can be read or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the table below documents each")]
pub enum Point {
    Words,
    Embeddings,
    Layer(usize, LayerPoint),
    Pooler,
    Logits,
    MaskedTransform,
    MaskedLogits,
}

/// A line of the table: the name (within its layer), the shape, and what the value is.
type Line<P> = (P, &'static str, &'static [Extent], &'static str);

/// A row of the hidden width for each token.
const STREAM: &[Extent] = &[Extent::Tokens, Extent::Width];
/// A matrix for each head, for each sequence.
const MATRICES: &[Extent] = &[Extent::Heads, Extent::Sequence, Extent::Sequence];

/// The points of a layer, in the order in which they are computed.
const OF_A_LAYER: [Line<LayerPoint>; 11] = [
    (LayerPoint::Query, "attention.query", STREAM, "queries of all heads, one head beside the other"),
    (LayerPoint::Key, "attention.key", STREAM, "keys"),
    (LayerPoint::Value, "attention.value", STREAM, "values"),
    (
        LayerPoint::Scores,
        "attention.scores",
        MATRICES,
        "scaled products of queries and keys, before the softmax",
    ),
    (
        LayerPoint::Probabilities,
        "attention.probs",
        MATRICES,
        "attention probabilities, before dropout; a row a query",
    ),
    (
        LayerPoint::Context,
        "attention.context",
        STREAM,
        "what heads read: sums of values, one head beside the other",
    ),
    (
        LayerPoint::AttentionOutput,
        "attention.output",
        STREAM,
        "the projected context, before dropout and the residual",
    ),
    (LayerPoint::AttentionNorm, "attention.norm", STREAM, "after the residual connection and LayerNorm"),
    (
        LayerPoint::Hidden,
        "feed_forward.hidden",
        &[Extent::Tokens, Extent::Inner],
        "the inner activations, after the activation function",
    ),
    (
        LayerPoint::FeedForwardOutput,
        "feed_forward.output",
        STREAM,
        "projected back, before dropout and the residual",
    ),
    (LayerPoint::Output, "output", STREAM, "the layer's result: hidden state number L + 1"),
];

/// The points outside of layers.
const OUTSIDE: [Line<Point>; 6] = [
    (Point::Words, "embeddings.word", STREAM, "word embeddings alone, before positions are added"),
    (Point::Embeddings, "embeddings", STREAM, "the embeddings' result: hidden state number 0"),
    (
        Point::Pooler,
        "pooler",
        &[Extent::Sequences, Extent::Width],
        "the classifier's hidden layer of the first token",
    ),
    (Point::Logits, "logits", &[Extent::Sequences, Extent::Labels], "the classifier's result"),
    (
        Point::MaskedTransform,
        "mlm.transform",
        &[Extent::Rows, Extent::Width],
        "what the masked language model compares with words",
    ),
    (
        Point::MaskedLogits,
        "mlm.logits",
        &[Extent::Rows, Extent::Vocabulary],
        "the masked language model's result",
    ),
];

impl Point {
    /// The points of embeddings and this many layers, in the order in which they are computed.
    pub fn of_encoder(layers: usize) -> Vec<Point> {
        let inside = (0..layers).flat_map(|layer| OF_A_LAYER.map(|(point, ..)| Point::Layer(layer, point)));
        [Point::Words, Point::Embeddings].into_iter().chain(inside).collect()
    }

    /// The shape of its value.
    pub fn shape(self) -> &'static [Extent] {
        self.line().1
    }

    /// Whether each sequence has a value of its own.
    pub fn by_sequence(self) -> bool {
        self.shape().contains(&Extent::Sequence)
    }

    /// What its value is, in a few words.
    pub fn meaning(self) -> &'static str {
        self.line().2
    }

    /// The layer that it is in.
    pub fn layer(self) -> Option<usize> {
        match self {
            Point::Layer(layer, _) => Some(layer),
            _ => None,
        }
    }

    /// Name, shape and meaning. The lists above have every point once, which a test checks.
    fn line(self) -> (&'static str, &'static [Extent], &'static str) {
        let found = match self {
            Point::Layer(_, inner) => OF_A_LAYER
                .iter()
                .find(|line| line.0 == inner)
                .map(|&(_, name, shape, text)| (name, shape, text)),
            _ => {
                OUTSIDE.iter().find(|line| line.0 == self).map(|&(_, name, shape, text)| (name, shape, text))
            }
        };
        found.unwrap_or_default()
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Point::Layer(layer, _) => write!(f, "layer.{layer}.{}", self.line().0),
            _ => f.write_str(self.line().0),
        }
    }
}

/// A text that names no point of any model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no tap is called {name:?}; names are such as layer.3.attention.probs, and `vitrine tap --list` prints them all"
)]
pub struct UnknownPoint {
    name: String,
}

impl FromStr for Point {
    type Err = UnknownPoint;
    fn from_str(name: &str) -> Result<Self, UnknownPoint> {
        let inside = || {
            let (layer, rest) = name.strip_prefix("layer.")?.split_once('.')?;
            let layer = layer.parse().ok()?;
            let line = OF_A_LAYER.iter().find(|line| line.1 == rest)?;
            Some(Point::Layer(layer, line.0))
        };
        let outside = OUTSIDE.iter().find(|line| line.1 == name).map(|line| line.0);
        outside.or_else(inside).ok_or_else(|| UnknownPoint { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_has_a_name_that_names_it() {
        let mut points = Point::of_encoder(12);
        points.extend([Point::Pooler, Point::Logits, Point::MaskedTransform, Point::MaskedLogits]);
        assert_eq!(points.len(), 12 * OF_A_LAYER.len() + OUTSIDE.len());
        for point in points {
            assert!(!point.shape().is_empty() && !point.meaning().is_empty(), "{point:?}");
            assert_eq!(point.to_string().parse(), Ok(point));
        }
        for wrong in
            ["", "layer", "layer.3", "layer.x.output", "layer.3.attention", "layer.-1.output", "Pooler"]
        {
            assert!(wrong.parse::<Point>().is_err(), "{wrong}");
        }
    }
}
