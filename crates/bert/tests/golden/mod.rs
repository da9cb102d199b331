//! Golden files and how results are compared with them.

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use std::collections::BTreeMap;
use std::path::Path;
use vitrine_autograd::{Gradients, Tape};
use vitrine_bert::{ModelConfig, SequenceClassifier, TokenBatch};
use vitrine_nn::ParameterStore;
use vitrine_tensor::DType;

/// A golden file: F32 and I64 tensors, and the config.
pub struct Golden {
    pub floats: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    pub integers: BTreeMap<String, Vec<u32>>,
    pub config: ModelConfig,
    /// With the model's weights. Not every test binary reads them.
    #[allow(dead_code)]
    pub folder: tempfile::TempDir,
}

impl Golden {
    pub fn read(name: &str, config: Option<ModelConfig>) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name);
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let (mut floats, mut integers) = (BTreeMap::new(), BTreeMap::new());
        for (name, view) in file.tensors() {
            match view.dtype() {
                Dtype::F32 => {
                    let values =
                        view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                    floats.insert(name, (view.shape().to_vec(), values.collect()));
                }
                Dtype::I64 => {
                    let values =
                        view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32);
                    integers.insert(name, values.collect());
                }
                other => panic!("{name} is {other}"),
            }
        }
        let config = config.unwrap_or_else(|| {
            let text = &header.metadata().as_ref().unwrap()["config"];
            ModelConfig::parse(text, Path::new("golden")).unwrap()
        });
        let folder = tempfile::tempdir().unwrap();
        let views = file.tensors();
        let weights = views
            .iter()
            .filter_map(|(name, view)| {
                let key = name.strip_prefix("weight.")?;
                Some((key, TensorView::new(view.dtype(), view.shape().to_vec(), view.data()).unwrap()))
            })
            .collect::<Vec<_>>();
        std::fs::write(folder.path().join("model.safetensors"), serialize(weights, None).unwrap()).unwrap();
        Golden { floats, integers, config, folder }
    }

    pub fn float(&self, name: &str) -> &[f32] {
        &self.floats[name].1
    }

    pub fn batch(&self) -> TokenBatch {
        let ids = &self.integers["ids"];
        let sequences: Vec<&[u32]> = self.integers["offsets"]
            .windows(2)
            .map(|pair| &ids[pair[0] as usize..pair[1] as usize])
            .collect();
        let labels = self.integers.get("labels").map(Vec::as_slice);
        let batch = TokenBatch::new(sequences, labels, &self.config).unwrap();
        match self.integers.get("token_types") {
            Some(types) => batch.with_token_types(types, &self.config).unwrap(),
            None => batch,
        }
    }
}

/// `max|a - b| <= tolerance max|b|`; NaN fails.
#[track_caller]
pub fn assert_close(name: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{name}: number of elements");
    let limit = tolerance * largest(expected);
    for (index, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= limit, "{name}[{index}]: got {a}, expected {b}, limit {limit:e}");
    }
}

pub fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, value| most.max(value.abs()))
}

/// The gradient of each part by its key.
pub fn gradients_by_key(parameters: &ParameterStore, gradients: &Gradients) -> BTreeMap<String, Vec<f32>> {
    let mut by_key = BTreeMap::new();
    for (id, parameter) in parameters.iter() {
        let gradient = gradients.parameter(id).expect("every parameter has a gradient");
        for (key, rows) in parameter.split(gradient).unwrap() {
            by_key.insert(key.to_owned(), rows.to_vec::<f32>().unwrap());
        }
    }
    by_key
}

/// How far from its true value, zero, the gradient of the keys' bias may be, relative to that of the queries' bias.
pub const KEY_BIAS: f32 = 1e-6;

/// The rule for half precision: the distance of a weight matrix's bfloat16 gradient from the f32 one is at most 1.5 times
/// what PyTorch's autocast has on the same weights and batch.
#[track_caller]
pub fn compare_with_autocast(name: &str, model: &mut SequenceClassifier, batch: &TokenBatch) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name);
    let file: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut gradients = |dtype| {
        model.compute_in(dtype).unwrap();
        let tape = Tape::recording();
        let id = model.loss(&tape, batch).unwrap().id();
        gradients_by_key(model.parameters(), &tape.backward(id, &[]).unwrap())
    };
    let (exact, rounded) = (gradients(DType::F32), gradients(DType::BF16));
    let mut worst = (0.0, String::new());
    for (key, autocast) in file["errors"].as_object().unwrap() {
        let pairs = exact[key].iter().zip(&rounded[key]).map(|(&a, &b)| (f64::from(a), f64::from(b)));
        let (error, size) =
            pairs.fold((0.0, 0.0), |(error, size), (a, b)| (error + (a - b).powi(2), size + a * a));
        let ratio = (error / size).sqrt() / autocast.as_f64().unwrap();
        assert!(ratio <= 1.5, "{key}: {ratio} times autocast's error of {autocast}");
        worst = if ratio > worst.0 { (ratio, key.clone()) } else { worst };
    }
    println!("{name}: at most {:.2} times autocast's error, at {}", worst.0, worst.1);
}
