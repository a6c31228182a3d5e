//! The days on which what an event decides can come out differently.
//!
//! Between two such days every event gives the same, so of a run of periods one is looked at for each stretch, not
//! each; and when the clock passes one, a case may contribute something else by itself.

use smallvec::SmallVec;

use crate::indicator::Plan;
use crate::indicator::check::{Check, Compiled};
use crate::indicator::dimension::{Dimension, OriginPlan, Reading};
use crate::indicator::part::{Indicator, PartPlan, SummaryPlan};
use crate::indicator::value::{Source, Subject};
use crate::model::{Case, Day};

/// Break days of one case, in order.
pub(super) type Days = SmallVec<[Day; 16]>;

/// What makes a break day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    /// A date of the case, so many days later.
    Case(u16, i32),
    /// A date of a set of the case, so many days later.
    Set(u16, i32),
    /// A date of any row of a subform, so many days later.
    Row { subform: usize, word: u16, days: i32 },
    /// The first day on which a value is at least this; of rows, for any row of the subform.
    Value { index: usize, edge: i32, subform: Option<usize> },
}

/// The breaks of one part of an indicator.
pub(super) fn breaks_of(
    plan: &Plan,
    part: &PartPlan,
    families: &[crate::indicator::table::Family],
) -> Vec<Break> {
    let mut finder = Finder { plan, found: Vec::new() };
    let numerator = part.numerator.iter();
    let case = part.filter_at_event.iter().chain(numerator.clone().flat_map(|n| &n.filter));
    case.for_each(|check| finder.check(check, None));
    let rows = part.rows.iter().chain(numerator.flat_map(|n| &n.rows));
    rows.for_each(|check| finder.check(check, part.subform));
    if let (Some(word), Some(subform)) = (part.latest, part.subform) {
        finder.add(Break::Row { subform, word, days: 0 });
    }
    for place in families.iter().flat_map(|family| &family.parts) {
        finder.dimension(&plan.dimensions[place.dimension], part.subform);
    }
    finder.found
}

/// Whether every period of a run has to be looked at, because a number of days is summed up that grows by the day.
pub(super) fn is_steady(plan: &Plan, indicator: &Indicator) -> bool {
    !matches!(indicator.summary, SummaryPlan::Days { value, .. } if plan.values[value].needs_event())
}

struct Finder<'a> {
    plan: &'a Plan,
    found: Vec<Break>,
}

impl Finder<'_> {
    fn check(&mut self, check: &Check, subform: Option<usize>) {
        match check {
            Check::Word(source, Compiled::Within(from, to)) => {
                self.within(*source, subform, (*from, *to));
            }
            Check::Set(set, Compiled::Within(from, to)) => {
                edges_within((*from, *to)).for_each(|days| self.add(Break::Set(*set, days)));
            }
            Check::Value(index, Compiled::Range(from, to)) => {
                self.value(*index, [*from, to.saturating_add(1)], subform);
            }
            Check::Any(groups) => {
                groups.iter().flatten().for_each(|check| self.check(check, subform));
            }
            Check::Has { subform, rows, date, within } => {
                if let Some(word) = date {
                    self.within(Source::Row(*word), Some(*subform), *within);
                }
                rows.iter().for_each(|check| self.check(check, Some(*subform)));
            }
            Check::Word(..) | Check::Set(..) | Check::Value(..) => {}
        }
    }

    fn within(&mut self, source: Source, subform: Option<usize>, within: (i32, i32)) {
        for days in edges_within(within) {
            match (source, subform) {
                (Source::Case(word), _) => self.add(Break::Case(word, days)),
                (Source::Row(word), Some(subform)) => self.add(Break::Row { subform, word, days }),
                (Source::Row(_), None) => {}
            }
        }
    }

    fn dimension(&mut self, dimension: &Dimension, subform: Option<usize>) {
        let (OriginPlan::Value(index), Reading::Bands(bands)) =
            (dimension.origin, &dimension.reading)
        else {
            return;
        };
        for band in bands {
            self.value(index, [band.from, band.to.saturating_add(1)], subform);
        }
    }

    fn value(&mut self, index: usize, edges: [i32; 2], subform: Option<usize>) {
        if self.plan.values[index].needs_event() {
            for edge in edges {
                self.add(Break::Value { index, edge, subform });
            }
        }
    }

    fn add(&mut self, found: Break) {
        if !self.found.contains(&found) {
            self.found.push(found);
        }
    }
}

/// A date is within (from, to) of the events from date - to up to date - from: the days after the date on which that
/// begins and is over.
fn edges_within((from, to): (i32, i32)) -> impl Iterator<Item = i32> {
    let begins = (to != i32::MAX).then(|| to.saturating_neg());
    let is_over = (from != i32::MIN).then(|| from.saturating_neg().saturating_add(1));
    begins.into_iter().chain(is_over)
}

impl Plan {
    /// The break days of a case, sorted, each once.
    pub(super) fn break_days(&self, breaks: &[Break], case: &Case) -> Days {
        let mut days = Days::new();
        for found in breaks {
            self.each_day(*found, case, |day| days.push(day));
        }
        days.sort_unstable();
        days.dedup();
        days
    }

    /// Hands over each day that one break makes of a case.
    pub(super) fn each_day(&self, found: Break, case: &Case, mut give: impl FnMut(Day)) {
        let mut dated = |word: u32, days: i32| {
            if let Some(day) = Case::day(word).and_then(|day| day.plus(days)) {
                give(day);
            }
        };
        match found {
            Break::Case(word, days) => dated(case.word(word), days),
            Break::Set(set, days) => {
                case.set(&self.schema, set).iter().for_each(|word| dated(*word, days));
            }
            Break::Row { subform, word, days } => {
                let rows = case.rows(&self.schema, subform);
                rows.for_each(|row| dated(row[usize::from(word)], days));
            }
            Break::Value { index, edge, subform } => {
                let value = &self.values[index];
                let subject = Subject { case, row: None, event: Day::FIRST };
                match subform.filter(|_| value.is_of_row()) {
                    None => value.first_day(&subject, edge).into_iter().for_each(give),
                    Some(subform) => {
                        for row in case.rows(&self.schema, subform) {
                            let subject = Subject { row: Some(row), ..subject };
                            value.first_day(&subject, edge).into_iter().for_each(&mut give);
                        }
                    }
                }
            }
        }
    }
}
