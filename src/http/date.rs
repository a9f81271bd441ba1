//! HTTP dates (RFC 9110 §5.6.7): the `Date` line, formatted once a second and not once a request, and the three forms
//! that a recipient has to read. Knows no clock: the time is an argument.

use std::time::{Duration, SystemTime};

/// The line `Date: Sun, 06 Nov 1994 08:49:37 GMT` for one second.
#[derive(Debug)]
pub(crate) struct DateLine {
    second: Option<u64>,
    /// The line behind that of the commonest status.
    with_ok: String,
}

/// The status line of most answers, which the date follows.
const OK: &str = "HTTP/1.1 200 OK\r\n";

impl DateLine {
    pub fn new() -> DateLine {
        DateLine { second: None, with_ok: OK.to_string() }
    }

    /// The line is for `now` from here on.
    pub fn set(&mut self, now: SystemTime) {
        let second = unix_seconds(now);
        if self.second != Some(second) {
            self.second = Some(second);
            self.with_ok = format!("{OK}Date: {}\r\n", imf_fixdate(second));
        }
    }

    /// The line; empty before the first time was set.
    pub fn as_bytes(&self) -> &[u8] {
        self.with_ok().split_at(OK.len()).1
    }

    /// The same behind the status line of a 200: one piece for most answers.
    pub fn with_ok(&self) -> &[u8] {
        self.with_ok.as_bytes()
    }
}

/// Whole seconds since 1970; 0 before.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// From Thursday, the day of the week of 1970-01-01.
const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const LONG_DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The form that is sent, from seconds since 1970.
pub(crate) fn imf_fixdate(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    let (year, month, day) = civil_from_days(days);
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
pub(crate) fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    (era * 400 + year_of_era + u64::from(month < 2), month, day)
}

/// Seconds since 1970 of a date in any of the three forms; a date before 1970 counts as 1970. `now`, in the same unit,
/// decides what the two digits of an RFC 850 year mean. `None`: not a date, which a recipient ignores.
pub(crate) fn parse(text: &[u8], now: u64) -> Option<u64> {
    imf_form(Cursor(text)).or_else(|| rfc850_form(Cursor(text), now)).or_else(|| asctime_form(Cursor(text)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_form(mut text: Cursor<'_>) -> Option<u64> {
    text.name(&DAYS)?;
    text.literal(b", ")?;
    let day = text.number(2)?;
    text.literal(b" ")?;
    let month = text.name(&MONTHS)?;
    text.literal(b" ")?;
    let year = text.number(4)?;
    text.literal(b" ")?;
    let second = text.time()?;
    text.literal(b" GMT")?;
    text.ended(unix(year, month, day, second)?)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850_form(mut text: Cursor<'_>, now: u64) -> Option<u64> {
    const FIFTY_YEARS_SECONDS: u64 = 50 * 31_556_952;
    text.name(&LONG_DAYS)?;
    text.literal(b", ")?;
    let day = text.number(2)?;
    text.literal(b"-")?;
    let month = text.name(&MONTHS)?;
    text.literal(b"-")?;
    let year = text.number(2)? + civil_from_days(now / 86_400).0 / 100 * 100;
    text.literal(b" ")?;
    let second = text.time()?;
    text.literal(b" GMT")?;
    // A date that seems to be more than 50 years ahead is of the past century. (29 February may exist in one of the
    // two only, so the date is made after the choice.)
    let ahead = unix(year, month, day.min(28), second)? > now.saturating_add(FIFTY_YEARS_SECONDS);
    text.ended(unix(if ahead { year.checked_sub(100)? } else { year }, month, day, second)?)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime_form(mut text: Cursor<'_>) -> Option<u64> {
    text.name(&DAYS)?;
    text.literal(b" ")?;
    let month = text.name(&MONTHS)?;
    text.literal(b" ")?;
    let day = if text.literal(b" ").is_some() { text.number(1)? } else { text.number(2)? };
    text.literal(b" ")?;
    let second = text.time()?;
    text.literal(b" ")?;
    let year = text.number(4)?;
    text.ended(unix(year, month, day, second)?)
}

/// What is left of a date. Names are case-sensitive (§5.6.7).
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn literal(&mut self, expected: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(expected)?;
        Some(())
    }

    /// The index of the name that comes next.
    fn name(&mut self, names: &[&str]) -> Option<u64> {
        let index = names.iter().position(|name| self.0.starts_with(name.as_bytes()))?;
        self.literal(names[index].as_bytes())?;
        Some(index as u64)
    }

    fn number(&mut self, digits: usize) -> Option<u64> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        number.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
    }

    /// `08:49:37` as seconds of the day. The grammar has room for a leap second.
    fn time(&mut self) -> Option<u64> {
        let hour = self.number(2)?;
        self.literal(b":")?;
        let minute = self.number(2)?;
        self.literal(b":")?;
        let second = self.number(2)?;
        (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
    }

    fn ended(&self, unix: u64) -> Option<u64> {
        self.0.is_empty().then_some(unix)
    }
}

/// Seconds since 1970 of a second of a day, if the month (from 0) has that day (from 1). The inverse of [`civil_from_days`].
fn unix(year: u64, month: u64, day: u64, second: u64) -> Option<u64> {
    const MONTH_DAYS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let month_days = MONTH_DAYS.get(month as usize)? + u64::from(leap && month == 1);
    if day == 0 || day > month_days {
        return None;
    }
    let month_from_march = (month + 10) % 12;
    // One era more than there are years, so that January of year 0 does not go below it.
    let year = year + 400 - u64::from(month < 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era;
    Some((days * 86_400 + second).saturating_sub((146_097 + 719_468) * 86_400))
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

    /// 2026-07-01.
    const NOW: u64 = 1_782_864_000;

    #[test]
    fn all_three_forms_are_read() {
        let known = Some(784_111_777);
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", known),
            ("Sunday, 06-Nov-94 08:49:37 GMT", known),
            ("Sun Nov  6 08:49:37 1994", known),
            ("Thu Nov 10 00:00:00 1994", Some(784_425_600)),
            ("Tue, 29 Feb 2000 23:59:59 GMT", Some(951_868_799)),
            ("Sat, 31 Dec 2016 23:59:60 GMT", Some(1_483_228_800)),
            ("Sat, 01 Jan 0000 00:00:00 GMT", Some(0)),
            ("Wed, 31 Dec 1969 23:59:59 GMT", Some(0)),
            ("", None),
            ("0", None),
            ("784111777", None),
            ("sun, 06 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 nov 1994 08:49:37 GMT", None),
            ("Sun, 6 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 94 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 UTC", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT ", None),
            ("Sun, 06 Nov 1994 08:49:37", None),
            ("Sun, 06 Nov 1994 24:00:00 GMT", None),
            ("Sun, 06 Nov 1994 08:60:00 GMT", None),
            ("Sun, 00 Nov 1994 08:49:37 GMT", None),
            ("Sun, 31 Nov 1994 08:49:37 GMT", None),
            ("Sun, 29 Feb 1900 08:49:37 GMT", None),
            ("Sun Nov 06 08:49:37 1994 ", None),
            ("Sun, +6 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 19\u{e9}4 08:49:37 GMT", None),
        ] {
            assert_eq!(parse(text.as_bytes(), NOW), expected, "{text}");
        }
    }

    #[test]
    fn two_digits_mean_the_year_that_is_less_than_50_years_ahead() {
        for (text, now, year) in [
            ("Sunday, 01-Jan-26 00:00:00 GMT", NOW, 2026),
            ("Sunday, 01-Jan-75 00:00:00 GMT", NOW, 2075),
            ("Sunday, 30-Jun-76 00:00:00 GMT", NOW, 2076),
            ("Sunday, 02-Jul-76 00:00:00 GMT", NOW, 1976),
            ("Sunday, 01-Jan-99 00:00:00 GMT", NOW, 1999),
            ("Sunday, 01-Jan-99 00:00:00 GMT", 915_148_800, 1999),
            ("Sunday, 29-Feb-96 00:00:00 GMT", NOW, 1996),
        ] {
            let date = parse(text.as_bytes(), now).unwrap();
            assert_eq!(civil_from_days(date / 86_400).0, year, "{text}");
        }
        // A century ahead 2000 has a 29 February, and 1900 has none.
        assert_eq!(parse(b"Tuesday, 29-Feb-00 00:00:00 GMT", NOW), Some(951_782_400));
    }

    #[test]
    fn what_is_formatted_is_read_back() {
        let mut state = 7_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let unix = (state >> 16) % 253_402_300_800;
            let text = imf_fixdate(unix);
            assert_eq!(parse(text.as_bytes(), NOW), Some(unix), "{text}");
            let [weekday, day, month, year, time, _] = text.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{text}")
            };
            let day: u64 = day.parse().unwrap();
            let asctime = format!("{} {month} {day:>2} {time} {year}", &weekday[..3]);
            assert_eq!(parse(asctime.as_bytes(), NOW), Some(unix), "{asctime}");
            for cut in 0..text.len() {
                assert_eq!(parse(&text.as_bytes()[..cut], NOW), None);
            }
        }
    }
}
