//! The committed PTX is what the sources give, and the table in `src/table.rs` is what the PTX says.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use vitrine_kernels::{MODULES, Parameter};

include!("../src/hash.rs");

#[test]
fn ptx_is_not_stale() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_eq!(OPTIONS.len(), 2);
    let names: Vec<_> = sources(folder)
        .unwrap()
        .iter()
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let module = MODULES.iter().find(|module| module.name == name);
            let module = module.unwrap_or_else(|| panic!("{name}.cu is not in src/table.rs"));
            let expected = format!("// sha256 {}", hash(path).unwrap());
            let message = "ptx is stale: cargo run -p vitrine-kernels --features nvrtc --bin ptx";
            assert_eq!(module.ptx.lines().next(), Some(&expected[..]), "{name}: {message}");
            name
        })
        .collect();
    assert_eq!(names.len(), MODULES.len());
}

#[test]
fn the_table_is_what_the_ptx_says() {
    for module in MODULES {
        let mut entries = entries(module.ptx);
        for kernel in module.kernels {
            let found = entries.remove(kernel.name);
            let found = found.unwrap_or_else(|| panic!("{}.ptx has no {}", module.name, kernel.name));
            // Addresses and 64-bit integers look alike in PTX.
            let expected: Vec<_> = kernel
                .parameters
                .iter()
                .map(|&parameter| if parameter == Parameter::Pointer { Parameter::U64 } else { parameter })
                .collect();
            assert_eq!(found, expected, "{}", kernel.name);
        }
        assert!(entries.is_empty(), "kernels of {} that the table lacks: {:?}", module.name, entries.keys());
    }
}

#[test]
fn ptx_names_no_folder_and_needs_no_newer_driver() {
    for module in MODULES {
        assert!(
            module.ptx.contains(".version 8.4\n") && module.ptx.contains(".target sm_80"),
            "{}",
            module.name
        );
        for line in module.ptx.lines().filter(|line| line.trim_start().starts_with(".file")) {
            assert!(!line.contains('/'), "{}: {line}", module.name);
        }
    }
}

fn entries(ptx: &str) -> BTreeMap<String, Vec<Parameter>> {
    let mut entries = BTreeMap::new();
    let mut current = None;
    for line in ptx.lines() {
        if let Some((_, rest)) = line.split_once(".entry ") {
            let name = rest.split(['(', ' ']).next().unwrap().to_owned();
            entries.insert(name.clone(), Vec::new());
            current = Some(name);
        }
        if line.starts_with('{') {
            current = None;
        }
        if let (Some(name), Some((_, parameter))) = (&current, line.split_once(".param ")) {
            let parameter = match parameter.split_whitespace().next().unwrap() {
                ".u64" => Parameter::U64,
                ".u32" => Parameter::U32,
                ".f32" => Parameter::F32,
                _ => {
                    let size = parameter.rsplit('[').next().unwrap().split(']').next().unwrap();
                    Parameter::Struct(size.parse().unwrap())
                }
            };
            entries.get_mut(name).unwrap().push(parameter);
        }
    }
    entries
}
