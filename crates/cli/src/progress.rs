//! Progress for people: a line that is drawn over itself on a terminal, a plain line now and then elsewhere; always on standard
//! error.

use crate::output::{is_quiet, note};
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lines in a log that is no terminal come at most this often.
const LINE_EVERY: Duration = Duration::from_secs(15);
/// A terminal's line is drawn at most this often.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// Columns of the bar itself.
const BAR: std::ops::RangeInclusive<usize> = 8..=28;
/// Columns of a terminal that does not say how many it has.
const COLUMNS: usize = 80;

/// Columns of the line that stands on the terminal; 0 for none.
static DRAWN: Mutex<usize> = Mutex::new(0);

/// One job of known length.
pub struct Progress {
    what: &'static str,
    total: usize,
    terminal: bool,
    /// What was done when the first unit ended, and when: a resumed job does not begin at 0, and first units are slow.
    first: Option<(usize, Instant)>,
    last: Option<Instant>,
}

impl Progress {
    /// Starts a job of `total` units.
    pub fn new(what: &'static str, total: usize) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = std::io::stderr().is_terminal() && !dumb;
        Progress { what, total, terminal, first: None, last: None }
    }

    /// Prints something while the bar is out of the way.
    pub fn suspend(&self, print: impl FnOnce()) {
        clear();
        print();
    }

    /// `done` units are behind us. The parts of the message are separated by two spaces, the most important ones first.
    pub fn set(&mut self, done: usize, message: impl Fn() -> String) {
        if is_quiet() {
            return;
        }
        let now = Instant::now();
        let (first, since) = *self.first.get_or_insert((done, now));
        let every = if self.terminal { DRAW_EVERY } else { LINE_EVERY };
        if done < self.total && self.last.is_some_and(|last| now - last < every) {
            return;
        }
        self.last = Some(now);
        // The first unit alone says nothing: a resumed job has not done those before it in this time.
        let left = done
            .checked_sub(first)
            .filter(|&units| units > 0)
            .map(|units| (now - since).as_secs_f64() / units as f64 * self.total.saturating_sub(done) as f64);
        if self.terminal {
            draw(&fitted(self.what, (done, self.total), left, &message(), columns().saturating_sub(1)));
        } else {
            let parts = [
                format!("{} {done}/{}", self.what, self.total),
                message(),
                left.map_or(String::new(), |left| format!("{} left", duration(left))),
            ];
            note(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  "));
        }
    }
}

impl Drop for Progress {
    /// The line goes; what was found is printed by the command.
    fn drop(&mut self) {
        clear();
    }
}

/// A line of at most `width` columns. As that shrinks, it loses the bar, then the name of the job, then parts from the right.
fn fitted(
    what: &str,
    (done, total): (usize, usize),
    left: Option<f64>,
    message: &str,
    width: usize,
) -> String {
    let counted = format!("{done}/{total}");
    let parts: Vec<String> = left
        .map(|left| format!("eta {}", brief(left)))
        .into_iter()
        .chain(message.split("  ").filter(|part| !part.is_empty()).map(str::to_owned))
        .collect();
    let columns = |text: &str| text.chars().count();
    let whole = format!("{what} {counted}  {}", parts.join("  "));
    let room = width.saturating_sub(columns(&whole) + 1);
    if room >= *BAR.start() {
        let bar = room.min(*BAR.end());
        let full = (bar * done.min(total)).checked_div(total).unwrap_or(bar);
        return format!("{what} {}{} {}", "█".repeat(full), "░".repeat(bar - full), &whole[what.len() + 1..]);
    }
    if columns(&whole) <= width {
        return whole;
    }
    let mut line = counted;
    for part in parts {
        if columns(&line) + 1 + columns(&part) > width {
            break;
        }
        line = format!("{line} {part}");
    }
    line.chars().take(width).collect()
}

/// What removes a line of so many columns from a terminal that now has `width`: one that became narrower has broken it over
/// several rows.
fn erased(drawn: usize, width: usize) -> String {
    match drawn.div_ceil(width.max(1)) {
        0 => String::new(),
        1 => "\r\x1b[J".to_owned(),
        rows => format!("\r\x1b[{}A\x1b[J", rows - 1),
    }
}

fn draw(line: &str) {
    let Ok(mut drawn) = DRAWN.lock() else { return };
    // In one write, so that nothing flickers. Standard error may be closed; the run goes on.
    let text = format!("{}{line}", erased(*drawn, columns()));
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    *drawn = line.chars().count();
}

/// Removes the line of a job from the terminal, so that something else can be printed there.
pub fn clear() {
    let Ok(mut drawn) = DRAWN.lock() else { return };
    if *drawn > 0 {
        let _ = std::io::stderr().lock().write_all(erased(*drawn, columns()).as_bytes());
        *drawn = 0;
    }
}

/// Columns of the terminal of standard error, as it is now.
#[cfg(unix)]
fn columns() -> usize {
    // SAFETY: all of the structure is integers, for which zero is a value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes one `winsize` to the address, which is that of one that lives here.
    let answer = unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    if answer == 0 && size.ws_col > 0 { size.ws_col.into() } else { COLUMNS }
}

#[cfg(not(unix))]
fn columns() -> usize {
    COLUMNS
}

/// Seconds for people: 41.3 s, 12 min 04 s, 2 h 05 min.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// The same where there is little room: 41s, 12m, 2h05.
fn brief(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m", whole / 60),
        _ => format!("{}h{:02}", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_for_people() {
        assert_eq!(duration(41.26), "41.3 s");
        assert_eq!(duration(724.0), "12 min 04 s");
        assert_eq!(duration(7500.0), "2 h 05 min");
        assert_eq!([41.2, 724.0, 7500.0].map(brief), ["41s", "12m", "2h05"]);
    }

    #[test]
    fn a_line_fits_every_width() {
        let message = "loss 0.693  lr 2.0e-5  2.3k tok/s";
        let line = |width| fitted("train", (1234, 4689), Some(724.0), message, width);
        assert_eq!(
            line(100),
            "train ███████░░░░░░░░░░░░░░░░░░░░░ 1234/4689  eta 12m  loss 0.693  lr 2.0e-5  2.3k tok/s"
        );
        assert_eq!(line(60), "train 1234/4689  eta 12m  loss 0.693  lr 2.0e-5  2.3k tok/s");
        assert_eq!(line(49), "1234/4689 eta 12m loss 0.693 lr 2.0e-5 2.3k tok/s");
        assert_eq!(line(48), "1234/4689 eta 12m loss 0.693 lr 2.0e-5");
        assert_eq!(line(20), "1234/4689 eta 12m");
        for width in 0..130 {
            assert!(line(width).chars().count() <= width, "{width}: {}", line(width));
        }
        assert!(fitted("eval", (0, 0), None, "", 100).contains("0/0"));
        assert!(
            !fitted("train", (1, 9), None, message, 100).contains("eta"),
            "one unit says nothing of the next"
        );
    }

    #[test]
    fn a_line_that_was_broken_is_removed_whole() {
        assert_eq!(erased(0, 50), "");
        assert_eq!(erased(50, 50), "\r\x1b[J");
        assert_eq!(erased(99, 50), "\r\x1b[1A\x1b[J");
        assert_eq!(erased(101, 50), "\r\x1b[2A\x1b[J");
    }
}
