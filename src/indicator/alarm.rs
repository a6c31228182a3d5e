//! When a case contributes something else by itself: what a clock tick has to look at.

use crate::indicator::Plan;
use crate::indicator::breaks::{Break, is_steady};
use crate::indicator::part::PlacedAt;
use crate::indicator::value::Source;
use crate::model::{Case, Day, PeriodType};

/// The days on which cases may change by themselves, besides those of their lifecycle.
#[derive(Clone, Debug, Default)]
pub(super) struct Alarms {
    /// Days that single cases have.
    breaks: Vec<Break>,
    /// Days that matter only while a case is open.
    breaks_while_open: Vec<Break>,
    /// Whether something of an open case changes every day.
    daily_while_open: bool,
    /// Whether something of any case changes every day.
    daily: bool,
    /// Whether open cases are told of weeks.
    weekly: bool,
}

impl Alarms {
    /// Everything in `plan` that the clock changes.
    pub(super) fn of(plan: &Plan) -> Self {
        let mut alarms = Self::default();
        for indicator in &plan.indicators {
            for part in &indicator.parts {
                let placing = &plan.placings[part.placing];
                if let PlacedAt::Date(source, Some(mature_after)) = placing.placed {
                    let days = i32::try_from(mature_after).unwrap_or(i32::MAX);
                    match (source, part.subform) {
                        (Source::Case(word), _) => {
                            add(&mut alarms.breaks, Break::Case(word, days));
                        }
                        (Source::Row(word), Some(subform)) => {
                            add(&mut alarms.breaks, Break::Row { subform, word, days });
                        }
                        (Source::Row(_), None) => {}
                    }
                }
                let is_weekly = placing.periods.contains(&PeriodType::Week);
                alarms.weekly |= placing.placed.is_running() && is_weekly;
                if placing.placed.follows_clock() {
                    let is_now = placing.placed == PlacedAt::Now;
                    alarms.daily |= is_now && !is_steady(plan, indicator);
                    alarms.daily_while_open |= !is_steady(plan, indicator);
                    let breaks = match is_now {
                        true => &mut alarms.breaks,
                        false => &mut alarms.breaks_while_open,
                    };
                    part.breaks.iter().for_each(|found| add(breaks, *found));
                }
            }
        }
        alarms
    }
}

fn add(breaks: &mut Vec<Break>, found: Break) {
    if !breaks.contains(&found) {
        breaks.push(found);
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
        let moved = |day: Day| before < day && day <= after;
        let same_month = before.first_of_month() == after.first_of_month();
        let same_week = !self.alarms.weekly || before.week() == after.week();
        let is_quiet = same_month && same_week && !self.alarms.daily_while_open;
        let intervals = self.intervals(case);
        let lives_on = intervals.iter().all(|interval| {
            let is_past = interval.to.is_some_and(|to| to <= before);
            let closes = interval.to.is_some_and(moved);
            !moved(interval.from) && !closes && (is_quiet || is_past || interval.from > after)
        });
        let may_be_open = intervals
            .iter()
            .any(|interval| interval.from <= after && interval.to.is_none_or(|to| to > before));
        lives_on
            && !self.wakes(&self.alarms.breaks, case, moved)
            && !(may_be_open && self.wakes(&self.alarms.breaks_while_open, case, moved))
    }

    /// Whether one of the break days of the case is among those that passed.
    fn wakes(&self, breaks: &[Break], case: &Case, moved: impl Fn(Day) -> bool) -> bool {
        let mut wakes = false;
        for found in breaks {
            self.each_day(*found, case, |day| wakes |= moved(day));
            if wakes {
                break;
            }
        }
        wakes
    }
}
