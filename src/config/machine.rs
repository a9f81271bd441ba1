//! What this process has of the machine: CPUs and memory, as far as the system says.

use std::{fs, path::Path, thread};

/// What settings are held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// That affinity and the cgroup quota allow.
    pub cpus: usize,
    /// All of it, or the container's share; `None` where the system does not say.
    pub memory_bytes: Option<u64>,
}

impl Machine {
    /// This one, now.
    pub fn this() -> Self {
        let container = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
        let memory = meminfo("MemTotal:").into_iter().chain(container.into_iter().filter_map(number)).min();
        Self { cpus: thread::available_parallelism().map_or(1, usize::from), memory_bytes: memory }
    }
}

/// Bytes that could be allocated without swapping: the machine's, and the container's where it sets a limit. `None`
/// where the system does not say (it is asked the Linux way).
pub fn available_bytes() -> Option<u64> {
    let container = [
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ]
    .into_iter()
    .find_map(|(limit, used)| Some(number(limit)?.saturating_sub(number(used)?)));
    meminfo("MemAvailable:").into_iter().chain(container).min()
}

fn meminfo(name: &str) -> Option<u64> {
    field(&fs::read_to_string("/proc/meminfo").ok()?, name)
}

/// Bytes of a line such as `MemAvailable: 123 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1 << 10)
}

/// A file that holds one number; "max" is none.
fn number(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo() {
        assert_eq!(field("MemTotal: 9 kB\nMemAvailable:    2048 kB\n", "MemAvailable:"), Some(2 << 20));
        for text in ["", "MemAvailable: many kB", "MemAvailable: 99999999999999999999 kB", "MemAvailable: 12"] {
            assert_eq!(field(text, "MemAvailable:"), None, "{text:?}");
        }
    }
}
