//! What the repository holds is what the sources give; and what the tool refuses.

use super::cuda::{self, Form};
use super::summary::{self, PtxParameter};
use super::{hash, hash_of_text, rust, sources, stem};
use crate::{MODULES, Module};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const AGAIN: &str = "run `cargo run -p vitrine-kernels --features nvrtc --bin ptx`";

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn module_of(path: &Path) -> &'static Module {
    let found = MODULES.iter().find(|module| module.name == stem(path));
    found.unwrap_or_else(|| panic!("no launches of {}: {AGAIN}", path.display()))
}

/// The names of files that differ.
fn differing(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    names.into_iter().filter(|name| a.get(*name) != b.get(*name)).cloned().collect()
}

#[test]
fn ptx_is_not_stale() {
    let held = summary::read(&fs::read_to_string(folder().join("ptx/summary.txt")).unwrap());
    let paths = sources(folder()).unwrap();
    assert!(held.keys().eq(paths.iter().map(|path| stem(path))), "modules: {AGAIN}");
    for path in &paths {
        let part = &held[stem(path)];
        assert_eq!(part.sources, hash(path).unwrap(), "{} has changed: {AGAIN}", path.display());
        let ptx = module_of(path).ptx().unwrap();
        assert_eq!(part.ptx, hash_of_text(&ptx), "the PTX of {} is another: {AGAIN}", path.display());
    }
    assert_eq!(paths.len(), MODULES.len());
}

#[test]
fn launches_are_not_stale() {
    let mut held = BTreeMap::new();
    for entry in fs::read_dir(folder().join("src/generated")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        held.insert(name, fs::read_to_string(path).unwrap());
    }
    let stale = differing(&held, &rust::files(folder()).unwrap());
    assert!(stale.is_empty(), "not what the .cu files give: {stale:?}; {AGAIN}");
}

#[test]
fn the_summary_is_what_the_ptx_says() {
    let text = fs::read_to_string(folder().join("ptx/summary.txt")).unwrap();
    let held = summary::read(&text);
    assert_eq!(summary::write(&held), text, "the summary was edited: {AGAIN}");
    for path in sources(folder()).unwrap() {
        let (module, part) = (module_of(&path), &held[stem(&path)]);
        let ptx = module.ptx().unwrap();
        assert_eq!(part.bytes, ptx.len(), "{}: {AGAIN}", module.name);
        let counts = |rows: Vec<(String, u32)>| rows.into_iter().collect::<BTreeMap<_, _>>();
        let told = part.rows.iter().map(|(name, row)| (name.clone(), row.instructions)).collect();
        let entries = summary::entries(&ptx).into_iter();
        let found = entries.map(|(name, entry)| (name, entry.instructions)).collect();
        assert_eq!(counts(told), counts(found), "{}: instructions: {AGAIN}", module.name);
        // These two come from a compiler that is not here; a kernel has registers, and none spills.
        for (name, row) in &part.rows {
            for resources in row.resources {
                assert!(resources.registers > 0 && resources.spills == 0, "{name}: {resources:?}");
            }
        }
    }
}

/// The compiler's view of the parameters and this package's are one.
#[test]
fn signatures_are_what_the_ptx_says() {
    for path in sources(folder()).unwrap() {
        let (module, file) = (module_of(&path), cuda::read(&path).unwrap());
        let sizes = rust::sizes(&path).unwrap();
        let mut entries = summary::entries(&module.ptx().unwrap());
        assert!(file.kernels.iter().map(|kernel| &kernel.name[..]).eq(module.entries.iter().copied()));
        for kernel in &file.kernels {
            let entry = entries.remove(&kernel.name);
            let entry = entry.unwrap_or_else(|| panic!("{}: the PTX has no {}", module.name, kernel.name));
            let expected: Vec<PtxParameter> = kernel
                .parameters
                .iter()
                .map(|parameter| match (parameter.form, &parameter.base[..]) {
                    (Form::Value, "uint32_t") => PtxParameter::Number(".u32".into()),
                    (Form::Value, "float") => PtxParameter::Number(".f32".into()),
                    (Form::Value, base) if sizes.contains_key(base) => PtxParameter::Bytes(sizes[base]),
                    // Addresses and 64-bit integers look alike in PTX.
                    _ => PtxParameter::Number(".u64".into()),
                })
                .collect();
            assert_eq!(entry.parameters, expected, "{}", kernel.name);
        }
        assert!(entries.is_empty(), "kernels of {} without a launch: {:?}", module.name, entries.keys());
    }
}

#[test]
fn ptx_names_no_folder_and_needs_no_newer_driver() {
    for module in MODULES {
        let ptx = module.ptx().unwrap();
        assert!(ptx.contains(".version 8.4\n") && ptx.contains(".target sm_80"), "{}", module.name);
        // Line information, for the emulator's findings.
        assert!(ptx.contains("\n\t.loc\t"), "{}", module.name);
        for line in ptx.lines().filter(|line| line.trim_start().starts_with(".file")) {
            assert!(!line.contains('/'), "{}: {line}", module.name);
        }
    }
}

/// A copy of the sources with one text replaced.
fn changed(file: &str, from: &str, to: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "cu" || extension == "cuh") {
            fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let path = copy.path().join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from}");
    fs::write(path, text.replace(from, to)).unwrap();
    copy
}

/// Arguments in another order, another number of threads, a structure's field: the launches are stale, and so is the PTX.
#[test]
fn a_change_of_a_kernel_makes_its_launch_stale() {
    let changes = [
        (
            "layer_norm.cu",
            "const float* weight, const float* bias",
            "const float* bias, const float* weight",
            "layer_norm",
        ),
        ("softmax.cu", "MAX_THREADS = 256", "MAX_THREADS = 128", "softmax"),
        ("layer_norm.cuh", "BACKWARD_ROWS = 32", "BACKWARD_ROWS = 16", "mod"),
        ("gemm.cu", "uint32_t m, n, k;\n", "uint32_t n, m, k;\n", "gemm"),
        ("reduce.cu", "float* NULLABLE z", "float* z", "reduce"),
    ];
    let ours = rust::files(folder()).unwrap();
    for (file, from, to, module) in changes {
        let copy = changed(file, from, to);
        let stale = differing(&ours, &rust::files(copy.path()).unwrap());
        assert_eq!(stale, [format!("{module}.rs")], "{from}");
        let paths = [folder(), copy.path()].map(|folder| folder.join(file.replace(".cuh", ".cu")));
        let [before, after] = paths.map(|path| hash(&path).unwrap());
        assert_ne!(before, after, "{from}");
    }
}

/// What would give a launch that is wrong is refused, with a line that names it.
#[test]
fn what_is_not_understood_is_refused() {
    let refusals = [
        ("softmax.cu", "grid(rows)", "grid(row)", "softmax_forward: LAUNCH names row"),
        (
            "cast.cu",
            "LAUNCH(grid(ceil_div(n, BLOCK_ELEMENTS)), block(ELEMENT_THREADS))",
            "",
            "cast_f32_bf16 has no LAUNCH",
        ),
        ("cast.cu", ", block(ELEMENT_THREADS)", "", "LAUNCH needs grid(..) and block(..)"),
        ("cast.cu", "grid(", "shape(", "LAUNCH does not know shape("),
        (
            "cast.cu",
            "uint64_t n) { cast(x, y, n); }\nextern",
            "uint32_t n) { cast(x, y, n); }\nextern",
            "differ in more than types",
        ),
        (
            "movement.cu",
            "const Piece* pieces, float* y, ",
            "const int* pieces, float* y, ",
            "segment_sum: pieces is of an unknown type, int",
        ),
        ("gemm_simt.cu", "  uint32_t reserved;", "", "Gemm: padding at its end"),
        ("elementwise.cu", "float value) { fill", "float* const value) { fill", "fill_f32: not understood"),
    ];
    for (file, from, to, expected) in refusals {
        let copy = changed(file, from, to);
        let refusal = rust::files(copy.path()).unwrap_err();
        assert!(refusal.contains(expected), "{refusal}");
    }
}

/// A change of the compiled code is a line with both numbers.
#[test]
fn changes_are_told() {
    let text = fs::read_to_string(folder().join("ptx/summary.txt")).unwrap();
    let before = summary::read(&text);
    assert_eq!(summary::changes(&before, &before), "");
    let mut after = before.clone();
    let rows = &mut after.get_mut("cast").unwrap().rows;
    let mut row = rows.remove("cast_f32_bf16").unwrap();
    row.resources[1].registers += 3;
    rows.insert("cast_f32_bf16".into(), row);
    let gone = rows.remove("cast_bf16_f32").unwrap();
    rows.insert("cast_new".into(), gone);
    let told = summary::changes(&before, &after);
    let lines: Vec<Vec<&str>> = told.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 3, "{told}");
    assert_eq!((lines[0][0], lines[0][1]), ("-", "cast_bf16_f32"));
    let registers = row.resources[1].registers.to_string();
    assert!(
        lines[1][0] == "cast_f32_bf16" && lines[1].windows(2).any(|pair| pair == [">", &registers]),
        "{told}"
    );
    assert_eq!((lines[2][0], lines[2][1]), ("+", "cast_new"));
}

/// The same text, packed twice, is the same bytes; unpacked, it is the text.
#[test]
fn packing_is_repeatable() {
    let path: PathBuf = super::packed_path(folder(), "gelu");
    let text = super::unpacked(&fs::read(path).unwrap()).unwrap();
    let packed = super::packed(text.as_bytes());
    assert_eq!(packed, super::packed(text.as_bytes()));
    assert_eq!(super::unpacked(&packed).unwrap(), text);
    // No time in the header.
    assert_eq!(packed[4..8], [0; 4]);
}
