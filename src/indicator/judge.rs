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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use jiff::civil::{Date, date};

    use super::*;
    use crate::indicator::{Definition, InstanceDefinition, Naming, PackText};
    use crate::model::{CaseBuilder, Code, Dictionary, Domain, LocationTree, RecordKey};

    /// A case of the core pack, by the names of its fields.
    struct Story {
        plan: Plan,
        dictionary: Dictionary,
        fields: Vec<(&'static str, u32)>,
        reopened: Vec<Date>,
    }

    impl Story {
        /// A girl of eleven, registered on this day, with an open case.
        fn registered(on: Date) -> Self {
            let core = PackText::shipped("cp-core").unwrap();
            let definition = Arc::new(Definition::read(vec![core]).unwrap());
            let mut dictionary = Dictionary::default();
            let tree = LocationTree::default();
            let instances = [InstanceDefinition::plain("kampot")];
            let plan = Plan::compile(definition, &instances, &tree, &mut dictionary).unwrap();
            let story = Self { plan, dictionary, fields: Vec::new(), reopened: Vec::new() };
            let story = story.option("status", "open").option("sex", "female");
            let story = story.option("module_id", "primeromodule-cp");
            story
                .word("record_state", CaseBuilder::boolean(true))
                .word("age", CaseBuilder::integer(11))
                .day("registration_date", on)
        }

        fn word(mut self, field: &'static str, word: u32) -> Self {
            self.fields.retain(|(name, _)| *name != field);
            self.fields.push((field, word));
            self
        }

        fn day(self, field: &'static str, day: Date) -> Self {
            self.word(field, Day::of(day).unwrap().0)
        }

        fn option(self, field: &'static str, id: &str) -> Self {
            let code = self.dictionary.code(Domain::Option, id).unwrap();
            self.word(field, code.0)
        }

        fn closed(self, on: Date) -> Self {
            self.day("date_closure", on).option("status", "closed")
        }

        fn reopened(mut self, on: Date) -> Self {
            self.reopened.push(on);
            self
        }

        fn case(&self) -> Case {
            let schema = self.plan.schema();
            let mut builder = CaseBuilder::new(schema, Code(1));
            for (name, word) in &self.fields {
                builder.put(schema.field(name).unwrap().slot, *word);
            }
            let index = schema.subform("reopened_logs").unwrap();
            for (number, day) in self.reopened.iter().enumerate() {
                let words = [Day::of(*day).unwrap().0];
                builder.row(&schema.subforms()[index], index, RecordKey(number as u128), &words);
            }
            builder.finish(schema)
        }

        /// The periods in which the case counts in the total of an indicator.
        fn counts(&self, code: &str, period_type: PeriodType, today: Date) -> Vec<String> {
            let mut judgement = Judgement::default();
            self.plan.judge(&self.case(), Day::of(today).unwrap(), &mut judgement);
            let mut starts = BTreeSet::new();
            for (finest, measure) in &judgement.contributions {
                for cell in self.plan.roll_up(*finest) {
                    let text = self.plan.cell(cell);
                    let is_total = text.dimensions.iter().all(|value| *value == "all");
                    if text.indicator == code
                        && is_total
                        && cell.period().period_type() == period_type
                    {
                        assert_eq!(*measure, Measure::ONE);
                        starts.extend(text.period_start.map(|day| day.date().to_string()));
                    }
                }
            }
            starts.into_iter().collect()
        }
    }

    const TODAY: Date = date(2026, 8, 15);

    fn check(story: &Story, code: &str, expected: &[&str]) {
        assert_eq!(story.counts(code, PeriodType::Quarter, TODAY), expected, "{code}");
    }

    const Q1: &str = "2026-01-01";
    const Q2: &str = "2026-04-01";
    const Q3: &str = "2026-07-01";

    #[test]
    fn the_worked_example() {
        let story = Story::registered(date(2026, 1, 10)).closed(date(2026, 4, 5));
        check(&story, "CM-01", &[Q1]);
        check(&story, "CM-02", &[Q1, Q2]);
        check(&story, "CM-03", &[Q1]);
        check(&story, "CM-04", &[Q2]);
        let corrected = story.closed(date(2026, 3, 30));
        check(&corrected, "CM-02", &[Q1]);
        check(&corrected, "CM-03", &[]);
        check(&corrected, "CM-04", &[Q1]);
        let disabled = corrected.word("record_state", CaseBuilder::boolean(false));
        for code in ["CM-01", "CM-02", "CM-03", "CM-04"] {
            check(&disabled, code, &[]);
        }
    }

    #[test]
    fn an_open_case_counts_up_to_the_tick() {
        let story = Story::registered(date(2026, 1, 10));
        check(&story, "CM-02", &[Q1, Q2, Q3]);
        check(&story, "CM-03", &[Q1, Q2, Q3]);
        let earlier = story.counts("CM-03", PeriodType::Quarter, date(2026, 6, 30));
        assert_eq!(earlier, [Q1, Q2]);
        let before = story.counts("CM-03", PeriodType::Quarter, date(2026, 1, 9));
        assert_eq!(before, [""; 0]);
    }

    #[test]
    fn a_reopened_case_is_open_again() {
        let story = Story::registered(date(2026, 1, 10));
        let reopened = story.day("date_closure", date(2026, 2, 1)).reopened(date(2026, 7, 3));
        check(&reopened, "CM-02", &[Q1, Q3]);
        check(&reopened, "CM-03", &[Q3]);
        // Closed again: the second closing date is not known, the last sure day is that of the reopening.
        let closed_again = reopened.option("status", "closed");
        check(&closed_again, "CM-02", &[Q1, Q3]);
        check(&closed_again, "CM-03", &[]);
    }

    #[test]
    fn where_dates_and_status_disagree_the_status_holds() {
        let story = Story::registered(date(2026, 1, 10));
        let open_with_date = story.day("date_closure", date(2026, 2, 1));
        check(&open_with_date, "CM-03", &[Q1, Q2, Q3]);
        let closed_without = Story::registered(date(2026, 1, 10)).option("status", "closed");
        check(&closed_without, "CM-02", &[Q1]);
        check(&closed_without, "CM-03", &[]);
    }

    #[test]
    fn nothing_before_the_history_begins() {
        let story = Story::registered(date(2014, 12, 31)).closed(date(2015, 2, 1));
        check(&story, "CM-01", &[]);
        check(&story, "CM-02", &["2015-01-01"]);
    }

    #[test]
    fn a_case_that_sleeps_contributes_the_same() {
        let stories = [
            Story::registered(date(2026, 1, 10)),
            Story::registered(date(2026, 8, 20)),
            Story::registered(date(2026, 1, 10)).closed(date(2026, 8, 18)),
            Story::registered(date(2026, 1, 10)).closed(date(2026, 3, 1)),
            Story::registered(date(2026, 1, 10))
                .day("date_closure", TODAY)
                .reopened(date(2026, 8, 30)),
        ];
        for (number, story) in stories.iter().enumerate() {
            let case = story.case();
            for step in 1..60 {
                let before = Day::of(TODAY).unwrap();
                let after = Day(before.0 + step);
                let mut both = [Judgement::default(), Judgement::default()];
                story.plan.judge(&case, before, &mut both[0]);
                story.plan.judge(&case, after, &mut both[1]);
                let same = both[0].contributions == both[1].contributions;
                let sleeps = story.plan.sleeps_through(&case, before, after);
                assert!(same || !sleeps, "story {number}, {step} days");
            }
        }
        let (today, case) = (Day::of(TODAY).unwrap(), stories[3].case());
        assert!(stories[3].plan.sleeps_through(&case, today, Day(today.0 + 300)));
    }
}
