//! Records of a delimited text, strictly by RFC 4180: what a lenient reader passes over is a [`Fault`] here.
//!
//! The `csv` crate and pandas read a quote that nobody closes, and text after a closing quote, without a word; rows
//! disappear in them. So the records are split here, and the tests compare them with the crate's on files without faults.

use std::borrow::Cow;

/// How a text is cut into fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    /// An ASCII character.
    pub delimiter: u8,
    /// Whether a field that begins with `"` ends with `"`; otherwise quotes are characters like others.
    pub quoted: bool,
}

/// A line of fields, or several lines where a quoted field holds line breaks.
#[derive(Debug)]
pub(super) struct Record<'a> {
    /// The line on which it starts, from one.
    pub line: u64,
    /// The record as it stands in the text, without its line end.
    pub raw: &'a str,
    pub fields: Vec<Cow<'a, str>>,
    /// The longest quoted field with line breaks: the line on which it opens, and how many breaks it holds.
    pub breaks: Option<(u64, u64)>,
}

/// Why a text has no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A quoted field without an end.
    Unclosed,
    /// Text after a closing quote, which is on this line; and whether a backslash stands before that quote.
    AfterQuote { closed: u64, backslash: bool },
    /// A quoted field after a space.
    SpaceBeforeQuote,
    /// A carriage return inside of a field without quotes.
    CarriageReturn,
}

/// Splits a text into records; blank lines are left out.
pub(super) struct Records<'a> {
    text: &'a str,
    dialect: Dialect,
    at: usize,
    line: u64,
    /// Lines end with a carriage return alone, as on old Macs.
    returns: bool,
    /// Blank lines that were left out.
    pub blank: u64,
    /// Lines of spaces are blank too: a table of one column keeps them.
    pub spaces_are_blank: bool,
}

impl<'a> Records<'a> {
    /// Records from this byte on, which begins this line.
    pub(super) fn new(text: &'a str, at: usize, line: u64, dialect: Dialect) -> Records<'a> {
        let first = text.bytes().position(|byte| byte == b'\r' || byte == b'\n');
        let returns = first.is_some_and(|first| !text[first..].trim_start_matches('\r').starts_with('\n'));
        Records { text, dialect, at, line, returns, blank: 0, spaces_are_blank: false }
    }

    /// Where the next record begins: its byte and its line.
    pub(super) fn position(&self) -> (usize, u64) {
        (self.at, self.line)
    }

    /// The next record; `None` at the end. After a fault there are no more.
    pub(super) fn next(&mut self) -> Result<Option<Record<'a>>, (u64, Fault)> {
        loop {
            if self.at == self.text.len() {
                return Ok(None);
            }
            let spaces = match self.spaces_are_blank {
                true => self.text[self.at..].bytes().take_while(|&byte| byte == b' ').count(),
                false => 0,
            };
            match self.line_end(self.at + spaces) {
                Some(next) => {
                    self.blank += 1;
                    (self.at, self.line) = (next, self.line + 1);
                }
                None if self.at + spaces == self.text.len() => self.at = self.text.len(),
                None => return self.record().map(Some),
            }
        }
    }

    fn record(&mut self) -> Result<Record<'a>, (u64, Fault)> {
        let (start, line) = self.position();
        let mut record = Record { line, raw: "", fields: Vec::new(), breaks: None };
        loop {
            let opened = self.line;
            let field = self.field()?;
            let breaks = self.line - opened;
            if breaks > record.breaks.map_or(0, |(_, most)| most) {
                record.breaks = Some((opened, breaks));
            }
            record.fields.push(field);
            if self.text.as_bytes().get(self.at) == Some(&self.dialect.delimiter) {
                self.at += 1;
                continue;
            }
            record.raw = &self.text[start..self.at];
            if let Some(next) = self.line_end(self.at) {
                (self.at, self.line) = (next, self.line + 1);
            }
            return Ok(record);
        }
    }

    /// A field; leaves `at` on the delimiter, on the line end or at the end of the text.
    fn field(&mut self) -> Result<Cow<'a, str>, (u64, Fault)> {
        if self.dialect.quoted && self.text.as_bytes().get(self.at) == Some(&b'"') {
            return self.quoted_field();
        }
        let start = self.at;
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            if byte == self.dialect.delimiter || byte == b'\n' {
                break;
            }
            if byte == b'\r' {
                if self.line_end(self.at).is_none() {
                    return Err((self.line, Fault::CarriageReturn));
                }
                break;
            }
            self.at += 1;
        }
        let field = &self.text[start..self.at];
        let trimmed = field.trim_matches(' ');
        let quoted = trimmed.len() > 1 && trimmed.starts_with('"') && trimmed.ends_with('"');
        if self.dialect.quoted && quoted {
            return Err((self.line, Fault::SpaceBeforeQuote));
        }
        Ok(field.into())
    }

    fn quoted_field(&mut self) -> Result<Cow<'a, str>, (u64, Fault)> {
        let opened = self.line;
        let mut value = Cow::Borrowed("");
        loop {
            self.at += 1;
            let Some(length) = self.text[self.at..].find('"') else { return Err((opened, Fault::Unclosed)) };
            let piece = &self.text[self.at..self.at + length];
            self.line += self.breaks(piece);
            self.at += length + 1;
            if self.text.as_bytes().get(self.at) == Some(&b'"') {
                // Two quotes are one, and the field goes on.
                value.to_mut().push_str(piece);
                value.to_mut().push('"');
                continue;
            }
            match &mut value {
                Cow::Borrowed(value) => *value = piece,
                Cow::Owned(value) => value.push_str(piece),
            }
            let next = self.text.as_bytes().get(self.at);
            if next.is_none_or(|&byte| byte == self.dialect.delimiter) || self.line_end(self.at).is_some() {
                return Ok(value);
            }
            let backslash = value.contains("\\\"") || value.ends_with('\\');
            return Err((opened, Fault::AfterQuote { closed: self.line, backslash }));
        }
    }

    /// Where the next line begins, if a line ends at this byte.
    fn line_end(&self, at: usize) -> Option<usize> {
        let rest = &self.text.as_bytes()[at..];
        let returns = rest.iter().take_while(|&&byte| byte == b'\r').count();
        match rest.get(returns) {
            // Programs that translate a line end twice leave `\r\r\n`.
            Some(b'\n') => Some(at + returns + 1),
            None if returns > 0 => Some(at + returns),
            _ if returns > 0 && self.returns => Some(at + 1),
            _ => None,
        }
    }

    fn breaks(&self, piece: &str) -> u64 {
        let bytes = piece.as_bytes();
        let lone = |&at: &usize| bytes[at] == b'\r' && bytes.get(at + 1) != Some(&b'\n');
        let returns = if self.returns { (0..bytes.len()).filter(lone).count() } else { 0 };
        (bytes.iter().filter(|&&byte| byte == b'\n').count() + returns) as u64
    }
}
