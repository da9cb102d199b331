//! `vitrine tap` and `vitrine extract`: what is listed can be extracted, and the file is what its header says.

use crate::common::{path, refuse, succeed};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A random small model.
fn model() -> (TempDir, PathBuf) {
    let folder = TempDir::new().expect("a temporary folder");
    let config = folder.path().join("config.json");
    let sizes = r#"{"model_type": "bert", "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 40}"#;
    std::fs::write(&config, sizes).expect("written");
    let model = folder.path().join("model");
    succeed(&["init", "--config", path(&config), "--output", path(&model)]);
    (folder, model)
}

/// The header of a safetensors file, and its numbers by array.
fn read(file: &Path) -> (Value, impl Fn(&str) -> Vec<f64>) {
    let bytes = std::fs::read(file).expect("a file");
    let len = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + len]).expect("JSON");
    let described = header.clone();
    let numbers = move |name: &str| {
        let entry = &described[name];
        let place = |i: usize| entry["data_offsets"][i].as_u64().expect("a place") as usize + 8 + len;
        let data = &bytes[place(0)..place(1)];
        match entry["dtype"].as_str().expect("a type") {
            "F32" => data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().expect("4")).into()).collect(),
            "I64" => data.chunks(8).map(|b| i64::from_le_bytes(b.try_into().expect("8")) as f64).collect(),
            other => panic!("{name} is {other}"),
        }
    };
    (header, numbers)
}

#[test]
fn everything_that_is_listed_can_be_extracted() {
    let (folder, model) = model();
    let listed = succeed(&["tap", "--list", "--model", path(&model)]);
    assert!(listed.contains("layer.0-1.attention.probs") && listed.contains("[2, S, S]"), "{listed}");
    assert!(succeed(&["tap", "--list"]).contains("layer.L.attention.probs"));
    let json: Value =
        serde_json::from_str(&succeed(&["tap", "--list", "--model", path(&model), "--json"])).expect("JSON");
    let names: Vec<&str> =
        json["taps"].as_array().expect("a list").iter().filter_map(|tap| tap["name"].as_str()).collect();
    assert!(names.len() >= 2 + 2 * 11, "{names:?}");

    let file = folder.path().join("all.safetensors");
    let texts = ["a good film", "not bad at all, only long"];
    let run = [
        "extract",
        "--model",
        path(&model),
        "--taps",
        "**",
        "--output",
        path(&file),
        "--json",
        texts[0],
        texts[1],
    ];
    let summary: Value = serde_json::from_str(&succeed(&run)).expect("JSON");
    let (header, numbers) = read(&file);
    let offsets = numbers("offsets");
    assert_eq!((offsets.len(), offsets[2]), (3, summary["tokens"].as_f64().expect("a number")));
    assert_eq!(numbers("token_ids").len() as f64, offsets[2]);
    for name in names {
        let of_text = format!("{name}.1");
        let name = if header.get(name).is_some() { name } else { &of_text };
        let dims: Vec<usize> = header[name]["shape"]
            .as_array()
            .expect(name)
            .iter()
            .filter_map(Value::as_u64)
            .map(|d| d as usize)
            .collect();
        let values = numbers(name);
        assert_eq!(values.len(), dims.iter().product::<usize>(), "{name}");
        assert!(values.iter().all(|x| x.is_finite()) && values.iter().any(|x| *x != 0.0), "{name}");
    }
    let probabilities = numbers("layer.1.attention.probs.1");
    let len = (offsets[2] - offsets[1]) as usize;
    for row in probabilities.chunks(len) {
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{row:?}");
    }
}

#[test]
fn pooled_rows_are_those_of_the_tokens() {
    let (folder, model) = model();
    let at = |name: &str| folder.path().join(name);
    let texts = at("texts.txt");
    // More tokens than one batch takes.
    let lines: Vec<String> = (0..300).map(|i| format!("film {i} {}", "is good ".repeat(i % 9))).collect();
    std::fs::write(&texts, lines.join("\n")).expect("written");
    let extract = |pool: &str, output: &Path| {
        let data = ["--data", path(&texts), "--rows", "290", "--taps", "layer.1.output"];
        succeed(
            &[&["extract", "--model", path(&model), "--output", path(output), "--pool", pool], &data[..]]
                .concat(),
        );
    };
    let all = at("none.safetensors");
    extract("none", &all);
    let (_, numbers) = read(&all);
    let (offsets, tokens) = (numbers("offsets"), numbers("layer.1.output"));
    assert_eq!(offsets.len(), 291);
    for pool in ["cls", "mean", "max"] {
        let file = at(&format!("{pool}.safetensors"));
        extract(pool, &file);
        let (header, numbers) = read(&file);
        assert_eq!(header["layer.1.output"]["shape"], serde_json::json!([290, 32]));
        let got = numbers("layer.1.output");
        for (text, pair) in offsets.windows(2).enumerate() {
            let rows = &tokens[pair[0] as usize * 32..pair[1] as usize * 32];
            for c in 0..32 {
                let column: Vec<f64> = rows.iter().skip(c).step_by(32).copied().collect();
                let expected = match pool {
                    "cls" => column[0],
                    "mean" => column.iter().sum::<f64>() / column.len() as f64,
                    _ => column.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                };
                assert!((got[text * 32 + c] - expected).abs() < 1e-6, "{pool} of text {text}");
            }
        }
    }
    let npy = at("mean.npy");
    extract("mean", &npy);
    let bytes = std::fs::read(&npy).expect("a file");
    let header_len = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    let header = String::from_utf8_lossy(&bytes[10..header_len]).into_owned();
    assert!(header.contains("'<f4'") && header.contains("(290, 32,)"), "{header}");
    assert_eq!((header_len % 64, bytes.len()), (0, header_len + 290 * 32 * 4));
}

#[test]
fn what_makes_no_sense_is_refused_and_leaves_nothing() {
    let (folder, model) = model();
    let model = path(&model);
    let file = folder.path().join("x.safetensors");
    let npy = folder.path().join("x.npy");
    let before = snapshot_names(folder.path());
    let extract = |more: &[&str], code: i32, words: &[&str]| {
        refuse(code, &[&["extract", "--model", model], more].concat(), words);
    };
    let to_file = ["--output", path(&file)];
    extract(
        &[&to_file[..], &["--taps", "layer.7.output", "text"]].concat(),
        2,
        &["layer.7.output", "tap --list"],
    );
    extract(
        &[&to_file[..], &["--taps", "**.probs", "--pool", "mean", "text"]].concat(),
        2,
        &["--pool mean", "none"],
    );
    extract(&["--output", path(&npy), "--taps", "layer.*.output", "text"], 2, &["one array", "2"]);
    extract(&["--output", "x.csv", "text"], 2, &[".safetensors", ".npy"]);
    extract(&["--output", "no/such/folder/x.npy", "text"], 2, &["folder that is there"]);
    extract(&[&to_file[..], &["--max-length", "9999", "text"]].concat(), 2, &["--max-length 9999"]);
    extract(&[&to_file[..], &["--data", "no-such-file.csv"]].concat(), 1, &["no-such-file.csv"]);
    extract(&to_file, 2, &["TEXT"]);
    refuse(2, &["tap"], &["--list"]);
    refuse(1, &["tap", "--list", "--model", "no-such-folder"], &["no-such-folder"]);
    assert_eq!(snapshot_names(folder.path()), before);
    std::fs::write(&file, "mine").expect("written");
    extract(&[&to_file[..], &["text"]].concat(), 2, &["--overwrite"]);
    assert_eq!(std::fs::read(&file).expect("a file"), b"mine");
    succeed(&[&["extract", "--model", model, "--overwrite"], &to_file[..], &["text"]].concat());
    assert!(read(&file).0["layer.1.output"].is_object());
}

fn snapshot_names(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut names: Vec<PathBuf> = files.collect();
    names.sort();
    names
}
