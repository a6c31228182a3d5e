//! Months counted from January 1900, and the days they begin on: looked up, because a load asks for millions of them.

use super::Day;

/// Months of 1900 to 2100.
const MONTH_COUNT: usize = 201 * 12;

/// The first day of each month, and of the one after the last.
static FIRST_DAYS: [u32; MONTH_COUNT + 1] = first_days();

const fn first_days() -> [u32; MONTH_COUNT + 1] {
    let mut days = [Day::FIRST.0; MONTH_COUNT + 1];
    let mut month = 0;
    while month < MONTH_COUNT {
        let year = 1900 + month / 12;
        let is_leap =
            year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
        let length = match month % 12 {
            1 if is_leap => 29,
            1 => 28,
            3 | 5 | 8 | 10 => 30,
            _ => 31,
        };
        days[month + 1] = days[month] + length;
        month += 1;
    }
    days
}

impl Day {
    /// Its month, counted from January 1900.
    #[must_use]
    pub fn month(self) -> u32 {
        let day = self.0.clamp(Self::FIRST.0, Self::LAST.0);
        // 4,800 months have 146,097 days: the guess is at most one off.
        let guess = day * 4_800 / 146_097;
        let next = FIRST_DAYS.get(guess as usize + 1);
        if FIRST_DAYS[guess as usize] > day {
            guess - 1
        } else {
            guess + u32::from(next.is_some_and(|next| *next <= day))
        }
    }

    /// The first day of a month, counted from January 1900; none outside the days that can be recorded.
    #[must_use]
    pub fn first_of(month: u32) -> Option<Self> {
        FIRST_DAYS.get(month as usize).and_then(|day| Self::from_word(*day))
    }

    /// The first day of this day's month.
    #[must_use]
    pub fn first_of_month(self) -> Self {
        Self(FIRST_DAYS[self.month() as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_is_in_the_month_of_its_date() {
        for day in (Day::FIRST.0..=Day::LAST.0).map(Day) {
            let date = day.date();
            let month = (i32::from(date.year()) - 1900) * 12 + i32::from(date.month()) - 1;
            assert_eq!(day.month() as i32, month, "{date}");
            assert_eq!(day.first_of_month().date(), date.first_of_month());
            assert_eq!(Day::first_of(day.month()), Some(day.first_of_month()));
        }
        assert_eq!(Day::first_of(MONTH_COUNT as u32), None);
        assert_eq!(Day::first_of(u32::MAX), None);
        assert_eq!((Day(0).month(), Day(u32::MAX).month()), (0, MONTH_COUNT as u32 - 1));
    }
}
