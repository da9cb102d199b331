//! Generates from the `.cu` files what the repository holds beside them, or compares it: the launches in `src/generated/`, the
//! packed PTX in `ptx/` (by NVRTC 12.4), and `ptx/summary.txt` with what ptxas says of real `sm_80` and `sm_90a` compiles. See
//! the README for the wheels.

mod nvrtc;

use nvrtc::Nvrtc;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use vitrine_kernels::generate::summary::{self, DEVICES, Part, Resources, Row, Summary};
use vitrine_kernels::generate::{hash, hash_of_text, packed, packed_path, rust, sources, stem, unpacked};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ptx: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let (mut check, mut wheels) = (false, std::env::var_os("VITRINE_CUDA_WHEELS").map(PathBuf::from));
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--check") => check = true,
            Some("--wheels") => wheels = arguments.next().map(PathBuf::from),
            _ => return Err(format!("unknown argument {argument:?}; use --check, --wheels DIR").into()),
        }
    }
    let wheels = wheels.ok_or("where are the NVRTC wheels? Give --wheels DIR or VITRINE_CUDA_WHEELS")?;
    let nvrtc = Nvrtc::open(&wheels.join("nvidia"))?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut output = Output { check, stale: Vec::new() };

    let launches = rust::files(folder)?;
    output.keep_only(&folder.join("src/generated"), &launches.keys().cloned().collect::<Vec<_>>())?;
    for (name, text) in &launches {
        output.text(&folder.join("src/generated").join(name), text)?;
    }

    let mut after = Summary::new();
    let mut packed_names = vec!["summary.txt".to_owned()];
    for path in sources(folder)? {
        let name = stem(&path);
        let compiled = nvrtc.compile(&path, "compute_80")?;
        let ptx = relative(&compiled.ptx);
        let part = Part {
            sources: hash(&path)?,
            ptx: hash_of_text(&ptx),
            bytes: ptx.len(),
            rows: rows(&nvrtc, &path, &ptx)?,
        };
        after.insert(name.to_owned(), part);
        output.packed(&packed_path(folder, name), &ptx)?;
        packed_names.push(format!("{name}.ptx.gz"));
    }
    output.keep_only(&folder.join("ptx"), &packed_names)?;
    let path = folder.join("ptx/summary.txt");
    let before = summary::read(&fs::read_to_string(&path).unwrap_or_default());
    output.text(&path, &summary::write(&after))?;
    let changes = summary::changes(&before, &after);
    print!("{}", if changes.is_empty() { "no kernel changed\n" } else { &changes });

    let all = after.values().flat_map(|part| &part.rows);
    let spilling: Vec<&str> = all
        .filter(|(_, row)| row.resources.iter().any(|r| r.spills > 0))
        .map(|(name, _)| &name[..])
        .collect();
    if !spilling.is_empty() {
        return Err(format!("kernels that spill: {}", spilling.join(", ")).into());
    }
    if !output.stale.is_empty() {
        let names = output.stale.join(", ");
        return Err(format!("not what the sources give: {names}; run this without --check").into());
    }
    Ok(())
}

/// The repository's files: written, or only compared.
struct Output {
    check: bool,
    stale: Vec<String>,
}

impl Output {
    fn text(&mut self, path: &Path, text: &str) -> Outcome<()> {
        if fs::read_to_string(path).ok().as_deref() != Some(text) {
            self.replace(path, text.as_bytes())?;
        }
        Ok(())
    }

    /// Compares texts, not bytes: another version of the compressor changes no file.
    fn packed(&mut self, path: &Path, text: &str) -> Outcome<()> {
        let old = fs::read(path).ok().and_then(|bytes| unpacked(&bytes).ok());
        if old.as_deref() != Some(text) {
            self.replace(path, &packed(text.as_bytes()))?;
        }
        Ok(())
    }

    fn replace(&mut self, path: &Path, bytes: &[u8]) -> Outcome<()> {
        if self.check {
            self.stale.push(path.display().to_string());
        } else {
            fs::write(path, bytes)?;
        }
        Ok(())
    }

    /// Files of sources that are gone.
    fn keep_only(&mut self, folder: &Path, names: &[String]) -> Outcome<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if names.iter().any(|name| path.ends_with(name)) {
                continue;
            }
            if self.check {
                self.stale.push(path.display().to_string());
            } else {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// The module's part of the summary.
fn rows(nvrtc: &Nvrtc, path: &Path, ptx: &str) -> Outcome<BTreeMap<String, Row>> {
    let mut rows: BTreeMap<String, Row> = summary::entries(ptx)
        .into_iter()
        .map(|(name, entry)| (name, Row { instructions: entry.instructions, ..Row::default() }))
        .collect();
    for (i, device) in DEVICES.into_iter().enumerate() {
        for (kernel, found) in resources(&nvrtc.compile(path, device)?.log) {
            let row = rows.get_mut(&kernel).ok_or_else(|| format!("{kernel} is not in the PTX"))?;
            row.resources[i] = found;
        }
    }
    Ok(rows)
}

/// `.file` lines with base names only: no path of the machine that generated them.
fn relative(ptx: &str) -> String {
    let mut out = String::with_capacity(ptx.len());
    for line in ptx.trim_end_matches('\0').lines() {
        match (line.trim_start().starts_with(".file"), line.find('"'), line.rfind('/')) {
            (true, Some(open), Some(slash)) => {
                out.push_str(&line[..=open]);
                out.push_str(&line[slash + 1..]);
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// Reads the log of `--ptxas-options=-v`.
fn resources(log: &str) -> Vec<(String, Resources)> {
    let number_before = |line: &str, word: &str| -> u32 {
        let before = line.find(word).map_or("", |at| line[..at].trim_end());
        before.rsplit([' ', ',']).next().and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    let mut rows: Vec<(String, Resources)> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            rows.push((kernel, Resources::default()));
        }
        let Some((_, row)) = rows.last_mut() else { continue };
        row.registers = row.registers.max(number_before(line, "registers"));
        row.shared = row.shared.max(number_before(line, "bytes smem"));
        row.spills = row.spills.max(number_before(line, "bytes spill stores"));
        row.spills = row.spills.max(number_before(line, "bytes spill loads"));
    }
    rows
}
