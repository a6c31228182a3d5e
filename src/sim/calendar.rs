//! Days and instants as Primero writes them, counted from 1970-01-01 in UTC.

/// Milliseconds of a day.
pub(super) const DAY_MS: i64 = 86_400_000;

/// The day number of a date, or nothing when there is no such date.
pub(super) fn day_number(year: i64, month: i64, day: i64) -> Option<i64> {
    let year = i16::try_from(year).ok()?;
    let month = i8::try_from(month).ok()?;
    let day = i8::try_from(day).ok()?;
    let date = jiff::civil::Date::new(year, month, day).ok()?;
    Some(day_of(date))
}

/// The day number of a date.
pub(super) fn day_of(date: jiff::civil::Date) -> i64 {
    let year = i64::from(date.year()) - i64::from(date.month() <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month = (i64::from(date.month()) + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + i64::from(date.day()) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a day number.
pub(super) fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// `2024-01-02`.
pub(super) fn date_text(day: i64) -> String {
    let (year, month, day) = civil(day);
    let mut text = String::with_capacity(10);
    digits(&mut text, year, 4);
    text.push('-');
    digits(&mut text, month, 2);
    text.push('-');
    digits(&mut text, day, 2);
    text
}

/// `2024-01-02T03:04:05.123Z`, as every reply of the server gives an instant in milliseconds.
pub(super) fn instant_text(ms: i64) -> String {
    let (day, rest) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    let mut text = date_text(day);
    text.push('T');
    digits(&mut text, rest / 3_600_000, 2);
    text.push(':');
    digits(&mut text, rest / 60_000 % 60, 2);
    text.push(':');
    digits(&mut text, rest / 1_000 % 60, 2);
    text.push('.');
    digits(&mut text, rest % 1_000, 3);
    text.push('Z');
    text
}

fn digits(text: &mut String, number: i64, width: u32) {
    for place in (0..width).rev() {
        let digit = number / 10_i64.pow(place) % 10;
        text.push(char::from(b'0' + digit.unsigned_abs() as u8));
    }
}

/// An instant as the `Date` of an HTTP reply.
pub(super) fn http_date(ms: i64) -> Option<String> {
    let instant = jiff::Timestamp::from_millisecond(ms).ok()?;
    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&instant).ok()
}

/// The day of a text that is exactly `YYYY-MM-DD` and a real date.
pub(super) fn parse_date(text: &str) -> Option<i64> {
    if !looks_like_date(text) {
        return None;
    }
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    day_number(number(0, 4)?, number(5, 7)?, number(8, 10)?)
}

/// Whether a text has the shape `YYYY-MM-DD`, real date or not.
pub(super) fn looks_like_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 10
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

/// The instant, in milliseconds, of a text such as `2024-01-02T03:04:05.123Z`, with a blank for
/// the `T`, with an offset, or without a zone (UTC). Seconds are required.
pub(super) fn parse_instant(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', ' '])?;
    let mut parts = date.splitn(3, '-').map(|part| (part.len(), part.parse::<u16>()));
    let mut part = |widths: std::ops::RangeInclusive<usize>| match parts.next()? {
        (width, Ok(number)) if widths.contains(&width) => Some(i64::from(number)),
        _ => None,
    };
    let day = day_number(part(4..=4)?, part(1..=2)?, part(1..=2)?)?;
    let rest = rest.trim();
    let split = rest.find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.'));
    let (clock, zone) = rest.split_at(split.unwrap_or(rest.len()));
    Some(day * DAY_MS + clock_ms(clock)? - offset_ms(zone.trim())?)
}

fn clock_ms(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = clock.split(':').map(|part| part.parse::<u8>().map(i64::from));
    let (hour, minute, second) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut ms = 0;
    for place in 0..3 {
        let digit = fraction.as_bytes().get(place).map_or(0, |byte| i64::from(byte - b'0'));
        ms = ms * 10 + digit;
    }
    Some(((hour * 60 + minute) * 60 + second) * 1_000 + ms)
}

fn offset_ms(zone: &str) -> Option<i64> {
    if zone.is_empty() || zone == "Z" {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits: String = zone.get(1..)?.chars().filter(|c| *c != ':').collect();
    let hours: i64 = digits.get(..2)?.parse().ok()?;
    let minutes: i64 = if digits.len() > 2 { digits.get(2..4)?.parse().ok()? } else { 0 };
    Some(sign * (hours * 60 + minutes) * 60_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_agree_with_the_calendar_library() {
        let start = jiff::civil::Date::constant(1899, 12, 30);
        for step in 0..80_000 {
            let date = start.saturating_add(jiff::Span::new().days(step));
            let day = day_of(date);
            assert_eq!(date_text(day), date.to_string());
            assert_eq!(parse_date(&date_text(day)), Some(day));
        }
        assert_eq!(day_number(1970, 1, 1), Some(0));
        assert_eq!(parse_date("2024-02-30"), None);
    }

    #[test]
    fn instants_are_read_in_every_spelling() {
        let ms = parse_instant("2024-01-02T03:04:05.123Z").unwrap();
        assert_eq!(instant_text(ms), "2024-01-02T03:04:05.123Z");
        for same in ["2024-01-02 03:04:05.123", "2024-1-2T3:04:05.123+00:00"] {
            assert_eq!(parse_instant(same), Some(ms), "{same}");
        }
        assert_eq!(parse_instant("2024-01-02T06:04:05.123+03:00"), Some(ms));
        for bad in ["2024-01-02", "2024-01-02T03:04Z", "garbage", "2024-01-02T03:04:05 00:00"] {
            assert_eq!(parse_instant(bad), None, "{bad}");
        }
    }
}
