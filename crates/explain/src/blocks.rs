//! [`Blocks`]: heads and edges that take no part.

use crate::{ExplainError, Result, Subject};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use vitrine_autograd::{BlockedEdges, Blocking};
use vitrine_bert::Taps;

/// An edge from a query token to a key token. Its score is minus infinity before the softmax, so the query's other probabilities
/// still sum to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Edge {
    /// The layer; all without one.
    pub layer: Option<usize>,
    /// The head; all without one.
    pub head: Option<usize>,
    /// The token that attends.
    pub query: usize,
    /// The token that it would attend to.
    pub key: usize,
}

/// What is blocked in a model. Every method respects it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocks {
    /// Layer and head: heads whose output is zero.
    pub heads: Vec<(usize, usize)>,
    /// Edges that attention does not take.
    pub edges: Vec<Edge>,
}

impl Blocks {
    /// Nothing is blocked.
    pub fn none() -> Blocks {
        Blocks::default()
    }

    /// Whether nothing is blocked.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty() && self.edges.is_empty()
    }

    /// Refuses what a model and a text of `size` tokens do not have.
    ///
    /// # Errors
    /// `NoPart`, `NoToken`; `NoEdge` for a query all of whose edges are blocked.
    pub fn check(&self, subject: &Subject, size: usize) -> Result<()> {
        let config = subject.config();
        let (layers, heads) = (config.num_hidden_layers, config.num_attention_heads);
        let part = |what, index: usize, count| match index < count {
            true => Ok(()),
            false => Err(ExplainError::NoPart { what, index, count }),
        };
        for &(layer, head) in &self.heads {
            part("layer", layer, layers)?;
            part("head", head, heads)?;
        }
        for edge in &self.edges {
            part("layer", edge.layer.unwrap_or(0), layers)?;
            part("head", edge.head.unwrap_or(0), heads)?;
            if let Some(&index) = [edge.query, edge.key].iter().find(|&&token| token >= size) {
                return Err(ExplainError::NoToken { index, count: size });
            }
        }
        self.check_queries(layers, heads, size)
    }

    fn check_queries(&self, layers: usize, heads: usize, size: usize) -> Result<()> {
        let mut of_query: BTreeMap<usize, Vec<&Edge>> = BTreeMap::new();
        self.edges.iter().for_each(|edge| of_query.entry(edge.query).or_default().push(edge));
        // Only a query with as many blocked edges as there are tokens may have lost all.
        for (&query, edges) in of_query.iter().filter(|(_, edges)| edges.len() >= size) {
            for (layer, head) in (0..layers).flat_map(|layer| (0..heads).map(move |head| (layer, head))) {
                let here = |edge: &&&Edge| {
                    edge.layer.is_none_or(|of| of == layer) && edge.head.is_none_or(|of| of == head)
                };
                let keys: BTreeSet<usize> = edges.iter().filter(here).map(|edge| edge.key).collect();
                if keys.len() == size {
                    return Err(ExplainError::NoEdge { layer, head, query });
                }
            }
        }
        Ok(())
    }

    /// Sets taps that block, in every sequence of a batch of copies of one text of `size` tokens.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn set(&self, taps: &mut Taps, subject: &Subject, size: usize) -> Result<()> {
        self.check(subject, size)?;
        let config = subject.config();
        for layer in 0..config.num_hidden_layers {
            let mut factors = vec![1.0; config.num_attention_heads];
            let ablated = self.heads.iter().filter(|(of, _)| *of == layer);
            ablated.for_each(|&(_, head)| factors[head] = 0.0);
            if factors.contains(&0.0) {
                taps.scale_heads(layer, factors);
            }
            let edges: Vec<_> = self
                .edges
                .iter()
                .filter(|edge| edge.layer.is_none_or(|of| of == layer))
                .map(|edge| vitrine_autograd::Edge {
                    sequence: None,
                    head: edge.head,
                    query: edge.query,
                    key: edge.key,
                })
                .collect();
            if !edges.is_empty() {
                taps.block(layer, BlockedEdges { edges, blocking: Blocking::Renormalise });
            }
        }
        Ok(())
    }
}
