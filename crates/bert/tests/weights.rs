//! Checkpoints as they are found: name variants, stored types, damaged files.

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView, serialize};
use std::path::Path;
use vitrine_bert::{BertError, Weights};
use vitrine_tensor::DType;

/// A folder with one weight file of F32 tensors.
fn folder(tensors: &[(&str, &[usize], &[f32])]) -> tempfile::TempDir {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, dims, _), bytes)| (*name, TensorView::new(Dtype::F32, dims.to_vec(), bytes).unwrap()));
    write(&serialize(views, None).unwrap())
}

fn write(bytes: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    folder
}

fn refused(folder: &Path) -> String {
    let message = Weights::open(folder).err().expect("damaged, so refused").to_string();
    assert!(!message.contains('\n') && message.contains("model.safetensors"), "{message}");
    message
}

#[test]
fn every_variant_of_a_name_means_its_key() {
    for (name, key) in [
        ("bert.encoder.layer.0.output.dense.weight", "bert.encoder.layer.0.output.dense.weight"),
        ("encoder.layer.0.output.dense.weight", "bert.encoder.layer.0.output.dense.weight"),
        ("module.bert.pooler.dense.bias", "bert.pooler.dense.bias"),
        ("model.bert.pooler.dense.bias", "bert.pooler.dense.bias"),
        ("pooler.dense.bias", "bert.pooler.dense.bias"),
        ("embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.weight"),
        ("bert.embeddings.LayerNorm.beta", "bert.embeddings.LayerNorm.bias"),
        ("bert.embeddings.LayerNorm.bias", "bert.embeddings.LayerNorm.bias"),
        ("cls.predictions.bias", "cls.predictions.bias"),
        ("cls.predictions.decoder.bias", "cls.predictions.bias"),
        ("cls.predictions.transform.LayerNorm.gamma", "cls.predictions.transform.LayerNorm.weight"),
        // Only a LayerNorm's gamma is a weight.
        ("adapter.gamma", "adapter.gamma"),
        ("MyLayerNorm.gamma", "MyLayerNorm.gamma"),
    ] {
        let folder = folder(&[(name, &[2], &[1.0, 2.0])]);
        let mut weights = Weights::open(folder.path()).unwrap();
        let tensor = weights.take(key, &[2], false).unwrap().unwrap_or_else(|| panic!("{name} is {key}"));
        assert_eq!(tensor.to_vec::<f32>().unwrap(), [1.0, 2.0]);
        assert_eq!(weights.finish().unwrap(), Default::default());
    }
}

#[test]
fn buffers_and_tied_copies_are_ignored() {
    let folder = folder(&[
        ("bert.embeddings.position_ids", &[1, 2], &[0.0, 1.0]),
        ("cls.predictions.decoder.weight", &[2], &[0.0, 1.0]),
    ]);
    assert!(Weights::open(folder.path()).unwrap().finish().unwrap().unexpected.is_empty());
}

#[test]
fn two_names_for_a_key_resolve_to_the_exact_one() {
    let folder = folder(&[
        ("embeddings.LayerNorm.bias", &[1], &[2.0]),
        ("bert.embeddings.LayerNorm.bias", &[1], &[1.0]),
        ("bert.embeddings.LayerNorm.beta", &[1], &[3.0]),
    ]);
    let mut weights = Weights::open(folder.path()).unwrap();
    let tensor = weights.take("bert.embeddings.LayerNorm.bias", &[1], false).unwrap().unwrap();
    assert_eq!(tensor.item().unwrap(), 1.0);
    let report = weights.finish().unwrap();
    assert_eq!(report.unexpected, ["bert.embeddings.LayerNorm.beta", "embeddings.LayerNorm.bias"]);
}

#[test]
fn the_report_has_everything_at_once() {
    let folder = folder(&[
        ("bert.encoder.layer.0.atention.self.query.weight", &[1], &[0.0]),
        ("classifier.weight", &[3], &[0.0; 3]),
        ("cls.seq_relationship.bias", &[1], &[0.0]),
    ]);
    let mut weights = Weights::open(folder.path()).unwrap();
    assert!(weights.take("bert.encoder.layer.0.attention.self.query.weight", &[1], false).unwrap().is_none());
    assert!(weights.take("classifier.weight", &[2], true).unwrap().is_none());
    assert!(weights.take("classifier.bias", &[2], true).unwrap().is_none());
    let BertError::Weights { report, .. } = weights.finish().unwrap_err() else { panic!("a report") };
    let (key, hint) = &report.missing[0];
    assert_eq!(key, "bert.encoder.layer.0.attention.self.query.weight");
    assert_eq!(hint.as_deref(), Some("bert.encoder.layer.0.atention.self.query.weight"));
    assert_eq!(report.misshaped, [("classifier.weight".into(), vec![2], vec![3])]);
    assert_eq!(report.new, ["classifier.bias"]);
    assert_eq!(report.unexpected.len(), 2);
    assert_eq!(report.to_string().lines().count(), 5);
}

#[test]
fn half_types_become_f32() {
    let values = [1.5f32, -0.25, 3.0];
    let half: Vec<u8> = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
    let brain: Vec<u8> = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
    let views = [
        ("a", TensorView::new(Dtype::F16, vec![3], &half).unwrap()),
        ("b", TensorView::new(Dtype::BF16, vec![3], &brain).unwrap()),
        ("c", TensorView::new(Dtype::I32, vec![1], &[0; 4]).unwrap()),
    ];
    let folder = write(&serialize(views, None).unwrap());
    let mut weights = Weights::open(folder.path()).unwrap();
    for key in ["a", "b"] {
        let tensor = weights.take(key, &[3], false).unwrap().unwrap();
        assert_eq!(tensor.dtype(), DType::F32);
        assert_eq!(tensor.to_vec::<f32>().unwrap(), values);
    }
    let message = weights.take("c", &[1], false).unwrap_err().to_string();
    assert!(message.contains("c is stored as I32"), "{message}");
}

#[test]
fn a_weight_that_is_not_finite_is_named() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vec![0.5f32; 200_000];
        values[150_001] = bad;
        let folder = folder(&[("classifier.weight", &[2, 100_000], &values)]);
        let mut weights = Weights::open(folder.path()).unwrap();
        let message = weights.take("classifier.weight", &[2, 100_000], false).unwrap_err().to_string();
        assert!(message.contains("classifier.weight") && message.contains("150001"), "{message}");
    }
}

#[test]
fn damaged_files_are_refused_in_one_line() {
    let values = vec![0.5f32; 64];
    let good = folder(&[("classifier.weight", &[64], &values)]);
    let bytes = std::fs::read(good.path().join("model.safetensors")).unwrap();
    for length in [0, 4, 8, 40, bytes.len() - 1] {
        refused(write(&bytes[..length]).path());
    }
    // A header length beyond the file, and one beyond all memory.
    for length in [bytes.len() as u64, u64::MAX] {
        let mut lying = bytes.clone();
        lying[..8].copy_from_slice(&length.to_le_bytes());
        refused(write(&lying).path());
    }
    // Shapes whose product overflows, offsets that overlap or leave the file.
    for header in [
        r#"{"a":{"dtype":"F32","shape":[9223372036854775807,4],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
        r#"["a"]"#,
    ] {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend([0; 4]);
        refused(write(&file).path());
    }
}

#[test]
fn a_folder_without_weights_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    assert!(refused(folder.path()).contains("no model.safetensors"));
    std::fs::write(folder.path().join("pytorch_model.bin"), "").unwrap();
    assert!(refused(folder.path()).contains("save_pretrained"));
}

#[test]
fn weights_cut_into_several_files() {
    let folder = folder(&[("a", &[1], &[1.0])]);
    let at = |name: &str| folder.path().join(name);
    std::fs::rename(at("model.safetensors"), at("model-1.safetensors")).unwrap();
    let other = self::folder(&[("b", &[1], &[2.0])]);
    std::fs::copy(other.path().join("model.safetensors"), at("model-2.safetensors")).unwrap();
    let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    std::fs::write(at("model.safetensors.index.json"), index).unwrap();
    let mut weights = Weights::open(folder.path()).unwrap();
    for (key, value) in [("a", 1.0), ("b", 2.0)] {
        assert_eq!(weights.take(key, &[1], false).unwrap().unwrap().item().unwrap(), value);
    }
    std::fs::remove_file(at("model-2.safetensors")).unwrap();
    let message = Weights::open(folder.path()).err().unwrap().to_string();
    assert!(message.contains("model-2.safetensors"), "{message}");
}
