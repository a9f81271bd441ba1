//! Stop strings on a stream of bytes.
//!
//! Knows bytes only, no characters and no tokens: a stop string may begin and end inside of either.

/// The strings that end a generation before they appear in its text, as the request gives them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopStrings(Vec<Vec<u8>>);

/// The first stop string in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundStop {
    /// Its first byte.
    pub at: usize,
    /// Which one it is; of those that begin there the first in the request.
    pub index: usize,
}

impl StopStrings {
    /// Empty strings, which would stop everything, never do.
    pub fn new(strings: &[String]) -> Self {
        Self(strings.iter().map(|s| s.clone().into_bytes()).collect())
    }

    /// Where the first stop string in `bytes` begins.
    pub fn find(&self, bytes: &[u8]) -> Option<FoundStop> {
        let stops = self.0.iter().enumerate().filter(|(_, stop)| !stop.is_empty());
        let found = stops.filter_map(|(index, stop)| {
            let at = bytes.windows(stop.len()).position(|window| window == stop)?;
            Some(FoundStop { at, index })
        });
        found.min_by_key(|found| (found.at, found.index))
    }

    /// Where the longest end of `bytes` begins that may become a stop string; their length if there is none.
    pub fn held_from(&self, bytes: &[u8]) -> usize {
        let begins_stop = |tail: &[u8]| self.0.iter().any(|stop| stop.len() > tail.len() && stop.starts_with(tail));
        let longest = self.0.iter().map(|stop| stop.len().saturating_sub(1)).max().unwrap_or(0);
        let first = bytes.len().saturating_sub(longest);
        (first..bytes.len()).find(|&at| begins_stop(&bytes[at..])).unwrap_or(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stops: &[&str], bytes: &str, found: Option<(usize, usize)>, held_from: usize) {
        let stops = StopStrings::new(&stops.iter().map(|s| s.to_string()).collect::<Vec<_>>());
        let found = found.map(|(at, index)| FoundStop { at, index });
        assert_eq!(stops.find(bytes.as_bytes()), found, "{bytes:?}");
        assert_eq!(stops.held_from(bytes.as_bytes()), held_from, "{bytes:?}");
    }

    #[test]
    fn finds_the_first_and_holds_the_longest() {
        check(&[], "abc", None, 3);
        check(&[""], "abc", None, 3);
        check(&["abc"], "", None, 0);
        check(&["abc"], "xab", None, 1);
        check(&["abc"], "xabcab", Some((1, 0)), 4);
        check(&["", "bc", "abc", "ab"], "xabc", Some((1, 2)), 4);
        check(&["abc"], "xabx", None, 4);
        check(&["aab"], "aaa", None, 1);
        check(&["b", "abc"], "ab", Some((1, 0)), 0);
        check(&["stop", "top of"], "the sto", None, 4);
        check(&["\n\n", "\nUser:"], "hi\n", None, 2);
    }
}
