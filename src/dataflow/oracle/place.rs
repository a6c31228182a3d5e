//! The periods that a case, or a row of it, counts in, and the event of each.

use crate::dataflow::oracle::life::Life;
use crate::dataflow::oracle::view::{Row, View};
use crate::indicator::{Part, Path, Placed};
use crate::model::{Day, Period, PeriodType};

impl View<'_> {
    /// Each period that a part counts in, with the day of the event.
    pub(super) fn events(
        &self,
        part: &Part,
        period_types: &[PeriodType],
        row: Row<'_>,
    ) -> Vec<(Period, Day)> {
        let today = self.world.today;
        match &part.placed {
            Placed::Flow(date) => self.on(self.day(date, row), period_types),
            Placed::Cohort { date, mature_after } => {
                let mature = |day: &Day| day.0 + mature_after <= today.0;
                self.on(self.day(date, row).filter(mature), period_types)
            }
            Placed::Presence => {
                self.through_life(period_types, |life, from, to| life.first_active(from, to))
            }
            Placed::Stock => self
                .through_life(period_types, |life, _, to| Some(to).filter(|to| life.is_open(*to))),
            Placed::Now => vec![(Period::of(PeriodType::Now, today), today)],
        }
    }

    fn on(&self, day: Option<Day>, period_types: &[PeriodType]) -> Vec<(Period, Day)> {
        let Some(day) = day else { return Vec::new() };
        let periods = period_types.iter().map(|period_type| self.period(*period_type, day));
        periods.filter(|period| self.is_published(*period)).map(|period| (period, day)).collect()
    }

    /// Every period that has begun, if `event` finds one from its first day to its last or today.
    fn through_life(
        &self,
        period_types: &[PeriodType],
        event: impl Fn(&Life, Day, Day) -> Option<Day>,
    ) -> Vec<(Period, Day)> {
        let Some(life) = self.life() else { return Vec::new() };
        let today = self.world.today;
        let mut events = Vec::new();
        for period_type in period_types {
            let mut period = self.period(*period_type, self.world.definition.history_start);
            if !self.is_published(period) {
                period = period.next();
            }
            while let (Some(from), Some(end)) = (period.start(), period.end())
                && from <= today
            {
                events.extend(event(&life, from, end.min(today)).map(|event| (period, event)));
                period = period.next();
            }
        }
        events
    }

    fn period(&self, period_type: PeriodType, day: Day) -> Period {
        Period::in_calendar(period_type, day, self.instance.fiscal_year_start)
    }

    fn is_published(&self, period: Period) -> bool {
        period.start().is_some_and(|start| start >= self.world.definition.history_start)
    }

    /// The row before this one by the date that places them, if the part wants one: in the order of dates, rows
    /// of one day in their own order, and rows without that date left out.
    pub(super) fn row_before(&self, subform: &str, date: &Path, row: Row<'_>) -> Row<'_> {
        let mut dated: Vec<_> = self
            .rows_of(subform)
            .into_iter()
            .filter_map(|row| Some((self.day(date, Some(row))?, row)))
            .collect();
        dated.sort_by_key(|(day, _)| *day);
        let own =
            dated.iter().position(|(_, other)| row.is_some_and(|row| std::ptr::eq(*other, row)));
        own?.checked_sub(1).map(|index| dated[index].1)
    }

    /// The row with the latest date that is not after the event; of several the last.
    pub(super) fn latest_row(&self, subform: &str, date: &Path, event: Day) -> Row<'_> {
        let rows = self.rows_of(subform).into_iter();
        let dated = rows.filter_map(|row| Some((self.day(date, Some(row))?, row)));
        let past = dated.filter(|(day, _)| *day <= event);
        past.reduce(|best, next| if next.0 >= best.0 { next } else { best }).map(|(_, row)| row)
    }
}
