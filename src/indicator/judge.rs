//! What one version of a case adds to the finest cells: the meaning of every indicator, for one case at a time.
//!
//! For each part of an indicator: the conditions that no event decides; the periods that place it, as runs; for each
//! of them the conditions and dimensions that the event decides. What an open case adds to a running total is told
//! at the two ends of a run: added at its first period, taken away at the first period after it.

use smallvec::SmallVec;

use crate::indicator::breaks::Days;
use crate::indicator::part::{Indicator, PartPlan, PlacedAt, SummaryPlan};
use crate::indicator::place::{Context, Run};
use crate::indicator::table::{Family, WHOLE};
use crate::indicator::value::{Source, Subject};
use crate::indicator::{DAYS_MAX, Plan, Role};
use crate::model::{Case, Cell, Day, FineCell, Measure, Period};

/// Room for what one case contributes, reused from case to case.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Finest cells and what is added to each; a cell may come more than once.
    pub contributions: Vec<(FineCell, Measure)>,
    /// By dimension of the case: the ordinals of the case.
    members: Vec<Vec<u32>>,
    /// By shared condition: whether it holds, once it was asked for.
    known: Vec<Option<bool>>,
    /// By placing: the periods it puts the case in, once they were asked for.
    runs: Vec<Option<Vec<Run>>>,
    /// Emptied lists of runs.
    spare: Vec<Vec<Run>>,
    /// By family of the indicator at hand: where the case counts.
    placements: Vec<Vec<Placement>>,
    /// Bits of the case's dimensions, one for each combination of its values.
    combinations: Vec<u32>,
}

/// One count in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Placement {
    /// The part, or 0 where parts are alternatives.
    part: u8,
    /// Bits of the dimensions of the row and the event.
    bits: u32,
    detail: u32,
    denominator: i32,
    /// Zero first: of two equal counts the one that is also in the numerator is the later.
    numerator: i32,
    first: Period,
    end: Period,
}

impl Plan {
    /// Adds to `into.contributions` what `case` contributes on the day `today`.
    pub fn judge(&self, case: &Case, today: Day, into: &mut Judgement) {
        let Some(index) = self.stream_of(case) else { return };
        let stream = &self.streams[index];
        let translated = stream.translated(case, &self.schema);
        let case = translated.as_ref().unwrap_or(case);
        let intervals = self.intervals(case);
        let context = Context { stream, index, intervals: &intervals, today };
        let subject = Subject { case, row: None, event: today };
        into.begin(self);
        for (dimension, members) in self.dimensions.iter().zip(&mut into.members) {
            if dimension.of_case() {
                self.members(dimension, &subject, index, members);
            }
        }
        for indicator in &self.indicators {
            self.judge_indicator(indicator, subject, &context, into);
        }
    }

    fn judge_indicator(
        &self,
        indicator: &Indicator,
        subject: Subject<'_>,
        context: &Context<'_>,
        into: &mut Judgement,
    ) {
        let family_count = indicator.families.len();
        if into.placements.len() < family_count {
            into.placements.resize_with(family_count, Vec::new);
        }
        let mut counts = false;
        for (number, part) in indicator.parts.iter().enumerate() {
            if self.hold_shared(&part.filter, &subject, context.index, &mut into.known) {
                self.judge_part(indicator, number, part, subject, context, into);
                counts = true;
            }
        }
        if !counts {
            return;
        }
        for (at, index) in indicator.families.clone().enumerate() {
            let mut placements = std::mem::take(&mut into.placements[at]);
            if !placements.is_empty() {
                once(indicator, &mut placements);
                if indicator.at_ends && indicator.by_event {
                    join(&mut placements);
                }
                self.contribute(indicator, index, context.stream.number, &placements, into);
                placements.clear();
            }
            into.placements[at] = placements;
        }
    }

    /// Places one part: the case, the row that is read for it, or each of its rows.
    fn judge_part(
        &self,
        indicator: &Indicator,
        number: usize,
        part: &PartPlan,
        subject: Subject<'_>,
        context: &Context<'_>,
        into: &mut Judgement,
    ) {
        let placing = &self.placings[part.placing];
        let runs = match into.runs[part.placing].take() {
            Some(runs) => runs,
            None => {
                let mut runs = into.spare.pop().unwrap_or_default();
                self.place_case(placing, &subject, context, &mut runs);
                runs
            }
        };
        let at = Counting { indicator, number, part, context };
        match (part.subform, part.latest) {
            (Some(subform), None) => {
                let mut dated = into.spare.pop().unwrap_or_default();
                for (position, row) in subject.case.rows(&self.schema, subform).enumerate() {
                    let runs: &[Run] = match placing.placed {
                        PlacedAt::Date(Source::Row(word), mature_after) => {
                            let word = row[usize::from(word)];
                            dated.clear();
                            self.place_date(placing, word, mature_after, context, &mut dated);
                            &dated
                        }
                        _ => &runs,
                    };
                    if runs.is_empty() || !self.follows(part, subform, position, &subject, context)
                    {
                        continue;
                    }
                    let subject = Subject { row: Some(row), ..subject };
                    self.place(&at, subject, runs, &mut into.placements);
                }
                dated.clear();
                into.spare.push(dated);
            }
            _ => self.place(&at, subject, &runs, &mut into.placements),
        }
        into.runs[part.placing] = Some(runs);
    }

    /// Whether the row before a row, by the date that places them, fulfils the conditions on it.
    fn follows(
        &self,
        part: &PartPlan,
        subform: usize,
        position: usize,
        subject: &Subject<'_>,
        context: &Context<'_>,
    ) -> bool {
        let (Some(checks), PlacedAt::Date(Source::Row(word), _)) =
            (&part.follows, self.placings[part.placing].placed)
        else {
            return true;
        };
        let rows = || subject.case.rows(&self.schema, subform).enumerate();
        let date = |row: &[u32]| Case::day(row[usize::from(word)]);
        let own = rows().nth(position).and_then(|(at, row)| Some((date(row)?, at)));
        let dated = rows().filter_map(|(at, row)| Some(((date(row)?, at), row)));
        let before = dated.filter(|(order, _)| Some(*order) < own).max_by_key(|(order, _)| *order);
        // The event stays that of the counted row: "at most 90 days before it" can be said.
        own.zip(before).is_some_and(|((event, _), (_, row))| {
            self.hold(checks, &Subject { row: Some(row), event, ..*subject }, context.index)
        })
    }

    /// Places one case or row: in whole runs, or period by period where something depends on the event.
    fn place(
        &self,
        at: &Counting<'_>,
        subject: Subject<'_>,
        runs: &[Run],
        into: &mut [Vec<Placement>],
    ) {
        let placed = self.placings[at.part.placing].placed;
        for run in runs {
            if !placed.is_running() || !at.indicator.by_event {
                let event = if placed.is_running() { at.context.today } else { run.day };
                self.place_once(at, Subject { event, ..subject }, (run.first, run.end), into);
                continue;
            }
            let days = match at.indicator.by_period {
                true => Days::new(),
                false => self.break_days(&at.part.breaks, subject.case),
            };
            let mut period = run.first;
            while period < run.end {
                let event = self.event_of(placed, *run, period, at.context.today);
                let next = match at.indicator.by_period {
                    true => period.next(),
                    false => {
                        let end = self.stretch_end(placed, *run, event, &days, at.context);
                        end.max(period.next())
                    }
                };
                self.place_once(at, Subject { event, ..subject }, (period, next), into);
                period = next;
            }
        }
    }

    /// The first period of a run whose event is on or after the break day that follows `event`; the end of the run
    /// when there is none.
    fn stretch_end(
        &self,
        placed: PlacedAt,
        run: Run,
        event: Day,
        days: &Days,
        context: &Context<'_>,
    ) -> Period {
        let after = days.partition_point(|day| *day <= event);
        let Some(day) = days.get(after) else { return run.end };
        let period = self.period(run.first.period_type(), *day, context.stream);
        let end = match placed {
            // The event is the first day: a period that began before the break day is not changed by it.
            PlacedAt::Presence if period.start() < Some(*day) => period.next(),
            _ => period,
        };
        end.min(run.end)
    }

    /// Adds one placement to each family, if everything that is to hold does.
    fn place_once(
        &self,
        at: &Counting<'_>,
        mut subject: Subject<'_>,
        (first, end): (Period, Period),
        into: &mut [Vec<Placement>],
    ) {
        let Counting { indicator, number, part, context } = *at;
        if !self.hold(&part.filter_at_event, &subject, context.index) {
            return;
        }
        if let (Some(word), Some(subform)) = (part.latest, part.subform) {
            let rows = subject.case.rows(&self.schema, subform);
            let dated = rows.filter_map(|row| Some((Case::day(row[usize::from(word)])?, row)));
            let past = dated.filter(|(day, _)| *day <= subject.event);
            subject.row = past.max_by_key(|(day, _)| *day).map(|(_, row)| row);
        }
        let fulfils = |checks: &[_]| match (part.subform, subject.row) {
            (Some(_), None) => checks.is_empty(),
            _ => self.hold(checks, &subject, context.index),
        };
        if !fulfils(&part.rows) {
            return;
        }
        let Some((measure, detail)) = self.measure(at, &subject, fulfils) else { return };
        for (family, placements) in self.families[indicator.families.clone()].iter().zip(into) {
            self.event_bits(family, part, &subject, context.index, |bits| {
                placements.push(Placement {
                    part: if indicator.is_union { 0 } else { number as u8 },
                    bits,
                    detail,
                    numerator: measure.numerator,
                    denominator: measure.denominator,
                    first,
                    end,
                });
            });
        }
    }

    /// What one count adds, and what is told apart inside the cell; none when it is left out.
    fn measure(
        &self,
        at: &Counting<'_>,
        subject: &Subject<'_>,
        fulfils: impl Fn(&[crate::indicator::check::Check]) -> bool,
    ) -> Option<(Measure, u32)> {
        let detail = match at.indicator.summary {
            SummaryPlan::Count => 0,
            SummaryPlan::Days { value, .. } => {
                let days = self.values[value].value(subject, &self.schema)?;
                u32::try_from(days).ok().filter(|_| days <= DAYS_MAX)? + 1
            }
            SummaryPlan::Workers { word, .. } => {
                Some(subject.case.word(word)).filter(|word| *word != 0)?
            }
        };
        let measure = match (at.part.role, &at.part.numerator) {
            (Role::Counted, Some(numerator)) => {
                let counts = self.hold(&numerator.filter, subject, at.context.index)
                    && fulfils(&numerator.rows);
                Measure { numerator: i32::from(counts), denominator: 1 }
            }
            (Role::Counted | Role::Numerator, _) => Measure::ONE,
            (Role::Denominator, _) => Measure { numerator: 0, denominator: 1 },
        };
        Some((measure, detail))
    }

    /// Bits of the dimensions that belong to the row or the event: once, or for a place that is told apart also
    /// for each that it is part of.
    fn event_bits(
        &self,
        family: &Family,
        part: &PartPlan,
        subject: &Subject<'_>,
        stream: usize,
        mut give: impl FnMut(u32),
    ) {
        let mut bits = 0;
        let mut apart = None;
        for place in &family.parts {
            let dimension = &self.dimensions[place.dimension];
            if dimension.of_case() {
                continue;
            }
            let set = part.set.iter().find(|(index, _)| *index == place.dimension);
            let ordinal = match set {
                Some((_, ordinal)) => *ordinal,
                None => self.ordinal(dimension, subject, stream),
            };
            match place.is_apart {
                true => apart = Some((ordinal, place.shift)),
                false => bits |= ordinal << place.shift,
            }
        }
        let Some((place, shift)) = apart else { return give(bits) };
        for ordinal in self.places.lineage(&place) {
            give(bits | ordinal << shift);
        }
    }

    /// One contribution for each placement and each combination of the case's values.
    fn contribute(
        &self,
        indicator: &Indicator,
        index: usize,
        instance: u8,
        placements: &[Placement],
        into: &mut Judgement,
    ) {
        let family = &self.families[index];
        let table = u16::try_from(index).expect("TABLES_MAX fits");
        let Judgement { contributions, members, combinations, .. } = into;
        self.combine(family, members, combinations);
        let share = family.share.map(|index| family.parts[index]);
        for placement in placements {
            let Placement { bits: own, detail, numerator, denominator, first, end, .. } =
                *placement;
            let mut give = |bits: u32, detail: u32, measure: Measure| {
                let cell = |period| FineCell::new(Cell::new(table, period, instance, bits), detail);
                contributions.push((cell(first), measure));
                if indicator.at_ends {
                    let Measure { numerator, denominator } = measure;
                    let taken = Measure { numerator: -numerator, denominator: -denominator };
                    contributions.push((cell(end), taken));
                }
            };
            for bits in combinations.iter().map(|bits| bits | own) {
                let Some(share) = share else {
                    give(bits, detail, Measure { numerator, denominator });
                    continue;
                };
                give(bits, WHOLE, Measure { numerator: 0, denominator: 1 });
                for ordinal in self.shared(share.dimension, &members[share.dimension]) {
                    give(bits | ordinal << share.shift, 0, Measure::ONE);
                }
            }
        }
    }

    /// The values of a share that a case counts for: its own, and for a place also those that it is part of.
    fn shared(&self, dimension: usize, own: &[u32]) -> SmallVec<[u32; 8]> {
        let dimension = &self.dimensions[dimension];
        if !dimension.is_location() {
            return SmallVec::from_slice(own);
        }
        let mut places: SmallVec<[u32; 8]> =
            own.iter().flat_map(|own| self.places.lineage(own)).copied().collect();
        places.retain(|place| dimension.has(*place, &self.places));
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Bits of the dimensions of the case, one for each combination of its values.
    fn combine(&self, family: &Family, members: &[Vec<u32>], into: &mut Vec<u32>) {
        into.clear();
        into.push(0);
        for (index, part) in family.parts.iter().enumerate() {
            if !self.dimensions[part.dimension].of_case() || family.share == Some(index) {
                continue;
            }
            let members = &members[part.dimension];
            let before = into.len();
            for member in &members[1..] {
                for index in 0..before {
                    into.push(into[index] | member << part.shift);
                }
            }
            for bits in &mut into[..before] {
                *bits |= members[0] << part.shift;
            }
        }
    }
}

/// What is being counted for whom.
#[derive(Clone, Copy)]
struct Counting<'a> {
    indicator: &'a Indicator,
    number: usize,
    part: &'a PartPlan,
    context: &'a Context<'a>,
}

impl Judgement {
    /// Forgets what was found of the last case, but not its contributions.
    fn begin(&mut self, plan: &Plan) {
        self.known.clear();
        self.known.resize(plan.checks.len(), None);
        self.members.resize_with(plan.dimensions.len(), Vec::new);
        self.runs.resize_with(plan.placings.len(), || None);
        for runs in &mut self.runs {
            self.spare.extend(runs.take());
        }
    }
}

/// Lets a case count once where it is to: of equal counts one stays, one in the numerator if there is one.
fn once(indicator: &Indicator, placements: &mut Vec<Placement>) {
    let is_distinct =
        |part: u8| indicator.is_union || indicator.parts[usize::from(part)].is_distinct;
    if !indicator.is_union && !indicator.parts.iter().any(|part| part.is_distinct) {
        return;
    }
    let key = |p: &Placement| (p.part, p.first, p.bits, p.detail);
    placements.sort_unstable_by_key(|p| (key(p), std::cmp::Reverse(p.numerator)));
    placements.dedup_by(|later, kept| is_distinct(kept.part) && key(later) == key(kept));
}

/// Joins runs that follow each other and add the same.
fn join(placements: &mut Vec<Placement>) {
    let what = |p: &Placement| (p.part, p.bits, p.detail, p.denominator, p.numerator);
    placements.sort_unstable();
    placements.dedup_by(|later, kept| {
        let follows = what(later) == what(kept) && later.first == kept.end;
        if follows {
            kept.end = later.end;
        }
        follows
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use jiff::civil::{Date, date};

    use super::*;
    use crate::indicator::{Definition, InstanceDefinition, Naming, PackText};
    use crate::model::{
        CaseBuilder, Code, Dictionary, Domain, LocationTree, PeriodType, RecordKey,
    };

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
            let mut starts = BTreeMap::new();
            for (finest, measure) in &judgement.contributions {
                let mut cells = Vec::new();
                self.plan.roll_up(*finest, |cell| cells.push(cell.cell()));
                for cell in cells {
                    let text = self.plan.cell(cell);
                    let is_total = text.dimensions.iter().all(|value| *value == "all");
                    let is_asked = is_total && text.instance == "all" && text.indicator == code;
                    if is_asked && cell.period().period_type() == period_type {
                        *starts.entry(cell.period()).or_insert(0) += measure.numerator;
                    }
                }
            }
            let is_running = matches!(code, "CM-02" | "CM-03");
            let mut counted = Vec::new();
            let Some((first, _)) = starts.first_key_value() else { return counted };
            let (mut period, mut total) = (*first, 0);
            while period <= *starts.last_key_value().unwrap().0 {
                let step = starts.get(&period).copied().unwrap_or(0);
                total = if is_running { total + step } else { step };
                assert!((0..=1).contains(&total), "one case counts once");
                if total == 1 {
                    counted.push(period.start().unwrap().date().to_string());
                }
                period = period.next();
            }
            counted
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
