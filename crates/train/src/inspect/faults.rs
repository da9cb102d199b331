//! What is odd about one text.

use std::collections::BTreeSet;

/// Tags that are HTML's; others in angle brackets may be the author's own.
const TAGS: [&str; 24] = [
    "a",
    "b",
    "blockquote",
    "br",
    "center",
    "code",
    "div",
    "em",
    "font",
    "h1",
    "h2",
    "h3",
    "hr",
    "i",
    "img",
    "li",
    "ol",
    "p",
    "pre",
    "span",
    "strong",
    "table",
    "u",
    "ul",
];
/// Entities by name that occur in texts.
const ENTITIES: [&str; 12] =
    ["amp", "apos", "copy", "gt", "hellip", "ldquo", "lt", "mdash", "nbsp", "quot", "rdquo", "rsquo"];

/// The first byte of each kind of fault in a text, where there is one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    pub html: Option<usize>,
    /// The tags and entities, such as `<br>` and `&amp;`.
    pub kinds: BTreeSet<String>,
    pub replacement: Option<usize>,
    pub mojibake: Option<usize>,
    pub control: Option<usize>,
}

impl Faults {
    pub fn of(text: &str) -> Self {
        let mut faults = Faults::default();
        for (at, byte) in text.bytes().enumerate() {
            // Most bytes are letters, with which nothing begins that is looked for here.
            if byte.is_ascii_alphanumeric() || byte == b' ' {
                continue;
            }
            match byte {
                b'<' | b'&' => {
                    if let Some(kind) = markup(&text[at..]) {
                        faults.html.get_or_insert(at);
                        faults.kinds.insert(kind);
                    }
                }
                // A line of a text may end in either way, and be indented.
                b'\n' | b'\r' | b'\t' => {}
                0..b' ' | 0x7f => {
                    faults.control.get_or_insert(at);
                }
                0x80.. if text.is_char_boundary(at) => {
                    let rest = &text[at..];
                    match rest.chars().next() {
                        Some('\u{fffd}') => drop(faults.replacement.get_or_insert(at)),
                        // A mark of the order of bytes has a meaning only at the beginning of a file.
                        Some('\u{80}'..='\u{9f}' | '\u{feff}') => drop(faults.control.get_or_insert(at)),
                        _ => {}
                    }
                    if faults.mojibake.is_none() && is_mojibake(rest) {
                        faults.mojibake = Some(at);
                    }
                }
                _ => {}
            }
        }
        faults
    }
}

/// The tag or entity that a text begins with: `<br>` for `<br />` and `</BR>`, `&amp;`, `&#` for a number.
fn markup(text: &str) -> Option<String> {
    let rest = &text[1..];
    let name_of = |rest: &str| -> String {
        rest.chars()
            .take(10)
            .take_while(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_lowercase())
            .collect()
    };
    if text.starts_with('<') {
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        let name = name_of(rest);
        let ends = rest[name.len()..].starts_with(['>', '/', ' ', '\n', '\t']);
        let closes = ends && rest.bytes().take(300).any(|byte| byte == b'>');
        return (closes && TAGS.contains(&name.as_str())).then(|| format!("<{name}>"));
    }
    if let Some(number) = rest.strip_prefix('#') {
        let name = name_of(number);
        let digits = name.strip_prefix('x').unwrap_or(&name);
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        return (is_number && number[name.len()..].starts_with(';')).then(|| "&#".to_owned());
    }
    let name = name_of(rest);
    (rest[name.len()..].starts_with(';') && ENTITIES.contains(&name.as_str())).then(|| format!("&{name};"))
}

/// Whether a text begins with the UTF-8 of one character that was read as Windows-1252 or Latin-1: `Ã©` for `é`, `â€™` for `’`,
/// `ðŸ˜€` for an emoji. Only those which texts of that kind are full of, since `É»` may be the end of a French quotation.
fn is_mojibake(text: &str) -> bool {
    let mut chars = text.chars().map(|c| legacy_byte(c).unwrap_or(0));
    let mut next = || chars.next().unwrap_or(0);
    let is_rest = |byte: u8| (0x80..0xc0).contains(&byte);
    match next() {
        // U+0080 to U+00FF: Latin letters and signs.
        0xc2 | 0xc3 => is_rest(next()),
        // U+2000 to U+2FFF: quotation marks, dashes, the euro, arrows.
        0xe2 => (0x80..0xc0).contains(&next()) && is_rest(next()),
        // U+FEFF, the mark of the order of bytes.
        0xef => next() == 0xbb && next() == 0xbf,
        // Emoji.
        0xf0 => next() == 0x9f && is_rest(next()) && is_rest(next()),
        _ => false,
    }
}

/// The byte that Windows-1252 has for a character, or Latin-1 where that has none.
fn legacy_byte(c: char) -> Option<u8> {
    /// Windows-1252 from 0x80 to 0x9f; 0 where it has nothing.
    const UPPER: [u16; 32] = [
        0x20ac, 0, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160, 0x2039, 0x0152, 0,
        0x017d, 0, 0, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a,
        0x0153, 0, 0x017e, 0x0178,
    ];
    match u32::from(c) {
        code @ 0..=0xff => Some(code as u8),
        code => UPPER.iter().position(|&upper| u32::from(upper) == code).map(|place| 0x80 + place as u8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_told_from_other_brackets() {
        let kinds = |text: &str| Faults::of(text).kinds.into_iter().collect::<Vec<_>>();
        assert_eq!(
            kinds("good<br /><br />bad <I>x</I> &amp; &#39; &#x2019;"),
            ["&#", "&amp;", "<br>", "<i>"]
        );
        assert_eq!(Faults::of("it is<br/>").html, Some(5));
        for text in [
            "a < b and b > c",
            "<sigh> no",
            "R&B; AT&T",
            "<3",
            "&# ;",
            "i <b",
            "<",
            "&",
            "</",
            "a &nothing;",
            "1<a",
        ] {
            assert_eq!(kinds(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn mojibake_is_told_from_foreign_letters() {
        // What each of these is after it was encoded as UTF-8 and read as Windows-1252 (or Latin-1, where that has no sign).
        for original in ["é", "ü", "’", "“", "–", "€", "…", "£", "\u{a0}", "à", "\u{feff}", "😀", "Á"]
        {
            let wrong: String = original
                .bytes()
                .map(|byte| {
                    (0..=0x2122)
                        .filter_map(char::from_u32)
                        .find(|&c| c as u32 > 0xff && legacy_byte(c) == Some(byte))
                        .unwrap_or(byte.into())
                })
                .collect();
            assert_eq!(Faults::of(&format!("caf{wrong} x")).mojibake, Some(3), "{original}: {wrong:?}");
        }
        for text in
            ["«CAFÉ»", "SÃO PAULO", "Â", "âge", "naïve façade", "10 €", "ðe", "日本語", "Ã", "PÂTÉ", "í»"]
        {
            assert_eq!(Faults::of(text), Faults::default(), "{text}");
        }
    }

    #[test]
    fn control_and_replacement_characters() {
        assert_eq!(Faults::of("line\r\n\ttab"), Faults::default());
        assert_eq!(Faults::of("a\u{1b}[31m").control, Some(1));
        assert_eq!(Faults::of("a\u{85}").control, Some(1));
        assert_eq!(Faults::of("ab\u{7f}").control, Some(2));
        assert_eq!(Faults::of("caf\u{fffd}").replacement, Some(3));
    }
}
