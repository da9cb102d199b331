//! Dropout's definition: crates/tensor/src/random.rs, in plain loops.

use vitrine_kernels::Dropout;

fn philox(counter: [u32; 4], seed: u64) -> [u32; 4] {
    let (mut c, mut k) = (counter, [seed as u32, (seed >> 32) as u32]);
    for _ in 0..10 {
        let p0 = 0xD251_1F53u64 * u64::from(c[0]);
        let p1 = 0xCD9E_8D57u64 * u64::from(c[2]);
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c
}
fn half(words: [u32; 4], i: usize) -> u32 {
    words[i / 2] >> (16 * (i % 2)) & 0xffff
}
pub fn settings(p: f64) -> Dropout {
    let threshold = (p * 65536.0).round() as u32;
    let scale = 65536.0 / (65536.0 - threshold as f32);
    Dropout {
        seed: 0x1234_5678_9abc_def0,
        step: 1234,
        site: 0x0302,
        first_sequence: 40,
        threshold,
        scale,
        reserved: 0,
    }
}
/// What hidden dropout multiplies by.
pub fn hidden(d: &Dropout, position: usize, sequence: usize, channel: usize) -> f64 {
    let counter =
        [position as u32, (d.site << 16) | (channel as u32 / 8), d.first_sequence + sequence as u32, d.step];
    let kept = half(philox(counter, d.seed), channel % 8) >= d.threshold;
    if d.threshold == 0 { 1.0 } else { f64::from(u8::from(kept)) * f64::from(d.scale) }
}
/// What attention dropout multiplies by.
pub fn attention(d: &Dropout, head: usize, sequence: usize, query: usize, key: usize) -> f64 {
    let (row, column) = (query % 16, key % 16);
    let call = (row % 8) * 4 + (column % 8) / 2;
    let block = (query / 16) << 17 | (key / 16) << 5 | call;
    let counter = [block as u32, d.site << 16 | head as u32, d.first_sequence + sequence as u32, d.step];
    let kept = half(philox(counter, d.seed), (row / 8 * 2 + column / 8) * 2 + column % 2) >= d.threshold;
    if d.threshold == 0 { 1.0 } else { f64::from(u8::from(kept)) * f64::from(d.scale) }
}
