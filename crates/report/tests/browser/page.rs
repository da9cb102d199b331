//! A page in headless Chromium. The page has no scripts; the test adds one to a copy, which writes what it sees into the document.

use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// The browser; none, said aloud, where there is none.
pub fn chromium() -> Option<String> {
    let named = std::env::var("VITRINE_CHROMIUM").ok();
    let names = named.iter().map(String::as_str).chain(["chromium", "chromium-browser", "google-chrome"]);
    let found = names.map(str::to_owned).find(|name| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        // The test runner holds back what `eprintln` writes.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: no chromium; install the Debian package or set VITRINE_CHROMIUM"
        );
    }
    found
}

const MEASURE: &str = r##"
<script>
const seen = { text: {}, count: {}, polylines: {}, circles: {}, bars: {} };
const all = selector => [...document.querySelectorAll(selector)];
for (const svg of all("svg[id]")) {
  const d = Object.fromEntries(Object.entries(svg.dataset).map(([k, v]) => [k, +v]));
  const back = (x, y) => [d.x0 + (x - d.left) / (d.right - d.left) * (d.x1 - d.x0),
                          d.y0 + (d.bottom - y) / (d.bottom - d.top) * (d.y1 - d.y0)];
  seen.polylines[svg.id] = [...svg.querySelectorAll("polyline")].map(line => [...line.points].map(p => back(p.x, p.y)));
  seen.circles[svg.id] = [...svg.querySelectorAll("g.series")].map(
    g => [...g.querySelectorAll("circle")].map(c => back(c.cx.baseVal.value, c.cy.baseVal.value)));
  seen.bars[svg.id] = [...svg.querySelectorAll("rect.bar:not(.marked)")].map(
    r => r.height.baseVal.value / (d.bottom - d.top) * (d.y1 - d.y0));
}
for (const selector of SELECTORS) {
  const found = all(selector);
  seen.text[selector] = found.length ? found[0].textContent.replace(/\s+/g, " ").trim() : "";
  seen.count[selector] = found.length;
}
seen.counts = all("table.matrix td").map(td => +td.dataset.count);
// What cannot be seen: text without a size, and what stands inside of a shape, which draws nothing.
seen.hidden = all("svg text").filter(e => e.textContent && !e.getBoundingClientRect().width).length
  + all("svg line > *, svg polyline > *, svg rect > *, svg circle > :not(title)").length;
seen.shapes = all("svg circle.point").filter(e => e.getBoundingClientRect().width > 3).length;
seen.width = window.innerWidth;
seen.scrollWidth = document.documentElement.scrollWidth;
const bright = color => { const [r, g, b] = color.match(/[\d.]+/g).map(Number); return (r + g + b) / 765; };
const style = getComputedStyle(document.body);
seen.brightness = [bright(style.backgroundColor), bright(style.color)];
const out = document.createElement("template");
out.id = "seen";
out.setAttribute("data-json", encodeURIComponent(JSON.stringify(seen)));
parent.document.body.append(out);
</script>
"##;

/// Texts and counts that tests want to know.
const SELECTORS: [&str; 14] = [
    "title",
    "h1",
    ".banner",
    "blockquote",
    "blockquote img, blockquote br, blockquote script",
    "#evaluation tr[data-metric='Accuracy'] td",
    "#evaluation tr[data-metric='AUROC'] td",
    "#lengths-0",
    "table.ops tbody tr th",
    "#loss g.series",
    "#differences tbody tr th",
    "#differences tbody tr td:last-child",
    "main",
    "h2",
];

/// What a browser saw of a page.
pub struct Page {
    seen: Value,
    /// What it wrote to its console.
    pub console: Vec<String>,
}

impl Page {
    /// Opens the page in a frame of this width.
    pub fn open(chromium: &str, html: &str, width: u32, dark: bool) -> Page {
        let folder = tempfile::tempdir().unwrap();
        let (plain, measured) = (folder.path().join("report.html"), folder.path().join("measured.html"));
        fs::write(&plain, html).unwrap();
        // The copy may run the test's script, which the page's own policy forbids.
        let policy =
            html.find("<meta http-equiv=\"Content-Security-Policy\"").expect("the page has a policy");
        let end = policy + html[policy..].find('>').unwrap() + 1;
        let selectors = serde_json::to_string(&SELECTORS).unwrap();
        let script = MEASURE.replace("SELECTORS", &selectors);
        let copy =
            format!("{}{}", &html[..policy], &html[end..]).replace("</body>", &format!("{script}</body>"));
        // A window has a smallest width, a frame has none.
        let source = copy.replace('&', "&amp;").replace('"', "&quot;");
        let frame =
            format!("<iframe style='border:0;width:{width}px;height:900px' srcdoc=\"{source}\"></iframe>");
        let scheme = "<!doctype html><html style='color-scheme:light dark'><body style='margin:0'>";
        fs::write(&measured, format!("{scheme}{frame}</body></html>")).unwrap();
        let (_, console) = load(chromium, folder.path(), &plain, dark);
        let (dom, _) = load(chromium, folder.path(), &measured, dark);
        let start = dom.find("data-json=\"").unwrap_or_else(|| panic!("the script ran: {dom}")) + 11;
        let encoded = &dom[start..start + dom[start..].find('"').unwrap()];
        Page { seen: serde_json::from_str(&decoded(encoded)).unwrap(), console }
    }

    /// The lines of a plot as values.
    pub fn polylines(&self, id: &str) -> Vec<Vec<(f64, f64)>> {
        serde_json::from_value(self.seen["polylines"][id].clone()).unwrap()
    }

    /// A circle of a plot as values, rounded to what can be drawn.
    pub fn value(&self, id: &str, series: usize, point: usize) -> Option<(f64, f64)> {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        let point = &self.seen["circles"][id][series][point];
        Some((round(point[0].as_f64()?), round(point[1].as_f64()?)))
    }

    /// The heights of a histogram's bars as values, rounded.
    pub fn bars(&self, id: &str) -> Vec<f64> {
        let bars: Vec<f64> = serde_json::from_value(self.seen["bars"][id].clone()).unwrap();
        bars.into_iter().map(f64::round).collect()
    }

    /// The text of the first element of a selector.
    pub fn text(&self, selector: &str) -> String {
        assert!(SELECTORS.contains(&selector), "{selector} is not looked for");
        self.seen["text"][selector].as_str().unwrap().to_owned()
    }

    /// How many elements a selector has.
    pub fn count(&self, selector: &str) -> u64 {
        assert!(SELECTORS.contains(&selector), "{selector} is not looked for");
        self.seen["count"][selector].as_u64().unwrap()
    }

    /// Texts and shapes in plots that cannot be seen.
    pub fn hidden(&self) -> u64 {
        self.seen["hidden"].as_u64().unwrap()
    }

    /// Points that can be seen.
    pub fn visible_points(&self) -> u64 {
        self.seen["shapes"].as_u64().unwrap()
    }

    /// The cells of the confusion matrix.
    pub fn counts(&self) -> Vec<u64> {
        serde_json::from_value(self.seen["counts"].clone()).unwrap()
    }

    /// Width of the window.
    pub fn width(&self) -> u64 {
        self.seen["width"].as_u64().unwrap()
    }

    /// Width of what is in it.
    pub fn scroll_width(&self) -> u64 {
        self.seen["scrollWidth"].as_u64().unwrap()
    }

    /// Of the background and of the text, from 0 for black to 1.
    pub fn brightness(&self) -> [f64; 2] {
        serde_json::from_value(self.seen["brightness"].clone()).unwrap()
    }
}

/// The document after loading, and what was written to the console.
fn load(chromium: &str, folder: &Path, page: &Path, dark: bool) -> (String, Vec<String>) {
    let mut command = Command::new(chromium);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--enable-logging=stderr",
    ]);
    command.args(["--log-level=0", "--virtual-time-budget=2000", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", folder.join("profile").display()));
    command.arg("--window-size=1300,1000");
    // 0 is dark, 1 is light.
    command.arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)));
    let output = command.arg(format!("file://{}", page.display())).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let console = stderr.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
    (String::from_utf8_lossy(&output.stdout).into_owned(), console)
}

/// Text that `encodeURIComponent` wrote.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let hex = std::str::from_utf8(&rest[..2]).unwrap();
            bytes.push(u8::from_str_radix(hex, 16).unwrap());
            rest = &rest[2..];
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}
