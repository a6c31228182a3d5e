//! Periods as people write them: `2026`, `2026-H2`, `2026-Q3`, `2026-07`, `W2026-08-02`, `FY2026-10`.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, date};

use super::{Day, Period, PeriodType};
use crate::error::{Error, Result};

impl FromStr for Period {
    type Err = Error;

    /// Reads a year, half, quarter or month; a week by any of its days; a fiscal year by its first month.
    ///
    /// # Errors
    /// A configuration error with examples for anything else, and for years outside 1900 to 2100.
    fn from_str(text: &str) -> Result<Self> {
        parse(text).ok_or_else(|| {
            Error::config(format!("{text:?} is no period")).advise(
                "write a year as 2026, a half as 2026-H2, a quarter as 2026-Q3, a month as 2026-07, \
                 a week by one of its days as W2026-08-02, a fiscal year by its first month as FY2026-10",
            )
        })
    }
}

fn parse(text: &str) -> Option<Period> {
    if let Some(week) = text.strip_prefix('W') {
        let (month, day) = week.rsplit_once('-')?;
        let (year, month) = year_and_month(month)?;
        let day = Day::of(Date::new(year, month, number(day, 2)?).ok()?)?;
        return Some(Period::of(PeriodType::Week, day));
    }
    if let Some(first) = text.strip_prefix("FY") {
        let (year, month) = year_and_month(first)?;
        return beginning(PeriodType::FiscalYear, year, month);
    }
    let Some((year, part)) = text.split_once('-') else {
        return beginning(PeriodType::Year, i16::from_str(digits(text, 4)?).ok()?, 1);
    };
    let year = i16::from_str(digits(year, 4)?).ok()?;
    let (period_type, months, part) = match (part.strip_prefix('H'), part.strip_prefix('Q')) {
        (Some(half), _) => (PeriodType::Half, 6, number(half, 1)?),
        (_, Some(quarter)) => (PeriodType::Quarter, 3, number(quarter, 1)?),
        _ => (PeriodType::Month, 1, number(part, 2)?),
    };
    let is_there = (1..=12 / months).contains(&part);
    is_there.then(|| beginning(period_type, year, (part - 1) * months + 1))?
}

fn beginning(period_type: PeriodType, year: i16, month: i8) -> Option<Period> {
    let start = Day::of(Date::new(year, month, 1).ok()?)?;
    Some(Period::beginning(period_type, start))
}

fn year_and_month(text: &str) -> Option<(i16, i8)> {
    let (year, month) = text.split_once('-')?;
    Some((i16::from_str(digits(year, 4)?).ok()?, number(month, 2)?))
}

fn number(text: &str, length: usize) -> Option<i8> {
    i8::from_str(digits(text, length)?).ok()
}

/// The text, if it is so many digits and nothing else: `+7` and ` 7` parse as numbers too.
fn digits(text: &str, length: usize) -> Option<&str> {
    (text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

impl fmt::Display for Period {
    /// As [`FromStr`] reads it; a period that began before 1900 by its last day.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.start().or(self.end()).map_or(date(1900, 1, 1), Day::date);
        let (year, month) = (shown.year(), shown.month());
        match self.period_type() {
            PeriodType::Now => f.write_str("now"),
            PeriodType::Month => write!(f, "{year}-{month:02}"),
            PeriodType::Quarter => write!(f, "{year}-Q{}", (month - 1) / 3 + 1),
            PeriodType::Half => write!(f, "{year}-H{}", (month - 1) / 6 + 1),
            PeriodType::Year => write!(f, "{year}"),
            PeriodType::FiscalYear => write!(f, "FY{year}-{month:02}"),
            PeriodType::Week => write!(f, "W{shown}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, period_type: PeriodType, start: Date) {
        let period: Period = text.parse().unwrap();
        assert_eq!((period.period_type(), period.start()), (period_type, Day::of(start)), "{text}");
        assert_eq!(period.to_string(), text);
    }

    #[test]
    fn a_period_is_written_as_it_is_read() {
        check("2026", PeriodType::Year, date(2026, 1, 1));
        check("2026-H2", PeriodType::Half, date(2026, 7, 1));
        check("2026-Q3", PeriodType::Quarter, date(2026, 7, 1));
        check("2026-07", PeriodType::Month, date(2026, 7, 1));
        check("W2026-08-02", PeriodType::Week, date(2026, 8, 2));
        check("FY2026-10", PeriodType::FiscalYear, date(2026, 10, 1));
        assert_eq!("W2026-08-05".parse::<Period>().unwrap().to_string(), "W2026-08-02");
    }

    #[test]
    fn anything_else_is_answered_with_examples() {
        for text in [
            "",
            "26",
            "2026-7",
            "2026-13",
            "2026-00",
            "2026-Q5",
            "2026-Q0",
            "2026-H3",
            "2026-q3",
            "now",
            "2026-+7",
            "W2026-02-30",
            "W2026-31",
            "FY2026",
            "FY2026-13",
            "1899",
            "2101-01",
            "W-1-01-01",
            "2026-Q",
            "2026-Qé",
            "20é6",
        ] {
            let error = text.parse::<Period>().unwrap_err().to_string();
            assert!(error.contains("2026-Q3") && error.contains("is no period"), "{error}");
        }
    }
}
