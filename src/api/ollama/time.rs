//! Moments as Ollama writes them (RFC 3339, in UTC).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::http::civil_from_days;

/// `2025-06-30T12:34:56.789012Z`; what was before 1970 is written as its beginning.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!(
        "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{:02}.{:06}Z",
        month + 1,
        second % 60,
        since.subsec_micros()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_827_696_000_001, "2000-02-29T12:34:56.000001Z"),
            (1_782_864_000_500_000, "2026-07-01T00:00:00.500000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_micros(micros)), text);
        }
    }
}
