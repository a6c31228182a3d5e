//! Why a cell holds what it holds: of every case, whether it counts there, or the first thing that keeps it out.

use std::collections::BTreeMap;

use crate::dataflow::oracle::view::{Row, View, of_case, of_row};
use crate::dataflow::oracle::{CellName, World};
use crate::indicator::{
    ALL, Condition, Count, DAYS_MAX, IndicatorDefinition, InstanceDefinition, Numerator, Origin,
    Part, Placed, Summary, Test,
};
use crate::model::{Case, Day, Domain, Period, RecordKey};

/// Most cases of a cell whose keys are listed.
pub const KEYS_MAX: usize = 1_000;

/// The cases of the state as one part of an indicator sees them; of alternatives, as all of them do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// What stands above it, where there are several.
    pub heading: Option<String>,
    /// Cases that count in the cell.
    pub cases: u64,
    /// Rows that count in it, where rows are counted.
    pub rows: Option<u64>,
    /// Of these cases those that are in the numerator, where there is one.
    pub numerator: Option<u64>,
    /// Why the others are not in the numerator, and how many, in the order of the definition.
    pub below: Vec<(String, u64)>,
    /// Why cases are not in the cell, and how many, in the order of the definition.
    pub out: Vec<(String, u64)>,
    /// The first [`KEYS_MAX`] of the cases that count.
    pub keys: Vec<RecordKey>,
}

/// How far a case came: the later, the more it fulfils. Reasons are listed in this order.
type Step = (usize, usize);
const OF_CASE: usize = 0;
const PLACING: usize = 1;
const OF_EVENT: usize = 2;
const OF_ROW: usize = 3;
const BEFORE: usize = 4;
const SUMMARY: usize = 5;
const INSTANCE: usize = 6;
const DIMENSION: usize = 7;

/// The first thing that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Reason {
    part: usize,
    step: Step,
    text: String,
}

/// What one case is to the cell.
enum Found {
    In { rows: u64, numerator: Option<Reason> },
    Out(Reason),
}

/// Looks at every record; one account for each side of a ratio, else one.
pub fn account(world: &World<'_>, records: &[(RecordKey, Case)], cell: &CellName) -> Vec<Account> {
    let Some(indicator) = world.definition.indicators.get(&cell.indicator) else {
        return Vec::new();
    };
    let every: Vec<usize> = (0..indicator.parts.len()).collect();
    let sides: Vec<&[usize]> = match indicator.is_union {
        true => vec![&every],
        false => every.chunks(1).collect(),
    };
    let of = |parts: &[usize]| Accountant { world, cell, indicator }.over(parts, records);
    sides.into_iter().map(of).collect()
}

struct Accountant<'a> {
    world: &'a World<'a>,
    cell: &'a CellName,
    indicator: &'a IndicatorDefinition,
}

impl Accountant<'_> {
    fn over(&self, parts: &[usize], records: &[(RecordKey, Case)]) -> Account {
        let first = parts.first().copied().unwrap_or_default();
        let mut account = Account::default();
        if parts.len() == 1 {
            account.heading = self.indicator.heading(first);
        }
        let (mut out, mut below) = (BTreeMap::<Reason, u64>::new(), BTreeMap::<Reason, u64>::new());
        let (mut row_count, mut numerators) = (0, 0);
        for (key, case) in records {
            match self.look(parts, case) {
                Found::Out(reason) => *out.entry(reason).or_default() += 1,
                Found::In { rows, numerator } => {
                    account.cases += 1;
                    row_count += rows;
                    match numerator {
                        None => numerators += 1,
                        Some(reason) => *below.entry(reason).or_default() += 1,
                    }
                    if account.keys.len() < KEYS_MAX {
                        account.keys.push(*key);
                    }
                }
            }
        }
        let part = &self.indicator.parts[first];
        account.rows = matches!(part.count, Count::Rows(_)).then_some(row_count);
        let is_share = part.numerator.is_some() || self.indicator.share_over.is_some();
        account.numerator = is_share.then_some(numerators);
        account.out = told(out);
        account.below = told(below);
        account
    }

    /// A case is in if any part of it is; otherwise what came furthest says why it is not.
    fn look(&self, parts: &[usize], case: &Case) -> Found {
        let Some(instance) = self.instance_of(case) else {
            let text = "is of an instance that is not configured".to_owned();
            return Found::Out(Reason { part: 0, step: (OF_CASE, 0), text });
        };
        let view = View { world: self.world, case, instance };
        let mut furthest: Option<Reason> = None;
        let mut inside: Option<(u64, Option<Reason>)> = None;
        for part in parts {
            let looked = Looked { of: self, view: &view, index: *part };
            for found in looked.rows() {
                match found {
                    Found::Out(reason) => {
                        let is_further = |known: &Reason| reason.step > known.step;
                        if furthest.as_ref().is_none_or(is_further) {
                            furthest = Some(reason);
                        }
                    }
                    Found::In { rows, numerator } => {
                        let (count, best) = inside.get_or_insert((0, numerator.clone()));
                        *count += rows;
                        if numerator.is_none() {
                            *best = None;
                        }
                    }
                }
            }
        }
        match (inside, furthest) {
            (Some((rows, numerator)), _) => Found::In { rows, numerator },
            (None, Some(reason)) => Found::Out(reason),
            (None, None) => {
                let text = "has nothing that is counted".to_owned();
                Found::Out(Reason { part: 0, step: (OF_CASE, 0), text })
            }
        }
    }

    fn instance_of(&self, case: &Case) -> Option<&InstanceDefinition> {
        let name = self.world.dictionary.term(Domain::Instance, case.instance())?;
        self.world.instances.iter().find(|known| known.name == name)
    }

    fn is_of_period(&self, period: Period) -> bool {
        let cell = self.cell;
        (period.period_type().name(), period.start()) == (cell.period_type, cell.period_start)
    }

    /// Whether a condition can only be told once the day of the count is known.
    fn needs_event(&self, condition: &Condition) -> bool {
        let of = |conditions: &[Condition]| conditions.iter().any(|c| self.needs_event(c));
        match condition {
            Condition::Field(_, test) => matches!(test, Test::Within(..)),
            Condition::Value(name, _) => {
                self.world.definition.values.get(name).is_some_and(|value| value.needs_event())
            }
            Condition::Any(groups) => groups.iter().any(|group| of(group)),
            Condition::Has(has) => has.date.is_some() || of(&has.tests),
        }
    }
}

/// One case and one part.
struct Looked<'a> {
    of: &'a Accountant<'a>,
    view: &'a View<'a>,
    index: usize,
}

impl Looked<'_> {
    fn part(&self) -> &Part {
        &self.of.indicator.parts[self.index]
    }

    fn because(&self, step: Step, text: impl Into<String>) -> Reason {
        Reason { part: self.index, step, text: text.into() }
    }

    /// The case, or each of its rows, as the part sees it.
    fn rows(&self) -> Vec<Found> {
        if let Err(reason) = self.conditions(OF_CASE, &self.part().filter, None, Day::FIRST) {
            return vec![Found::Out(reason)];
        }
        let rows: Vec<Row<'_>> = match &self.part().count {
            Count::Cases => vec![None],
            Count::Rows(name) | Count::CasesWith(name) => {
                self.view.rows_of(name).into_iter().map(Some).collect()
            }
        };
        if rows.is_empty() {
            let subform = self.part().subform().unwrap_or_default();
            let step = (OF_CASE, usize::MAX);
            return vec![Found::Out(self.because(step, format!("has no row of {subform}")))];
        }
        rows.into_iter().map(|row| self.row(row).unwrap_or_else(Found::Out)).collect()
    }

    fn row(&self, row: Row<'_>) -> Result<Found, Reason> {
        let part = self.part();
        let event = self.placed(row)?;
        self.conditions(OF_EVENT, &part.filter, None, event)?;
        let row = match &part.latest {
            None => row,
            Some(latest) => {
                let by = of_row(&latest.subform, &latest.by);
                self.view.latest_row(&latest.subform, &by, event)
            }
        };
        let has_row = part.rows.is_empty() || row.is_some();
        if let (false, Some(latest)) = (has_row, &part.latest) {
            let text = format!("has no row of {} with a date up to then", latest.subform);
            return Err(self.because((OF_ROW, 0), text));
        }
        self.conditions(OF_ROW, &part.rows, row, event)?;
        if !self.view.follows(part, row, event) {
            return Err(self.because((BEFORE, 0), "the row before it is missing or another one"));
        }
        self.summarized(row, event)?;
        let instance = &self.of.cell.instance;
        if instance != ALL && *instance != self.view.instance.published_as {
            return Err(self.because((INSTANCE, 0), "other instance"));
        }
        let share = self.dimensions(row, event)?;
        let numerator = share.or_else(|| self.below(part.numerator.as_ref(), row, event));
        Ok(Found::In { rows: 1, numerator })
    }

    /// The first of these conditions that fails, of those that this stage can tell.
    fn conditions(
        &self,
        stage: usize,
        conditions: &[Condition],
        row: Row<'_>,
        event: Day,
    ) -> Result<(), Reason> {
        let subform = if stage == OF_ROW { self.part().subform() } else { None };
        for (index, condition) in conditions.iter().enumerate() {
            let is_due = match stage {
                OF_CASE => !self.of.needs_event(condition),
                OF_EVENT => self.of.needs_event(condition),
                _ => true,
            };
            if is_due && !self.view.all_hold(std::slice::from_ref(condition), subform, row, event) {
                let text = self.of.world.definition.failed(condition);
                return Err(self.because((stage, index + 1), text));
            }
        }
        Ok(())
    }

    /// The day that places the case or row in the period of the cell.
    fn placed(&self, row: Row<'_>) -> Result<Day, Reason> {
        let part = self.part();
        let events = self.view.events(part, &self.of.indicator.periods, row);
        if let Some((_, event)) = events.iter().find(|(period, _)| self.of.is_of_period(*period)) {
            return Ok(*event);
        }
        let opened = self.of.world.definition.lifecycle.as_ref().map(|life| life.opened.as_str());
        let not_recorded = |name: &str| (0, format!("{name} is not recorded"));
        let (index, text) = match &part.placed {
            Placed::Flow(date) | Placed::Cohort { date, .. }
                if self.view.day(date, row).is_none() =>
            {
                not_recorded(&date.to_string())
            }
            Placed::Flow(date) => (1, format!("{date} is not in the period")),
            Placed::Cohort { date, .. } if events.is_empty() => {
                (2, format!("too few days have passed since {date}, or it is before all periods"))
            }
            Placed::Cohort { date, .. } => (1, format!("{date} is not in the period")),
            Placed::Presence | Placed::Stock if self.view.life().is_none() => {
                not_recorded(opened.unwrap_or("the opening date"))
            }
            Placed::Presence => (1, "not open in the period".to_owned()),
            Placed::Stock => (1, "not open at the end of the period".to_owned()),
            Placed::Now => (1, "not of now".to_owned()),
        };
        Err(self.because((PLACING, index), text))
    }

    fn summarized(&self, row: Row<'_>, event: Day) -> Result<(), Reason> {
        let fits = |days: Option<i32>| days.is_some_and(|days| (0..=DAYS_MAX).contains(&days));
        match &self.of.indicator.summary {
            Some(Summary::Mean(name) | Summary::Median(name))
                if !fits(self.view.value(name, row, event)) =>
            {
                let text = format!("{name} is not recorded, negative or too large");
                Err(self.because((SUMMARY, 0), text))
            }
            Some(Summary::Workers(field) | Summary::CasesPerWorker(field))
                if self.view.words(&of_case(field), None).is_empty() =>
            {
                Err(self.because((SUMMARY, 0), format!("{field} is not recorded")))
            }
            _ => Ok(()),
        }
    }

    /// Whether the values are those of the cell; another value of `share_over` only keeps it from the numerator.
    fn dimensions(&self, row: Row<'_>, event: Day) -> Result<Option<Reason>, Reason> {
        let definition = self.of.world.definition;
        let named = definition.dimensions.iter().zip(&self.of.cell.dimensions);
        let mut share = None;
        for (index, ((name, dimension), value)) in named.enumerate() {
            if value == ALL || dimension.from == Origin::Caseload {
                continue;
            }
            let is_there = match self.part().set.get(name) {
                Some(set) => set == value,
                None => self.view.members(dimension, row, event).contains(value),
            };
            if is_there {
                continue;
            }
            let reason = self.because((DIMENSION, index), format!("other {name}"));
            if self.of.indicator.share_over.as_ref() != Some(name) {
                return Err(reason);
            }
            share = Some(reason);
        }
        Ok(share)
    }

    /// Why it is not in the numerator.
    fn below(&self, numerator: Option<&Numerator>, row: Row<'_>, event: Day) -> Option<Reason> {
        let Numerator { filter, rows } = numerator?;
        let subform = self.part().subform();
        let of_case = filter.iter().map(|condition| (condition, None, None));
        let of_row = rows.iter().map(|condition| (condition, subform, row));
        for (index, (condition, subform, row)) in of_case.chain(of_row).enumerate() {
            let is_there = subform.is_none() || row.is_some();
            let conditions = std::slice::from_ref(condition);
            if !is_there || !self.view.all_hold(conditions, subform, row, event) {
                let text = self.of.world.definition.failed(condition);
                return Some(self.because((OF_CASE, index), text));
            }
        }
        None
    }
}

/// Reasons by their order; the same words of two steps are one reason, told where it comes first.
fn told(reasons: BTreeMap<Reason, u64>) -> Vec<(String, u64)> {
    let mut told: Vec<(String, u64)> = Vec::new();
    for (reason, count) in reasons {
        match told.iter_mut().find(|(text, _)| *text == reason.text) {
            Some((_, known)) => *known += count,
            None => told.push((reason.text, count)),
        }
    }
    told
}
