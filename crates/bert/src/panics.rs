//! [`caught`]: a panic inside a library becomes an error.
//!
//! Libraries that read files of others check most of what they read, and panic on some of the rest. A damaged file is no bug
//! of the program that was given it, so what enters such a library goes through this door.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// What a library said when it panicked, on one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Panicked(pub String);

/// Runs `f`, and nothing of a panic inside of it is printed. It works on every thread, the workers of a pool included, and
/// catches what `f` does on its own thread; work that `f` gives to other threads needs a door of its own there.
///
/// What `f` has changed when it panics stays changed: use it where a failure ends the use of that state.
///
/// # Errors
/// [`Panicked`], with the message of the panic.
pub fn caught<T>(f: impl FnOnce() -> T) -> Result<T, Panicked> {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                previous(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    QUIET.set(before);
    result.map_err(|payload| Panicked(message(&*payload)))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    // A message of several lines, or with what a terminal obeys, is still one line.
    text.split(|c: char| c.is_control() || c.is_whitespace())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use vitrine_tensor::cpu::parallel;

    #[test]
    fn a_panic_is_an_error_and_a_value_a_value() {
        assert_eq!(caught(|| 7), Ok(7));
        let number = 3;
        assert_eq!(
            caught(|| panic!("at {number}\nof \x1b[31mred")),
            Err::<(), _>(Panicked("at 3 of [31mred".into()))
        );
        assert_eq!(caught(|| panic!("plain")), Err::<(), _>(Panicked("plain".into())));
        assert_eq!(caught(|| panic::panic_any(1)), Err::<(), _>(Panicked("no message".into())));
        // A door inside of a door leaves the outer one closed.
        let outer = caught(|| {
            let _ = caught(|| panic!("inner"));
            panic!("outer")
        });
        assert_eq!(outer, Err::<(), _>(Panicked("outer".into())));
    }

    #[test]
    fn workers_of_a_pool_have_the_door_too() {
        let results = parallel::with_threads(3, || {
            parallel::map(0..100, |_, n| caught(|| if n % 2 == 0 { n } else { panic!("{n}") }))
        });
        for (n, result) in results.into_iter().enumerate() {
            assert_eq!(result, if n % 2 == 0 { Ok(n) } else { Err(Panicked(n.to_string())) });
        }
    }
}
