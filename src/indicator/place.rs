//! What places a case or a row in periods: single periods, or runs of them.

use smallvec::SmallVec;

use crate::indicator::Plan;
use crate::indicator::lifecycle::Interval;
use crate::indicator::part::{PlacedAt, Placing};
use crate::indicator::stream::Stream;
use crate::indicator::value::{Source, Subject};
use crate::model::{Case, Day, Period, PeriodType};

/// Periods one after the other in which something counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The first of them.
    pub(super) first: Period,
    /// The period after the last.
    pub(super) end: Period,
    /// The day that places a count; for runs see [`Plan::event_of`].
    pub(super) day: Day,
}

impl Run {
    fn single(period: Period, day: Day) -> Self {
        Self { first: period, end: period.next(), day }
    }
}

/// What a placing needs to know of a record besides its words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) stream: &'a Stream,
    pub(super) index: usize,
    pub(super) intervals: &'a [Interval],
    pub(super) today: Day,
}

impl Plan {
    /// The open intervals of a case.
    pub(super) fn intervals(&self, case: &Case) -> SmallVec<[Interval; 2]> {
        let lifecycle = self.lifecycle.as_ref();
        lifecycle.map_or_else(SmallVec::new, |slots| slots.intervals(case, &self.schema))
    }

    /// The periods that a placing puts a case in, each once. A placing by a date of a row gives nothing here.
    pub(super) fn place_case(
        &self,
        placing: &Placing,
        subject: &Subject<'_>,
        context: &Context<'_>,
        into: &mut Vec<Run>,
    ) {
        into.clear();
        match placing.placed {
            PlacedAt::Date(Source::Row(_), _) => {}
            PlacedAt::Date(source @ Source::Case(_), mature_after) => {
                self.place_date(placing, subject.word(source), mature_after, context, into);
            }
            PlacedAt::Now => {
                let period = Period::of(PeriodType::Now, context.today);
                into.push(Run::single(period, context.today));
            }
            PlacedAt::Presence | PlacedAt::Stock => {
                for period_type in &placing.periods {
                    self.place_intervals(*period_type, placing.placed, context, into);
                }
            }
        }
    }

    /// The periods of a date in a word, those that are published; a cohort that is not mature has none yet.
    pub(super) fn place_date(
        &self,
        placing: &Placing,
        word: u32,
        mature_after: Option<u32>,
        context: &Context<'_>,
        into: &mut Vec<Run>,
    ) {
        let Some(day) = Case::day(word) else { return };
        if mature_after.is_some_and(|days| day.0.saturating_add(days) > context.today.0) {
            return;
        }
        for period_type in &placing.periods {
            let period = self.period(*period_type, day, context.stream);
            if self.is_published(period) {
                into.push(Run::single(period, day));
            }
        }
    }

    pub(super) fn period(&self, period_type: PeriodType, day: Day, stream: &Stream) -> Period {
        Period::in_calendar(period_type, day, stream.fiscal_start)
    }

    pub(super) fn is_published(&self, period: Period) -> bool {
        period.start().is_some_and(|start| start >= self.history_start())
    }

    /// Presence: any open day, the closing day included. Stock: open at the end of the period, or today in
    /// the period that is not over.
    fn place_intervals(
        &self,
        period_type: PeriodType,
        placed: PlacedAt,
        context: &Context<'_>,
        into: &mut Vec<Run>,
    ) {
        let today = context.today;
        let of = |day: Day| self.period(period_type, day, context.stream);
        let after_today = of(today).next();
        let begins = of(self.history_start());
        let mut next = if self.is_published(begins) { begins } else { begins.next() };
        for interval in context.intervals {
            if interval.from > today {
                continue;
            }
            // The period after the last in which the interval counts.
            let end = match interval.to {
                Some(to) if to <= today && placed == PlacedAt::Stock => of(to),
                Some(to) if to <= today => of(to).next(),
                _ => after_today,
            };
            let first = next.max(of(interval.from));
            if first < end {
                into.push(Run { first, end, day: interval.from });
                next = end;
            }
        }
    }

    /// The event of one period of a run.
    pub(super) fn event_of(&self, placed: PlacedAt, run: Run, period: Period, today: Day) -> Day {
        match placed {
            PlacedAt::Stock => period.end().map_or(today, |end| end.min(today)),
            PlacedAt::Presence => period.start().map_or(run.day, |start| start.max(run.day)),
            PlacedAt::Date(..) | PlacedAt::Now => run.day,
        }
    }
}
