//! The files of the page, and all of them as one.

use crate::base64;
use crate::contract::Snapshot;
use sha2::{Digest, Sha256};

/// What the server sends as `Content-Security-Policy` with every answer.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data: blob:; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! files {
    ($($name:literal $mime:ident),* $(,)?) => {
        &[$(($name, $mime, include_bytes!(concat!("../page/", $name)))),*]
    };
}

/// The page: name, MIME type, content. `index.html` is also what `/` serves. A module comes after those that it imports.
pub const FILES: &[(&str, &str, &[u8])] = files![
    "index.html" HTML,
    "style.css" CSS,
    "dom.js" SCRIPT,
    "colors.js" SCRIPT,
    "state.js" SCRIPT,
    "server.js" SCRIPT,
    "tokens.js" SCRIPT,
    "svg.js" SCRIPT,
    "prediction.js" SCRIPT,
    "attributions.js" SCRIPT,
    "overview.js" SCRIPT,
    "head.js" SCRIPT,
    "lines.js" SCRIPT,
    "attention.js" SCRIPT,
    "lens.js" SCRIPT,
    "keys.js" SCRIPT,
    "main.js" SCRIPT,
];

fn text_of(name: &str) -> &'static str {
    let (_, _, bytes) =
        FILES.iter().find(|(file, _, _)| *file == name).expect("internal: a file of the page");
    std::str::from_utf8(bytes).expect("internal: the page is UTF-8")
}

/// All modules as one.
///
/// No bundler is needed, because the modules keep three rules, which the tests of this file check: an import is one line and names a
/// module before it in [`FILES`]; `export` stands before a declaration at the beginning of a line; no two modules declare the same
/// name. So imports can be left out, and `export` too.
fn one_module() -> String {
    let modules = FILES.iter().filter(|(_, mime, _)| *mime == SCRIPT);
    let lines = modules.flat_map(|(name, _, _)| text_of(name).lines());
    let kept = lines.filter(|line| !line.starts_with("import "));
    kept.flat_map(|line| [line.strip_prefix("export ").unwrap_or(line), "\n"]).collect()
}

/// A text as the source list of a policy names it.
fn hash_of(text: &str) -> String {
    format!("'sha256-{}'", base64::encode(&Sha256::digest(text)))
}

/// The page with recorded answers as one file, which opens without a server and loads nothing. Its own policy allows its own script
/// and style by their hashes, and no connection at all.
pub fn self_contained(snapshot: &Snapshot) -> String {
    let (script, style) = (one_module(), text_of("style.css"));
    // A browser ends a script at `</script`, wherever it stands. `<` occurs in strings of JSON only, where it may be escaped.
    let data = serde_json::to_string(snapshot).expect("internal: JSON of JSON").replace('<', "\\u003c");
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; img-src data: blob:; form-action 'none'; base-uri 'none'",
        hash_of(&script),
        hash_of(style)
    );
    let head = "<meta charset=\"utf-8\">\n";
    let parts = [
        (head, format!("{head}<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n")),
        ("<link rel=\"stylesheet\" href=\"style.css\">\n", format!("<style>{style}</style>\n")),
        (
            "<script type=\"module\" src=\"main.js\"></script>\n",
            format!(
                "<script type=\"application/json\" id=\"snapshot\">{data}</script>\n<script type=\"module\">{script}</script>\n"
            ),
        ),
    ];
    // Each part is looked for behind the one before, so what was put in is never searched.
    let (mut page, mut rest) = (String::new(), text_of("index.html"));
    for (mark, replacement) in parts {
        let (before, after) = rest.split_once(mark).expect("internal: index.html has this line");
        page.push_str(before);
        page.push_str(&replacement);
        rest = after;
    }
    page + rest
}

#[cfg(test)]
mod tests {
    use super::{FILES, SCRIPT, one_module, self_contained, text_of};
    use crate::contract::{Answer, Snapshot};
    use std::collections::HashSet;

    fn modules() -> impl Iterator<Item = (&'static str, &'static str)> {
        FILES.iter().filter(|(_, mime, _)| *mime == SCRIPT).map(|(name, _, _)| (*name, text_of(name)))
    }

    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/page")).unwrap();
        let found: HashSet<String> =
            folder.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(found, FILES.iter().map(|(name, _, _)| (*name).to_owned()).collect());
    }

    #[test]
    fn imports_are_one_line_and_name_modules_and_names_before() {
        let mut before: Vec<(&str, &str)> = Vec::new();
        for (name, text) in modules() {
            for line in text.lines().filter(|line| line.starts_with("import")) {
                let (names, from) = line
                    .strip_prefix("import { ")
                    .and_then(|line| line.strip_suffix("\";")?.split_once(" } from \"./"))
                    .unwrap_or_else(|| panic!("{name}: {line}"));
                let (_, source) = before.iter().find(|(module, _)| *module == from).unwrap_or_else(|| {
                    panic!("{name} imports {from}, which does not stand before it in FILES")
                });
                for each in names.split(", ") {
                    let exported = source.lines().filter(|line| line.starts_with("export "));
                    let declares = |line: &str| declared(line).is_some_and(|name| name == each);
                    assert!(exported.clone().any(declares), "{name}: {from} exports no {each}");
                }
            }
            before.push((name, text));
        }
    }

    /// The name that a line declares, if it begins a declaration.
    fn declared(line: &str) -> Option<&str> {
        let line = line.strip_prefix("export ").unwrap_or(line);
        let line = line.strip_prefix("async ").unwrap_or(line);
        let kinds = ["function ", "class ", "const ", "let "];
        let rest = kinds.into_iter().find_map(|kind| line.strip_prefix(kind))?;
        Some(&rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())])
    }

    #[test]
    fn no_two_modules_declare_the_same_name() {
        let mut names = HashSet::new();
        for (module, text) in modules() {
            for line in text.lines().filter(|line| line.starts_with("export")) {
                assert!(declared(line).is_some(), "{module}: `export` stands before a declaration: {line}");
            }
            for line in text.lines().filter(|line| !line.starts_with("const [")) {
                if let Some(name) = declared(line) {
                    assert!(!name.is_empty() && names.insert(name), "{module} declares {name} a second time");
                }
            }
        }
        assert!(names.len() > 60, "{}", names.len());
        assert!(!one_module().contains("\nimport ") && !one_module().contains("\nexport "));
    }

    #[test]
    fn nothing_of_the_page_is_inline_or_from_elsewhere() {
        let html = text_of("index.html");
        assert!(!html.contains("style=") && !html.contains("<style"), "no inline style");
        let handler = html.split_whitespace().find(|word| word.starts_with("on") && word.contains('='));
        assert_eq!(handler, None);
        for (name, text) in modules().chain([("style.css", text_of("style.css"))]) {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http:") && !text.contains("https:") && !text.contains("url("), "{name}");
            assert!(
                !text.to_lowercase().contains("</s") && !text.contains("<!--"),
                "{name} would end its own element"
            );
            assert!(text.lines().count() <= 300, "{name} is long");
        }
    }

    #[test]
    fn a_saved_page_cannot_be_ended_by_its_data() {
        let text = "</script><script>alert(1)</script><!-- \u{2028}";
        let hash = "#text=%3C%2Fscript%3E".to_owned();
        let answers = vec![Answer::new("/api/run", text, text).unwrap()];
        let page = self_contained(&Snapshot { hash, answers });
        assert_eq!(page.matches("</script").count(), 2, "the data's end and the module's");
        assert_eq!(page.matches("<!--").count(), 0);
        let (_, data) = page.split_once("id=\"snapshot\">").unwrap();
        let read: Snapshot = serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap();
        assert_eq!(read.answers[0].response, text);
    }
}
