//! The id of a request: the client's, if it sent a sane one, else 32 hexadecimal digits of our own.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Goes into `x-request-id`; safe there as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// Takes the client's id if it is 1 to 64 of `[A-Za-z0-9._-]`; makes one otherwise.
    pub fn from_header(header: Option<&str>) -> Self {
        match header {
            Some(id) if Self::is_sane(id) => Self(id.to_owned()),
            _ => Self::fresh(),
        }
    }

    pub fn is_sane(id: &str) -> bool {
        (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    }

    /// A new id: a counter hashed under keys that the system drew at the start, so that ids neither repeat nor tell
    /// how many there were.
    pub fn fresh() -> Self {
        static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Relaxed);
        let [high, low] = [0, 1].map(|i: usize| KEYS[i].hash_one(n));
        Self(format!("{high:016x}{low:016x}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sane_ids_are_kept() {
        for id in ["a", "7f.x_Y-9", &"x".repeat(64)] {
            assert_eq!(RequestId::from_header(Some(id)).as_str(), id);
        }
        for id in ["", "a b", "a\r\nx: y", "ä", &"x".repeat(65)] {
            let made = RequestId::from_header(Some(id));
            assert!(made.as_str().len() == 32 && made.as_str().bytes().all(|b| b.is_ascii_hexdigit()), "{id:?}");
        }
    }

    #[test]
    fn fresh_ids_differ() {
        let ids: std::collections::HashSet<String> = (0..1000).map(|_| RequestId::fresh().0).collect();
        assert_eq!(ids.len(), 1000);
    }
}
