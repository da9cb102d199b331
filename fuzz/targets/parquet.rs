//! A parquet file.
#![no_main]

use vitrine_fuzz::{file, tables, target};

target!(|data| tables::load(&file("data.parquet", data), 0));
