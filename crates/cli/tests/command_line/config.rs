//! Config files, as `train` takes them.

use crate::common::{path, refuse, succeed, train};

#[test]
fn a_config_file_stands_for_options_and_typed_ones_win() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.toml");
    std::fs::write(&file, "# small\nlr = 0.002\nepochs = 2\nno-shuffle = true\nwarmup-ratio = 0.5\n")
        .unwrap();
    let config = ["--config", path(&file)];
    let output = folder.path().join("out");
    // The helper types --epochs 1.
    let report = train(&output, &[&config[..], &["--warmup-steps", "1"]].concat());
    let settings = &report["settings"];
    assert_eq!(
        (&settings["lr"], &settings["epochs"], &settings["warmup_steps"]),
        (&0.002.into(), &1.into(), &1.into())
    );
    assert_eq!((&settings["shuffle"], &settings["warmup_ratio"]), (&false.into(), &serde_json::Value::Null));

    // What the run saved gives the same run.
    let saved = output.join("run.toml");
    let weights = |folder: &std::path::Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    let again = folder.path().join("again");
    succeed(&["train", "--config", path(&saved), "--output", path(&again)]);
    assert!(weights(&output) == weights(&again), "the saved options give other weights");
    let printed = succeed(&["train", "--config", path(&saved), "--print-config"]);
    assert_eq!(printed, std::fs::read_to_string(&saved).unwrap());
}

#[test]
fn printing_the_config_does_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let printed = succeed(&["train", "--recipe", "notebook", "--print-config", "--output", path(&output)]);
    for line in
        ["recipe = \"notebook\"", "train-samples = 2500", "warmup-steps = 500", "lr = 2e-5", "seed = 42"]
    {
        assert!(printed.lines().any(|there| there == line), "{line} is missing from\n{printed}");
    }
    assert!(!printed.contains("output") && !output.exists());
}

#[test]
fn a_wrong_config_file_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.toml");
    let output = folder.path().join("out");
    for (text, words) in [
        ("lr = 1e-5\nepoch = 3\n", ["run.toml:2", "did you mean `epochs`?"]),
        ("epochs = \"3\"\n", ["run.toml:1", "must be a number"]),
        ("lr = \n", ["run.toml:1", ""]),
    ] {
        std::fs::write(&file, text).unwrap();
        refuse(2, &["train", "--config", path(&file), "--output", path(&output)], &words);
        refuse(2, &["sweep", "--config", path(&file), "--output", path(&output)], &words);
    }
    refuse(2, &["train", "--config", "none.toml"], &["none.toml"]);
    assert!(!output.exists());
}
