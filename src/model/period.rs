//! Reporting periods, each a small integer that sorts by time within its type.

use jiff::civil::{Date, date};
use serde::{Deserialize, Serialize};

use super::Day;

const YEAR_FIRST: u16 = 1900;

/// How long a period is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeriodType {
    /// No period: the state as of the last clock tick.
    Now,
    /// A calendar month.
    Month,
    /// A calendar quarter.
    Quarter,
    /// A calendar half-year.
    Half,
    /// A calendar year.
    Year,
}

impl PeriodType {
    /// As written in packs and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Month => "month",
            Self::Quarter => "quarter",
            Self::Half => "half",
            Self::Year => "year",
        }
    }

    fn months(self) -> u16 {
        match self {
            Self::Now => 0,
            Self::Month => 1,
            Self::Quarter => 3,
            Self::Half => 6,
            Self::Year => 12,
        }
    }

    /// The first code of this type; 201 years of each type fit below the next (see [`Period::BITS`]).
    fn base(self) -> u16 {
        match self {
            Self::Now => 0,
            Self::Month => 1,
            Self::Quarter => 2_500,
            Self::Half => 3_400,
            Self::Year => 3_900,
        }
    }

    const DATED: [Self; 4] = [Self::Year, Self::Half, Self::Quarter, Self::Month];
}

/// One period: its type and its place in time as one number below 2^15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Period(pub u16);

impl Period {
    /// Bits that hold any period.
    pub const BITS: u32 = 15;

    /// The period of `period_type` that `day` lies in.
    pub fn of(period_type: PeriodType, day: Day) -> Self {
        let Some(index) = Self::months_since_first(day).checked_div(period_type.months()) else {
            return Self(0);
        };
        Self(period_type.base() + index)
    }

    fn months_since_first(day: Day) -> u16 {
        let date = day.date();
        (date.year().unsigned_abs() - YEAR_FIRST) * 12 + u16::from(date.month().unsigned_abs()) - 1
    }

    /// Its type.
    pub fn period_type(self) -> PeriodType {
        let dated = PeriodType::DATED.into_iter().find(|t| self.0 >= t.base());
        dated.unwrap_or(PeriodType::Now)
    }

    /// Its first day; `None` for [`PeriodType::Now`].
    pub fn start(self) -> Option<Day> {
        self.date_after(0).and_then(Day::of)
    }

    /// Its last day; `None` for [`PeriodType::Now`].
    pub fn end(self) -> Option<Day> {
        self.date_after(1).and_then(|next| Day::of(next.yesterday().ok()?))
    }

    /// The next period of the same type.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The first day of the period that many periods later.
    fn date_after(self, periods: u16) -> Option<Date> {
        let period_type = self.period_type();
        let months = (self.0 - period_type.base() + periods) * period_type.months();
        (period_type != PeriodType::Now).then(|| {
            let year =
                i16::try_from(YEAR_FIRST + months / 12).expect("15 bits end before year 6000");
            date(year, i8::try_from(months % 12).expect("below 12") + 1, 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(period_type: PeriodType, on: Date, start: Date, end: Date) {
        let period = Period::of(period_type, Day::of(on).unwrap());
        assert_eq!(period.period_type(), period_type);
        assert_eq!(period.start().map(Day::date), Some(start));
        assert_eq!(period.end().map(Day::date), Some(end));
        assert!(period.0 < 1 << Period::BITS);
    }

    #[test]
    fn a_day_lies_in_its_periods() {
        check(PeriodType::Month, date(2024, 2, 29), date(2024, 2, 1), date(2024, 2, 29));
        check(PeriodType::Quarter, date(2026, 3, 30), date(2026, 1, 1), date(2026, 3, 31));
        check(PeriodType::Half, date(2026, 7, 1), date(2026, 7, 1), date(2026, 12, 31));
        check(PeriodType::Year, date(1900, 1, 1), date(1900, 1, 1), date(1900, 12, 31));
        check(PeriodType::Month, date(2100, 12, 31), date(2100, 12, 1), date(2100, 12, 31));
        check(PeriodType::Quarter, date(2100, 12, 31), date(2100, 10, 1), date(2100, 12, 31));
        check(PeriodType::Half, date(2100, 12, 31), date(2100, 7, 1), date(2100, 12, 31));
        check(PeriodType::Year, date(2100, 12, 31), date(2100, 1, 1), date(2100, 12, 31));
    }

    #[test]
    fn now_has_no_dates() {
        let now = Period::of(PeriodType::Now, Day::FIRST);
        assert_eq!((now.period_type(), now.start(), now.end()), (PeriodType::Now, None, None));
    }
}
