//! What a file is by its content, where its name says something else; and files as text.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

use vitrine_bert::refuse_lfs_pointer;

use crate::{Location, Result, TrainError};

/// How files of other kinds begin, what they are, and what to do with them.
const OTHERS: [(&[u8], &str, &str); 14] = [
    (b"PAR1", "a parquet file", "rename it to .parquet"),
    (b"PARE", "an encrypted parquet file, which is not read", "write it without encryption"),
    (
        b"PK\x03\x04",
        "a zip archive or an Excel workbook (.xlsx)",
        "unpack it, or save the sheet as CSV in UTF-8",
    ),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)", "save the sheet as CSV in UTF-8"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it first: gunzip FILE"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it first: unzstd FILE"),
    (b"BZh", "compressed with bzip2", "unpack it first: bunzip2 FILE"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it first: unxz FILE"),
    (b"ARROW1", "an Arrow or Feather file", "write it as parquet: pandas.read_feather(path).to_parquet(new)"),
    (b"FEA1", "a Feather file", "write it as parquet: pandas.read_feather(path).to_parquet(new)"),
    (b"\xff\xff\xff\xff", "an Arrow stream", "write it as parquet: datasets' Dataset.to_parquet(new)"),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV"),
    (b"\x80\x04\x95", "a Python pickle", "write it as parquet: pandas.read_pickle(path).to_parquet(new)"),
    (b"%PDF", "a PDF document", "export its text"),
];

/// Refuses a file that is of another kind by its first bytes. `own` is the kind that is expected, by its first bytes.
pub(super) fn refuse_others(path: &Path, bytes: &[u8], own: &[u8]) -> Result<()> {
    refuse_lfs_pointer(path, bytes)?;
    let other = OTHERS.iter().find(|(start, ..)| bytes.starts_with(start) && *start != own);
    match other {
        Some(&(_, found, advice)) => Err(other_format(path, found, advice)),
        None => Ok(()),
    }
}

/// The error of a file whose extension names no format that is read.
pub(super) fn not_data(path: &Path) -> TrainError {
    let mut start = Vec::new();
    let opened = File::open(path).and_then(|file| file.take(64).read_to_end(&mut start));
    if let Err(source) = opened {
        return TrainError::Read { path: path.to_owned(), source };
    }
    match refuse_others(path, &start, b"") {
        Err(error) => error,
        Ok(()) => TrainError::UnknownFormat { path: path.to_owned() },
    }
}

pub(super) fn other_format(path: &Path, found: &'static str, advice: &'static str) -> TrainError {
    TrainError::OtherFormat { path: path.to_owned(), found, advice }
}

/// A whole file as text, without a byte order mark: UTF-8, or UTF-16 where a byte order mark says so (Excel's "Unicode
/// text").
pub(super) fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|source| TrainError::Read { path: path.to_owned(), source })?;
    let wide: Option<fn([u8; 2]) -> u16> = match bytes.get(..2) {
        Some(b"\xff\xfe") => Some(u16::from_le_bytes),
        Some(b"\xfe\xff") => Some(u16::from_be_bytes),
        _ => None,
    };
    if let Some(unit) = wide {
        let (pairs, rest) = bytes[2..].as_chunks::<2>();
        let text: std::result::Result<String, _> =
            char::decode_utf16(pairs.iter().map(|&pair| unit(pair))).collect();
        return match text {
            Ok(text) if rest.is_empty() => Ok(text),
            _ => Err(other_format(path, "not the UTF-16 that it begins as", "save it as UTF-8")),
        };
    }
    refuse_others(path, &bytes, b"")?;
    let start = &bytes[..bytes.len().min(1000)];
    if start.iter().filter(|&&byte| byte == 0).count() * 3 > start.len() {
        let advice = "save it as UTF-8 (UTF-16 is read where the file begins with a byte order mark)";
        return Err(other_format(path, "binary, or UTF-16 without a byte order mark", advice));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..offset].iter().filter(|&&byte| byte == b'\n').count() as u64;
        TrainError::NotUtf8 { place: Location::line(path, line), offset }
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// Bytes as text, or an error that names the first byte that is not.
pub(super) fn utf8(bytes: Vec<u8>, place: impl FnOnce() -> Location) -> Result<String> {
    String::from_utf8(bytes)
        .map_err(|error| TrainError::NotUtf8 { place: place(), offset: error.utf8_error().valid_up_to() })
}
