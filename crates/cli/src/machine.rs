//! What this machine is and what the process used of it, for `run.json`, `doctor` and `bench`.

use serde::Serialize;
use std::fs;
use vitrine_tensor::cpu::isa::Isa;
use vitrine_tensor::cpu::parallel;

/// The machine, as recorded beside every figure.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Processor name.
    pub processor: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// Main memory in bytes; none where the system does not say.
    pub memory_bytes: Option<u64>,
    /// Operating system and architecture.
    pub platform: String,
    /// The instruction set in use.
    pub isa: String,
    /// The instruction sets that could be used.
    pub isas_available: Vec<String>,
    /// Threads in use.
    pub threads: usize,
    /// Vitrine's version.
    pub vitrine: &'static str,
}

impl Machine {
    /// Looks at this machine.
    pub fn look() -> Self {
        Machine {
            processor: processor(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_bytes(),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            isa: Isa::current().to_string(),
            isas_available: Isa::available().iter().map(ToString::to_string).collect(),
            threads: parallel::threads(),
            vitrine: env!("CARGO_PKG_VERSION"),
        }
    }
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// The first number after a key in a `/proc` file of `key value` lines.
fn field(path: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

/// Main memory, in bytes (Linux; none elsewhere).
pub fn memory_bytes() -> Option<u64> {
    field("/proc/meminfo", "MemTotal:").map(|kib| kib * 1024)
}

/// The largest resident size of this process so far, in bytes (Linux; none elsewhere).
pub fn peak_rss_bytes() -> Option<u64> {
    field("/proc/self/status", "VmHWM:").map(|kib| kib * 1024)
}

/// Memory that could be used now, in bytes (Linux; none elsewhere).
pub fn available_memory_bytes() -> Option<u64> {
    field("/proc/meminfo", "MemAvailable:").map(|kib| kib * 1024)
}

/// Seconds that this process has spent in user code and in the kernel (Linux; none elsewhere).
pub fn cpu_seconds() -> Option<(f64, f64)> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // Fields 14 and 15, counted after the command name, which is in parentheses and may hold spaces.
    let after_name = text.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    // The kernel counts in hundredths of a second on every architecture (USER_HZ).
    let mut ticks = || Some(fields.next()?.parse::<f64>().ok()? / 100.0);
    Some((ticks()?, ticks()?))
}
