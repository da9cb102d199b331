//! A CSV or TSV file. The first byte decides: the extension, and whether columns are named.
#![no_main]

use vitrine_fuzz::{file, tables, target};

target!(|data| {
    let Some((&first, content)) = data.split_first() else { return };
    let path = file(if first & 1 == 0 { "data.csv" } else { "data.tsv" }, content);
    tables::load(&path, first);
});
