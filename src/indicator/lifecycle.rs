//! When a case was open: intervals built from registration, closure, reopenings and the present status.
//!
//! Primero fills `date_closure` only when it is empty, so a case that was closed, reopened and closed again
//! carries its *first* closing date. Where the dates and the status disagree, the status is believed:
//!
//! | status now | dates | open |
//! |---|---|---|
//! | not closed | no closing date | from registration on |
//! | not closed | closed, reopened later | until the closing date, and from the first later reopening on |
//! | not closed | closed, never reopened | from registration on (conflict) |
//! | closed | closed, not reopened later | until the closing date |
//! | closed | closed, reopened later | until the closing date, and between the later reopenings (conflict) |
//! | closed | no closing date | closed on the day of registration (conflict) |
//!
//! Between the later reopenings, because the day of the last closing is not known: the last reopening is the
//! last day on which the case was surely open.
//!
//! A closing date before the registration counts as the day of registration.

use smallvec::SmallVec;

use crate::model::{Case, Day, Schema};

/// From the first day a case is open to the day it is closed; the closing day is the first it is not open on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    /// First open day.
    pub(super) from: Day,
    /// The day of closing; none while it is open.
    pub(super) to: Option<Day>,
}

/// Where the dates of a case's life are kept.
#[derive(Clone, Debug)]
pub(super) struct LifecycleSlots {
    pub(super) opened: u16,
    pub(super) closed: u16,
    /// Subform index and word within its rows.
    pub(super) reopened: Option<(usize, usize)>,
    pub(super) status: u16,
    /// Codes of a closed status.
    pub(super) closed_when: Vec<u32>,
}

impl LifecycleSlots {
    /// The open intervals of a case, in order, none overlapping another. None without a registration date.
    pub(super) fn intervals(&self, case: &Case, schema: &Schema) -> SmallVec<[Interval; 2]> {
        let Some(from) = Case::day(case.word(self.opened)) else { return SmallVec::new() };
        let closed_on = Case::day(case.word(self.closed)).map(|day| day.max(from));
        let is_closed = self.closed_when.contains(&case.word(self.status));
        let first = |to| Interval { from, to };
        let Some(closed_on) = closed_on else {
            return SmallVec::from_slice(&[first(is_closed.then_some(from))]);
        };
        match (self.reopenings(case, schema, closed_on), is_closed) {
            (None, true) => SmallVec::from_slice(&[first(Some(closed_on))]),
            (None, false) => SmallVec::from_slice(&[first(None)]),
            (Some((again, last)), is_closed) => SmallVec::from_slice(&[
                first(Some(closed_on)),
                Interval { from: again, to: is_closed.then_some(last) },
            ]),
        }
    }

    /// Whether the dates of a case and its status disagree; see the table of this module.
    pub(super) fn conflicts(&self, case: &Case, schema: &Schema) -> bool {
        let Some(from) = Case::day(case.word(self.opened)) else { return false };
        let closed_on = Case::day(case.word(self.closed)).map(|day| day.max(from));
        let is_closed = self.closed_when.contains(&case.word(self.status));
        match closed_on {
            None => is_closed,
            Some(closed_on) => self.reopenings(case, schema, closed_on).is_some() == is_closed,
        }
    }

    /// The first and the last reopening on or after `closed_on`.
    fn reopenings(&self, case: &Case, schema: &Schema, closed_on: Day) -> Option<(Day, Day)> {
        let (subform, word) = self.reopened?;
        let days = case.rows(schema, subform).filter_map(|row| Case::day(row[word]));
        days.filter(|day| *day >= closed_on).fold(None, |range, day| match range {
            None => Some((day, day)),
            Some((first, last)) => Some((first.min(day), last.max(day))),
        })
    }
}
