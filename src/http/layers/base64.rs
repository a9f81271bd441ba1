//! Base64 as RFC 4648 §4 has it, decoding only and strictly: padding is required, and the bits that padding leaves over
//! are zero, so that no two texts decode to the same bytes (§3.5).

/// The bytes that `text` stands for; `None` when it is not exactly base64.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take(2).take_while(|&&b| b == b'=').count();
    let (digits, _) = text.split_at(text.len() - padding);
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in digits.chunks(4) {
        let bits = group.iter().try_fold(0_u32, |bits, &digit| Some(bits << 6 | value(digit)?))?;
        // Four digits are 24 bits, three are 18 of which 2 are left over, two are 12 of which 4 are.
        let (bits, count) = match group.len() {
            4 => (bits, 3),
            3 if bits & 0x3 == 0 => (bits << 6, 2),
            2 if bits & 0xf == 0 => (bits << 12, 1),
            _ => return None,
        };
        bytes.extend_from_slice(&bits.to_be_bytes()[1..=count]);
    }
    Some(bytes)
}

/// The value of a digit of the standard alphabet.
fn value(digit: u8) -> Option<u32> {
    Some(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_rfc_and_some_more() {
        for (text, expected) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
            ("QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Aladdin:open sesame"),
        ] {
            assert_eq!(decode(text.as_bytes()), Some(expected.into()), "{text}");
        }
        assert_eq!(decode(b"+/+/"), Some(vec![0xfb, 0xff, 0xbf]));
    }

    #[test]
    fn what_is_not_exact_is_refused() {
        for text in [
            "Z", "Zg", "Zg=", "Zm9", "====", "=", "A===", "Z===", "Zg==Zg==", "Zg=g", "=Zg=", "Zh==", "Zm9=", "Zm9v\n",
            "Zm 9", "Zm9-", "Zm9_", "Zmé=", " Zg==",
        ] {
            assert_eq!(decode(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn every_three_bytes_come_back() {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for bits in (0..1_u32 << 24).step_by(97) {
            let text = [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift & 63) as usize]);
            assert_eq!(decode(&text).unwrap(), bits.to_be_bytes()[1..]);
        }
    }
}
