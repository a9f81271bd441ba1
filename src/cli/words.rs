//! Numbers as people read them.

/// `397 MB`.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.*} MB", if bytes < 10_000_000 { 1 } else { 0 }, bytes as f64 / 1e6)
}

/// `596 M`, `1.7 B`.
pub fn count(n: u64) -> String {
    match n {
        n if n >= 10_000_000_000 => format!("{} B", n / 1_000_000_000),
        n if n >= 1_000_000_000 => format!("{:.1} B", n as f64 / 1e9),
        n if n >= 10_000_000 => format!("{} M", n / 1_000_000),
        n if n >= 1_000_000 => format!("{:.1} M", n as f64 / 1e6),
        n => format!("{} k", n.div_ceil(1000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        for (n, words) in
            [(3_400_000, "3.4 M"), (596_049_920, "596 M"), (1_720_000_000, "1.7 B"), (70_000_000_000, "70 B")]
        {
            assert_eq!(count(n), words);
        }
    }
}
