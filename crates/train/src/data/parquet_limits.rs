//! What a parquet file may cost, checked before the parquet crate decodes it.
//!
//! A few kilobytes can claim billions of values, pages of gigabytes, or lists that never end, and the crate (version 60)
//! believes most of it. So the footer and the headers of the pages are walked first: they have to be whole, to hold the rows
//! that the metadata claims, and to stay in the file's [`Budget`].
//!
//! Source of the layouts: parquet-format's `parquet.thrift`, and Thrift's compact protocol.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use parquet::{
    basic::{Compression, Encoding},
    column::page::{Page, PageMetadata, PageReader},
    errors::ParquetError,
    file::{
        metadata::ColumnChunkMetaData,
        reader::{ChunkReader, Length},
    },
};

use crate::{Location, Result, TrainError};

use super::content::other_format;

const MIB: u64 = 1 << 20;
/// What any file may unpack to.
const SMALL: u64 = 256 * MIB;
/// How many times its size a file may unpack to. Reviews in zstd unpack to 3 times their size, tables of one repeated text
/// to some 30 times.
const RATIO: u64 = 100;
/// Columns of a file, and how deep they may be nested.
const MAX_COLUMNS: usize = 10_000;
const MAX_DEPTH: usize = 64;
/// A page header is some tens of bytes, and statistics of up to two values.
const MAX_HEADER: usize = 1 << 20;

/// What is left of the bytes that a file may unpack to. Pages, dictionaries and rows count.
pub(super) struct Budget {
    place: Location,
    limit: u64,
    left: u64,
}

impl Budget {
    pub(super) fn new(path: &Path, size: u64) -> Budget {
        let limit = SMALL.max(size.saturating_mul(RATIO));
        Budget { place: Location::file(path), limit, left: limit }
    }

    pub(super) fn spend(&mut self, bytes: u64, what: &'static str) -> Result<()> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(TrainError::TooLarge { place: self.place.clone(), what, limit: self.limit / MIB }),
        }
    }
}

/// Checks that a file is parquet with a footer that is whole and not nested without end.
pub(super) fn check_footer(path: &Path, file: &File) -> Result<()> {
    let size = file.len();
    let damaged = |what: &str| damaged(path, what);
    let read = |start: u64, length: u64| {
        file.get_bytes(start, length as usize)
            .map_err(|source| TrainError::Parquet { place: Location::file(path), source })
    };
    let start = read(0, size.min(64))?;
    super::content::refuse_others(path, &start, b"PAR1")?;
    if size < 12 || !start.starts_with(b"PAR1") {
        return Err(damaged("it does not begin as one"));
    }
    let tail = read(size - 8, 8)?;
    if tail.ends_with(b"PARE") {
        return Err(other_format(
            path,
            "an encrypted parquet file, which is not read",
            "write it without encryption",
        ));
    }
    let length = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    if !tail.ends_with(b"PAR1") || length > size - 12 {
        return Err(damaged("its end is missing"));
    }
    let footer = read(size - 8 - length, length)?;
    // Fields 2.4 and 2.5 of `FileMetaData`: a schema element's name, and how many children it has.
    let mut children = Vec::new();
    let mut fields = |field: &[i16], value: i64| match field {
        [2, 4] => children.push(0),
        [2, 5] => children.last_mut().into_iter().for_each(|last| *last = value),
        _ => {}
    };
    let walked = Thrift { bytes: &footer, lists: true, field: Vec::new() }.structure(&mut fields);
    if walked.is_none() {
        return Err(damaged("its footer is not whole"));
    }
    if children.len() > MAX_COLUMNS {
        return Err(damaged("it has more than 10,000 columns"));
    }
    // The elements stand in depth-first order; `open` holds the children that are still to come at each depth.
    let mut open: Vec<i64> = Vec::new();
    for count in children {
        while open.pop_if(|left| *left <= 0).is_some() {}
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        open.push(count);
        if open.len() > MAX_DEPTH {
            return Err(damaged("its columns are nested more than 64 deep"));
        }
    }
    Ok(())
}

/// Checks the headers of a column's pages in one row group of so many rows, and takes what they unpack to from the budget.
pub(super) fn check_column(
    path: &Path,
    file: &File,
    column: &ColumnChunkMetaData,
    rows: u64,
    budget: &mut Budget,
) -> Result<()> {
    let damaged = |what: &str| damaged(path, what);
    refuse_features(path, column)?;
    if column.file_path().is_some() {
        return Err(damaged("a column stands in another file"));
    }
    let (mut at, length) = column.byte_range();
    let end =
        at.checked_add(length).filter(|&end| end <= file.len()).ok_or_else(|| damaged("it is cut off"))?;
    let mut values = 0;
    while at < end {
        let page = page_header(file, at, end).ok_or_else(|| damaged("a page's header is not whole"))?;
        let (packed, unpacked) = (u64::try_from(page.packed), u64::try_from(page.unpacked));
        let (Ok(packed), Ok(unpacked), Ok(count)) = (packed, unpacked, u64::try_from(page.values)) else {
            return Err(damaged("a page of negative size"));
        };
        let start = at + page.length;
        at = start + packed;
        if at > end {
            return Err(damaged("a page is longer than its column"));
        }
        budget.spend(unpacked, "its pages unpack to too much")?;
        if page.dictionary {
            // A value takes at least a byte there, and the crate makes room for all of them.
            if count > unpacked {
                return Err(damaged("a dictionary claims more values than it has room for"));
            }
            budget.spend(count * 32, "its dictionaries unpack to too much")?;
        } else {
            values += count;
        }
        if matches!(column.compression(), Compression::GZIP(_)) && page.compressed {
            let levels = page.levels.clamp(0, page.packed) as u64;
            let packed = file
                .get_read(start + levels)
                .map_err(|_| damaged("it is cut off"))?
                .take(at - start - levels);
            // The crate unpacks all that there is, whatever the header says.
            let mut unpacker = MultiGzDecoder::new(packed).take(unpacked + 1);
            if io::copy(&mut unpacker, &mut io::sink()).unwrap_or(0) > unpacked {
                return Err(damaged("a page unpacks to more than it says"));
            }
        }
    }
    if values != rows {
        return Err(damaged("its pages do not hold as many values as it has rows"));
    }
    Ok(())
}

fn refuse_features(path: &Path, column: &ColumnChunkMetaData) -> Result<()> {
    let how = match column.compression() {
        Compression::BROTLI(_) => "compressed with Brotli",
        Compression::LZO => "compressed with LZO",
        // Its values grow from each other without bound, and its counts stand where they cannot be checked.
        _ if column.encodings().any(|encoding| encoding == Encoding::DELTA_BYTE_ARRAY) => {
            "encoded with DELTA_BYTE_ARRAY"
        }
        _ => return Ok(()),
    };
    Err(TrainError::ParquetFeature { path: path.to_owned(), how })
}

/// What a page's header says.
#[derive(Default)]
struct PageHeader {
    /// Bytes of the header.
    length: u64,
    dictionary: bool,
    unpacked: i64,
    packed: i64,
    /// Values, nulls included.
    values: i64,
    /// Bytes of levels before what is compressed (version 2).
    levels: i64,
    compressed: bool,
}

fn page_header(file: &File, at: u64, end: u64) -> Option<PageHeader> {
    let mut header = PageHeader { compressed: true, ..PageHeader::default() };
    for most in [4096, MAX_HEADER] {
        let window = (end - at).min(most as u64);
        let bytes = file.get_bytes(at, window as usize).ok()?;
        // Fields of `PageHeader`: 5 is a data page, 7 a dictionary, 8 a data page of version 2.
        let mut fields = |field: &[i16], value: i64| match field {
            [1] => header.dictionary = value == 2,
            [2] => header.unpacked = value,
            [3] => header.packed = value,
            [5 | 7 | 8, 1] => header.values = value,
            [8, 5] => header.levels = value,
            [8, 6] => header.levels = header.levels.saturating_add(value),
            [8, 7] => header.compressed = value == 1,
            _ => {}
        };
        // No field of a page's header is a list.
        let mut thrift = Thrift { bytes: &bytes, lists: false, field: Vec::new() };
        if thrift.structure(&mut fields).is_some() {
            header.length = window - thrift.bytes.len() as u64;
            return Some(header);
        }
        header = PageHeader { compressed: true, ..PageHeader::default() };
    }
    None
}

/// A walk over a structure of Thrift's compact protocol, which takes at most as many steps as there are bytes.
struct Thrift<'a> {
    bytes: &'a [u8],
    lists: bool,
    /// The field that is read: its number in the outermost structure, then in the next; lists add none.
    field: Vec<i16>,
}

impl Thrift<'_> {
    /// Reads a structure and gives its numbers, booleans (as 0 and 1) and the lengths of its strings to `seen`; `None` if
    /// it is not whole, too deep, or has something that parquet has not.
    fn structure(&mut self, seen: &mut dyn FnMut(&[i16], i64)) -> Option<()> {
        if self.field.len() > MAX_DEPTH {
            return None;
        }
        let mut number = 0_i16;
        loop {
            let byte = self.byte()?;
            if byte & 15 == 0 {
                return Some(());
            }
            number = match byte >> 4 {
                0 => i16::try_from(self.integer()?).ok()?,
                step => number.checked_add(step.into())?,
            };
            self.field.push(number);
            match byte & 15 {
                kind @ (1 | 2) => seen(&self.field, i64::from(kind == 1)),
                kind => self.value(kind, 0, seen)?,
            }
            self.field.pop();
        }
    }

    fn value(&mut self, kind: u8, depth: usize, seen: &mut dyn FnMut(&[i16], i64)) -> Option<()> {
        match kind {
            3 => {
                self.byte()?;
            }
            4..=6 => {
                let value = self.integer()?;
                seen(&self.field, value);
            }
            7 => self.skip(8)?,
            8 => {
                let length = self.unsigned()?;
                self.skip(length)?;
                seen(&self.field, length as i64);
            }
            9 if self.lists && depth < MAX_DEPTH => {
                let byte = self.byte()?;
                let count = if byte >> 4 == 15 { self.unsigned()? } else { u64::from(byte >> 4) };
                // Every element takes a byte at least; booleans, of which some readers think otherwise, are in no list.
                if count > self.bytes.len() as u64 || (count > 0 && matches!(byte & 15, 1 | 2)) {
                    return None;
                }
                for _ in 0..count {
                    self.value(byte & 15, depth + 1, seen)?;
                }
            }
            12 => self.structure(seen)?,
            _ => return None,
        }
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes.split_off_first().copied()
    }

    fn skip(&mut self, length: u64) -> Option<()> {
        self.bytes.split_off(..usize::try_from(length).ok()?).map(|_| ())
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Some(value);
            }
        }
        None
    }

    fn integer(&mut self) -> Option<i64> {
        let value = self.unsigned()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}

/// The pages of a column, each checked for claims that only show once it is unpacked.
pub(super) struct CheckedPages {
    pub pages: Box<dyn PageReader>,
    /// Whether the column has definition levels.
    pub nullable: bool,
}

impl CheckedPages {
    fn check(&self, page: &Page) -> std::result::Result<(), ParquetError> {
        let (body, encoding) = match page {
            Page::DictionaryPage { .. } => return Ok(()),
            Page::DataPage { buf, encoding, .. } => {
                // Levels are a length of four bytes and what it counts.
                let levels = match buf.get(..4).and_then(|length| length.try_into().ok()) {
                    Some(length) if self.nullable => 4 + u32::from_le_bytes(length) as usize,
                    _ => 0,
                };
                (buf.get(levels..), encoding)
            }
            Page::DataPageV2 { buf, encoding, def_levels_byte_len, rep_levels_byte_len, .. } => {
                let levels = u64::from(*def_levels_byte_len) + u64::from(*rep_levels_byte_len);
                (buf.get(levels as usize..), encoding)
            }
        };
        let error = |what: &str| Err(ParquetError::General(what.to_owned()));
        match encoding {
            // The metadata names it where a file is not damaged: see `refuse_features`.
            Encoding::DELTA_BYTE_ARRAY => error("a page has another encoding than its column"),
            Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BINARY_PACKED => {
                // Block size, blocks, and the count of values, for which the crate makes room.
                let mut header = Thrift { bytes: body.unwrap_or_default(), lists: false, field: Vec::new() };
                let count = (0..3).map(|_| header.unsigned()).last().flatten();
                match count.is_some_and(|count| count <= u64::from(page.num_values())) {
                    true => Ok(()),
                    false => error("a page claims more values than it has"),
                }
            }
            _ => Ok(()),
        }
    }
}

impl Iterator for CheckedPages {
    type Item = std::result::Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> std::result::Result<Option<Page>, ParquetError> {
        let page = self.pages.get_next_page()?;
        if let Some(page) = &page {
            self.check(page)?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> std::result::Result<Option<PageMetadata>, ParquetError> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> std::result::Result<(), ParquetError> {
        self.pages.skip_next_page()
    }
}

fn damaged(path: &Path, what: &str) -> TrainError {
    TrainError::Parquet { place: Location::file(path), source: ParquetError::General(what.to_owned()) }
}
