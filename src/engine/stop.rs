//! Stop strings on a stream of bytes.
//!
//! Knows bytes only, no characters and no tokens: a stop string may begin and end inside of either.

/// The strings that end a generation before they appear in its text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopStrings(Vec<Vec<u8>>);

impl StopStrings {
    /// Empty strings, which would stop everything, are left out.
    pub fn new(strings: &[String]) -> Self {
        Self(strings.iter().filter(|s| !s.is_empty()).map(|s| s.clone().into_bytes()).collect())
    }

    /// Where the first stop string in `bytes` begins.
    pub fn find(&self, bytes: &[u8]) -> Option<usize> {
        self.0.iter().filter_map(|stop| bytes.windows(stop.len()).position(|window| window == stop)).min()
    }

    /// Where the longest end of `bytes` begins that may become a stop string; their length if there is none.
    pub fn held_from(&self, bytes: &[u8]) -> usize {
        let begins_stop = |tail: &[u8]| self.0.iter().any(|stop| stop.len() > tail.len() && stop.starts_with(tail));
        let longest = self.0.iter().map(|stop| stop.len() - 1).max().unwrap_or(0);
        let first = bytes.len().saturating_sub(longest);
        (first..bytes.len()).find(|&at| begins_stop(&bytes[at..])).unwrap_or(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stops: &[&str], bytes: &str, found: Option<usize>, held_from: usize) {
        let stops = StopStrings::new(&stops.iter().map(|s| s.to_string()).collect::<Vec<_>>());
        assert_eq!(stops.find(bytes.as_bytes()), found, "{bytes:?}");
        assert_eq!(stops.held_from(bytes.as_bytes()), held_from, "{bytes:?}");
    }

    #[test]
    fn finds_the_first_and_holds_the_longest() {
        check(&[], "abc", None, 3);
        check(&[""], "abc", None, 3);
        check(&["abc"], "", None, 0);
        check(&["abc"], "xab", None, 1);
        check(&["abc"], "xabcab", Some(1), 4);
        check(&["abc"], "xabx", None, 4);
        check(&["aab"], "aaa", None, 1);
        check(&["b", "abc"], "ab", Some(1), 0);
        check(&["stop", "top of"], "the sto", None, 4);
        check(&["\n\n", "\nUser:"], "hi\n", None, 2);
    }
}
