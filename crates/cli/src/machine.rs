//! What this machine is and what the process used of it, for `run.json`, `doctor` and `bench`.

use serde::Serialize;
use std::fs;
use std::path::{Component, Path, PathBuf};
use vitrine_tensor::cpu::isa::Isa;
use vitrine_tensor::cpu::parallel;

/// The machine, as recorded beside every figure.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Processor name.
    pub processor: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// Memory that this process may use, in bytes; none where the system does not say.
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

/// The first number after a key in the text of a file of `key value` lines.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

/// The memory that this process may use at most, in bytes: the machine's, or what its container, control group or `ulimit -v`
/// leaves of it (Linux; none elsewhere).
pub fn memory_bytes() -> Option<u64> {
    Memory::look(Path::new("/")).map(|memory| memory.limit)
}

/// Whether something else than the size of main memory limits this process.
pub fn memory_is_limited() -> bool {
    Memory::look(Path::new("/")).is_some_and(|memory| memory.limit < memory.machine)
}

/// Memory that could be used now, in bytes: of the machine, and in every control group around this process (Linux; none
/// elsewhere).
pub fn available_memory_bytes() -> Option<u64> {
    Memory::look(Path::new("/")).map(|memory| memory.available)
}

/// The largest resident size of this process so far, in bytes (Linux; none elsewhere).
pub fn peak_rss_bytes() -> Option<u64> {
    field(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:").map(|kib| kib * 1024)
}

/// Bytes of main memory, as the kernel's files say them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    machine: u64,
    limit: u64,
    available: u64,
}

/// A kind of control group: where its folders are, and what its files are called
/// (<https://docs.kernel.org/admin-guide/cgroup-v2.html>, <https://docs.kernel.org/admin-guide/cgroup-v1/memory.html>).
struct Hierarchy {
    mount: &'static str,
    limit: &'static str,
    usage: &'static str,
    /// The line of `memory.stat` with the page cache that the kernel gives up first.
    cache: &'static str,
}

const VERSION_1: Hierarchy = Hierarchy {
    mount: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    cache: "total_inactive_file ",
};
/// Alone, and beside version 1 in its hybrid form.
const VERSION_2: [Hierarchy; 2] = [version_2("sys/fs/cgroup"), version_2("sys/fs/cgroup/unified")];

const fn version_2(mount: &'static str) -> Hierarchy {
    Hierarchy { mount, limit: "memory.max", usage: "memory.current", cache: "inactive_file " }
}

impl Memory {
    /// Reads the files of `/proc` and `/sys` under `root`; none where there is no `meminfo`.
    fn look(root: &Path) -> Option<Self> {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let meminfo = read("proc/meminfo");
        let machine = field(&meminfo, "MemTotal:")?.saturating_mul(1024);
        let available = field(&meminfo, "MemAvailable:").map_or(machine, |kib| kib.saturating_mul(1024));
        let mut memory = Memory { machine, limit: machine, available };
        // `ulimit -v`, in bytes; "unlimited" is no number.
        if let Some(most) = field(&read("proc/self/limits"), "Max address space") {
            memory.restrict(most, 0);
        }
        // Lines such as `0::/user.slice/x.scope` (version 2) and `9:memory:/docker/abc`.
        for line in read("proc/self/cgroup").lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            if controllers.is_empty() {
                VERSION_2.iter().for_each(|hierarchy| memory.restrict_by(root, hierarchy, path));
            } else if controllers.split(',').any(|controller| controller == "memory") {
                memory.restrict_by(root, &VERSION_1, path);
            }
        }
        Some(memory)
    }

    fn restrict(&mut self, limit: u64, used: u64) {
        self.limit = self.limit.min(limit);
        self.available = self.available.min(limit.saturating_sub(used));
    }

    /// Every group from the process's own up to the mount limits it. A container sees its own group as the mount, whatever path
    /// it has outside, so folders that are not there are passed over.
    fn restrict_by(&mut self, root: &Path, hierarchy: &Hierarchy, path: &str) {
        let mount = root.join(hierarchy.mount);
        let inside: PathBuf =
            Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))).collect();
        for group in inside.ancestors() {
            let folder = mount.join(group);
            let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
            // "max" is no number, and version 1 writes a huge one for it.
            let Ok(limit) = read(hierarchy.limit).trim().parse() else { continue };
            let used: u64 = read(hierarchy.usage).trim().parse().unwrap_or(0);
            let cache = field(&read("memory.stat"), hierarchy.cache).unwrap_or(0);
            self.restrict(limit, used.saturating_sub(cache));
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn look(files: &[(&str, &str)]) -> Option<Memory> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Memory::look(root.path())
    }

    #[test]
    fn memory_is_what_the_smallest_group_around_the_process_has() {
        // 1000 MiB, of which 800 are free.
        let meminfo =
            ("proc/meminfo", "MemTotal:        1024000 kB\nMemFree: 1 kB\nMemAvailable:     819200 kB\n");
        let v1 = "9:cpu,cpuacct:/docker/a\n5:memory:/docker/a/b\n1:name=systemd:/docker/a\n";
        let v1_memory = "sys/fs/cgroup/memory";
        let none = "9223372036854771712";
        let max = "max\n";
        let mib = |n: u64| format!("{}\n", n * MIB);
        let [m100, m200, m300, m500, m2000] = [100, 200, 300, 500, 2000].map(mib);
        let stat = format!("anon 1\ninactive_file {}\nactive_file 7\n", 50 * MIB);
        let stat_v1 = format!("inactive_file 1\ntotal_inactive_file {}\n", 50 * MIB);
        let limits =
            "Limit  Soft Limit  Hard Limit  Units\nMax address space         314572800  unlimited  bytes\n";
        let unlimited = "Max address space         unlimited            unlimited            bytes\n";
        let at = |base: &str, rest: &str| format!("{base}/{rest}");
        type Files<'a> = Vec<(String, &'a str)>;
        let cases: Vec<(&str, Files, u64, u64)> = vec![
            ("nothing", vec![], 1000, 800),
            (
                "no limit",
                vec![("proc/self/cgroup".into(), "0::/\n"), (at("sys/fs/cgroup", "memory.max"), max)],
                1000,
                800,
            ),
            (
                "a container of its own",
                vec![("proc/self/cgroup".into(), "0::/\n"), (at("sys/fs/cgroup", "memory.max"), &m500)],
                500,
                500,
            ),
            (
                "used",
                vec![
                    ("proc/self/cgroup".into(), "0::/\n"),
                    (at("sys/fs/cgroup", "memory.max"), &m500),
                    (at("sys/fs/cgroup", "memory.current"), &m200),
                    (at("sys/fs/cgroup", "memory.stat"), &stat),
                ],
                500,
                350,
            ),
            (
                "an ancestor has less",
                vec![
                    ("proc/self/cgroup".into(), "0::/a/b/c\n"),
                    (at("sys/fs/cgroup/a", "memory.max"), &m300),
                    (at("sys/fs/cgroup/a/b", "memory.max"), max),
                    (at("sys/fs/cgroup/a/b/c", "memory.max"), &m500),
                    (at("sys/fs/cgroup/a", "memory.current"), &m100),
                ],
                300,
                200,
            ),
            (
                "a sibling does not count",
                vec![("proc/self/cgroup".into(), "0::/a\n"), (at("sys/fs/cgroup/b", "memory.max"), &m100)],
                1000,
                800,
            ),
            (
                "a path from outside",
                vec![
                    ("proc/self/cgroup".into(), "0::/../../kubepods/x\n"),
                    (at("sys/fs/cgroup", "memory.max"), &m200),
                ],
                200,
                200,
            ),
            (
                "more than there is",
                vec![("proc/self/cgroup".into(), "0::/\n"), (at("sys/fs/cgroup", "memory.max"), &m2000)],
                1000,
                800,
            ),
            (
                "version 1",
                vec![
                    ("proc/self/cgroup".into(), v1),
                    (at(v1_memory, "docker/a/b/memory.limit_in_bytes"), &m300),
                    (at(v1_memory, "memory.limit_in_bytes"), none),
                ],
                300,
                300,
            ),
            (
                "version 1, nested",
                vec![
                    ("proc/self/cgroup".into(), v1),
                    (at(v1_memory, "docker/a/b/memory.limit_in_bytes"), none),
                    (at(v1_memory, "docker/a/memory.limit_in_bytes"), &m200),
                    (at(v1_memory, "docker/a/memory.usage_in_bytes"), &m100),
                    (at(v1_memory, "docker/a/memory.stat"), &stat_v1),
                ],
                200,
                150,
            ),
            (
                "version 1 inside of a container",
                vec![("proc/self/cgroup".into(), v1), (at(v1_memory, "memory.limit_in_bytes"), &m500)],
                500,
                500,
            ),
            (
                "hybrid",
                vec![
                    ("proc/self/cgroup".into(), "5:memory:/a\n0::/b\n"),
                    (at("sys/fs/cgroup/unified/b", "memory.max"), &m200),
                    (at(v1_memory, "a/memory.limit_in_bytes"), &m300),
                ],
                200,
                200,
            ),
            ("ulimit -v", vec![("proc/self/limits".into(), limits)], 300, 300),
            ("no ulimit", vec![("proc/self/limits".into(), unlimited)], 1000, 800),
            (
                "garbage",
                vec![
                    ("proc/self/cgroup".into(), "\n::\n0:\nmemory\n"),
                    (at("sys/fs/cgroup", "memory.max"), "-5"),
                ],
                1000,
                800,
            ),
        ];
        for (name, files, limit, available) in cases {
            let files: Vec<(&str, &str)> =
                files.iter().map(|(path, text)| (path.as_str(), *text)).chain([meminfo]).collect();
            let expected = Memory { machine: 1000 * MIB, limit: limit * MIB, available: available * MIB };
            assert_eq!(look(&files), Some(expected), "{name}");
        }
        assert_eq!(look(&[("proc/self/cgroup", "0::/\n")]), None);
    }
}
