//! Days and months as small integers. A date-time enters as the local day of its instance.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// A day: 1 is 1900-01-01. Zero is never a day, so a zero word means *not recorded*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Day(pub u32);

const EPOCH: Date = jiff::civil::date(1900, 1, 1);

impl Day {
    /// The first day that can be recorded, 1900-01-01.
    pub const FIRST: Self = Self(1);
    /// The last day that can be recorded, 2100-12-31.
    pub const LAST: Self = Self(73_414);

    /// The day of a calendar date; `None` outside 1900..=2100, where a date is a typing error.
    pub fn of(date: Date) -> Option<Self> {
        if !(1900..=2100).contains(&date.year()) {
            return None;
        }
        let days = date.duration_since(EPOCH).as_hours() / 24;
        u32::try_from(days).ok().map(|days| Self(days + 1))
    }

    /// The day that a word of a case holds; `None` for zero or a word that is no day.
    pub fn from_word(word: u32) -> Option<Self> {
        (Self::FIRST.0..=Self::LAST.0).contains(&word).then_some(Self(word))
    }

    /// As a calendar date.
    pub fn date(self) -> Date {
        let days = i64::from(self.0.clamp(Self::FIRST.0, Self::LAST.0)) - 1;
        EPOCH.saturating_add(jiff::Span::new().days(days))
    }

    /// The day before, or the same when there is none.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1).max(1))
    }

    /// The day that many days later, or earlier; none outside the days that can be recorded.
    pub fn plus(self, days: i32) -> Option<Self> {
        let day = i64::from(self.0) + i64::from(days);
        u32::try_from(day).ok().and_then(Self::from_word)
    }

    /// The number of its week, which begins on Sunday.
    #[must_use]
    pub fn week(self) -> u32 {
        // Day 1 is a Monday, so a multiple of seven is a Sunday.
        self.0 / 7
    }
}

/// A month of birth: months since 1900-01, plus one. The day of birth is dropped where it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MonthOfBirth(pub u32);

impl MonthOfBirth {
    /// The month of a calendar date; `None` outside 1900..=2100.
    pub fn of(date: Date) -> Option<Self> {
        let year = u32::try_from(date.year()).ok().filter(|y| (1900..=2100).contains(y))?;
        Some(Self((year - 1900) * 12 + u32::from(date.month().unsigned_abs())))
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn days_go_there_and_back() {
        for d in [date(1900, 1, 1), date(2024, 2, 29), date(2100, 12, 31)] {
            assert_eq!(Day::of(d).map(Day::date), Some(d));
        }
        assert_eq!(Day::of(date(2100, 12, 31)), Some(Day::LAST));
        assert_eq!(Day::of(date(1900, 1, 1)), Some(Day::FIRST));
    }

    #[test]
    fn a_typing_error_is_no_day() {
        assert_eq!(Day::of(date(1899, 12, 31)), None);
        assert_eq!(Day::of(date(2101, 1, 1)), None);
        assert_eq!(Day::from_word(0), None);
    }

    #[test]
    fn a_birth_date_keeps_only_its_month() {
        assert_eq!(MonthOfBirth::of(date(2014, 5, 1)), MonthOfBirth::of(date(2014, 5, 31)));
    }
}
