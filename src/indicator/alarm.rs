//! When a case contributes something else by itself: what a clock tick has to look at.

use crate::indicator::Plan;
use crate::indicator::check::{Check, Compiled};
use crate::indicator::part::{PlacedAt, SummaryPlan};
use crate::indicator::value::{Source, ValuePlan};
use crate::model::{Case, Day, Subform};

/// The days on which cases may change by themselves, besides those of their lifecycle.
#[derive(Clone, Debug, Default)]
pub(super) struct Alarms {
    /// Dates of a case, each with the days from the date to the change.
    dates: Vec<(Dated, i32)>,
    /// Whether something of an open case changes every day.
    daily_while_open: bool,
    /// Whether something of any case changes every day.
    daily: bool,
    /// Whether something of any case changes with the month.
    monthly: bool,
}

/// Where dates are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dated {
    Case(u16),
    Row { subform: usize, word: u16 },
    Set(u16),
}

impl Alarms {
    /// Everything in `plan` that the clock changes.
    pub(super) fn of(plan: &Plan) -> Self {
        let mut alarms = Self::default();
        for indicator in &plan.indicators {
            for part in &indicator.parts {
                let placed = plan.placings[part.placing].placed;
                if let PlacedAt::Date(source, mature_after @ 1..) = placed {
                    alarms.note(source, part.subform, mature_after as i32);
                }
                if !placed.follows_clock() {
                    continue;
                }
                let is_now = placed == PlacedAt::Now;
                if let (Some(word), Some(subform)) = (part.latest, part.subform) {
                    alarms.add(Dated::Row { subform, word }, 0);
                }
                let numerator = part.numerator.iter().flat_map(|n| n.filter.iter().chain(&n.rows));
                let checks = part.filter_at_event.iter().chain(&part.rows).chain(numerator);
                alarms.checks(plan, checks, part.subform, is_now);
                if let SummaryPlan::Days { value, .. } = indicator.summary {
                    alarms.value(&plan.values[value], is_now);
                }
                let families = &plan.families[indicator.families.clone()];
                for part in families.iter().flat_map(|family| &family.parts) {
                    if let super::dimension::OriginPlan::Value(value) =
                        plan.dimensions[part.dimension].origin
                    {
                        alarms.value(&plan.values[value], is_now);
                    }
                }
            }
        }
        alarms
    }

    fn checks<'a>(
        &mut self,
        plan: &Plan,
        checks: impl IntoIterator<Item = &'a Check>,
        subform: Option<usize>,
        is_now: bool,
    ) {
        for check in checks {
            match check {
                Check::Word(source, Compiled::Within(from, to)) => {
                    self.within(Dated::of(*source, subform), (*from, *to));
                }
                Check::Set(set, Compiled::Within(from, to)) => {
                    self.within(Some(Dated::Set(*set)), (*from, *to));
                }
                Check::Value(index, _) => self.value(&plan.values[*index], is_now),
                Check::Any(groups) => {
                    groups.iter().for_each(|group| self.checks(plan, group, subform, is_now));
                }
                Check::Has { subform, rows, date, within } => {
                    let dated = date.map(|word| Dated::Row { subform: *subform, word });
                    self.within(dated, *within);
                    self.checks(plan, rows, Some(*subform), is_now);
                }
                Check::Word(..) | Check::Set(..) => {}
            }
        }
    }

    /// A date is within (from, to) of the event on the days from date - to to date - from.
    fn within(&mut self, dated: Option<Dated>, (from, to): (i32, i32)) {
        let Some(dated) = dated else { return };
        if to != i32::MAX {
            self.add(dated, to.saturating_neg());
        }
        if from != i32::MIN {
            self.add(dated, from.saturating_neg().saturating_add(1));
        }
    }

    fn value(&mut self, value: &ValuePlan, is_now: bool) {
        if !value.needs_event() {
            return;
        }
        match value {
            ValuePlan::Days { .. } if is_now => self.daily = true,
            ValuePlan::Days { .. } => self.daily_while_open = true,
            // An age is counted in months, and with the month every open case is looked at anyway.
            ValuePlan::Age { .. } => self.monthly |= is_now,
            ValuePlan::Conflict(_) => {}
        }
    }

    fn note(&mut self, source: Source, subform: Option<usize>, offset: i32) {
        if let Some(dated) = Dated::of(source, subform) {
            self.add(dated, offset);
        }
    }

    fn add(&mut self, dated: Dated, offset: i32) {
        if !self.dates.contains(&(dated, offset)) {
            self.dates.push((dated, offset));
        }
    }
}

impl Dated {
    fn of(source: Source, subform: Option<usize>) -> Option<Self> {
        match source {
            Source::Case(word) => Some(Self::Case(word)),
            Source::Row(word) => subform.map(|subform| Self::Row { subform, word }),
        }
    }
}

impl Plan {
    /// Whether `case` contributes the same on both days, found without judging it. `before` is the earlier day.
    pub fn sleeps_through(&self, case: &Case, before: Day, after: Day) -> bool {
        if self.alarms.daily {
            return false;
        }
        let Some(stream) = self.stream_of(case) else { return true };
        let translated = self.streams[stream].translated(case, &self.schema);
        let case = translated.as_ref().unwrap_or(case);
        let same_month = before.first_of_month() == after.first_of_month();
        let same_week = before.week() == after.week();
        let moved = |day: Day| before < day && day <= after;
        let lives_on = self.intervals(case).iter().all(|interval| {
            let is_past = interval.to.is_some_and(|to| to <= before);
            let closes = interval.to.is_some_and(moved);
            let steady = same_month && same_week && !self.alarms.daily_while_open;
            !moved(interval.from) && !closes && (steady || is_past || interval.from > after)
        });
        lives_on && (same_month || !self.alarms.monthly) && !self.wakes(case, before, after)
    }

    /// Whether a date of the case brings a change after `before`, up to `after`.
    fn wakes(&self, case: &Case, before: Day, after: Day) -> bool {
        let rings = |word: u32, offset: i32| {
            Case::day(word).is_some_and(|day| {
                let at = i64::from(day.0) + i64::from(offset);
                i64::from(before.0) < at && at <= i64::from(after.0)
            })
        };
        self.alarms.dates.iter().any(|(dated, offset)| match *dated {
            Dated::Case(word) => rings(case.word(word), *offset),
            Dated::Row { subform, word } => {
                debug_assert!(usize::from(word) >= Subform::KEY_WORDS);
                let mut rows = case.rows(&self.schema, subform);
                rows.any(|row| rings(row[usize::from(word)], *offset))
            }
            Dated::Set(set) => case.set(&self.schema, set).iter().any(|word| rings(*word, *offset)),
        })
    }
}
