//! Whether a figure of ours and one of Primero's are equal, and if not, why.
//!
//! A cause is named only when what it predicts is what Primero says: the same count made in that other way gives the
//! same figure. Everything else is not explained.

use std::collections::BTreeSet;
use std::fmt;

use crate::indicator::ALL;

use super::figures::{Grid, NOT_RECORDED};

/// What was found of one figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Both are the same.
    Equal,
    /// They are not, for this cause if one is known.
    Different(Option<Cause>),
    /// Why one of them is not known.
    NotCompared(String),
}

/// A known way in which Primero counts otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Primero counts disabled records too, as its reports do up to 2.14.0.
    DisabledCounted,
    /// Primero counts cases where we count rows.
    CasesNotRows,
    /// Both of these.
    DisabledCasesNotRows,
    /// Primero's report counts cases that the user cannot see.
    WiderScope,
    /// Primero's report leaves out cases that the user can see.
    NarrowerScope,
    /// The same cases in older bands: birthdays since the records were read.
    PresentAge,
}

/// One figure of ours beside one of Primero's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Name of the instance.
    pub instance: String,
    /// Which report, with the concern if it is of one.
    pub report: String,
    /// Sex and age.
    pub cell: String,
    /// Our figure, if it is known.
    pub ours: Option<i64>,
    /// Primero's, if it is known.
    pub theirs: Option<i64>,
    /// How they compare.
    pub verdict: Verdict,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DisabledCounted => "disabled cases counted",
            Self::CasesNotRows => "cases counted, not rows",
            Self::DisabledCasesNotRows => "cases counted, not rows, and disabled ones too",
            Self::WiderScope => "scope: the report counts cases that the user cannot see",
            Self::NarrowerScope => "scope: the report leaves out cases that the user can see",
            Self::PresentAge => "present age: birthdays since the records were read",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal => f.write_str("equal"),
            Self::Different(Some(cause)) => write!(f, "different: {cause}"),
            Self::Different(None) => f.write_str("different: not explained"),
            Self::NotCompared(why) => write!(f, "could not compare: {why}"),
        }
    }
}

/// Whether Primero's reports count other cases than the user can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Wider,
    Narrower,
}

impl Scope {
    /// From the total of a report on cases, and how many cases are visible: enabled ones, and all.
    ///
    /// A report counts all disabled cases or none. A total between the two is of a wider scope without them, or of a
    /// narrower one with them: whichever needs fewer cases.
    pub(super) fn of(reported: i64, enabled: i64, all: i64) -> Option<Self> {
        if reported == enabled || reported == all {
            None
        } else if reported > all || (reported > enabled && reported - enabled < all - reported) {
            Some(Self::Wider)
        } else {
            Some(Self::Narrower)
        }
    }

    fn cause(self, ours: i64, theirs: i64) -> Option<Cause> {
        match self {
            Self::Wider if theirs > ours => Some(Cause::WiderScope),
            Self::Narrower if theirs < ours => Some(Cause::NarrowerScope),
            _ => None,
        }
    }
}

/// Everything that a verdict on one table rests on.
pub(super) struct Evidence<'a> {
    pub(super) ours: &'a Grid,
    pub(super) theirs: &'a Grid,
    /// Our figures counted otherwise, and what to call that.
    pub(super) variants: &'a [(Option<Cause>, Grid)],
    /// The bands of our ages, youngest first.
    pub(super) bands: &'a [String],
    pub(super) scope: Option<Scope>,
    /// Whether birthdays may have passed since our records were read.
    pub(super) may_age: bool,
}

impl Evidence<'_> {
    /// Each cell that is not empty on both sides: its name, our figure, Primero's, how they compare.
    pub(super) fn verdicts(&self) -> Vec<(String, i64, i64, Verdict)> {
        let places: BTreeSet<_> = self.ours.places().chain(self.theirs.places()).collect();
        let (cause, basis) = self.basis(&places);
        let mut found = Vec::new();
        for (sex, age) in places {
            let (ours, theirs) = (self.ours.get(sex, age), self.theirs.get(sex, age));
            let verdict = self.verdict(sex, age, cause, basis);
            found.push((format!("{sex}, {age}"), ours, theirs, verdict));
        }
        found
    }

    /// The way of counting that agrees with Primero in most cells; ours when no other agrees in more.
    fn basis(&self, places: &BTreeSet<&(String, String)>) -> (Option<Cause>, &Grid) {
        let agreeing = |grid: &Grid| {
            let agrees =
                |(sex, age): &&&(String, String)| grid.get(sex, age) == self.theirs.get(sex, age);
            places.iter().filter(agrees).count()
        };
        let mut best = (None, self.ours);
        for (cause, grid) in self.variants {
            if agreeing(grid) > agreeing(best.1) {
                best = (*cause, grid);
            }
        }
        best
    }

    fn verdict(&self, sex: &str, age: &str, cause: Option<Cause>, basis: &Grid) -> Verdict {
        let (ours, theirs) = (self.ours.get(sex, age), self.theirs.get(sex, age));
        if age != ALL && age != NOT_RECORDED && !self.bands.iter().any(|band| band == age) {
            let why = format!("Primero's age bands are not those of the pack, which has no {age}");
            return Verdict::NotCompared(why);
        }
        if ours == theirs {
            return Verdict::Equal;
        }
        let counted = basis.get(sex, age);
        if counted == theirs {
            return Verdict::Different(cause);
        }
        let of_scope = self.scope.and_then(|scope| scope.cause(counted, theirs));
        let of_age = (self.may_age && self.only_aged(sex, basis)).then_some(Cause::PresentAge);
        Verdict::Different(of_scope.or(of_age))
    }

    /// Whether Primero has the same cases of a sex, some of them in older bands: nobody grows younger.
    fn only_aged(&self, sex: &str, basis: &Grid) -> bool {
        let same = |age: &str| basis.get(sex, age) == self.theirs.get(sex, age);
        let mut ahead = 0;
        let never_younger = self.bands.iter().all(|band| {
            ahead += basis.get(sex, band) - self.theirs.get(sex, band);
            ahead >= 0
        });
        same(ALL) && same(NOT_RECORDED) && never_younger
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(cells: &[(&str, &str, i64)]) -> Grid {
        let mut grid = Grid::default();
        cells.iter().for_each(|(sex, age, count)| grid.add(sex, age, *count));
        grid
    }

    const OURS: [(&str, &str, i64); 3] =
        [("male", "0-5", 4), ("male", "6-11", 7), ("female", "0-5", 2)];

    /// The verdicts on Primero's cells that are not equal, in order.
    fn check(
        theirs: &[(&str, &str, i64)],
        scope: Option<Scope>,
        expected: &[(&str, Option<Cause>)],
    ) {
        let (ours, theirs) = (grid(&OURS), grid(theirs));
        let mut disabled = ours.clone();
        disabled.add("female", "0-5", 3);
        let bands = ["0-5", "6-11"].map(str::to_owned);
        let variants = [(Some(Cause::DisabledCounted), disabled)];
        let (ours, theirs) = (&ours, &theirs);
        let evidence =
            Evidence { ours, theirs, variants: &variants, bands: &bands, scope, may_age: true };
        let found: Vec<_> = evidence
            .verdicts()
            .into_iter()
            .filter(|(.., verdict)| *verdict != Verdict::Equal)
            .map(|(cell, .., verdict)| (cell, verdict))
            .collect();
        let expected =
            expected.iter().map(|(cell, cause)| ((*cell).to_owned(), Verdict::Different(*cause)));
        assert_eq!(found, expected.collect::<Vec<_>>());
    }

    #[test]
    fn equal_tables_have_no_difference() {
        check(&OURS, None, &[]);
    }

    #[test]
    fn disabled_cases_explain_exactly_what_they_change() {
        let cause = Some(Cause::DisabledCounted);
        let theirs = [("male", "0-5", 4), ("male", "6-11", 7), ("female", "0-5", 5)];
        let cells = ["all, 0-5", "all, all", "female, 0-5", "female, all"];
        check(&theirs, None, &cells.map(|cell| (cell, cause)));
    }

    #[test]
    fn a_count_that_nothing_predicts_is_not_explained() {
        let theirs = [("male", "0-5", 4), ("male", "6-11", 6), ("female", "0-5", 2)];
        let cells = ["all, 6-11", "all, all", "male, 6-11", "male, all"];
        check(&theirs, None, &cells.map(|cell| (cell, None)));
        // Fewer than we have are no cases that only the report can see.
        check(&theirs, Some(Scope::Wider), &cells.map(|cell| (cell, None)));
        let cause = Some(Cause::NarrowerScope);
        check(&theirs, Some(Scope::Narrower), &cells.map(|cell| (cell, cause)));
    }

    #[test]
    fn children_grow_older_and_never_younger() {
        let cells = ["all, 0-5", "all, 6-11", "male, 0-5", "male, 6-11"];
        let older = [("male", "0-5", 3), ("male", "6-11", 8), ("female", "0-5", 2)];
        check(&older, None, &cells.map(|cell| (cell, Some(Cause::PresentAge))));
        let younger = [("male", "0-5", 5), ("male", "6-11", 6), ("female", "0-5", 2)];
        check(&younger, None, &cells.map(|cell| (cell, None)));
    }

    #[test]
    fn another_band_cannot_be_compared() {
        let (ours, theirs) = (grid(&OURS), grid(&[("male", "0-4", 1)]));
        let bands = ["0-5", "6-11"].map(str::to_owned);
        let (ours, theirs) = (&ours, &theirs);
        let evidence =
            Evidence { ours, theirs, variants: &[], bands: &bands, scope: None, may_age: false };
        let verdicts = evidence.verdicts();
        let of = |cell: &str| verdicts.iter().find(|(name, ..)| name == cell).unwrap().3.clone();
        assert!(matches!(of("male, 0-4"), Verdict::NotCompared(_)));
        assert_eq!(of("male, all"), Verdict::Different(None));
    }

    #[test]
    fn the_scope_is_told_by_totals_that_only_other_cases_explain() {
        assert_eq!(Scope::of(307, 307, 317), None);
        assert_eq!(Scope::of(317, 307, 317), None);
        assert_eq!(Scope::of(307, 304, 314), Some(Scope::Wider));
        assert_eq!(Scope::of(312, 304, 314), Some(Scope::Narrower));
        assert_eq!(Scope::of(317, 200, 210), Some(Scope::Wider));
        assert_eq!(Scope::of(50, 200, 210), Some(Scope::Narrower));
    }
}
