//! `ptx/summary.txt`: what a change of a kernel changes in the compiled code, as text that `git diff` shows.

use std::collections::{BTreeMap, BTreeSet};

/// What ptxas says of a compiled kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of static shared memory of a block.
    pub shared: u32,
    /// The larger of bytes stored and loaded by spills.
    pub spills: u32,
}

/// The devices that kernels are really compiled for.
pub const DEVICES: [&str; 2] = ["sm_80", "sm_90a"];

/// A kernel's line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Instructions in the PTX.
    pub instructions: u32,
    /// For each of [`DEVICES`].
    pub resources: [Resources; 2],
}

/// A module's part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// SHA-256 of its sources and the compiler's options.
    pub sources: String,
    /// SHA-256 of the PTX.
    pub ptx: String,
    /// Bytes of PTX.
    pub bytes: usize,
    /// The kernels by name.
    pub rows: BTreeMap<String, Row>,
}

/// All modules by name.
pub type Summary = BTreeMap<String, Part>;

const HEADER: &str = "\
# Made by the `ptx` tool. Of each module: bytes of PTX, and SHA-256 of its sources and of the PTX; of each kernel: instructions
# in the PTX, and what ptxas says of registers a thread, bytes of static shared memory a block, and bytes of spills.
";

/// The file's text.
pub fn write(summary: &Summary) -> String {
    let mut out = String::from(HEADER);
    for (module, part) in summary {
        put!(out, "\n{module}: {} bytes\n  sources {}\n  ptx     {}\n", part.bytes, part.sources, part.ptx);
        put!(out, "  {:<46}{:>12}", "kernel", "instructions");
        for device in DEVICES {
            put!(out, "{device:>8}: {:>9} {:>6} {:>6}", "registers", "shared", "spills");
        }
        out.push('\n');
        for (kernel, row) in &part.rows {
            put!(out, "  {kernel:<46}{:>12}", row.instructions);
            for Resources { registers, shared, spills } in row.resources {
                put!(out, "{:>9} {registers:>9} {shared:>6} {spills:>6}", "");
            }
            out.push('\n');
        }
    }
    out
}

/// The file read back; what is not understood is left out, and so differs from what is true.
pub fn read(text: &str) -> Summary {
    let mut summary = Summary::new();
    let mut module = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match &words[..] {
            [name, bytes, "bytes"] => {
                let name = name.trim_end_matches(':').to_owned();
                let part = Part { bytes: bytes.parse().unwrap_or_default(), ..Part::default() };
                summary.insert(name.clone(), part);
                module = Some(name);
            }
            [what, rest @ ..] => {
                let Some(part) = module.as_ref().and_then(|name| summary.get_mut(name)) else { continue };
                match (*what, rest) {
                    ("sources", [hash]) => part.sources = (*hash).to_owned(),
                    ("ptx", [hash]) => part.ptx = (*hash).to_owned(),
                    _ => {}
                }
                let numbers: Vec<u32> = rest.iter().filter_map(|number| number.parse().ok()).collect();
                let &[instructions, a, b, c, d, e, f] = &numbers[..] else { continue };
                let resources = [[a, b, c], [d, e, f]].map(|[registers, shared, spills]| Resources {
                    registers,
                    shared,
                    spills,
                });
                part.rows.insert((*what).to_owned(), Row { instructions, resources });
            }
            [] => {}
        }
    }
    summary
}

/// What differs, a line a kernel, with `before > after`, new ones marked + and those that are gone -; empty if nothing does.
pub fn changes(before: &Summary, after: &Summary) -> String {
    let rows = |summary: &Summary| -> BTreeMap<String, Row> {
        summary.values().flat_map(|part| part.rows.clone()).collect()
    };
    let (before, after) = (rows(before), rows(after));
    let columns = |row: &Row| -> Vec<u32> {
        let of = |r: Resources| [r.registers, r.shared, r.spills];
        [row.instructions].into_iter().chain(row.resources.into_iter().flat_map(of)).collect()
    };
    let mut out = String::new();
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let (mark, old, new) = match (before.get(name), after.get(name)) {
            (old, new) if old == new => continue,
            (Some(old), Some(new)) => (' ', old, new),
            (None, Some(new)) => ('+', new, new),
            (Some(old), None) => ('-', old, old),
            (None, None) => continue,
        };
        put!(out, "{mark} {name:<46}");
        for (old, new) in columns(old).into_iter().zip(columns(new)) {
            let cell = if old == new { new.to_string() } else { format!("{old} > {new}") };
            put!(out, "{cell:>14}");
        }
        out.push('\n');
    }
    if out.is_empty() {
        return out;
    }
    let mut head =
        format!("{:<62}{:>14}{:>42}\n  {:<46}{:>14}", "", DEVICES[0], DEVICES[1], "kernel", "instructions");
    for title in ["registers", "shared", "spills"].iter().cycle().take(6) {
        put!(head, "{title:>14}");
    }
    format!("{head}\n{out}")
}

/// A kernel's parameter as PTX declares it: the type of a number, or the bytes of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PtxParameter {
    /// `.u64` (addresses too), `.u32`, `.f32`.
    Number(String),
    /// `.b8 name[N]`.
    Bytes(usize),
}

/// An entry point of PTX.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its parameters in order.
    pub parameters: Vec<PtxParameter>,
    /// Instructions in its body.
    pub instructions: u32,
}

/// The entry points of a PTX text. Instructions are what ends with a semicolon and is no directive.
pub fn entries(ptx: &str) -> BTreeMap<String, Entry> {
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    let mut current = None;
    let mut in_body = false;
    for line in ptx.lines() {
        if let Some((_, rest)) = line.split_once(".entry ") {
            let name = rest.split(['(', ' ']).next().unwrap_or_default().to_owned();
            entries.insert(name.clone(), Entry::default());
            (current, in_body) = (Some(name), false);
        }
        let Some(entry) = current.as_ref().and_then(|name| entries.get_mut(name)) else { continue };
        match line {
            "{" => in_body = true,
            "}" => current = None,
            _ if in_body => {
                let code = line.trim_start();
                let other = code.starts_with("//") || code.starts_with('.') || !code.contains(';');
                entry.instructions += u32::from(!other);
            }
            _ => {
                let Some((_, parameter)) = line.split_once(".param ") else { continue };
                let first = parameter.split_whitespace().next().unwrap_or_default();
                let bytes =
                    parameter.rsplit('[').next().and_then(|rest| rest.split(']').next()?.parse().ok());
                entry.parameters.push(match bytes {
                    Some(bytes) => PtxParameter::Bytes(bytes),
                    None => PtxParameter::Number(first.to_owned()),
                });
            }
        }
    }
    entries
}
