//! What needs all-MiniLM-L6-v2 from `../shared`, beside captum (goldens: `goldens/make_attributions.py`).

#[path = "../../../bert/tests/shared/folder.rs"]
mod folder;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use std::path::Path;
use vitrine_bert::{ModelConfig, SequenceClassifier, Tokenizer, Weights};
use vitrine_explain::{Baseline, Blocks, Method, Steps, Subject, Text, Token, Wanted};
use vitrine_tensor::Tensor;

const MINILM: &str = "models/all-MiniLM-L6-v2";

fn main() {
    folder::run(&[
        ("gradient_x_input_equals_captum", MINILM, gradient_x_input_equals_captum),
        ("integrated_gradients_equal_captum", MINILM, integrated_gradients_equal_captum),
        ("occlusion_equals_captum", MINILM, occlusion_equals_captum),
    ]);
}

/// What captum found, token after token of ten texts.
struct Golden(Vec<u8>);

impl Golden {
    fn read() -> Golden {
        Golden(include_bytes!("../goldens/attributions.safetensors").to_vec())
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        let data = view.data();
        match view.dtype() {
            Dtype::F32 => {
                data.as_chunks().0.iter().map(|&bytes| f64::from(f32::from_le_bytes(bytes))).collect()
            }
            Dtype::I64 => data.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes) as f64).collect(),
            other => panic!("{name} is {other}"),
        }
    }

    /// The tokens of each text, as a range of all.
    fn ranges(&self) -> Vec<std::ops::Range<usize>> {
        self.numbers("offsets").windows(2).map(|pair| pair[0] as usize..pair[1] as usize).collect()
    }
}

/// all-MiniLM-L6-v2 under the golden's classifier.
fn minilm(folder: &Path) -> Subject {
    let config = ModelConfig::from_file(&folder.join("config.json")).unwrap();
    let weights = Weights::open(folder, &config.family.names).unwrap();
    let (mut model, report) = SequenceClassifier::from_weights(config, weights, Some(0)).unwrap();
    assert_eq!(report.new, ["classifier.weight", "classifier.bias"]);
    for (_, parameter) in model.parameters_mut().iter_mut() {
        let values: Vec<f32> = match parameter.parts[0].key.as_str() {
            "classifier.weight" => {
                let width = parameter.value.dims()[1];
                let value = |place: usize| {
                    (0.1 * (0.7 * (place % width) as f64 + (place / width) as f64).cos()) as f32
                };
                (0..2 * width).map(value).collect()
            }
            "classifier.bias" => vec![0.1, -0.1],
            _ => continue,
        };
        parameter.value = Tensor::from_slice(&values, parameter.value.dims()).unwrap();
    }
    Subject::from_classifier(model, Tokenizer::from_dir(folder).unwrap())
}

/// A text of these ids, of which the first and the last are the added ones.
fn text(ids: &[f64]) -> Text {
    let last = ids.len() - 1;
    let token = |(place, &id): (usize, &f64)| Token {
        text: String::new(),
        id: id as u32,
        start: 0,
        end: 0,
        special: place == 0 || place == last,
        continues: false,
    };
    Text { text: String::new(), tokens: ids.iter().enumerate().map(token).collect(), truncated: 0 }
}

/// Compares values and logit of every text: at most 1e-4 of the text's largest value.
fn compare(folder: &Path, golden: &str, wanted: &Wanted, texts: usize) {
    let (subject, file) = (minilm(folder), Golden::read());
    let (ids, logits, expected) = (file.numbers("ids"), file.numbers("logits"), file.numbers(golden));
    let mut longest = 0;
    for (index, range) in file.ranges().into_iter().enumerate().take(texts) {
        let text = text(&ids[range.clone()]);
        longest = longest.max(text.size());
        let steps = Steps::Fixed(if text.size() < 512 { 16 } else { 4 });
        let wanted = Wanted { steps, ..*wanted };
        let got = subject.attribute(&text, &Blocks::none(), &wanted, &|_, _| true).unwrap();
        let expected = &expected[range];
        let most = expected.iter().fold(0.0f64, |most, value| most.max(value.abs()));
        for (token, (got, expected)) in got.values.iter().zip(expected).enumerate() {
            let error = (got - expected).abs();
            assert!(
                error <= 1e-4 * most,
                "{golden} of text {index}, token {token}: got {got}, expected {expected}"
            );
        }
        assert!((got.logit - logits[index]).abs() <= 1e-4, "logit of text {index}: {}", got.logit);
    }
    assert_eq!(longest == 512, texts == 10);
}

fn gradient_x_input_equals_captum(folder: &Path) {
    compare(folder, "gradient_x_input", &Wanted::new(Method::GradientXInput, 1), 10);
}

fn integrated_gradients_equal_captum(folder: &Path) {
    for (golden, baseline) in [("integrated.pad", Baseline::Pad), ("integrated.mask", Baseline::Mask)] {
        let steps = Steps::Fixed(16);
        compare(
            folder,
            golden,
            &Wanted { baseline, steps, ..Wanted::new(Method::IntegratedGradients, 1) },
            10,
        );
    }
}

fn occlusion_equals_captum(folder: &Path) {
    let wanted = Wanted { baseline: Baseline::Mask, ..Wanted::new(Method::Occlusion, 1) };
    compare(folder, "occlusion", &wanted, 9);
}
