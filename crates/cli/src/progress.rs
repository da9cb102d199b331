//! Progress for people: a bar on a terminal, a line now and then elsewhere; always on standard error.

use crate::output::note;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Lines in a log that is no terminal come at most this often.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// One job of known length.
pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
    what: &'static str,
    started: Instant,
    last_line: Option<Instant>,
}

impl Progress {
    /// Starts a job of `total` units.
    pub fn new(what: &'static str, total: usize) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{prefix} {bar:28} {pos}/{len}  {msg}  {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar =
            ProgressBar::with_draw_target(Some(total as u64), target).with_style(style).with_prefix(what);
        Progress { bar, terminal, what, started: Instant::now(), last_line: None }
    }

    /// Prints something while the bar is out of the way.
    pub fn suspend(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// `done` units are behind us.
    pub fn set(&mut self, done: usize, message: impl Fn() -> String) {
        self.bar.set_position(done as u64);
        if self.terminal {
            self.bar.set_message(message());
            return;
        }
        let total = self.bar.length().unwrap_or(0) as usize;
        if done == total || self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            let elapsed = self.started.elapsed().as_secs_f64();
            let left = elapsed / done.max(1) as f64 * (total - done.min(total)) as f64;
            note(format!("{} {done}/{total}  {}  {} left", self.what, message(), duration(left)));
        }
    }
}

impl Drop for Progress {
    /// The bar goes; what was found is printed by the command.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
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

#[cfg(test)]
mod tests {
    #[test]
    fn durations_for_people() {
        assert_eq!(super::duration(41.26), "41.3 s");
        assert_eq!(super::duration(724.0), "12 min 04 s");
        assert_eq!(super::duration(7500.0), "2 h 05 min");
    }
}
