//! The cross entropy and its gradient.

use crate::harness::{Arg::*, Gpu};
use crate::numbers::{assert_close, numbers, wide};
use vitrine_kernels as kernels;

#[test]
fn cross_entropy() {
    let gpu = Gpu::open();
    for (rows, classes) in [(1, 1), (3, 2), (5, 100)] {
        let (x, labels) = (
            numbers::<f32>(rows * classes, 1),
            (0..rows).map(|i| (i * 7 % classes) as u32).collect::<Vec<_>>(),
        );
        let (px, pl) = (gpu.put(&x), gpu.put(&labels));
        let (probabilities, losses, loss) = (gpu.room(rows * classes * 4), gpu.room(rows * 4), gpu.room(4));
        let (module, grid) = (&kernels::CROSS_ENTROPY, [rows, 1, 1]);
        let arguments = [P(px), L(classes), P(pl), P(probabilities), P(losses), W(classes)];
        gpu.launch(module, "cross_entropy_forward_f32", grid, 64, 0, &arguments);
        gpu.launch(module, "mean_loss", [1, 1, 1], 256, 0, &[P(losses), P(loss), W(rows)]);
        let dx = gpu.room(rows * classes * 4);
        let arguments = [P(gpu.put(&[2.0f32])), P(probabilities), P(pl), P(dx), W(classes)];
        gpu.launch(module, "cross_entropy_backward_f32", grid, 64, 0, &arguments);
        let (mut mean, mut gradient) = (0.0, vec![]);
        for (x, &label) in wide(&x).chunks(classes).zip(&labels) {
            let sum: f64 = x.iter().map(|x| x.exp()).sum();
            mean += (sum.ln() - x[label as usize]) / rows as f64;
            let onehot = |i: usize| f64::from(u8::from(i == label as usize));
            gradient
                .extend(x.iter().enumerate().map(|(i, x)| (x.exp() / sum - onehot(i)) * 2.0 / rows as f64));
        }
        assert_close("loss", &gpu.get::<f32>(loss), &[mean], 1e-6);
        assert_close("dx", &gpu.get::<f32>(dx), &gradient, 1e-6);
    }
}
