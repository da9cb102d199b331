//! Opens a page in the browser of the one who sits there.

use crate::output::warn;
use std::process::{Command, Stdio};

/// Asks the system to open an address. A failure is a warning: the address is printed, too.
pub fn open(url: &str) {
    let (program, arguments): (&str, &[&str]) = if cfg!(target_os = "macos") {
        ("open", &[])
    } else if cfg!(windows) {
        ("rundll32", &["url.dll,FileProtocolHandler"])
    } else {
        ("xdg-open", &[])
    };
    let mut command = Command::new(program);
    command.args(arguments).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        // Nobody waits for it; a thread does, so that nothing of it stays.
        Ok(mut child) => drop(std::thread::spawn(move || child.wait())),
        Err(error) => {
            warn(format!("--open: {program} cannot be started ({error}); open the address by hand"));
        }
    }
}
