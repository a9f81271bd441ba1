//! The `Date` line: formatted once a second, not once a request. Knows no clock: the time is an argument.

use std::time::{Duration, SystemTime};

/// The line `Date: Sun, 06 Nov 1994 08:49:37 GMT` for one second.
#[derive(Debug)]
pub(crate) struct DateLine {
    second: Option<u64>,
    line: String,
}

impl DateLine {
    pub fn new() -> DateLine {
        DateLine { second: None, line: String::new() }
    }

    /// The line is for `now` from here on.
    pub fn set(&mut self, now: SystemTime) {
        let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        if self.second != Some(second) {
            self.second = Some(second);
            self.line = format!("Date: {}\r\n", imf_fixdate(second));
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.line.as_bytes()
    }
}

/// RFC 9110 §5.6.7, from seconds since 1970.
fn imf_fixdate(unix: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        DAYS[(days % 7) as usize],
        MONTHS[month as usize],
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Year, month from 0 and day of the month, from days since 1970 (H. Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", civil_from_days). Years begin in March there, so that the leap day is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    (era * 400 + year_of_era + u64::from(month < 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (unix, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(imf_fixdate(unix), expected);
        }
    }

    #[test]
    fn the_line_moves_with_time() {
        let mut line = DateLine::new();
        let mut at = |seconds| {
            line.set(SystemTime::UNIX_EPOCH + Duration::from_millis(seconds));
            str::from_utf8(line.as_bytes()).unwrap().to_string()
        };
        assert_eq!(at(1_000), "Date: Thu, 01 Jan 1970 00:00:01 GMT\r\n");
        assert_eq!(at(1_999), at(1_000));
        assert_eq!(at(6_000), "Date: Thu, 01 Jan 1970 00:00:06 GMT\r\n");
    }
}
