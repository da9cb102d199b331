//! Taps at what goldens call `hidden_states.I` and `attentions.L`.

use vitrine_bert::{LayerPoint, Point, Tap, Taps};

/// Reads all hidden states and the attention maps of all heads.
pub fn golden_taps(taps: &mut Taps, layers: usize) -> (Vec<Tap>, Vec<Tap>) {
    let outputs = (0..layers).map(|layer| Point::Layer(layer, LayerPoint::Output));
    let states = [Point::Embeddings].into_iter().chain(outputs).map(|point| taps.read(point)).collect();
    let maps = (0..layers).map(|layer| taps.read(Point::Layer(layer, LayerPoint::Probabilities))).collect();
    (states, maps)
}

/// What a tap saw, sequence after sequence.
pub fn numbers(taps: &Taps, tap: Tap) -> Vec<f32> {
    let values = taps.values(tap).unwrap();
    values.iter().flat_map(|value| value.contiguous().unwrap().to_vec::<f32>().unwrap()).collect()
}
