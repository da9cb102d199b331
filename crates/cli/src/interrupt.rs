//! Ctrl-C, `kill` and a closed terminal while files are half-written: the work ends at its next step, with a checkpoint where there are any,
//! and then the process ends as it would have at once.

#[cfg(unix)]
mod unix {
    use std::sync::atomic::{AtomicI32, Ordering};

    const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

    /// The signal that came; 0 for none.
    static SEEN: AtomicI32 = AtomicI32::new(0);

    extern "C" fn remember(signal: libc::c_int) {
        let is_second = SEEN.swap(signal, Ordering::Relaxed) != 0;
        // SAFETY: `signal` is async-signal-safe. A second Ctrl-C then ends the process at once.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        if is_second {
            // SAFETY: so is `raise`. A second signal that is another one than the first ends the process as well.
            unsafe { libc::raise(signal) };
        }
    }

    /// While this value lives, a first signal is only remembered.
    pub struct Interrupts([libc::sighandler_t; SIGNALS.len()]);

    impl Interrupts {
        pub fn watch() -> Self {
            // SAFETY: no handler is installed. A file above the shell's limit is an error of writing, not the end.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            Interrupts(SIGNALS.map(|signal| {
                let handler: extern "C" fn(libc::c_int) = remember;
                // SAFETY: the handler stores an atomic and calls `signal`, both of which are allowed in a handler.
                let before = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
                if before == libc::SIG_IGN {
                    // SAFETY: as above. Who started us (nohup, say) wants the signal ignored.
                    unsafe { libc::signal(signal, before) };
                }
                before
            }))
        }

        pub fn seen(&self) -> bool {
            SEEN.load(Ordering::Relaxed) != 0
        }
    }

    impl Drop for Interrupts {
        fn drop(&mut self) {
            for (signal, before) in SIGNALS.into_iter().zip(self.0) {
                // SAFETY: `before` is what `signal` returned for this signal.
                unsafe { libc::signal(signal, before) };
            }
        }
    }

    /// Ends the process by the signal that was remembered, if one was, so that a calling shell sees it.
    pub fn end() {
        let signal = SEEN.load(Ordering::Relaxed);
        if signal != 0 {
            // SAFETY: no `Interrupts` lives any more, so the signal has its own action again.
            unsafe { libc::raise(signal) };
        }
    }
}

#[cfg(not(unix))]
mod other {
    /// Nothing is watched here: a signal ends the process at once.
    pub struct Interrupts;

    impl Interrupts {
        pub fn watch() -> Self {
            Interrupts
        }

        pub fn seen(&self) -> bool {
            false
        }
    }

    pub fn end() {}
}

#[cfg(not(unix))]
pub use other::{Interrupts, end};
#[cfg(unix)]
pub use unix::{Interrupts, end};
