//! Makes `embedded.rs`: a `Bundle` for every folder of `assets` that has a model in it. One that has only its card yet is left out.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let assets = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("assets");
    println!("cargo::rerun-if-changed={}", assets.display());
    let bundles: String =
        entries(&assets).iter().filter(|folder| is_model(folder)).map(|folder| bundle(folder)).collect();
    let output = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("embedded.rs");
    fs::write(&output, format!("&[{bundles}]")).expect("cargo's folder can be written");
}

fn is_model(folder: &Path) -> bool {
    ["config.json", "model.safetensors"].iter().all(|name| folder.join(name).is_file())
}

fn bundle(folder: &Path) -> String {
    let files = entries(folder).into_iter().filter(|path| path.is_file());
    let files: String =
        files.map(|path| format!("({:?}, include_bytes!({path:?})), ", name(&path))).collect();
    format!("Bundle {{ name: {:?}, files: &[{files}] }}, ", name(folder))
}

/// What is in a folder, sorted, but for hidden files.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder of assets is part of the crate");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    paths.retain(|path| !name(path).starts_with('.'));
    paths.sort();
    paths
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("the assets' names are plain")
}
