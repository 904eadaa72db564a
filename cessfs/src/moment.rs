//! Points in time as people write them: UTC, in the form of RFC 3339, with as much of its end left out as one likes.

/// A minute of the week, by the clocks on the wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minute {
    /// 0 is Monday.
    pub day: usize,
    /// Of the day.
    pub minute: u16,
}

/// This minute, in this machine's time zone.
pub fn this_minute() -> Minute {
    let now = jiff::Zoned::now();
    Minute {
        day: now.weekday().to_monday_zero_offset() as usize,
        minute: now.hour() as u16 * 60 + now.minute() as u16,
    }
}

/// Seconds of a day.
const DAY: i64 = 86_400;

/// A time as `2026-11-22T19:30:00Z`.
pub fn format(seconds: u64) -> String {
    let days = (seconds / DAY as u64) as i64;
    let (year, month, day) = civil(days);
    let of_day = seconds % DAY as u64;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads `2026-11-22`, `2026-11-22T19:30`, `2026-11-22 19:30:15Z` (all UTC) as seconds since 1970. What is left out is
/// zero. `None` if it is no time between 1970 and 9999.
pub fn parse(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let mut parts = date.split('-').map(number);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    if !(1..=month_days(year, month)).contains(&day) {
        return None;
    }
    let mut parts = time.split(':').map(number);
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    u64::try_from(days(year, month, day) * DAY + hour * 3600 + minute * 60 + second).ok()
}

/// Only digits: no sign, no space.
fn number(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01, in the proleptic Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    let leaps = |year: i64| year / 4 - year / 100 + year / 400;
    let months: i64 = (1..month).map(|month| month_days(year, month)).sum();
    (year - 1970) * 365 + leaps(before) - leaps(1969) + months + day - 1
}

/// Year, month and day of a number of days since 1970.
fn civil(mut days_left: i64) -> (i64, i64, i64) {
    let mut year = 1970 + days_left / 366;
    days_left -= days(year, 1, 1);
    loop {
        let length = 365 + i64::from(is_leap(year));
        if days_left < length {
            break;
        }
        days_left -= length;
        year += 1;
    }
    let mut month = 1;
    while days_left >= month_days(year, month) {
        days_left -= month_days(year, month);
        month += 1;
    }
    (year, month, days_left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_are_known_from_elsewhere() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_000_000_000, "2001-09-09T01:46:40Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(format(seconds), text);
            assert_eq!(parse(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn every_day_of_two_centuries_comes_back() {
        for day in 0..73_000 {
            let text = format(day * 86_400);
            assert_eq!(parse(&text), Some(day * 86_400), "{text}");
        }
    }

    #[test]
    fn the_end_may_be_left_out_and_nothing_else() {
        assert_eq!(parse("2001-09-09"), Some(999_993_600));
        assert_eq!(parse("2001-09-09 01:46"), Some(999_999_960));
        for bad in [
            "",
            "2001",
            "2001-02-29",
            "2001-13-01",
            "1969-12-31",
            "2001-01-01T24:00",
            "2001-01-01T1",
            "+2001-01-01",
            "2001-01-01T01:00:00:00",
            "yesterday",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
