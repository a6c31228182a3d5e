//! What one case adds to the totals of one indicator.

use std::collections::BTreeMap;

use crate::dataflow::oracle::CellName;
use crate::dataflow::oracle::breakdown::UNMAPPED;
use crate::dataflow::oracle::total::{Adds, Detail, Totals};
use crate::dataflow::oracle::view::{Row, View, of_case, of_row};
use crate::indicator::{
    ALL, Count, DAYS_MAX, IndicatorDefinition, Origin, Part, Placed, Role, Summary,
};
use crate::model::{Day, Period};

/// One time that a case or row counts.
struct Counted<'a> {
    row: Row<'a>,
    period: Period,
    event: Day,
    adds: Adds,
}

impl View<'_> {
    pub(super) fn count(&self, code: &str, indicator: &IndicatorDefinition, totals: &mut Totals) {
        // What a case adds to a cell once, however often it counts there.
        let mut in_union = BTreeMap::new();
        for part in &indicator.parts {
            let mut with_row = BTreeMap::new();
            for counted in self.counted(indicator, part) {
                for (cell, adds) in self.cells(code, indicator, part, &counted) {
                    let once = match &part.count {
                        _ if indicator.is_union => &mut in_union,
                        Count::CasesWith(_) => &mut with_row,
                        Count::Cases | Count::Rows(_) => {
                            totals.add(cell, adds);
                            continue;
                        }
                    };
                    let kept: &mut Adds = once.entry(cell).or_default();
                    kept.numerator = kept.numerator.max(adds.numerator);
                    kept.denominator = kept.denominator.max(adds.denominator);
                }
            }
            with_row.into_iter().for_each(|(cell, adds)| totals.add(cell, adds));
        }
        in_union.into_iter().for_each(|(cell, adds)| totals.add(cell, adds));
    }

    /// Every time that the case, or a row of it, counts.
    fn counted(&self, indicator: &IndicatorDefinition, part: &Part) -> Vec<Counted<'_>> {
        let rows: Vec<Row<'_>> = match &part.count {
            Count::Cases => vec![None],
            Count::Rows(name) | Count::CasesWith(name) => {
                self.rows_of(name).into_iter().map(Some).collect()
            }
        };
        let mut all = Vec::new();
        for row in rows {
            for (period, event) in self.events(part, &indicator.periods, row) {
                let row = match &part.latest {
                    None => row,
                    Some(latest) => {
                        let by = of_row(&latest.subform, &latest.by);
                        self.latest_row(&latest.subform, &by, event)
                    }
                };
                if let Some(adds) = self.adds(indicator, part, row, event) {
                    all.push(Counted { row, period, event, adds });
                }
            }
        }
        all
    }

    /// What is added, if everything that has to hold does.
    fn adds(
        &self,
        indicator: &IndicatorDefinition,
        part: &Part,
        row: Row<'_>,
        event: Day,
    ) -> Option<Adds> {
        let subform = match (&part.count, &part.latest) {
            (Count::Rows(name) | Count::CasesWith(name), _) => Some(name.as_str()),
            (Count::Cases, latest) => latest.as_ref().map(|latest| latest.subform.as_str()),
        };
        // A case without the row that is read for it fulfils no condition on that row.
        let of_row = |conditions: &[_]| {
            conditions.is_empty() || row.is_some() && self.all_hold(conditions, subform, row, event)
        };
        let of_case_holds = |conditions: &[_]| self.all_hold(conditions, None, None, event);
        if !of_case_holds(&part.filter) || !of_row(&part.rows) || !self.follows(part, row, event) {
            return None;
        }
        let detail = match &indicator.summary {
            None => Detail::None,
            Some(Summary::Mean(value) | Summary::Median(value)) => {
                let days = self.value(value, row, event)?;
                Detail::Days(Some(days).filter(|days| (0..=DAYS_MAX).contains(days))?)
            }
            Some(Summary::Workers(field) | Summary::CasesPerWorker(field)) => {
                Detail::Worker(self.words(&of_case(field), None).pop()?)
            }
        };
        let (numerator, denominator) = match (part.role, &part.numerator) {
            (Role::Counted, Some(numerator)) => {
                let counts = of_case_holds(&numerator.filter) && of_row(&numerator.rows);
                (i64::from(counts), 1)
            }
            (Role::Counted | Role::Numerator, _) => (1, 0),
            (Role::Denominator, _) => (0, 1),
        };
        Some(Adds { numerator, denominator, detail })
    }

    /// Whether the row before this one is as the part wants it.
    pub(super) fn follows(&self, part: &Part, row: Row<'_>, event: Day) -> bool {
        let (Some(conditions), Count::Rows(subform) | Count::CasesWith(subform)) =
            (&part.follows, &part.count)
        else {
            return true;
        };
        let (Placed::Flow(date) | Placed::Cohort { date, .. }) = &part.placed else { return true };
        let before = self.row_before(subform, date, row);
        before.is_some_and(|before| self.all_hold(conditions, Some(subform), Some(before), event))
    }

    /// The cells of all tables that something counted is in, with what it adds to each.
    fn cells(
        &self,
        code: &str,
        indicator: &IndicatorDefinition,
        part: &Part,
        counted: &Counted<'_>,
    ) -> Vec<(CellName, Adds)> {
        let mut cells = Vec::new();
        for table in &indicator.tables {
            for (dimensions, counts) in self.combinations(indicator, part, table, counted) {
                for instance in [self.instance.published_as.as_str(), ALL] {
                    let name = CellName {
                        indicator: code.to_owned(),
                        instance: instance.to_owned(),
                        period_type: counted.period.period_type().name(),
                        period_start: counted.period.start(),
                        dimensions: dimensions.clone(),
                    };
                    let mut adds = counted.adds;
                    if indicator.share_over.is_some() {
                        (adds.numerator, adds.denominator) = (i64::from(counts), 1);
                    }
                    cells.push((name, adds));
                }
            }
        }
        cells
    }

    /// The values of all dimensions that something counted has in a table, in every combination; the flag says
    /// whether it has the value of `share_over`, or only belongs to what that is a share of.
    fn combinations(
        &self,
        indicator: &IndicatorDefinition,
        part: &Part,
        table: &[String],
        counted: &Counted<'_>,
    ) -> Vec<(Vec<String>, bool)> {
        let mut combinations: Vec<(Vec<String>, bool)> = vec![(Vec::new(), true)];
        for (name, dimension) in &self.world.definition.dimensions {
            let own = match part.set.get(name) {
                _ if !table.contains(name) => vec![ALL.to_owned()],
                // Known only when all cases of a case worker are counted.
                _ if dimension.from == Origin::Caseload => vec![UNMAPPED.to_owned()],
                Some(set) => vec![set.clone()],
                None => self.members(dimension, counted.row, counted.event),
            };
            let is_share =
                indicator.share_over.as_ref() == Some(name) && dimension.from != Origin::Caseload;
            let values = if is_share { self.all_values(dimension) } else { own.clone() };
            combinations = combinations
                .into_iter()
                .flat_map(|(chosen, counts)| {
                    values.iter().map({
                        let own = &own;
                        move |value| {
                            let mut chosen = chosen.clone();
                            chosen.push(value.clone());
                            (chosen, counts && (!is_share || own.contains(value)))
                        }
                    })
                })
                .collect();
        }
        combinations
    }
}
