//! [`Subject::ablate_heads`], [`Subject::ablate_layers`] and [`Subject::ablate_edges`]: what changes when a part is blocked.

use crate::attribution::like;
use crate::patching::replace_rows;
use crate::{Blocks, ExplainError, Result, Subject, Text, Watch};
use serde::Serialize;
use vitrine_autograd::{BlockedEdges, Blocking, Tape};
use vitrine_bert::{LayerPoint, Point, Tap, Taps};
use vitrine_tensor::Tensor;

/// Edges that [`Subject::ablate_edges`] ablates one by one, at most: a run each.
pub const MOST_EDGES: usize = 16_384;

/// What blocking each head would change (Michel et al. 2019, arXiv 1905.10650).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ablations {
    /// The class whose logit was measured.
    pub class: usize,
    /// That logit with nothing more blocked.
    pub logit: f32,
    /// `[layers][heads]`: the logit with this head blocked too, minus `logit`.
    pub changes: Vec<Vec<f32>>,
}

impl Ablations {
    /// Layer, head and change, the largest change in size first.
    pub fn ranked(&self) -> Vec<(usize, usize, f32)> {
        let heads = |(layer, row): (usize, &Vec<f32>)| {
            row.iter().enumerate().map(|(head, &change)| (layer, head, change)).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = self.changes.iter().enumerate().flat_map(heads).collect();
        all.sort_by(|a, b| b.2.abs().total_cmp(&a.2.abs()));
        all
    }
}

/// What is left out of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerPart {
    /// What attention adds to the residual stream.
    Attention,
    /// What the feed-forward network adds to it.
    FeedForward,
    /// All of it, the norms included: the layer returns what it is given.
    Layer,
}

impl LayerPart {
    /// Every kind.
    pub const ALL: [LayerPart; 3] = [LayerPart::Attention, LayerPart::FeedForward, LayerPart::Layer];

    /// Where it is replaced.
    fn point(self, layer: usize) -> Point {
        let point = match self {
            LayerPart::Attention => LayerPoint::AttentionOutput,
            LayerPart::FeedForward => LayerPoint::FeedForwardOutput,
            LayerPart::Layer => LayerPoint::Output,
        };
        Point::Layer(layer, point)
    }
}

/// What leaving out a part of a layer would change.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LayerChange {
    /// The layer, counted from 0.
    pub layer: usize,
    /// What is left out of it.
    pub part: LayerPart,
    /// The logit without the part, minus that with it.
    pub change: f64,
}

/// What leaving out each part of each layer would change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerAblations {
    /// The class whose logit was measured.
    pub class: usize,
    /// That logit with nothing left out.
    pub logit: f64,
    /// The parts, the largest change in size first.
    pub parts: Vec<LayerChange>,
}

/// What blocking an edge would change.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EdgeChange {
    /// The token that attends.
    pub query: usize,
    /// The token that it attends to.
    pub key: usize,
    /// The logit with the edge blocked, minus that without.
    pub change: f64,
}

/// What blocking each of some edges would change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EdgeAblations {
    /// The class whose logit was measured.
    pub class: usize,
    /// That logit with nothing more blocked.
    pub logit: f64,
    /// The edges, the largest change in size first.
    pub edges: Vec<EdgeChange>,
}

impl Subject {
    /// What blocking each head, beside what is blocked, would change of the logit of a class. Each head is a sequence of a batch, so it
    /// costs `L H` forward passes of the text.
    ///
    /// # Errors
    /// `NoClassifier`, `NoClass`; as [`Blocks::check`]; `NotFinite`; `Stopped`; errors of the model.
    pub fn ablate_heads(
        &self,
        text: &Text,
        blocks: &Blocks,
        class: usize,
        watch: Watch<'_>,
    ) -> Result<Ablations> {
        self.check_class(class)?;
        let config = self.config();
        let (layers, heads, size) = (config.num_hidden_layers, config.num_attention_heads, text.size());
        // The last variant ablates nothing: a layer that does not exist.
        let count = layers * heads + 1;
        let logits = self.logits_of_variants(text, blocks, class, count, watch, |taps, first, n| {
            for layer in first / heads..=((first + n - 1) / heads).min(layers - 1) {
                let factors: Vec<f64> = (first..first + n)
                    .flat_map(|variant| {
                        let of_copy = move |head| if variant == layer * heads + head { 0.0 } else { 1.0 };
                        (0..size).flat_map(move |_| (0..heads).map(of_copy))
                    })
                    .collect();
                scale_heads(taps, layer, &Tensor::from_slice(&factors, &[n * size, heads, 1])?);
            }
            Ok(())
        })?;
        let logit = logits[layers * heads];
        let changes = logits[..layers * heads]
            .chunks(heads)
            .map(|row| row.iter().map(|ablated| (ablated - logit) as f32).collect())
            .collect();
        Ok(Ablations { class, logit: logit as f32, changes })
    }

    /// What leaving out each layer, and its attention and feed-forward network alone, would change of the logit of a class, beside what is
    /// blocked. A network that is left out adds 0 to the residual stream, and the norm after it stays. Costs `3 L + 2` forward passes.
    ///
    /// # Errors
    /// As [`ablate_heads`](Self::ablate_heads).
    pub fn ablate_layers(
        &self,
        text: &Text,
        blocks: &Blocks,
        class: usize,
        watch: Watch<'_>,
    ) -> Result<LayerAblations> {
        self.check_class(class)?;
        let (layers, size) = (self.config().num_hidden_layers, text.size());
        let mut taps = Taps::new();
        blocks.set(&mut taps, self, size)?;
        let read: Vec<Tap> = crate::lens::stream(layers).into_iter().map(|point| taps.read(point)).collect();
        self.run(&Tape::inference(), &self.copies(&text.ids(), 1)?, &taps)?;
        let stream: Vec<Tensor> =
            read.into_iter().map(|tap| taps.value(tap)).collect::<vitrine_nn::Result<_>>()?;
        let parts: Vec<(usize, LayerPart)> =
            (0..layers).flat_map(|layer| LayerPart::ALL.map(|part| (layer, part))).collect();
        // The last variant leaves out nothing.
        let logits =
            self.logits_of_variants(text, blocks, class, parts.len() + 1, watch, |taps, first, n| {
                for (copy, &(layer, part)) in parts[first..].iter().take(n).enumerate() {
                    let given = &stream[layer];
                    let instead = match part {
                        LayerPart::Layer => given.clone(),
                        _ => Tensor::zeros(given.dims(), given.dtype(), given.device())?,
                    };
                    replace_rows(taps, part.point(layer), &instead, move |other, _| other == copy);
                }
                Ok(())
            })?;
        let logit = logits[parts.len()];
        let change = |(&(layer, part), without): (&(usize, LayerPart), &f64)| LayerChange {
            layer,
            part,
            change: without - logit,
        };
        let mut parts: Vec<LayerChange> = parts.iter().zip(&logits).map(change).collect();
        parts.sort_by(|a, b| b.change.abs().total_cmp(&a.change.abs()));
        Ok(LayerAblations { class, logit, parts })
    }

    /// What blocking each edge from `queries` to `keys`, in all layers and heads and beside what is blocked, would change of the logit
    /// of a class. Costs a forward pass an edge. A query keeps its other edges.
    ///
    /// # Errors
    /// As [`ablate_heads`](Self::ablate_heads); `NoToken`; `Setting` for more than 16,384 edges; `NoEdge` where an edge is a query's
    /// last one.
    pub fn ablate_edges(
        &self,
        text: &Text,
        blocks: &Blocks,
        class: usize,
        (queries, keys): (&[usize], &[usize]),
        watch: Watch<'_>,
    ) -> Result<EdgeAblations> {
        self.check_class(class)?;
        let size = text.size();
        if let Some(&index) = queries.iter().chain(keys).find(|&&token| token >= size) {
            return Err(ExplainError::NoToken { index, count: size });
        }
        let count = queries.len().saturating_mul(keys.len());
        if count > MOST_EDGES {
            let (name, expected) = ("the number of edges", "at most 16384; choose fewer tokens");
            return Err(ExplainError::Setting { name, expected, got: count.to_string() });
        }
        let pairs: Vec<(usize, usize)> =
            queries.iter().flat_map(|&query| keys.iter().map(move |&key| (query, key))).collect();
        self.check_pairs(&pairs, blocks, size)?;
        let layers = self.config().num_hidden_layers;
        // The last variant blocks nothing.
        let logits = self.logits_of_variants(text, blocks, class, count + 1, watch, |taps, first, n| {
            let of_copy = |(copy, &(query, key)): (usize, &(usize, usize))| vitrine_autograd::Edge {
                sequence: Some(copy),
                head: None,
                query,
                key,
            };
            let edges: Vec<_> = pairs[first..].iter().take(n).enumerate().map(of_copy).collect();
            for layer in (0..layers).filter(|_| !edges.is_empty()) {
                let blocking = Blocking::Renormalise;
                taps.block(layer, BlockedEdges { edges: edges.clone(), blocking });
            }
            Ok(())
        })?;
        let logit = logits[count];
        let change = |(&(query, key), blocked): (&(usize, usize), &f64)| EdgeChange {
            query,
            key,
            change: blocked - logit,
        };
        let mut edges: Vec<EdgeChange> = pairs.iter().zip(&logits).map(change).collect();
        edges.sort_by(|a, b| b.change.abs().total_cmp(&a.change.abs()));
        Ok(EdgeAblations { class, logit, edges })
    }

    /// Refuses an edge that is the last one of its query.
    fn check_pairs(&self, pairs: &[(usize, usize)], blocks: &Blocks, size: usize) -> Result<()> {
        for &(query, key) in pairs {
            let mut more = blocks.clone();
            more.edges.retain(|edge| edge.query == query);
            more.edges.push(crate::Edge { layer: None, head: None, query, key });
            more.check(self, size)?;
        }
        Ok(())
    }
}

/// Multiplies what each head of each token has read by its factor, `[T, H, 1]`.
fn scale_heads(taps: &mut Taps, layer: usize, factors: &Tensor) {
    let factors = factors.clone();
    taps.replace(Point::Layer(layer, LayerPoint::Context), move |x, _| {
        let (rows, width) = (x.dims()[0], x.dims()[1]);
        let heads = factors.dims()[1];
        let factors = x.tape().constant(like(&factors, x.value())?);
        x.reshape(&[rows, heads, width / heads])?.mul(&factors)?.reshape(&[rows, width])
    });
}
