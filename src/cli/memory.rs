//! How much memory this process may still take, as far as the system says.

use std::{fs, path::Path};

/// Bytes that could be allocated without swapping: the machine's, and the container's where it sets a limit. `None`
/// where the system does not say (it is asked the Linux way).
pub fn available_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo_available(&text));
    let container = [
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ]
    .into_iter()
    .find_map(|(limit, used)| Some(number(limit)?.saturating_sub(number(used)?)));
    machine.into_iter().chain(container).min()
}

/// Bytes of the line `MemAvailable: 123 kB`.
fn meminfo_available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
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
        assert_eq!(meminfo_available("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        for text in ["", "MemAvailable: many kB", "MemAvailable: 99999999999999999999 kB", "MemAvailable: 12"] {
            assert_eq!(meminfo_available(text), None, "{text:?}");
        }
    }
}
