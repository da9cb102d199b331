//! A JSON Lines file, or whatever else has its extensions. The first byte decides which, and whether columns are named.
#![no_main]

use vitrine_fuzz::{file, tables, target};

target!(|data| {
    let Some((&first, content)) = data.split_first() else { return };
    let path = file(if first & 1 == 0 { "data.jsonl" } else { "data.json" }, content);
    tables::load(&path, first);
});
