//! Checkpoints as they are found: name variants, stored types, damaged files.

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView, serialize};
use std::path::Path;
use vitrine_bert::{Family, Weights};
use vitrine_nn::{Names, NnError};

fn bert_names() -> &'static Names {
    &Family::named("bert").unwrap().names
}

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

/// The elements of a key of this shape; none if the report has something against it.
fn take(weights: &mut Weights, key: &str, dims: &[usize]) -> Option<Vec<f32>> {
    let mut values = vec![f32::NAN; dims.iter().product()];
    weights.expect(key, dims, false).unwrap().then(|| weights.read(key, &mut values).unwrap())?;
    Some(values)
}

fn refused(folder: &Path) -> String {
    let message = Weights::open(folder, bert_names()).err().expect("damaged, so refused").to_string();
    assert!(!message.contains('\n') && message.contains("model.safetensors"), "{message}");
    assert!(!message.contains(char::is_control) && message.len() < 600, "{message}");
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
        ("module._orig_mod.model.bert.pooler.dense.bias", "bert.pooler.dense.bias"),
        ("_orig_mod.module.encoder.layer.3.output.dense.bias", "bert.encoder.layer.3.output.dense.bias"),
        ("bert._orig_mod.embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.weight"),
        (
            "bert.encoder.layer.0._checkpoint_wrapped_module.output.dense.bias",
            "bert.encoder.layer.0.output.dense.bias",
        ),
        (
            "_fsdp_wrapped_module.bert.encoder.layer.0._fsdp_wrapped_module.output.dense.bias",
            "bert.encoder.layer.0.output.dense.bias",
        ),
        // Any object's attribute, and one that has a BERT's own name.
        ("student.net.bert.pooler.dense.bias", "bert.pooler.dense.bias"),
        ("bert.bert.pooler.dense.bias", "bert.pooler.dense.bias"),
        ("encoder.encoder.layer.0.output.dense.bias", "bert.encoder.layer.0.output.dense.bias"),
        // Another model's names are not a BERT's.
        ("roberta.encoder.layer.0.output.dense.bias", "roberta.encoder.layer.0.output.dense.bias"),
        // Only a LayerNorm's gamma is a weight.
        ("adapter.gamma", "adapter.gamma"),
        ("MyLayerNorm.gamma", "MyLayerNorm.gamma"),
    ] {
        let folder = folder(&[(name, &[2], &[1.0, 2.0])]);
        let mut weights = Weights::open(folder.path(), bert_names()).unwrap();
        assert_eq!(take(&mut weights, key, &[2]).as_deref(), Some(&[1.0, 2.0][..]), "{name} is {key}");
        assert_eq!(weights.report().unwrap(), Default::default(), "{name}");
    }
}

#[test]
fn buffers_and_tied_copies_are_ignored() {
    let folder = folder(&[
        ("bert.embeddings.position_ids", &[1, 2], &[0.0, 1.0]),
        ("cls.predictions.decoder.weight", &[2], &[0.0, 1.0]),
    ]);
    assert!(Weights::open(folder.path(), bert_names()).unwrap().report().unwrap().unexpected.is_empty());
}

#[test]
fn two_names_for_a_key_resolve_to_the_exact_one() {
    let folder = folder(&[
        ("embeddings.LayerNorm.bias", &[1], &[2.0]),
        ("bert.embeddings.LayerNorm.bias", &[1], &[1.0]),
        ("bert.embeddings.LayerNorm.beta", &[1], &[3.0]),
    ]);
    let mut weights = Weights::open(folder.path(), bert_names()).unwrap();
    assert_eq!(take(&mut weights, "bert.embeddings.LayerNorm.bias", &[1]), Some(vec![1.0]));
    let report = weights.report().unwrap();
    assert_eq!(report.unexpected, ["bert.embeddings.LayerNorm.beta", "embeddings.LayerNorm.bias"]);
}

#[test]
fn the_report_has_everything_at_once() {
    let folder = folder(&[
        ("bert.encoder.layer.0.atention.self.query.weight", &[1], &[0.0]),
        ("classifier.weight", &[3], &[0.0; 3]),
        ("cls.seq_relationship.bias", &[1], &[0.0]),
    ]);
    let mut weights = Weights::open(folder.path(), bert_names()).unwrap();
    assert!(!weights.expect("bert.encoder.layer.0.attention.self.query.weight", &[1], false).unwrap());
    assert!(!weights.expect("classifier.weight", &[2], true).unwrap());
    assert!(!weights.expect("classifier.bias", &[2], true).unwrap());
    let NnError::Weights { report, .. } = weights.report().unwrap_err() else { panic!("a report") };
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
    let double: Vec<u8> = values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect();
    let views = [
        ("a", TensorView::new(Dtype::F16, vec![3], &half).unwrap()),
        ("b", TensorView::new(Dtype::BF16, vec![3], &brain).unwrap()),
        ("c", TensorView::new(Dtype::F64, vec![3], &double).unwrap()),
        ("d", TensorView::new(Dtype::I8, vec![4], &[0; 4]).unwrap()),
        ("e", TensorView::new(Dtype::F8_E4M3, vec![4], &[0; 4]).unwrap()),
        ("f", TensorView::new(Dtype::F32, vec![0, 4], &[]).unwrap()),
    ];
    let folder = write(&serialize(views, None).unwrap());
    let mut weights = Weights::open(folder.path(), bert_names()).unwrap();
    for key in ["a", "b", "c"] {
        assert_eq!(take(&mut weights, key, &[3]).unwrap(), values);
    }
    for (key, dtype) in [("d", "I8"), ("e", "F8_E4M3")] {
        let message = weights.expect(key, &[4], false).unwrap_err().to_string();
        assert!(message.contains(&format!("{key} is stored as {dtype}")), "{message}");
    }
    // No elements are another shape than some.
    assert!(!weights.expect("f", &[4, 4], false).unwrap());
}

#[test]
fn a_weight_that_is_not_finite_is_named() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vec![0.5f32; 200_000];
        values[150_001] = bad;
        let folder = folder(&[("classifier.weight", &[2, 100_000], &values)]);
        let mut weights = Weights::open(folder.path(), bert_names()).unwrap();
        assert!(weights.expect("classifier.weight", &[2, 100_000], false).unwrap());
        let message = weights.read("classifier.weight", &mut values).unwrap_err().to_string();
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
    for (files, words) in [
        (&[][..], "no model.safetensors"),
        (&["pytorch_model.bin"], "save_pretrained"),
        (&["pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin"], "pickle"),
        (&["tf_model.h5"], "from_tf=True"),
        (&["flax_model.msgpack"], "from_flax=True"),
        (&["model-q8.gguf"], "another program's format"),
        (&["model.onnx"], "another program's format"),
        (&["bert_model.ckpt.index"], "Google's"),
        (&["adapter_config.json", "adapter_model.safetensors"], "merge_and_unload"),
        (&["model.fp16.safetensors", "pytorch_model.bin"], "rename it to model.safetensors"),
        (&["model-00001-of-00002.safetensors"], "download model.safetensors.index.json too"),
        (&["model.safetensors.index.fp16.json"], "rename it to model.safetensors.index.json"),
        (&["model.safetensors.incomplete"], "unfinished download"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|name| std::fs::write(folder.path().join(name), "").unwrap());
        let message = refused(folder.path());
        assert!(message.contains(words), "{files:?}: {message}");
    }
}

#[test]
fn what_stands_in_the_place_of_weights_is_named() {
    for (bytes, words) in [
        (
            &b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 440449768\n"[..],
            "git lfs pull",
        ),
        (b"<!doctype html>\n<html class=\"\"><head>", "web page"),
        (b"{\"error\":\"Repository not found\"}", "download failed"),
        (b"PK\x03\x04\x00\x00\x08\x08\x00\x00archive/data.pkl", "pickle"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "pickle"),
        (b"GGUF\x03\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00", "GGUF"),
        (b"Entry not found", "safetensors file (15 bytes)"),
    ] {
        let message = refused(write(bytes).path());
        assert!(message.contains(words), "{message}");
    }
}

/// A header whose length happens to be the number that the bytes `<h` stand for is a header.
#[test]
fn a_length_that_could_be_text_is_a_length() {
    let length = usize::from(u16::from_le_bytes(*b"<h"));
    let mut header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#.to_vec();
    header.resize(length, b' ');
    let file = [&(length as u64).to_le_bytes()[..], &header, &2.5f32.to_le_bytes()].concat();
    let folder = write(&file);
    assert_eq!(take(&mut Weights::open(folder.path(), bert_names()).unwrap(), "a", &[1]), Some(vec![2.5]));
}

#[test]
fn a_file_that_becomes_shorter_is_one_line_and_later_changes_nothing() {
    let folder = folder(&[("a", &[4], &[1.0; 4]), ("b", &[4], &[2.0; 4])]);
    let mut weights = Weights::open(folder.path(), bert_names()).unwrap();
    assert_eq!(take(&mut weights, "a", &[4]), Some(vec![1.0; 4]));
    assert!(weights.expect("b", &[4], false).unwrap());
    let path = folder.path().join("model.safetensors");
    let len = path.metadata().unwrap().len();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(len - 1).unwrap();
    let message = weights.read("b", &mut [0.0; 4]).unwrap_err().to_string();
    assert!(message.contains("became shorter while b was read") && !message.contains('\n'), "{message}");
}

#[cfg(unix)]
#[test]
fn only_regular_files_are_opened() {
    for name in ["model.safetensors", "model.safetensors.index.json", "shard.safetensors"] {
        for make in ["fifo", "folder", "device"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            match make {
                "fifo" => {
                    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
                    assert!(made.success());
                }
                "folder" => std::fs::create_dir(&path).unwrap(),
                _ => std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
            }
            if name.starts_with("shard") {
                let index = r#"{"weight_map": {"a": "shard.safetensors"}}"#;
                std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
            }
            let message = Weights::open(folder.path(), bert_names()).err().unwrap().to_string();
            assert!(message.contains(name) && message.contains("a file is expected here"), "{message}");
        }
    }
}

#[test]
fn one_model_is_found_among_prefixes() {
    let bias = "pooler.dense.bias";
    let key = "bert.pooler.dense.bias";
    let open = |names: &[&str]| {
        let tensors: Vec<(&str, &[usize], &[f32])> = names
            .iter()
            .zip([[1.0f32], [2.0], [3.0]].iter())
            .map(|(name, v)| (*name, &[1][..], &v[..]))
            .collect();
        let folder = folder(&tensors);
        Weights::open(folder.path(), bert_names())
    };
    // The model itself before another that somebody keeps beside it, in whatever order.
    let mut weights = open(&["a.teacher.bert.pooler.dense.bias", key]).unwrap();
    assert_eq!(take(&mut weights, key, &[1]), Some(vec![2.0]));
    assert_eq!(weights.report().unwrap().unexpected, ["a.teacher.bert.pooler.dense.bias"]);
    // Two that stand side by side are not mixed.
    let message =
        open(&["student.bert.pooler.dense.bias", "teacher.pooler.dense.bias"]).err().unwrap().to_string();
    assert!(message.contains("student.") && message.contains("teacher."), "{message}");
    // A head may be beside the object that holds the encoder, as in Lightning; the one next to the encoder comes first.
    let mut weights = open(&["model.pooler.dense.bias", "classifier.bias"]).unwrap();
    assert_eq!(take(&mut weights, "classifier.bias", &[1]), Some(vec![2.0]));
    assert!(weights.notes().is_empty(), "`model.` is usual");
    let mut weights =
        open(&["net.bert.pooler.dense.bias", "classifier.bias", "net.classifier.bias"]).unwrap();
    assert_eq!(take(&mut weights, "classifier.bias", &[1]), Some(vec![3.0]));
    assert_eq!(weights.notes(), [r#"the names in the file are read without "net." in front"#]);
    // Under the encoder is no place for its head.
    let weights = open(&[bias, "teacher.classifier.bias"]).unwrap();
    assert!(!weights.contains("classifier.bias"));
}

#[test]
fn names_of_a_file_do_not_reach_the_terminal_raw() {
    let long = "x".repeat(500);
    let names = ["\u{1b}[31mred", "two\nlines", "\u{202e}txet", &long];
    let folder = folder(&names.map(|name| (name, &[1][..], &[0.0][..])));
    let mut weights = Weights::open(folder.path(), bert_names()).unwrap();
    assert!(!weights.expect("classifier.bias", &[1], false).unwrap());
    let message = weights.report().unwrap_err().to_string();
    assert_eq!(message.lines().count(), 6, "{message}");
    assert!(!message.contains(['\u{1b}', '\u{202e}']) && message.len() < 1000, "{message}");
}

#[test]
fn many_lines_of_a_kind_are_counted() {
    let names: Vec<String> = (0..3000).map(|i| format!("adapter.{i}.weight")).collect();
    let tensors: Vec<(&str, &[usize], &[f32])> =
        names.iter().map(|name| (name.as_str(), &[1][..], &[0.0][..])).collect();
    let folder = folder(&tensors);
    let mut weights = Weights::open(folder.path(), bert_names()).unwrap();
    for layer in 0..65_505 {
        assert!(!weights.expect(&format!("bert.encoder.layer.{layer}.w"), &[1], false).unwrap());
    }
    for name in &names[..2000] {
        assert!(!weights.expect(name, &[2], false).unwrap());
    }
    let message = weights.report().unwrap_err().to_string();
    assert_eq!(message.lines().count(), 1 + 3 * 9, "{message}");
    for words in ["missing     and 65497 more", "mis-shaped  and 1992 more", "unexpected  and 992 more"] {
        assert!(message.contains(words), "{message}");
    }
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
    let mut weights = Weights::open(folder.path(), bert_names()).unwrap();
    for (key, value) in [("a", 1.0), ("b", 2.0)] {
        assert_eq!(take(&mut weights, key, &[1]), Some(vec![value]));
    }
    std::fs::remove_file(at("model-2.safetensors")).unwrap();
    let message = Weights::open(folder.path(), bert_names()).err().unwrap().to_string();
    assert!(message.contains("model-2.safetensors"), "{message}");
}

#[test]
fn an_index_is_taken_at_its_word() {
    let shard = |name: &str, value: f32| {
        let made = folder(&[(name, &[1], &[value])]);
        std::fs::read(made.path().join("model.safetensors")).unwrap()
    };
    let open = |files: &[(&str, &[u8])], map: serde_json::Value| {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, bytes)| std::fs::write(folder.path().join(name), bytes).unwrap());
        let index = serde_json::json!({"metadata": {"total_size": 8}, "weight_map": map});
        std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        (Weights::open(folder.path(), bert_names()), folder)
    };
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let (one, two, other) = (shard("a", 1.0), shard("b", 2.0), shard("a", 3.0));
    let refuse = |files: &[(&str, &[u8])], map: &str, words: &[&str]| {
        let message = open(files, json(map)).0.err().expect(map).to_string();
        assert!(!message.contains('\n') && !message.contains(char::is_control), "{message}");
        for word in words {
            assert!(message.contains(word), "{map}: {word} in {message}");
        }
    };
    // A file that the index does not name is not opened.
    let (weights, _folder) =
        open(&[("1", &one), ("2", &two), ("3", &other)], json(r#"{"a": "1", "b": "2"}"#));
    assert_eq!(take(&mut weights.unwrap(), "a", &[1]), Some(vec![1.0]));
    refuse(&[("1", &one), ("2", &other)], r#"{"a": "1", "b": "2"}"#, &["a is in two files, 1 and 2"]);
    refuse(&[("1", &one), ("2", &two)], r#"{"a": "2", "b": "2"}"#, &["a is in 2, which has no such tensor"]);
    refuse(&[("1", &one)], r#"{"a": "1", "c": "1"}"#, &["c is in 1, which has no such tensor"]);
    refuse(&[("2", &two)], r#"{"a": "1", "b": "2", "c": "3"}"#, &["2 of 3 shards are missing: 1, 3"]);
    refuse(&[], "{}", &["weight_map is empty"]);
    for name in ["/etc/passwd", "../model.safetensors", "sub/1", "./1", ".", "..", "", "a\0b", "1/", "a\\b"] {
        let map = serde_json::json!({"a": name}).to_string();
        refuse(&[("1", &one)], &map, &["the files of an index are beside it"]);
    }
    // The same weight under two names in two files is as much a contradiction as one name is.
    let (mine, yours) = (shard("bert.pooler.dense.bias", 1.0), shard("module.pooler.dense.bias", 2.0));
    let map = r#"{"bert.pooler.dense.bias": "1", "module.pooler.dense.bias": "2"}"#;
    refuse(&[("1", &mine), ("2", &yours)], map, &["bert.pooler.dense.bias is in two files"]);
    // As transformers does.
    let (weights, _folder) = open(&[("model.safetensors", &other), ("1", &one)], json(r#"{"a": "1"}"#));
    let mut weights = weights.unwrap();
    assert_eq!(take(&mut weights, "a", &[1]), Some(vec![3.0]));
    assert!(weights.notes()[0].contains("is not read"), "{:?}", weights.notes());
}
