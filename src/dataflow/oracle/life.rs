//! The days that matter in the life of a case, and whether it is open on a day.

use crate::dataflow::oracle::view::{View, of_case};
use crate::model::Day;

/// When a case was registered, closed and reopened, and what it is now.
pub(super) struct Life {
    registered: Day,
    closed_on: Option<Day>,
    is_closed: bool,
    /// On or after the closing date, in order.
    reopened: Vec<Day>,
}

impl View<'_> {
    /// None without a registration date; the rule is told by the packs' `[lifecycle]` and the README.
    pub(super) fn life(&self) -> Option<Life> {
        let lifecycle = self.world.definition.lifecycle.as_ref()?;
        let registered = self.day(&of_case(&lifecycle.opened), None)?;
        let closed_on = self.day(&of_case(&lifecycle.closed), None).map(|day| day.max(registered));
        let status = self.ids(&of_case(&lifecycle.status), None).pop().flatten();
        let is_closed = status.is_some_and(|id| lifecycle.closed_when.iter().any(|c| c == id));
        let mut reopened: Vec<Day> = match &lifecycle.reopened {
            Some(path) => match &path.subform {
                Some(subform) => {
                    let rows = self.rows_of(subform).into_iter();
                    rows.filter_map(|row| self.day(path, Some(row))).collect()
                }
                None => Vec::new(),
            },
            None => Vec::new(),
        };
        reopened.retain(|day| closed_on.is_some_and(|closed_on| *day >= closed_on));
        reopened.sort();
        Some(Life { registered, closed_on, is_closed, reopened })
    }
}

impl Life {
    /// Whether the case is open at the end of this day.
    pub(super) fn is_open(&self, day: Day) -> bool {
        if day < self.registered {
            return false;
        }
        match (self.closed_on, self.reopened.first(), self.reopened.last()) {
            (Some(closed_on), ..) if day < closed_on => true,
            (Some(_), Some(first), Some(last)) => *first <= day && (!self.is_closed || day < *last),
            _ => !self.is_closed,
        }
    }

    fn closes_on(&self, day: Day) -> bool {
        match (self.closed_on, self.reopened.last()) {
            (None, _) => self.is_closed && day == self.registered,
            (Some(closed_on), None) => self.is_closed && day == closed_on,
            (Some(closed_on), Some(last)) => day == closed_on || self.is_closed && day == *last,
        }
    }

    /// The first of these days on which the case was open, or was closed.
    pub(super) fn first_active(&self, from: Day, to: Day) -> Option<Day> {
        let turning = [Some(from), Some(self.registered), self.closed_on];
        let turning = turning.into_iter().flatten().chain(self.reopened.iter().copied());
        let inside = turning.filter(|day| (from..=to).contains(day));
        inside.filter(|day| self.is_open(*day) || self.closes_on(*day)).min()
    }

    /// Whether the dates say something else than the status.
    pub(super) fn is_in_conflict(&self) -> bool {
        let by_dates_closed = self.closed_on.is_some() && self.reopened.is_empty();
        by_dates_closed != self.is_closed
    }
}
