//! Reporting periods, each a small integer that sorts by time within its type.

use serde::{Deserialize, Serialize};

use super::Day;

/// Fiscal years are coded by their first month, counted from January 1899: that of [`Day::FIRST`] begins in the year
/// before it. Months from there to that of [`Day::FIRST`].
const MONTHS_BEFORE: u16 = 12;
const MONTHS_OF_YEAR: u16 = 12;
const DAYS_OF_WEEK: u32 = 7;
/// The month in which a calendar year begins.
const JANUARY: u8 = 1;

/// How long a period is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// Twelve months that begin where the instance says so.
    FiscalYear,
    /// Sunday to Saturday, as Primero counts weeks.
    Week,
}

impl PeriodType {
    /// Every type.
    pub const ALL: [Self; 7] = [
        Self::Now,
        Self::Month,
        Self::Quarter,
        Self::Half,
        Self::Year,
        Self::FiscalYear,
        Self::Week,
    ];

    /// As written in packs and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Month => "month",
            Self::Quarter => "quarter",
            Self::Half => "half",
            Self::Year => "year",
            Self::FiscalYear => "fiscal_year",
            Self::Week => "week",
        }
    }

    /// The type that is written so.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|period_type| period_type.name() == name)
    }

    /// How many months one step of the code is; 0 for what is not counted in months.
    fn months_per_step(self) -> u16 {
        match self {
            Self::Now | Self::Week => 0,
            Self::Month | Self::FiscalYear => 1,
            Self::Quarter => 3,
            Self::Half => 6,
            Self::Year => MONTHS_OF_YEAR,
        }
    }

    /// From the code of a period to that of the next one.
    fn steps(self) -> u16 {
        match self {
            Self::Now => 0,
            // Coded by its first month, so that fiscal years that begin differently are different periods.
            Self::FiscalYear => MONTHS_OF_YEAR,
            _ => 1,
        }
    }

    /// The first code of this type; the days of 1900 to 2100 and a period more fit below the next base.
    fn base(self) -> u16 {
        match self {
            Self::Now => 0,
            Self::Month => 1,
            Self::Quarter => 2_500,
            Self::Half => 3_400,
            Self::Year => 3_900,
            Self::FiscalYear => 4_200,
            Self::Week => 7_000,
        }
    }
}

/// One period: its type and its place in time as one number below 2^15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Period(pub u16);

impl Period {
    /// Bits that hold any period.
    pub const BITS: u32 = 15;

    /// The period of `period_type` that `day` lies in; a fiscal year is the calendar year.
    pub fn of(period_type: PeriodType, day: Day) -> Self {
        Self::in_calendar(period_type, day, JANUARY)
    }

    /// The same where fiscal years begin in the month `fiscal_year_start`, 1 to 12.
    pub fn in_calendar(period_type: PeriodType, day: Day, fiscal_year_start: u8) -> Self {
        let index = match period_type {
            PeriodType::Now => 0,
            // Day 1 is a Monday, so a multiple of seven is a Sunday.
            PeriodType::Week => u16::try_from(day.0.min(Day::LAST.0) / DAYS_OF_WEEK)
                .expect("10,488 weeks are in 201 years"),
            PeriodType::FiscalYear => {
                let month = Self::month_of(day);
                let start = u16::from(fiscal_year_start.clamp(JANUARY, 12)) - 1;
                month - (month - start) % MONTHS_OF_YEAR
            }
            _ => (Self::month_of(day) - MONTHS_BEFORE) / period_type.months_per_step(),
        };
        Self(period_type.base() + index)
    }

    /// The period of `period_type` that begins on `start`, whatever the fiscal year it is of.
    pub fn beginning(period_type: PeriodType, start: Day) -> Self {
        Self::in_calendar(period_type, start, start.date().month().unsigned_abs())
    }

    /// Months since January 1899; at least [`MONTHS_BEFORE`].
    fn month_of(day: Day) -> u16 {
        MONTHS_BEFORE + u16::try_from(day.month()).expect("2,412 months are in 201 years")
    }

    /// Its type.
    pub fn period_type(self) -> PeriodType {
        let types = PeriodType::ALL.into_iter().rev();
        types.into_iter().find(|t| self.0 >= t.base()).unwrap_or(PeriodType::Now)
    }

    /// Its first day; none for [`PeriodType::Now`], and for the weeks and fiscal years that began before
    /// [`Day::FIRST`]: those are never published, because days of them are not known.
    pub fn start(self) -> Option<Day> {
        let period_type = self.period_type();
        let index = self.0 - period_type.base();
        let months = match period_type {
            PeriodType::Now => return None,
            PeriodType::Week => return Day::from_word(u32::from(index) * DAYS_OF_WEEK),
            PeriodType::FiscalYear => index.checked_sub(MONTHS_BEFORE)?,
            _ => index * period_type.months_per_step(),
        };
        Day::first_of(u32::from(months))
    }

    /// Its last day, or [`Day::LAST`] where it ends later; none for [`PeriodType::Now`].
    pub fn end(self) -> Option<Day> {
        let ends = self.period_type() != PeriodType::Now;
        ends.then(|| self.next().start().map_or(Day::LAST, Day::before))
    }

    /// What all periods that follow each other have in common: the first code of those that [`Period::next`] leads
    /// through. Fiscal years that begin in different months are different lines.
    #[must_use]
    pub fn first_in_line(self) -> Self {
        let period_type = self.period_type();
        let index = self.0 - period_type.base();
        Self(period_type.base() + index % period_type.steps().max(1))
    }

    /// The next period of the same type that begins when this one is over; the same for [`PeriodType::Now`].
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + self.period_type().steps())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::civil::{Date, date};

    use super::*;

    fn check(period_type: PeriodType, on: Date, start: Date, end: Date) {
        check_fiscal(period_type, JANUARY, on, start, end);
    }

    fn check_fiscal(period_type: PeriodType, fiscal: u8, on: Date, start: Date, end: Date) {
        let period = Period::in_calendar(period_type, Day::of(on).unwrap(), fiscal);
        assert_eq!(period.period_type(), period_type);
        assert_eq!(period.start().map(Day::date), Some(start));
        assert_eq!(period.end().map(Day::date), Some(end));
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
        check(PeriodType::Week, date(2026, 8, 1), date(2026, 7, 26), date(2026, 8, 1));
        check(PeriodType::Week, date(2026, 8, 2), date(2026, 8, 2), date(2026, 8, 8));
        check(PeriodType::Week, date(2100, 12, 31), date(2100, 12, 26), date(2100, 12, 31));
        check(PeriodType::FiscalYear, date(2026, 8, 2), date(2026, 1, 1), date(2026, 12, 31));
    }

    #[test]
    fn a_fiscal_year_begins_where_it_is_said_to() {
        let check = |fiscal, on, start, end| {
            check_fiscal(PeriodType::FiscalYear, fiscal, on, start, end);
        };
        check(10, date(2026, 9, 30), date(2025, 10, 1), date(2026, 9, 30));
        check(10, date(2026, 10, 1), date(2026, 10, 1), date(2027, 9, 30));
        check(7, date(2026, 10, 1), date(2026, 7, 1), date(2027, 6, 30));
        check(12, date(2100, 12, 31), date(2100, 12, 1), date(2100, 12, 31));
        check(1, date(1900, 1, 1), date(1900, 1, 1), date(1900, 12, 31));
    }

    #[test]
    fn what_began_before_the_first_day_has_no_start() {
        let first = |period_type, fiscal| Period::in_calendar(period_type, Day::FIRST, fiscal);
        assert_eq!(first(PeriodType::Week, 1).start(), None);
        assert_eq!(first(PeriodType::Week, 1).end(), Day::of(date(1900, 1, 6)));
        assert_eq!(first(PeriodType::FiscalYear, 10).start(), None);
        assert_eq!(first(PeriodType::FiscalYear, 10).end(), Day::of(date(1900, 9, 30)));
        assert_ne!(first(PeriodType::FiscalYear, 10), first(PeriodType::FiscalYear, 7));
    }

    /// Every day of 1900 to 2100, every type, every beginning of a fiscal year.
    #[test]
    fn every_day_lies_in_one_period_and_the_next_one_follows() {
        let mut codes = BTreeSet::new();
        for period_type in PeriodType::ALL.into_iter().filter(|t| *t != PeriodType::Now) {
            let is_fiscal = period_type == PeriodType::FiscalYear;
            for fiscal in 1..=if is_fiscal { 12 } else { 1 } {
                let of = |day| Period::in_calendar(period_type, Day(day), fiscal);
                let mut period = of(Day::FIRST.0);
                let mut from = Day::FIRST.0;
                while from <= Day::LAST.0 {
                    assert_eq!(period.period_type(), period_type);
                    assert!(u32::from(period.0) < 1 << Period::BITS);
                    assert!(codes.insert(period), "{period_type:?} shares a code");
                    let started = period.start();
                    assert!(started == Some(Day(from)) || (from == 1 && started.is_none()));
                    let to = period.end().unwrap().0;
                    assert!(from <= to);
                    assert!((from..=to).all(|day| of(day) == period));
                    assert!(period.next() > period);
                    (from, period) = (to + 1, period.next());
                }
                assert_eq!(from, Day::LAST.0 + 1);
                // Callers step one period beyond the last day before they see that it is beyond.
                assert_eq!((period.period_type(), period.start()), (period_type, None));
            }
        }
    }

    #[test]
    fn now_has_no_dates() {
        let now = Period::of(PeriodType::Now, Day::FIRST);
        assert_eq!((now.period_type(), now.start(), now.end()), (PeriodType::Now, None, None));
        assert_eq!(now.next(), now);
    }

    #[test]
    fn types_are_written_as_in_packs() {
        for period_type in PeriodType::ALL {
            let name = serde_json::to_string(&period_type).unwrap();
            assert_eq!(name, format!("{:?}", period_type.name()));
        }
    }
}
