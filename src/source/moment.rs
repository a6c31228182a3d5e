//! Dates and date-times as Primero writes them, and the local day of an instance.

use jiff::Timestamp;

use jiff::tz::TimeZone;

use crate::model::{Day, Instant, MonthOfBirth};

/// Most changes of the clock that are kept for one time zone; two a year since 1900 are 400.
const TRANSITIONS_MAX: usize = 1_000;

const DAY_MS: i64 = 86_400_000;
const DAY_SECONDS: i64 = 86_400;
/// Days from 1900-01-01, which is day 1, to 1970-01-01.
const DAYS_BEFORE_1970: i64 = 25_567;

/// What a text that is a date or a date-time says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// A calendar date: days since 1970-01-01.
    Date(i64),
    /// A moment: milliseconds since 1970-01-01T00:00:00Z.
    Time(i64),
}

impl Moment {
    /// Reads `YYYY-MM-DD`, alone or followed by `T` or a space, `HH:MM[:SS[.fraction]]` and a zone:
    /// `Z`, `UTC`, `±HH`, `±HHMM`, `±HH:MM` or nothing, which is UTC. Anything else is `None`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut rest = Digits(text.as_bytes());
        let year = rest.number(4)?;
        let month = rest.after(b'-')?.number(2)?;
        let day = rest.after(b'-')?.number(2)?;
        let days = days_from_civil(year, month, day)?;
        if rest.0.is_empty() {
            return Some(Self::Date(days));
        }
        if rest.0[0] != b'T' && rest.0[0] != b' ' {
            return None;
        }
        rest.0 = &rest.0[1..];
        let hour = rest.number(2)?;
        let minute = rest.after(b':')?.number(2)?;
        let (mut second, mut fraction_ms) = (0, 0);
        if rest.after(b':').is_some() {
            second = rest.number(2)?;
            if rest.after(b'.').is_some() {
                fraction_ms = rest.fraction_ms()?;
            }
        }
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let local = (hour * 3_600 + minute * 60 + second) * 1_000 + fraction_ms;
        Some(Self::Time(days * DAY_MS + local - rest.offset_minutes()? * 60_000))
    }

    /// The moment as an instant; a date is its midnight in UTC.
    pub(super) fn instant(self) -> Instant {
        match self {
            Self::Date(days) => Instant(days * DAY_MS),
            Self::Time(ms) => Instant(ms),
        }
    }

    /// The month of birth that a date, or a date-time in `zone`, lies in.
    pub(super) fn month_of_birth(self, zone: &Zone) -> Option<MonthOfBirth> {
        zone.day(self).and_then(|day| MonthOfBirth::of(day.date()))
    }
}

/// The rest of a text that is read digit by digit.
struct Digits<'t>(&'t [u8]);

impl Digits<'_> {
    fn number(&mut self, width: usize) -> Option<i64> {
        let (head, rest) = self.0.split_at_checked(width)?;
        let mut value = 0;
        for digit in head {
            value = value * 10 + i64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        }
        self.0 = rest;
        Some(value)
    }

    fn after(&mut self, byte: u8) -> Option<&mut Self> {
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(self)
    }

    /// One to nine digits after the point, cut to milliseconds.
    fn fraction_ms(&mut self) -> Option<i64> {
        let width = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=9).contains(&width) {
            return None;
        }
        let value = self.number(width)?;
        let scale = 10_i64.pow(u32::try_from(width.abs_diff(3)).ok()?);
        Some(if width < 3 { value * scale } else { value / scale })
    }

    fn offset_minutes(&mut self) -> Option<i64> {
        let zone = self.0.strip_prefix(b" ").unwrap_or(self.0);
        let (sign, digits) = match zone {
            b"" | b"Z" | b"z" | b"UTC" => return Some(0),
            [b'+', digits @ ..] => (1, digits),
            [b'-', digits @ ..] => (-1, digits),
            _ => return None,
        };
        let mut digits = Digits(digits);
        let hours = digits.number(2)?;
        let _ = digits.after(b':');
        let minutes = if digits.0.is_empty() { 0 } else { digits.number(2)? };
        let valid = digits.0.is_empty() && hours <= 23 && minutes <= 59;
        valid.then_some(sign * (hours * 60 + minutes))
    }
}

/// Days since 1970-01-01 of a calendar date; `None` when there is no such date.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    const DAYS: [i64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let index = usize::try_from(month - 1).ok()?;
    let last = DAYS.get(index)? + i64::from(leap && month == 2);
    if !(1..=last).contains(&day) {
        return None;
    }
    // Years that begin in March, so that the leap day is the last of its year.
    let (march_year, march_month) =
        if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year_of_era) = (march_year.div_euclid(400), march_year.rem_euclid(400));
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// A time zone as a table, so that a local day is one short search.
#[derive(Clone, Debug)]
pub(super) struct Zone {
    /// Seconds since 1970 from which an offset in seconds holds, ascending.
    offsets: Vec<(i64, i64)>,
}

impl Zone {
    /// The table of `zone` for every day that can be recorded.
    pub(super) fn new(zone: &TimeZone) -> Self {
        let edge = |day: Day| {
            let seconds = (i64::from(day.0) - 1 - DAYS_BEFORE_1970) * DAY_SECONDS;
            Timestamp::from_second(seconds).expect("a recorded day is within jiff's range")
        };
        let (start, end) = (edge(Day::FIRST), edge(Day::LAST));
        let first = (i64::MIN, i64::from(zone.to_offset(start).seconds()));
        let changes = zone
            .following(start)
            .take_while(|change| change.timestamp() <= end)
            .map(|change| (change.timestamp().as_second(), i64::from(change.offset().seconds())));
        Self { offsets: std::iter::once(first).chain(changes.take(TRANSITIONS_MAX)).collect() }
    }

    /// The local day of a moment; a date is itself. `None` outside the years that can be recorded.
    pub(super) fn day(&self, moment: Moment) -> Option<Day> {
        let days = match moment {
            Moment::Date(days) => days,
            Moment::Time(ms) => {
                let second = ms.div_euclid(1_000);
                let index = self.offsets.partition_point(|(from, _)| *from <= second);
                (second + self.offsets[index - 1].1).div_euclid(DAY_SECONDS)
            }
        };
        u32::try_from(days + DAYS_BEFORE_1970 + 1).ok().and_then(Day::from_word)
    }
}

/// An instant as a bound of a filter: UTC, whole seconds, `Z`.
pub(super) fn filter_bound(instant: Instant) -> String {
    let second = instant.0.div_euclid(1_000);
    Timestamp::from_second(second).map_or_else(|_| "1970-01-01T00:00:00Z".into(), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use jiff::civil::{Date, date};

    use super::*;

    fn check(zone: &str, text: &str, expected: Option<Date>) {
        let zone = Zone::new(&TimeZone::get(zone).unwrap());
        let day = Moment::parse(text).and_then(|moment| zone.day(moment));
        assert_eq!(day.map(Day::date), expected, "{text}");
    }

    #[test]
    fn every_spelling_of_a_moment_is_read() {
        let third = Some(date(2024, 1, 3));
        check("Asia/Phnom_Penh", "2024-01-03", third);
        check("Asia/Phnom_Penh", "2024-01-02T17:00:00.000Z", third);
        check("Asia/Phnom_Penh", "2024-01-02T17:00:00+00:00", third);
        check("Asia/Phnom_Penh", "2024-01-02 17:00 UTC", third);
        check("Asia/Phnom_Penh", "2024-01-03T00:00:00.123456+07", third);
        check("Asia/Phnom_Penh", "2024-01-03T00:00:00 +0700", third);
        check("Asia/Phnom_Penh", "2024-01-02T16:59:59.999Z", Some(date(2024, 1, 2)));
        check("UTC", "2024-01-02T17:00:00", Some(date(2024, 1, 2)));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "2024",
            "2024-13-01",
            "2023-02-29",
            "2024-02-30",
            "2024-1-1",
            "01/02/2024",
            "2024-01-02T",
            "2024-01-02T25:00:00Z",
            "2024-01-02T10:00:00.Z",
            "2024-01-02T10:00:00+7",
            "2024-01-02x",
            "0000-00-00",
            "1899-12-31",
            "2101-01-01",
            "2024-01-02T10:00:00ZZ",
            "éééé",
        ] {
            check("UTC", text, None);
        }
    }

    #[test]
    fn summer_time_moves_the_day() {
        check("Europe/Paris", "2024-07-01T22:30:00Z", Some(date(2024, 7, 2)));
        check("Europe/Paris", "2024-01-01T22:30:00Z", Some(date(2024, 1, 1)));
    }

    #[test]
    fn the_table_agrees_with_the_calendar() {
        for name in ["Asia/Phnom_Penh", "Europe/Paris", "America/New_York", "Australia/Lord_Howe"] {
            let zone = TimeZone::get(name).unwrap();
            let table = Zone::new(&zone);
            for step in 0..200_000_i64 {
                let second = -2_000_000_000 + step * 30_011;
                let local = zone.to_datetime(Timestamp::from_second(second).unwrap()).date();
                assert_eq!(
                    table.day(Moment::Time(second * 1_000)),
                    Day::of(local),
                    "{name} {second}"
                );
            }
        }
    }

    #[test]
    fn every_day_of_two_centuries_is_its_own() {
        let zone = Zone::new(&TimeZone::UTC);
        for word in Day::FIRST.0..=Day::LAST.0 {
            let day = Day(word);
            let moment = Moment::parse(&day.date().to_string()).unwrap();
            assert_eq!(zone.day(moment), Some(day));
            assert_eq!(moment.month_of_birth(&zone), MonthOfBirth::of(day.date()));
        }
    }

    #[test]
    fn a_bound_is_a_whole_second() {
        let Some(Moment::Time(ms)) = Moment::parse("2024-01-02T03:04:05.999Z") else { panic!() };
        assert_eq!(filter_bound(Instant(ms)), "2024-01-02T03:04:05Z");
    }
}
