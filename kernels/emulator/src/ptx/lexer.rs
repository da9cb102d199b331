//! Splits PTX text into words, numbers, strings and punctuation, each with its line.

use super::{PtxError, limits};

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A name, a directive, a register or an opcode with its modifiers: `ld.global.f32`, `%r1`, `.reg`, `$L_1`.
    Word(&'a str),
    /// A constant's bits.
    Number(u64),
    /// A number with a point, such as a version: `8.4`.
    Decimal(&'a str),
    /// A string without its quotes.
    Text(&'a str),
    /// Any other character.
    Mark(char),
}

impl std::fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Token::Word(s) | Token::Text(s) | Token::Decimal(s) => write!(f, "{s}"),
            Token::Number(n) => write!(f, "{n}"),
            Token::Mark(c) => write!(f, "{c}"),
        }
    }
}

/// All tokens of `text` with their lines, counted from 1. Comments are left out.
pub fn tokens(text: &str) -> Result<Vec<(Token<'_>, u32)>, PtxError> {
    limits::check(text.len(), limits::TEXT, "bytes of text", 1)?;
    let mut out = Vec::new();
    let (mut rest, mut line) = (text, 1);
    loop {
        let Some(first) = rest.chars().next() else { return Ok(out) };
        let length = if first == '\n' {
            line += 1;
            1
        } else if first.is_whitespace() || first == '\0' {
            first.len_utf8()
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(comment) = rest.strip_prefix("/*") {
            let end = comment.find("*/").ok_or_else(|| unclosed(line, "`*/` after `/*`"))? + 4;
            line += rest[..end].matches('\n').count() as u32;
            end
        } else if first == '"' {
            let end = rest[1..].find(['"', '\n']).filter(|end| rest[1 + end..].starts_with('"'));
            let end = 1 + end.ok_or_else(|| unclosed(line, "a second `\"` in the line"))?;
            out.push((Token::Text(&rest[1..end]), line));
            end + 1
        } else if first.is_ascii_digit() {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
            let digits = &rest[..end];
            let decimal = digits.contains('.') && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            let token = if decimal { Token::Decimal(digits) } else { Token::Number(number(digits, line)?) };
            out.push((token, line));
            end
        } else if first.is_ascii_alphabetic() || "_$%.".contains(first) {
            let end = word_end(rest);
            out.push((Token::Word(&rest[..end]), line));
            end
        } else {
            out.push((Token::Mark(first), line));
            first.len_utf8()
        };
        rest = &rest[length..];
    }
}

fn unclosed(line: u32, expected: &'static str) -> PtxError {
    PtxError::Syntax { line, expected, found: "the end".into() }
}

/// Words contain dots and `::` (`cp.async.shared::cta`), but a single colon ends a label.
fn word_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut end = 1;
    while end < bytes.len() {
        match bytes[end] {
            b if b.is_ascii_alphanumeric() || b"_$%.".contains(&b) => end += 1,
            b':' if text[end..].starts_with("::") => end += 2,
            _ => break,
        }
    }
    end
}

/// `12`, `0x1F`, `017`, `0b11`, `12U`, `0f3F800000` (bits of an f32: 8 digits), `0d...` (of an f64: 16).
fn number(text: &str, line: u32) -> Result<u64, PtxError> {
    let digits = text.strip_suffix('U').unwrap_or(text);
    let radix = |digits: &str, radix| u64::from_str_radix(digits, radix);
    let parsed = match digits.get(..2) {
        Some("0f" | "0F") if digits.len() != 10 => radix("", 16),
        Some("0d" | "0D") if digits.len() != 18 => radix("", 16),
        Some("0f" | "0F" | "0d" | "0D" | "0x" | "0X") => radix(&digits[2..], 16),
        Some("0b" | "0B") => radix(&digits[2..], 2),
        Some(octal) if octal.starts_with('0') => radix(&digits[1..], 8),
        _ => radix(digits, 10),
    };
    parsed.map_err(|_| PtxError::Syntax { line, expected: "a number", found: text.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_numbers_and_marks() {
        let got: Vec<_> =
            tokens("$L_1: @!%p1 cp.async.cg.shared::cta [%r1+-4], 0f3F800000; // note\n0x1F 8.4 \"a b\"")
                .unwrap();
        use Token::*;
        let expected = [
            Word("$L_1"),
            Mark(':'),
            Mark('@'),
            Mark('!'),
            Word("%p1"),
            Word("cp.async.cg.shared::cta"),
            Mark('['),
            Word("%r1"),
            Mark('+'),
            Mark('-'),
            Number(4),
            Mark(']'),
            Mark(','),
            Number(0x3F80_0000),
            Mark(';'),
            Number(31),
            Decimal("8.4"),
            Text("a b"),
        ];
        assert_eq!(got.iter().map(|(token, _)| token.clone()).collect::<Vec<_>>(), expected);
        assert_eq!(got[15].1, 2);
    }

    #[test]
    fn a_wrong_number_is_an_error() {
        for wrong in ["12q", "0x", "0f3F8", "0d3F800000", "18446744073709551616", "1e5", "08", "0x1.8"] {
            assert!(matches!(tokens(wrong), Err(PtxError::Syntax { line: 1, .. })), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_closed_is_an_error() {
        for wrong in ["\n/* a comment\n", "\n\"a text\n\"", "\n/*/"] {
            assert!(matches!(tokens(wrong), Err(PtxError::Syntax { line: 2, .. })), "{wrong}");
        }
        assert_eq!(tokens("/* \n */ \"\"").unwrap(), [(Token::Text(""), 2)]);
    }
}
