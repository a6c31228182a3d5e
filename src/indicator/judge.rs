//! What one version of a case adds to the finest cells: the meaning of every indicator, for one case at a time.

use smallvec::SmallVec;

use crate::indicator::Plan;
use crate::indicator::lifecycle::Interval;
use crate::indicator::plan::{Indicator, PlacedAt};
use crate::indicator::table::Family;
use crate::model::{Case, Cell, Day, Measure, Period, PeriodType};

/// Room for what one case contributes, reused from case to case.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Finest cells and what is added to each; a cell may come more than once.
    pub contributions: Vec<(Cell, Measure)>,
    /// By dimension of the case: the ordinals of the case.
    members: Vec<Vec<u32>>,
    /// Periods the case counts in, with the bits of the row's dimensions.
    placements: Vec<(Period, u32)>,
    /// Bits of the case's dimensions, one for each combination of its values.
    combinations: Vec<u32>,
}

impl Plan {
    /// Adds to `into.contributions` what `case` contributes on the day `today`.
    pub fn judge(&self, case: &Case, today: Day, into: &mut Judgement) {
        let Some(instance) = self.instance_number(case) else { return };
        into.members.resize_with(self.dimensions.len(), Vec::new);
        for (dimension, members) in self.dimensions.iter().zip(&mut into.members) {
            if !dimension.of_row {
                dimension.members(case, &self.schema, members);
            }
        }
        let intervals = self.intervals(case);
        for indicator in &self.indicators {
            if !indicator.filter.iter().all(|check| check.holds(case, &self.schema)) {
                continue;
            }
            if indicator.subform.is_none() {
                into.placements.clear();
                self.place_case(indicator, case, &intervals, today, &mut into.placements);
            }
            for index in indicator.families.clone() {
                let family = &self.families[index];
                if let Some(subform) = indicator.subform {
                    into.placements.clear();
                    self.place_rows(indicator, subform, family, case, &mut into.placements);
                }
                if !into.placements.is_empty() {
                    let table = u16::try_from(index).expect("TABLES_MAX fits");
                    self.contribute(table, family, instance, into);
                }
            }
        }
    }

    /// Whether `case` contributes the same on both days, found without judging it.
    pub fn sleeps_through(&self, case: &Case, before: Day, after: Day) -> bool {
        let moved = |day: Day| before < day && day <= after;
        let same_month = before.first_of_month() == after.first_of_month();
        self.intervals(case).iter().all(|interval| {
            let is_past = interval.to.is_some_and(|to| to <= before);
            let closes = interval.to.is_some_and(moved);
            !moved(interval.from) && !closes && (same_month || is_past || interval.from > after)
        })
    }

    /// Whether `case` says of itself that it is disabled.
    pub fn is_disabled(&self, case: &Case) -> bool {
        let state = self.record_state.map(|word| case.word(word));
        state.and_then(Case::boolean) == Some(false)
    }

    fn instance_number(&self, case: &Case) -> Option<u8> {
        let number = self.instance_numbers.get(case.instance().0 as usize).copied();
        number.filter(|number| *number != 0)
    }

    fn intervals(&self, case: &Case) -> SmallVec<[Interval; 2]> {
        let lifecycle = self.lifecycle.as_ref();
        lifecycle.map_or_else(SmallVec::new, |slots| slots.intervals(case, &self.schema))
    }

    /// The periods a case counts in, each once.
    fn place_case(
        &self,
        indicator: &Indicator,
        case: &Case,
        intervals: &[Interval],
        today: Day,
        into: &mut Vec<(Period, u32)>,
    ) {
        for period_type in &indicator.periods {
            match indicator.placed {
                PlacedAt::Case(word) => {
                    into.extend(self.period_of(*period_type, case.word(word)).map(|p| (p, 0)));
                }
                PlacedAt::Now => into.push((Period::of(PeriodType::Now, today), 0)),
                PlacedAt::Presence | PlacedAt::Stock => {
                    let is_stock = indicator.placed == PlacedAt::Stock;
                    self.place_intervals(*period_type, is_stock, intervals, today, into);
                }
                PlacedAt::Row(_) => {}
            }
        }
    }

    /// The period of a date in a word, if it is one that is published.
    fn period_of(&self, period_type: PeriodType, word: u32) -> Option<Period> {
        let period = Period::of(period_type, Case::day(word)?);
        (period.start()? >= self.history_start()).then_some(period)
    }

    /// Presence: any open day, the closing day included. Stock: open at the end of the period, or today in
    /// the period that is not over.
    fn place_intervals(
        &self,
        period_type: PeriodType,
        is_stock: bool,
        intervals: &[Interval],
        today: Day,
        into: &mut Vec<(Period, u32)>,
    ) {
        let current = Period::of(period_type, today);
        let mut next = self.first_period(period_type);
        for interval in intervals {
            if interval.from > today {
                continue;
            }
            let last = match interval.to {
                Some(to) if to <= today && is_stock => {
                    let closing = Period::of(period_type, to);
                    if closing.0 == Period::of(period_type, Day::FIRST).0 {
                        continue;
                    }
                    Period(closing.0 - 1)
                }
                Some(to) if to <= today => Period::of(period_type, to),
                _ => current,
            };
            let mut period = next.max(Period::of(period_type, interval.from));
            while period <= last {
                into.push((period, 0));
                period = period.next();
            }
            next = next.max(period);
        }
    }

    /// The first period of a type that is published.
    fn first_period(&self, period_type: PeriodType) -> Period {
        let period = Period::of(period_type, self.history_start());
        if period.start().is_some_and(|start| start < self.history_start()) {
            period.next()
        } else {
            period
        }
    }

    /// The periods and row ordinals that rows count in; each once when a case counts once.
    fn place_rows(
        &self,
        indicator: &Indicator,
        subform: usize,
        family: &Family,
        case: &Case,
        into: &mut Vec<(Period, u32)>,
    ) {
        for row in case.rows(&self.schema, subform) {
            if !indicator.rows.iter().all(|check| check.holds_for_row(row)) {
                continue;
            }
            let word = match indicator.placed {
                PlacedAt::Row(word) => row[word],
                PlacedAt::Case(word) => case.word(word),
                PlacedAt::Presence | PlacedAt::Stock | PlacedAt::Now => continue,
            };
            let bits = self.row_bits(family, row);
            for period_type in &indicator.periods {
                into.extend(self.period_of(*period_type, word).map(|period| (period, bits)));
            }
        }
        if indicator.distinct {
            into.sort_unstable();
            into.dedup();
        }
    }

    fn row_bits(&self, family: &Family, row: &[u32]) -> u32 {
        let parts = family.parts.iter().map(|part| (part.shift, &self.dimensions[part.dimension]));
        let of_row = parts.filter(|(_, dimension)| dimension.of_row);
        of_row.fold(0, |bits, (shift, dimension)| match dimension.slot {
            crate::model::Slot::Word(word) => {
                bits | dimension.ordinal(row[usize::from(word)]) << shift
            }
            crate::model::Slot::Set(_) => bits,
        })
    }

    /// One contribution for each placement and each combination of the case's values.
    fn contribute(&self, table: u16, family: &Family, instance: u8, into: &mut Judgement) {
        let Judgement { contributions, members, placements, combinations } = into;
        combinations.clear();
        combinations.push(0);
        for (index, part) in family.parts.iter().enumerate() {
            if self.dimensions[part.dimension].of_row || family.share == Some(index) {
                continue;
            }
            let members = &members[part.dimension];
            let before = combinations.len();
            for member in &members[1..] {
                for index in 0..before {
                    combinations.push(combinations[index] | member << part.shift);
                }
            }
            for bits in &mut combinations[..before] {
                *bits |= members[0] << part.shift;
            }
        }
        let share = family.share.map(|index| family.parts[index]);
        for (period, row_bits) in placements.iter() {
            for bits in combinations.iter() {
                let bits = bits | row_bits;
                let Some(share) = share else {
                    contributions.push((Cell::new(table, *period, instance, bits), Measure::ONE));
                    continue;
                };
                for ordinal in 0..self.dimensions[share.dimension].size {
                    let counted = members[share.dimension].contains(&ordinal);
                    let cell = Cell::new(table, *period, instance, bits | ordinal << share.shift);
                    let numerator = i32::from(counted);
                    contributions.push((cell, Measure { numerator, denominator: 1 }));
                }
            }
        }
    }
}
