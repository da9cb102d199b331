//! Event files that TensorBoard reads while they grow.
//!
//! An event file is a TFRecord file: for each record its length (u64), a checksum of the length (u32), the record, a checksum of
//! the record (u32), all little-endian. A record is an `Event` message in protobuf. Sources: `tensorflow/core/lib/io/record_writer.h`,
//! `tensorflow/core/util/event.proto`, `tensorflow/core/framework/summary.proto`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What the names of event files begin with; TensorBoard looks for it.
pub const PREFIX: &str = "events.out.tfevents.";

/// Writes one event file. Every call is one write to the file, so a reader and a killed run see whole records.
#[derive(Debug)]
pub struct EventWriter<W> {
    file: W,
}

impl EventWriter<File> {
    /// Makes a new event file in a folder: `events.out.tfevents.TIME.HOST`, TIME in seconds since 1970. A file that is there
    /// already is left alone; the next second is taken. TensorBoard reads the files of a folder in the order of their names.
    ///
    /// `purge_step` is the first step that the file will have, where a run goes on after an interruption: TensorBoard then drops
    /// that step and later ones of the files before.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(folder: &Path, host: &str, purge_step: Option<u64>) -> io::Result<(Self, PathBuf)> {
        let host: String =
            host.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        let mut seconds = now() as u64;
        loop {
            let path = folder.join(format!("{PREFIX}{seconds:010}.{host}"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((EventWriter::new(file, purge_step)?, path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => seconds += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

impl<W: Write> EventWriter<W> {
    /// Begins an event file.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn new(file: W, purge_step: Option<u64>) -> io::Result<Self> {
        let mut writer = EventWriter { file };
        let mut version = Message::event(0);
        version.bytes(3, b"brain.Event:2");
        writer.write(&version)?;
        if let Some(step) = purge_step {
            // SessionLog { status: START }.
            let mut log = Message::default();
            log.integer(1, 1);
            let mut event = Message::event(step);
            event.message(7, &log);
            writer.write(&event)?;
        }
        Ok(writer)
    }

    /// Writes numbers of one step.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> io::Result<()> {
        let mut summary = Message::default();
        for (tag, value) in values {
            let mut scalar = Message::default();
            scalar.bytes(1, tag.as_bytes());
            scalar.float(2, *value as f32);
            summary.message(1, &scalar);
        }
        let mut event = Message::event(step);
        event.message(5, &summary);
        self.write(&event)
    }

    /// Writes a text in Markdown, for TensorBoard's tab "Text".
    ///
    /// # Errors
    /// Those of the writer.
    pub fn text(&mut self, step: u64, tag: &str, markdown: &str) -> io::Result<()> {
        /// `DT_STRING` of `types.proto`.
        const STRING: u64 = 7;
        let (mut plugin, mut metadata) = (Message::default(), Message::default());
        plugin.bytes(1, b"text");
        metadata.message(1, &plugin);
        let (mut size, mut shape, mut tensor) = (Message::default(), Message::default(), Message::default());
        size.integer(1, 1);
        shape.message(2, &size);
        tensor.integer(1, STRING);
        tensor.message(2, &shape);
        tensor.bytes(8, markdown.as_bytes());
        let (mut value, mut summary) = (Message::default(), Message::default());
        value.bytes(1, tag.as_bytes());
        value.message(8, &tensor);
        value.message(9, &metadata);
        summary.message(1, &value);
        let mut event = Message::event(step);
        event.message(5, &summary);
        self.write(&event)
    }

    fn write(&mut self, event: &Message) -> io::Result<()> {
        let length = (event.0.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(event.0.len() + 16);
        record.extend(length);
        record.extend(masked_crc32c(&length).to_le_bytes());
        record.extend(&event.0);
        record.extend(masked_crc32c(&event.0).to_le_bytes());
        self.file.write_all(&record)?;
        self.file.flush()
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// A protobuf message as it is encoded: fields of (number, wire type), in any order
/// (<https://protobuf.dev/programming-guides/encoding/>).
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    const VARINT: u64 = 0;
    const FIXED_64: u64 = 1;
    const LENGTH: u64 = 2;
    const FIXED_32: u64 = 5;

    /// An `Event` of now: `wall_time` and `step`.
    fn event(step: u64) -> Self {
        let mut event = Message::default();
        event.varint(1 << 3 | Self::FIXED_64);
        event.0.extend(now().to_le_bytes());
        event.integer(2, step);
        event
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn integer(&mut self, field: u64, value: u64) {
        self.varint(field << 3 | Self::VARINT);
        self.varint(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | Self::FIXED_32);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | Self::LENGTH);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    fn message(&mut self, field: u64, value: &Message) {
        self.bytes(field, &value.0);
    }
}

/// CRC-32C (Castagnoli), rotated and shifted as TFRecord does, so that the checksum of data with checksums in it stays one.
fn masked_crc32c(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (RFC 3720, appendix B.4), a byte at a time.
fn crc32c(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0u32; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    !data.iter().fold(!0u32, |crc, &byte| crc >> 8 ^ TABLE[(crc as u8 ^ byte) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of a message: (number, bytes of the value).
    fn fields(mut data: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(data: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let (&byte, rest) = data.split_first().unwrap();
                *data = rest;
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            value
        }
        let mut out = Vec::new();
        while !data.is_empty() {
            let key = varint(&mut data);
            let length = match key & 7 {
                0 => {
                    out.push((key >> 3, varint(&mut data).to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                2 => varint(&mut data) as usize,
                5 => 4,
                other => panic!("wire type {other}"),
            };
            out.push((key >> 3, data[..length].to_vec()));
            data = &data[length..];
        }
        out
    }

    fn records(mut data: &[u8]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        while !data.is_empty() {
            let length = u64::from_le_bytes(data[..8].try_into().unwrap()) as usize;
            let crc = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().unwrap());
            assert_eq!(crc(8), masked_crc32c(&data[..8]));
            let record = &data[12..12 + length];
            assert_eq!(crc(12 + length), masked_crc32c(record));
            out.push(record.to_vec());
            data = &data[16 + length..];
        }
        out
    }

    #[test]
    fn checksums_are_those_of_rfc_3720() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_file_holds_its_version_its_start_and_numbers_by_step() {
        let mut file = Vec::new();
        let mut writer = EventWriter::new(&mut file, Some(300)).unwrap();
        writer.scalars(300, &[("train/loss", 0.5), ("train/lr", 2e-5)]).unwrap();
        let events: Vec<_> = records(&file).iter().map(|record| fields(record)).collect();
        assert_eq!(events.len(), 3);
        let field = |event: usize, number: u64| {
            events[event].iter().find(|(n, _)| *n == number).map(|(_, value)| value.clone()).unwrap()
        };
        assert_eq!(field(0, 3), b"brain.Event:2");
        assert!(f64::from_le_bytes(field(0, 1).try_into().unwrap()) > 1.7e9);
        assert_eq!(field(1, 2), 300u64.to_le_bytes());
        assert_eq!(fields(&field(1, 7)), [(1, 1u64.to_le_bytes().to_vec())]);
        let values = fields(&field(2, 5));
        assert_eq!(values.len(), 2);
        let lr = fields(&values[1].1);
        assert_eq!(lr[0], (1, b"train/lr".to_vec()));
        assert_eq!(f32::from_le_bytes(lr[1].1.clone().try_into().unwrap()), 2e-5);
    }

    #[test]
    fn two_files_of_one_second_have_two_names_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let (_, first) = EventWriter::create(folder.path(), "a host/ä", None).unwrap();
        let (_, second) = EventWriter::create(folder.path(), "a host/ä", Some(3)).unwrap();
        assert!(first < second, "{first:?} {second:?}");
        assert!(second.to_str().unwrap().ends_with(".a_host__"), "{second:?}");
    }
}
