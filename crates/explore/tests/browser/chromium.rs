//! Headless Chromium, spoken to over its DevTools pipe: JSON messages that end with a zero byte, in on file 3 and out on file 4.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// The longest that a test waits for something. Machines are shared.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bits of a key or click.
pub const ALT: u32 = 1;
pub const SHIFT: u32 = 8;

/// The browser's name; none, said aloud, where there is none.
fn found() -> Option<String> {
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

/// A browser with one page.
pub struct Page {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    /// What the page did meanwhile.
    events: Vec<Value>,
    session: Option<String>,
    last: u64,
    _profile: tempfile::TempDir,
}

impl Page {
    /// A browser with an empty page of this size. None where there is no browser.
    pub fn new(width: u32, height: u32, dark: bool) -> Option<Page> {
        let name = found()?;
        let profile = tempfile::tempdir().unwrap();
        // A shell moves the pipes to where Chromium looks for them, and becomes Chromium.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null", &name]);
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-pipe",
        ]);
        command.args([
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--hide-scrollbars",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = pipes.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(output);
            let mut bytes = Vec::new();
            while reader.read_until(0, &mut bytes).is_ok_and(|count| count > 0) {
                let message = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
                if sender.send(serde_json::from_slice(message).unwrap()).is_err() {
                    return;
                }
                bytes.clear();
            }
        });
        let (events, session) = (Vec::new(), None);
        let mut page = Page { child, input, messages, events, session, last: 0, _profile: profile };
        let target = page.call("Target.createTarget", &json!({"url": "about:blank"}))["targetId"].clone();
        let attached = page.call("Target.attachToTarget", &json!({"targetId": target, "flatten": true}));
        page.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), &json!({}));
        }
        page.resize(width, height);
        let scheme = if dark { "dark" } else { "light" };
        let less = json!({"name": "prefers-reduced-motion", "value": "reduce"});
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}, less]);
        page.call("Emulation.setEmulatedMedia", &json!({"features": features}));
        Some(page)
    }

    /// Sets the size of the window, in CSS pixels. Under 500 px wide it is a phone.
    pub fn resize(&mut self, width: u32, height: u32) {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.call("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// Calls a method of the protocol.
    pub fn call(&mut self, method: &str, params: &Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.input.write_all(format!("{message}\0").as_bytes()).unwrap();
        self.input.flush().unwrap();
        loop {
            let message =
                self.messages.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{method}: {error}"));
            if message["id"] == self.last {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    /// Opens an address and waits for the page to be at rest.
    pub fn open(&mut self, address: &str) {
        self.call("Page.navigate", &json!({"url": address}));
        // The same document with another hash is no new load; either way the page's own script says when it is done.
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'");
        self.rest();
    }

    /// Leaves the page for an empty one.
    pub fn leave(&mut self) {
        self.call("Page.navigate", &json!({"url": "about:blank"}));
        self.wait("location.href === 'about:blank'");
    }

    /// Waits until the page is not busy.
    pub fn rest(&mut self) {
        self.wait("document.documentElement.getAttribute('aria-busy') === 'false'");
    }

    /// Waits until an expression is true.
    pub fn wait(&mut self, expression: &str) {
        let started = Instant::now();
        while self.value(&format!("Boolean({expression})")) != true {
            assert!(started.elapsed() < PATIENCE, "never true: {expression}; {:?}", self.console());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The value of an expression in the page; of a promise, what it resolves to.
    pub fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", &params);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// The text of an element, white space collapsed.
    pub fn text(&mut self, selector: &str) -> String {
        let value = self.value(&format!(
            "document.querySelector({selector:?})?.textContent.replace(/\\s+/g, ' ').trim() ?? null"
        ));
        value.as_str().unwrap_or_else(|| panic!("no {selector}")).to_owned()
    }

    /// How many elements there are.
    pub fn count(&mut self, selector: &str) -> u64 {
        self.value(&format!("document.querySelectorAll({selector:?}).length")).as_u64().unwrap()
    }

    /// An attribute of an element.
    pub fn attribute(&mut self, selector: &str, name: &str) -> String {
        let value = self.value(&format!("document.querySelector({selector:?}).getAttribute({name:?})"));
        value.as_str().unwrap_or_default().to_owned()
    }

    /// Clicks in the middle of an element.
    pub fn click(&mut self, selector: &str, modifiers: u32) {
        let script = format!(
            "(() => {{ const e = document.querySelector({selector:?}); e.scrollIntoView({{block: 'center'}}); \
             const r = e.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]; }})()"
        );
        let place = self.value(&script);
        self.click_at(place[0].as_f64().unwrap(), place[1].as_f64().unwrap(), modifiers);
    }

    /// Clicks at a place of the window.
    pub fn click_at(&mut self, x: f64, y: f64, modifiers: u32) {
        self.point(x, y);
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1, "modifiers": modifiers});
            self.call("Input.dispatchMouseEvent", &event);
        }
    }

    /// Moves the pointer.
    pub fn point(&mut self, x: f64, y: f64) {
        self.call("Input.dispatchMouseEvent", &json!({"type": "mouseMoved", "x": x, "y": y}));
    }

    /// Presses a key, by the name that scripts see.
    pub fn key(&mut self, key: &str) {
        let mut down = json!({"type": "keyDown", "key": key});
        if key.chars().count() == 1 {
            down["text"] = key.into();
        }
        if key == "Enter" {
            down["text"] = "\r".into();
        }
        if key == "Tab" {
            down["windowsVirtualKeyCode"] = 9.into();
        }
        self.call("Input.dispatchKeyEvent", &down);
        self.call("Input.dispatchKeyEvent", &json!({"type": "keyUp", "key": key}));
    }

    /// Replaces the text of a field, as somebody who types would.
    pub fn type_into(&mut self, selector: &str, text: &str) {
        self.click(selector, 0);
        self.value(&format!("document.querySelector({selector:?}).select()"));
        self.call("Input.insertText", &json!({"text": text}));
    }

    /// What the page wrote to the console, what it threw, and what the browser complained of.
    pub fn console(&self) -> Vec<String> {
        let names = ["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"];
        let events = self.events.iter().filter(|event| names.iter().any(|name| event["method"] == *name));
        events.map(|event| event["params"].to_string()).collect()
    }

    /// The addresses that the page requested.
    pub fn requested(&self) -> Vec<String> {
        let events = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        events.map(|event| event["params"]["request"]["url"].as_str().unwrap().to_owned()).collect()
    }

    /// How many requests the page has aborted.
    pub fn aborted(&self) -> usize {
        let failed = self.events.iter().filter(|event| event["method"] == "Network.loadingFailed");
        failed.filter(|event| event["params"]["canceled"] == true).count()
    }

    /// Writes a picture of the whole page into the folder `VITRINE_SCREENSHOTS`, if that is set.
    pub fn screenshot(&mut self, name: &str) {
        self.capture(name, &json!({"captureBeyondViewport": true}));
    }

    /// The same of an element, so much smaller: pictures of many small cells take much space.
    pub fn screenshot_of(&mut self, name: &str, selector: &str, scale: f64) {
        self.value("scrollTo(0, 0)");
        let script = format!(
            "(() => {{ const r = document.querySelector({selector:?}).getBoundingClientRect(); \
             return {{ x: r.left, y: r.top, width: r.width, height: r.height, scale: {scale} }}; }})()"
        );
        let clip = self.value(&script);
        self.capture(name, &json!({"captureBeyondViewport": true, "clip": clip}));
    }

    fn capture(&mut self, name: &str, options: &Value) {
        let Some(folder) = std::env::var_os("VITRINE_SCREENSHOTS") else { return };
        self.value("scrollTo(0, 0)");
        let picture = self.call("Page.captureScreenshot", options);
        let bytes = vitrine_explore::base64::decode(picture["data"].as_str().unwrap()).unwrap();
        std::fs::write(std::path::Path::new(&folder).join(format!("{name}.png")), bytes).unwrap();
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
