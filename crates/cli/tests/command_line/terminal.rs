//! What is shown on a terminal of 50 and of 120 columns, and where there is none.

use crate::common::{path, refuse, succeed, text, tiny, vitrine};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};

/// A terminal of so many columns: its own end and the program's.
fn terminal(columns: u16) -> (OwnedFd, OwnedFd) {
    let (mut own, mut program) = (-1, -1);
    let size = libc::winsize { ws_row: 40, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `openpty` writes a file descriptor to each of the two addresses, and reads `size`; null stands for what is not given.
    let answer = unsafe {
        libc::openpty(
            &raw mut own,
            &raw mut program,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            (&raw const size).cast_mut(),
        )
    };
    assert_eq!(answer, 0, "no pseudo-terminal");
    // SAFETY: both have just been opened, and nobody else has them.
    unsafe { (OwnedFd::from_raw_fd(own), OwnedFd::from_raw_fd(program)) }
}

fn resize(own: &OwnedFd, columns: u16) {
    let size = libc::winsize { ws_row: 40, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one `winsize` from the address.
    assert_eq!(unsafe { libc::ioctl(own.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }, 0);
}

/// Runs the binary on a terminal; everything that it wrote there. `seen` is called with what there is so far.
fn on_terminal(
    columns: u16,
    arguments: &[&str],
    variables: &[(&str, &str)],
    mut seen: impl FnMut(&OwnedFd, &str),
) -> String {
    let (own, program) = terminal(columns);
    let end = || Stdio::from(program.try_clone().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_vitrine"));
    command.args(arguments).stdin(Stdio::null()).stdout(end()).stderr(end());
    command
        .env("CUDA_VISIBLE_DEVICES", "")
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .env_remove("CLICOLOR_FORCE");
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    let mut child = command.envs(variables.iter().copied()).spawn().unwrap();
    // The command holds copies of the program's end, too.
    drop((command, program));
    let mut reader = File::from(own.try_clone().unwrap());
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    // The end is an error here: nobody holds the other side any more.
    while let Ok(count @ 1..) = reader.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
        seen(&own, &String::from_utf8_lossy(&bytes));
    }
    assert!(child.wait().unwrap().success(), "{}", String::from_utf8_lossy(&bytes));
    String::from_utf8(bytes).unwrap()
}

/// What a terminal of so many columns shows in the end, as far as these commands need: letters, `\r`, `\n`, cursor up, erase below,
/// colours. Long lines break.
fn screen(written: &str, columns: usize) -> Vec<String> {
    let mut rows: Vec<Vec<char>> = vec![Vec::new()];
    let (mut row, mut column) = (0, 0);
    let mut chars = written.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' => column = 0,
            '\n' => {
                row += 1;
                if rows.len() <= row {
                    rows.push(Vec::new());
                }
            }
            '\u{1b}' => {
                assert_eq!(chars.next(), Some('['));
                let mut number = String::new();
                let command = loop {
                    match chars.next().unwrap() {
                        c if c.is_ascii_digit() || c == ';' => number.push(c),
                        c => break c,
                    }
                };
                match command {
                    'm' => {}
                    'A' => row -= number.parse::<usize>().unwrap(),
                    'J' => {
                        rows.truncate(row + 1);
                        rows[row].truncate(column);
                    }
                    other => panic!("unknown command {other}"),
                }
            }
            c => {
                if column == columns {
                    (row, column) = (row + 1, 0);
                    if rows.len() <= row {
                        rows.push(Vec::new());
                    }
                }
                let cells = &mut rows[row];
                cells.resize(cells.len().max(column + 1), ' ');
                cells[column] = c;
                column += 1;
            }
        }
    }
    rows.into_iter().map(|row| row.into_iter().collect::<String>().trim_end().to_owned()).collect()
}

const SMALL: [&str; 10] =
    ["--train-samples", "640", "--test-samples", "32", "--epochs", "2", "--batch-size", "16", "--lr", "1e-3"];

/// The lines that were drawn over each other.
fn drawn(written: &str) -> Vec<&str> {
    let lines = written.split(['\r', '\n']).map(|line| line.trim_start_matches("\u{1b}[J"));
    lines.filter(|line| line.contains(" eta ")).collect()
}

#[test]
fn the_line_of_a_run_fits_the_terminal_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    for columns in [50, 120] {
        let output = folder.path().join(columns.to_string());
        let arguments = [&["train", "--model", tiny(), "--output", path(&output)], &SMALL[..]].concat();
        let written = on_terminal(columns, &arguments, &[], |_, _| {});
        let lines = drawn(&written);
        assert!(!lines.is_empty(), "no line was drawn:\n{written}");
        assert!(lines.iter().all(|line| line.chars().count() < columns.into()), "{lines:?}");
        let last = lines.iter().rfind(|line| line.contains("80/80")).unwrap();
        for part in ["eta ", "loss ", "lr ", "tok/s"] {
            assert!(last.contains(part), "{part} is missing from {last:?}");
        }
        assert_eq!(last.contains('█'), columns == 120, "{last:?}");
        let shown = screen(&written, columns.into());
        assert!(shown.iter().all(|line| !line.contains(" eta ")), "a line was left: {shown:#?}");
        let text = shown.join("\n");
        assert!(text.contains("next: vitrine predict --model"), "{text}");
    }
}

#[test]
fn the_line_survives_a_terminal_that_is_resized() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let rows = ["--train-samples", "3200", "--epochs", "1", "--batch-size", "8"];
    let arguments = [&["train", "--model", tiny(), "--output", path(&output)], &rows[..]].concat();
    let mut narrow_from = None;
    let written = on_terminal(120, &arguments, &[], |own, so_far| {
        if narrow_from.is_none() && so_far.matches(" eta ").count() > 3 {
            resize(own, 50);
            narrow_from = Some(so_far.len());
        }
    });
    let narrow_from = narrow_from.expect("the run was long enough to be resized");
    // What is on its way when the size changes may still be wide: one line.
    let after = drawn(&written[narrow_from..]);
    let wide = after.iter().filter(|line| line.chars().count() >= 50).count();
    assert!(after.len() > 3 && wide <= 1, "{wide} of {} lines are too wide", after.len());
    // The wide line that a terminal breaks over rows is removed whole: the cursor goes up.
    assert!(
        written[narrow_from..].contains("\u{1b}[1A\u{1b}[J")
            || written[narrow_from..].contains("\u{1b}[2A\u{1b}[J")
    );
}

#[test]
fn without_a_terminal_there_are_plain_lines_and_quiet_is_quiet() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, more: &[&str]| {
        let output = folder.path().join(name);
        let output =
            vitrine(&[&["train", "--model", tiny(), "--output", path(&output)], &SMALL[..], more].concat());
        assert!(output.status.success());
        (text(&output.stdout), text(&output.stderr))
    };
    let (shown, said) = run("plain", &[]);
    assert!(!said.contains(['\u{1b}', '\r', '█']) && !shown.contains('\u{1b}'), "{said:?}");
    assert!(said.contains("train 80/80  loss ") && said.contains(" left\n"), "{said}");
    assert!(said.contains("options: ") && said.contains(", batch-size 16, lr 0.001, "), "{said}");
    let (quiet_shown, said) = run("quiet", &["-q"]);
    assert_eq!(said, "");
    assert_eq!(quiet_shown.lines().next(), shown.lines().next());
    let (_, said) = run("verbose", &["--verbose"]);
    assert!(said.contains("ready to train") && said.contains("tokens of 640 rows: made"), "{said}");
    refuse(2, &["train", "-q", "-v"], &["--quiet", "--verbose"]);
}

#[test]
fn colours_are_where_a_terminal_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    crate::common::train(&model, &[]);
    let data = folder.path().join("data.csv");
    std::fs::write(&data, "text,label\na<br>b,1\nc,0\n").unwrap();
    let arguments = ["data", "inspect", path(&data)];
    let coloured =
        |variables: &[(&str, &str)]| on_terminal(80, &arguments, variables, |_, _| {}).contains("\u{1b}[");
    assert!(coloured(&[]));
    assert!(!coloured(&[("NO_COLOR", "1")]));
    assert!(!coloured(&[("TERM", "dumb")]));
    assert!(coloured(&[("TERM", "dumb"), ("CLICOLOR_FORCE", "1")]));
    assert!(!succeed(&arguments).contains('\u{1b}'));
}

#[test]
fn help_wraps_at_words() {
    for columns in [50, 120] {
        for arguments in
            [&["train", "--help"][..], &["sweep", "--help"], &["--help"], &["data", "inspect", "--help"]]
        {
            let written = on_terminal(columns, arguments, &[("NO_COLOR", "1")], |_, _| {});
            for line in written.lines().map(|line| line.trim_end_matches('\r')) {
                // A word of its own that is longer, such as a path in an example, stays whole.
                let is_one_word = line.split_whitespace().count() <= 1;
                assert!(line.chars().count() <= columns.into() || is_one_word, "{columns}: {line:?}");
            }
        }
    }
}

#[test]
fn shells_and_man_know_the_command_line() {
    for (shell, word) in [
        ("bash", "_vitrine()"),
        ("zsh", "#compdef vitrine"),
        ("fish", "complete -c vitrine"),
        ("powershell", "Register-ArgumentCompleter"),
        ("elvish", "edit:completion"),
    ] {
        let script = succeed(&["completions", shell]);
        assert!(script.contains(word) && script.contains("truncate"), "{shell}: {word} is missing");
    }
    // A shell that is there accepts its script.
    if let Ok(mut bash) = Command::new("bash").args(["-n"]).stdin(Stdio::piped()).spawn() {
        use std::io::Write;
        bash.stdin.take().unwrap().write_all(succeed(&["completions", "bash"]).as_bytes()).unwrap();
        assert!(bash.wait().unwrap().success());
    }
    refuse(2, &["completions", "csh"], &["csh"]);
    let page = succeed(&["man", "train"]);
    assert!(
        page.contains(".TH VITRINE-TRAIN 1") && page.contains("batch\\-size") && page.contains("Examples"),
        "{page}"
    );
    assert!(succeed(&["man"]).contains(".TH VITRINE 1"));
    refuse(2, &["man", "fly"], &["`fly`", "data inspect"]);
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    succeed(&["man", "--output", path(&pages)]);
    for name in ["vitrine.1", "vitrine-train.1", "vitrine-data-inspect.1", "vitrine-bench-step.1"] {
        assert!(pages.join(name).is_file(), "{name} is missing");
    }
}
