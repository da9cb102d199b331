//! A step as a Chrome trace, which <https://ui.perfetto.dev> and chrome://tracing open: the JSON array format of "Trace Event
//! Format" (Google, 2016), with a complete event (`"ph": "X"`) for each operation.

use crate::{ReportError, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// The name of the trace of a step, counted from 1.
pub fn file_name(step: usize) -> String {
    format!("trace-step-{step:08}.json")
}

/// Something that took time.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its row in the viewer: "forward", "backward", "update".
    pub track: &'static str,
    /// What was done, such as `linear`.
    pub name: String,
    /// Microseconds since the beginning of the step.
    pub start: f64,
    /// Microseconds that it took.
    pub duration: f64,
    /// Where in the model, such as `encoder.layer.3.attention`.
    pub scope: String,
    /// Shape of the result; empty if it has none.
    pub shape: Vec<usize>,
}

#[derive(Serialize)]
struct Event<'a, A> {
    name: &'a str,
    cat: &'a str,
    ph: &'a str,
    ts: f64,
    dur: f64,
    pid: usize,
    tid: usize,
    args: A,
}

#[derive(Serialize)]
struct SpanArguments<'a> {
    scope: &'a str,
    shape: &'a [usize],
}

#[derive(Serialize)]
struct Name<'a> {
    name: &'a str,
}

/// Writes the spans of one step as a trace. Tracks are numbered in the order of their first span.
///
/// # Errors
/// Those of the writer.
pub fn write(mut file: impl Write, process: &str, spans: &[Span]) -> io::Result<()> {
    let mut tracks: Vec<&str> = Vec::new();
    for span in spans {
        if !tracks.contains(&span.track) {
            tracks.push(span.track);
        }
    }
    let named = |name: &'static str, tid: usize, value| Event {
        name,
        cat: "__metadata",
        ph: "M",
        ts: 0.0,
        dur: 0.0,
        pid: 1,
        tid,
        args: Name { name: value },
    };
    writeln!(file, "[")?;
    serde_json::to_writer(&mut file, &named("process_name", 0, process))?;
    for (index, track) in tracks.iter().enumerate() {
        writeln!(file, ",")?;
        serde_json::to_writer(&mut file, &named("thread_name", index + 1, track))?;
    }
    for span in spans {
        writeln!(file, ",")?;
        let tid = tracks.iter().position(|track| *track == span.track).unwrap_or(0) + 1;
        let args = SpanArguments { scope: &span.scope, shape: &span.shape };
        let (ts, dur) = (span.start, span.duration);
        let event = Event { name: &span.name, cat: span.track, ph: "X", ts, dur, pid: 1, tid, args };
        serde_json::to_writer(&mut file, &event)?;
    }
    writeln!(file, "\n]")
}

/// The time of one operation in a step.
#[derive(Clone, Debug, PartialEq)]
pub struct OpTime {
    /// Its name.
    pub op: String,
    /// How often it was done forward.
    pub calls: usize,
    /// Seconds of all its forward passes.
    pub forward: f64,
    /// Seconds of all its backward passes.
    pub backward: f64,
    /// Seconds of what is neither, such as the optimizer's update.
    pub other: f64,
}

impl OpTime {
    /// Seconds of all.
    pub fn total(&self) -> f64 {
        self.forward + self.backward + self.other
    }
}

#[derive(Deserialize)]
struct ReadEvent {
    name: String,
    #[serde(default)]
    cat: String,
    ph: String,
    #[serde(default)]
    dur: f64,
}

/// The operations in the trace of a step, those that took longest first; none if there is no such trace.
pub(crate) fn read(folder: &Path, step: usize) -> Result<Option<Vec<OpTime>>> {
    let path = folder.join(file_name(step));
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ReportError::Read { path, source }),
    };
    let events: Vec<ReadEvent> =
        serde_json::from_str(&text).map_err(|source| ReportError::Json { path, source })?;
    let mut times: Vec<OpTime> = Vec::new();
    for event in events.into_iter().filter(|event| event.ph == "X") {
        let found = times.iter().position(|time| time.op == event.name).unwrap_or_else(|| {
            let op = event.name.clone();
            times.push(OpTime { op, calls: 0, forward: 0.0, backward: 0.0, other: 0.0 });
            times.len() - 1
        });
        let time = &mut times[found];
        let seconds = event.dur / 1e6;
        match event.cat.as_str() {
            "forward" => (time.forward, time.calls) = (time.forward + seconds, time.calls + 1),
            "backward" => time.backward += seconds,
            _ => time.other += seconds,
        }
    }
    times.sort_by(|a, b| b.total().total_cmp(&a.total()));
    Ok(Some(times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let span = |track, name: &str, start, duration| {
            let (name, scope) = (name.to_owned(), "encoder.layer.0".to_owned());
            Span { track, name, start, duration, scope, shape: vec![3, 4] }
        };
        let spans = [
            span("forward", "linear", 0.0, 250.0),
            span("forward", "gelu", 250.5, 10.0),
            span("backward", "linear", 300.0, 500.0),
            span("update", "adamw", 900.0, 100.0),
        ];
        let mut file = Vec::new();
        write(&mut file, "vitrine train", &spans).unwrap();
        fs::write(folder.path().join(file_name(3)), &file).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&file).unwrap();
        assert_eq!(json[2]["args"]["name"], "backward");
        assert_eq!(json[4]["name"], "linear");
        assert_eq!(json[4]["args"]["shape"], serde_json::json!([3, 4]));
        assert_eq!((json[6]["ts"].as_f64(), json[6]["dur"].as_f64()), (Some(300.0), Some(500.0)));
        assert!(read(folder.path(), 4).unwrap().is_none());
        let times = read(folder.path(), 3).unwrap().unwrap();
        assert_eq!(
            times.iter().map(|time| time.op.as_str()).collect::<Vec<_>>(),
            ["linear", "adamw", "gelu"]
        );
        assert!((times[0].forward - 250e-6).abs() < 1e-12 && (times[0].backward - 500e-6).abs() < 1e-12);
        assert!((times[1].total() - 100e-6).abs() < 1e-12);
    }
}
