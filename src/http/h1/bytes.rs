//! The character classes of HTTP and how far a run of one reaches.
//!
//! Knows single bytes only, no lines and no meaning. One table answers for every class; names and
//! values, of which heads mostly consist, are looked at eight bytes at a time.

/// A set of bytes: one bit in each entry of the table.
#[derive(Clone, Copy)]
pub(crate) struct Class(u8);

/// `token`, of which names and methods are made (RFC 9110 §5.6.2).
pub(crate) const TOKEN: Class = Class(1);
/// What a request target may hold besides `%XX`. RFC 3986 allows fewer; what browsers leave unescaped (`|`, `{`, `^` …)
/// is in, what other recipients may cut at or rewrite (`#`, `\`, quotes, angle brackets, all that is not ASCII) is not.
pub(crate) const TARGET: Class = Class(2);
/// A registered name without its `%XX`: `unreserved` and `sub-delims` (RFC 3986 §3.2.2).
pub(crate) const REG_NAME: Class = Class(4);
/// What a field value may hold: blanks, visible characters and `obs-text` (RFC 9110 §5.5).
pub(crate) const TEXT: Class = Class(8);

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0u8;
    loop {
        let class = &mut table[byte as usize];
        let alphanumeric = byte.is_ascii_alphanumeric();
        if alphanumeric || is_one_of(byte, b"!#$%&'*+-.^_`|~") {
            *class |= TOKEN.0;
        }
        if byte.is_ascii_graphic() && !is_one_of(byte, b"%#\"<>\\") {
            *class |= TARGET.0;
        }
        if alphanumeric || is_one_of(byte, b"-._~!$&'()*+,;=") {
            *class |= REG_NAME.0;
        }
        if byte == b'\t' || (byte >= b' ' && byte != 0x7f) {
            *class |= TEXT.0;
        }
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

const fn is_one_of(byte: u8, set: &[u8]) -> bool {
    let mut at = 0;
    while at < set.len() {
        if set[at] == byte {
            return true;
        }
        at += 1;
    }
    false
}

impl Class {
    #[inline]
    pub fn has(self, byte: u8) -> bool {
        CLASSES[usize::from(byte)] & self.0 != 0
    }

    /// How many bytes at the front of `bytes` are of this class.
    #[inline]
    pub fn run(self, bytes: &[u8]) -> usize {
        bytes.iter().position(|byte| !self.has(*byte)).unwrap_or(bytes.len())
    }
}

/// How many bytes at the front of `bytes` are [`TOKEN`]. Letters and dashes go by eight, others one by one.
#[inline]
pub(crate) fn token_run(bytes: &[u8]) -> usize {
    run_by_words(bytes, TOKEN, |word| {
        let lower = low_bits(word | each(0x20));
        let letter = at_least(lower, b'a') & !at_least(lower, b'z' + 1);
        let dash = !at_least(low_bits(word ^ each(b'-')), 1);
        !(letter | dash) | word
    })
}

/// How many bytes at the front of `bytes` are [`REG_NAME`]. Letters, digits and dots go by eight, others one by one.
#[inline]
pub(crate) fn reg_name_run(bytes: &[u8]) -> usize {
    run_by_words(bytes, REG_NAME, |word| {
        let low = low_bits(word);
        let lower = low | each(0x20);
        let letter = at_least(lower, b'a') & !at_least(lower, b'z' + 1);
        let digit = at_least(low, b'0') & !at_least(low, b'9' + 1);
        let dot = !at_least(low ^ each(b'.'), 1);
        !(letter | digit | dot) | word
    })
}

/// How many bytes at the front of `bytes` are [`TEXT`].
#[inline]
pub(crate) fn text_run(bytes: &[u8]) -> usize {
    run_by_words(bytes, TEXT, |word| {
        let low = low_bits(word);
        (!at_least(low, b' ') | at_least(low, 0x7f)) & !word
    })
}

/// The run of `class` at the front of `bytes`. `unusual` sets the high bit of each byte that is not of the class, and of
/// those for which the table is to be asked.
#[inline]
fn run_by_words(bytes: &[u8], class: Class, unusual: impl Fn(u64) -> u64) -> usize {
    let (words, tail) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let mut stops = unusual(u64::from_le_bytes(*word)) & each(0x80);
        while stops != 0 {
            let within = (stops.trailing_zeros() / 8) as usize;
            if !word.get(within).is_some_and(|byte| class.has(*byte)) {
                return at * 8 + within;
            }
            stops &= stops - 1;
        }
    }
    words.len() * 8 + class.run(tail)
}

/// A word of eight times `byte`.
const fn each(byte: u8) -> u64 {
    byte as u64 * 0x0101_0101_0101_0101
}

/// Each byte without its high bit, so that sums of two such words stay within their bytes.
const fn low_bits(word: u64) -> u64 {
    word & each(0x7f)
}

/// The high bit of each byte of `low_bits` that is `byte` or more. The other bits mean nothing.
const fn at_least(low_bits: u64, byte: u8) -> u64 {
    low_bits + each(0x80 - byte)
}

/// How many spaces and tabs are at the front of `bytes`.
#[inline]
pub(crate) fn blank_run(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(bytes.len())
}

/// Without the spaces and tabs around it; other white space is none to HTTP (`OWS`, RFC 9110 §5.6.3).
#[inline]
pub(crate) fn trim_blank(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [b' ' | b'\t', tail @ ..] = rest {
        rest = tail;
    }
    while let [head @ .., b' ' | b'\t'] = rest {
        rest = head;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bytes_at_a_time_find_what_one_at_a_time_does() {
        for byte in 0..=u8::MAX {
            for (length, at) in (0..20).flat_map(|length| (0..length).map(move |at| (length, at))) {
                for around in [b'x', b'Z', b'-', b'.', b'1', b'\t', b' ', 0x80, 0xad, 0xff] {
                    let mut bytes = vec![around; length];
                    bytes[at] = byte;
                    assert_eq!(text_run(&bytes), TEXT.run(&bytes), "text: {bytes:?}");
                    assert_eq!(token_run(&bytes), TOKEN.run(&bytes), "token: {bytes:?}");
                    assert_eq!(reg_name_run(&bytes), REG_NAME.run(&bytes), "name: {bytes:?}");
                }
            }
        }
    }

    #[test]
    fn classes_are_those_of_the_grammar() {
        for byte in 0..=u8::MAX {
            let text = byte == 9 || (32..127).contains(&byte) || byte >= 128;
            assert_eq!(TEXT.has(byte), text, "{byte:#x}");
            let separator = b"\"(),/:;<=>?@[\\]{}".contains(&byte);
            assert_eq!(TOKEN.has(byte), (33..127).contains(&byte) && !separator, "{byte:#x}");
        }
        assert_eq!(trim_blank(b" \t a \x0b b\t "), b"a \x0b b");
        assert_eq!(trim_blank(b" \t"), b"");
    }
}
