//! [`Attention`]: the maps of all heads, and numbers about them.

use crate::prediction::finite;
use crate::subject::numbers;
use crate::{Blocks, Prediction, Result, Subject, Text};
use serde::Serialize;
use vitrine_autograd::Tape;
use vitrine_bert::{LayerPoint, Point, Tap, Taps};
use vitrine_tensor::Device;

/// The probabilities of attention of all heads, from one forward pass.
#[derive(Clone, Debug)]
pub struct Attention {
    /// What the classifier says; none without one.
    pub prediction: Option<Prediction>,
    size: usize,
    heads: usize,
    /// A layer each: `[H, S, S]`, rows being queries.
    maps: Vec<Vec<f32>>,
}

/// Numbers of a head, each a mean over the query tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HeadNumbers {
    /// The entropy of the probabilities, in nats.
    pub entropy: f64,
    /// The probability on the first token.
    pub cls: f64,
    /// The probability on the last token.
    pub sep: f64,
    /// The probability on the token before; the first token counts as 0.
    pub previous: f64,
    /// The probability on the token after; the last token counts as 0.
    pub next: f64,
    /// The probability on the token itself.
    pub same: f64,
}

impl Subject {
    /// The maps of all heads, and the prediction. They take `4 L H S S` bytes.
    ///
    /// # Errors
    /// As [`Blocks::check`]; `NotFinite`; errors of the model.
    pub fn attention(&self, text: &Text, blocks: &Blocks) -> Result<Attention> {
        let mut taps = Taps::new();
        blocks.set(&mut taps, self, text.size())?;
        let config = self.config();
        let point = |layer| Point::Layer(layer, LayerPoint::Probabilities);
        let read: Vec<Tap> = (0..config.num_hidden_layers).map(|layer| taps.read(point(layer))).collect();
        let tape = Tape::inference();
        let logits = self.run(&tape, &self.copies(&text.ids(), 1)?, &taps)?;
        let prediction = logits.map(|logits| Prediction::new(&numbers(logits.value())?)).transpose()?;
        let mut maps = Vec::with_capacity(read.len());
        for tap in read {
            let map = taps.value(tap)?.contiguous()?.to_device(Device::Cpu)?;
            let map = map.to_dtype(vitrine_tensor::DType::F32)?.to_vec::<f32>()?;
            if let Some(&value) = map.iter().find(|value| !value.is_finite()) {
                finite("a probability of attention", &[f64::from(value)])?;
            }
            maps.push(map);
        }
        Ok(Attention { prediction, size: text.size(), heads: config.num_attention_heads, maps })
    }
}

impl Attention {
    /// The number of tokens `S`.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The number of layers `L`.
    pub fn layers(&self) -> usize {
        self.maps.len()
    }

    /// The number of heads `H` in each layer.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// The map of a head, `[S, S]` row-major: rows are queries and sum to 1.
    ///
    /// # Panics
    /// For a layer or head that does not exist.
    pub fn map(&self, layer: usize, head: usize) -> &[f32] {
        let cells = self.size * self.size;
        &self.maps[layer][head * cells..(head + 1) * cells]
    }

    /// Numbers of a head.
    ///
    /// # Panics
    /// As [`map`](Self::map).
    pub fn numbers(&self, layer: usize, head: usize) -> HeadNumbers {
        let (map, size) = (self.map(layer, head), self.size);
        let rows = || map.chunks(size).enumerate();
        let mean = |of: &dyn Fn(usize, &[f32]) -> f64| {
            rows().map(|(query, row)| of(query, row)).sum::<f64>() / size as f64
        };
        let at = |row: &[f32], key: Option<usize>| {
            key.and_then(|key| row.get(key)).map_or(0.0, |&probability| f64::from(probability))
        };
        let surprise = |&p: &f32| if p > 0.0 { -f64::from(p) * f64::from(p).ln() } else { 0.0 };
        HeadNumbers {
            entropy: mean(&|_, row| row.iter().map(surprise).sum()),
            cls: mean(&|_, row| at(row, Some(0))),
            sep: mean(&|_, row| at(row, Some(size - 1))),
            previous: mean(&|query, row| at(row, query.checked_sub(1))),
            next: mean(&|query, row| at(row, Some(query + 1))),
            same: mean(&|query, row| at(row, Some(query))),
        }
    }

    /// The maps of all heads in few cells, `[L, H, n, n]` with `n` the smaller of `cells` and S: of the largest probability in each.
    /// Cell `i` covers tokens `i S / n` up to `(i + 1) S / n`, rounded down.
    pub fn overview(&self, cells: usize) -> Vec<f32> {
        let n = cells.min(self.size);
        // The cell of each token.
        let mut cell = vec![0; self.size];
        (0..n).for_each(|i| cell[i * self.size / n..(i + 1) * self.size / n].fill(i));
        let mut all = Vec::with_capacity(self.layers() * self.heads * n * n);
        for (layer, head) in (0..self.layers()).flat_map(|layer| (0..self.heads).map(move |h| (layer, h))) {
            let mut coarse = vec![0.0f32; n * n];
            for (query, row) in self.map(layer, head).chunks(self.size).enumerate() {
                let line = &mut coarse[cell[query] * n..][..n];
                row.iter().zip(&cell).for_each(|(&p, &cell)| line[cell] = line[cell].max(p));
            }
            all.extend(coarse);
        }
        all
    }

    /// Attention rollout (Abnar and Zuidema 2020, arXiv 2005.00928): `[S, S]` row-major, how much of each input token (column) is in
    /// each token of the last layer (row), if information flowed as heads attend. The product over layers of the mean over heads, to
    /// which the residual connection adds the identity: `0.5 A + 0.5 I`. Rows sum to 1.
    pub fn rollout(&self) -> Vec<f64> {
        let size = self.size;
        let identity = |cell: usize| if cell / size == cell % size { 1.0 } else { 0.0 };
        let mut flow: Vec<f64> = (0..size * size).map(identity).collect();
        for layer in 0..self.layers() {
            let mixed = |cell: usize| {
                let mean: f64 = (0..self.heads).map(|head| f64::from(self.map(layer, head)[cell])).sum();
                0.5 * mean / self.heads as f64 + 0.5 * identity(cell)
            };
            let mixed: Vec<f64> = (0..size * size).map(mixed).collect();
            let mut next = vec![0.0; size * size];
            for (row, weights) in next.chunks_mut(size).zip(mixed.chunks(size)) {
                for (&weight, from) in weights.iter().zip(flow.chunks(size)) {
                    row.iter_mut().zip(from).for_each(|(sum, &from)| *sum += weight * from);
                }
            }
            flow = next;
        }
        flow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attention(size: usize, heads: usize, maps: Vec<Vec<f32>>) -> Attention {
        Attention { prediction: None, size, heads, maps }
    }

    #[test]
    fn numbers_of_a_head() {
        let map = vec![0.5, 0.5, 0.0, 0.0, 0.0, 1.0, 0.25, 0.5, 0.25];
        let got = attention(3, 1, vec![map]).numbers(0, 0);
        let close = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-7, "{got} {expected}");
        close(got.entropy, (2f64.ln() + 1.5 * 2f64.ln()) / 3.0);
        close(got.cls, 0.75 / 3.0);
        close(got.sep, 1.25 / 3.0);
        close(got.previous, 0.5 / 3.0);
        close(got.next, 1.5 / 3.0);
        close(got.same, 0.75 / 3.0);
    }

    #[test]
    fn an_overview_has_the_largest_of_each_cell() {
        let map: Vec<f32> = (0..25).map(|cell| cell as f32).collect();
        let all = attention(5, 1, vec![map.clone()]);
        // Cells of tokens 0..2 and 2..5.
        assert_eq!(all.overview(2), [6.0, 9.0, 21.0, 24.0]);
        assert_eq!(all.overview(64), map);
    }

    /// Two layers of two heads by hand: the mean of a layer's heads, half of it and half of the identity, the last layer leftmost.
    #[test]
    fn rollout_is_the_product_of_mixed_layers() {
        let first = vec![1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0];
        let last = vec![0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0];
        // Means: [[.5, .5], [.5, .5]] and [[0, 1], [1, 0]]; mixed: [[.75, .25], [.25, .75]] and [[.5, .5], [.5, .5]].
        assert_eq!(attention(2, 2, vec![first.clone(), last]).rollout(), [0.5, 0.5, 0.5, 0.5]);
        assert_eq!(attention(2, 2, vec![first]).rollout(), [0.75, 0.25, 0.25, 0.75]);
    }
}
