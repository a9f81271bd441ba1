//! Byte ranges (RFC 9110 §14): what a `Range` field asks of a representation of a known length.
//!
//! Pure. What would cost more than it gives is not served in parts: a field with more than [`RANGES_MAX`] ranges, or whose
//! ranges together are longer than the representation (so they overlap), gets the whole, as §14.2 allows.

use std::ops::Range;

/// More ranges than that in one field, satisfiable or not, are not looked at.
pub(crate) const RANGES_MAX: usize = 16;

/// What part of a representation is to be sent. Ranges are in bytes from 0, end exclusive, never empty, and within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    Whole,
    One(Range<u64>),
    /// At least two, in the order of the request.
    Many(Vec<Range<u64>>),
    /// 416.
    Unsatisfiable,
}

/// Reads the value of a `Range` field. One in another unit, or that is not well formed, is ignored.
///
/// So is one for an empty representation: some clients ask for a range always, and no range of it can be named.
pub(crate) fn select(field: &[u8], len: u64) -> Selection {
    let Some(specs) = byte_range_set(field).filter(|_| len > 0) else { return Selection::Whole };
    let mut ranges = Vec::new();
    for (count, spec) in specs.enumerate() {
        match spec {
            Some(_) if count == RANGES_MAX => return Selection::Whole,
            Some(spec) => ranges.extend(spec.within(len)),
            None => return Selection::Whole,
        }
    }
    let asked = ranges.iter().map(|range| range.end - range.start).fold(0, u64::saturating_add);
    match ranges.len() {
        0 => Selection::Unsatisfiable,
        1 => Selection::One(ranges.remove(0)),
        _ if asked > len => Selection::Whole,
        _ => Selection::Many(ranges),
    }
}

/// One range as it was asked for.
enum Spec {
    /// `first-` or `first-last`, both inclusive.
    From { first: u64, last: u64 },
    /// `-length`
    Suffix { length: u64 },
}

impl Spec {
    fn parse(text: &[u8]) -> Option<Spec> {
        let dash = text.iter().position(|byte| *byte == b'-')?;
        let (first, last) = (&text[..dash], &text[dash + 1..]);
        Some(match (first.is_empty(), last.is_empty()) {
            (true, _) => Spec::Suffix { length: number(last)? },
            (false, true) => Spec::From { first: number(first)?, last: u64::MAX },
            (false, false) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Spec::From { first, last })?
            }
        })
    }

    /// The bytes that it means, if there are any.
    fn within(self, len: u64) -> Option<Range<u64>> {
        let range = match self {
            Spec::From { first, last } => first..last.saturating_add(1).min(len),
            Spec::Suffix { length } => len.saturating_sub(length)..len,
        };
        (!range.is_empty()).then_some(range)
    }
}

/// The elements of `bytes=…`, `None` for each that is malformed. At least one.
fn byte_range_set(field: &[u8]) -> Option<impl Iterator<Item = Option<Spec>>> {
    let (unit, set) = field.split_at_checked(6)?;
    let mut specs = set.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|spec| !spec.is_empty()).peekable();
    let known = unit.eq_ignore_ascii_case(b"bytes=") && specs.peek().is_some();
    known.then(|| specs.map(Spec::parse))
}

/// Digits only. A number too large to be one is larger than any length, which is all that counts.
fn number(digits: &[u8]) -> Option<u64> {
    let add = |sum: u64, byte: &u8| {
        byte.is_ascii_digit().then(|| sum.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Selection::*;

    #[test]
    fn fields() {
        let huge = "99999999999999999999999999";
        for (field, expected) in [
            ("bytes=0-0", One(0..1)),
            ("bytes=0-", One(0..100)),
            ("bytes=10-19", One(10..20)),
            ("BYTES=10-19", One(10..20)),
            ("bytes= 10-19 ,", One(10..20)),
            ("bytes=90-1000", One(90..100)),
            (&format!("bytes=90-{huge}"), One(90..100)),
            ("bytes=-1", One(99..100)),
            ("bytes=-100", One(0..100)),
            ("bytes=-101", One(0..100)),
            (&format!("bytes=-{huge}"), One(0..100)),
            ("bytes=0-9,20-29", Many(vec![0..10, 20..30])),
            ("bytes=90-,0-9,-2", Many(vec![90..100, 0..10, 98..100])),
            ("bytes=0-9,100-", One(0..10)),
            ("bytes=0-9,,\t,5-6", Many(vec![0..10, 5..7])),
            ("bytes=100-", Unsatisfiable),
            ("bytes=100-200,300-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            (&format!("bytes={huge}-"), Unsatisfiable),
            // Not ranges of bytes: as if the field were not there.
            ("", Whole),
            ("bytes", Whole),
            ("bytes=", Whole),
            ("bytes=,", Whole),
            ("bytes=-", Whole),
            ("bytes=5", Whole),
            ("bytes=9-5", Whole),
            ("bytes=0-9,9-5", Whole),
            ("bytes=a-b", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=1 - 2", Whole),
            ("bytes=0-9;20-29", Whole),
            ("bytes=--5", Whole),
            ("bytes=0-9-", Whole),
            ("bytes =0-9", Whole),
            ("items=0-9", Whole),
            // Together longer than the representation.
            ("bytes=0-,0-", Whole),
            ("bytes=0-,-1", Whole),
        ] {
            assert_eq!(select(field.as_bytes(), 100), expected, "{field}");
        }
        assert_eq!(select(b"bytes=0-", 0), Whole);
        assert_eq!(select(b"bytes=-5", 0), Whole);
        assert_eq!(select(b"bytes=0-18446744073709551615", u64::MAX), One(0..u64::MAX));
    }

    #[test]
    fn many_ranges_get_the_whole() {
        for count in 1..40 {
            let specs: Vec<String> = (0..count).map(|at| format!("{}-{}", at * 2, at * 2)).collect();
            let selection = select(format!("bytes={}", specs.join(",")).as_bytes(), 1000);
            match count {
                1 => assert_eq!(selection, One(0..1)),
                2..=RANGES_MAX => assert!(matches!(&selection, Many(ranges) if ranges.len() == count)),
                _ => assert_eq!(selection, Whole),
            }
        }
        assert_eq!(select("bytes=0-".repeat(100_000).as_bytes(), 1000), Whole);
    }

    /// The same question asked byte by byte: is byte `at` of `len` meant by this element?
    fn means(spec: &str, at: u64, len: u64) -> bool {
        let (first, last) = spec.split_once('-').unwrap();
        match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(first), Ok(last)) => at >= first && at <= last,
            (Ok(first), Err(_)) => at >= first,
            (Err(_), Ok(suffix)) => at + suffix >= len,
            (Err(_), Err(_)) => false,
        }
    }

    #[test]
    fn agrees_with_asking_each_byte() {
        let mut state = 11_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for round in 0..20_000 {
            let len = 1 + random(24);
            let specs: Vec<String> = (0..1 + random(4))
                .map(|_| {
                    let (a, b) = (random(30), random(30));
                    match random(4) {
                        0 => format!("{a}-"),
                        1 => format!("-{a}"),
                        _ => format!("{}-{}", a.min(b), a.max(b)),
                    }
                })
                .collect();
            let asked: Vec<Vec<u64>> =
                specs.iter().map(|spec| (0..len).filter(|&at| means(spec, at, len)).collect()).collect();
            let asked: Vec<Vec<u64>> = asked.into_iter().filter(|bytes: &Vec<u64>| !bytes.is_empty()).collect();
            let got: Vec<Vec<u64>> = match select(format!("bytes={}", specs.join(",")).as_bytes(), len) {
                Whole => {
                    let sum: usize = asked.iter().map(Vec::len).sum();
                    assert!(asked.len() > 1 && sum as u64 > len, "round {round}: {specs:?} of {len}");
                    continue;
                }
                Unsatisfiable => vec![],
                One(range) => vec![range.collect()],
                Many(ranges) => ranges.into_iter().map(Iterator::collect).collect(),
            };
            assert_eq!(got, asked, "round {round}: {specs:?} of {len}");
        }
    }

    #[test]
    fn garbage_never_leaves_the_representation() {
        let mut state = 13_u64;
        for _ in 0..50_000 {
            let mut field = b"bytes=".to_vec();
            loop {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                match b"0123456789--,, ;\xff=".get((state >> 33) as usize % 22) {
                    Some(byte) => field.push(*byte),
                    None => break,
                }
            }
            let ranges = match select(&field, 50) {
                One(range) => vec![range],
                Many(ranges) => ranges,
                Whole | Unsatisfiable => continue,
            };
            let sound = |range: &Range<u64>| range.start < range.end && range.end <= 50;
            assert!(ranges.len() <= RANGES_MAX && ranges.iter().all(sound), "{:?}", field.escape_ascii().to_string());
        }
    }
}
