//! The cross entropy and its gradient.

use crate::harness::Gpu;
use crate::numbers::{assert_close, numbers, wide};
use vitrine_kernels::cross_entropy::{CrossEntropyBackward, CrossEntropyForward, MeanLoss};

#[test]
fn cross_entropy() {
    let gpu = Gpu::open();
    for (rows, classes) in [(1, 1), (3, 2), (5, 100)] {
        let (x, labels) = (
            numbers::<f32>(rows * classes, 1),
            (0..rows).map(|i| (i * 7 % classes) as u32).collect::<Vec<_>>(),
        );
        let (px, pl) = (gpu.put(&x), gpu.table(&labels));
        let [mut probabilities, mut dx] = [0; 2].map(|_| gpu.room::<f32>(rows * classes));
        let (mut losses, mut loss) = (gpu.room::<f32>(rows), gpu.room::<f32>(1));
        gpu.launch(CrossEntropyForward {
            rows,
            logits: &px,
            stride: classes as u64,
            labels: &pl,
            probabilities: &mut probabilities,
            losses: &mut losses,
            classes: classes as u32,
        });
        gpu.launch(MeanLoss { losses: &losses, loss: &mut loss, rows: rows as u32 });
        gpu.launch(CrossEntropyBackward {
            rows,
            dloss: &gpu.put(&[2.0f32]),
            probabilities: &probabilities,
            labels: &pl,
            dlogits: &mut dx,
            classes: classes as u32,
        });
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
