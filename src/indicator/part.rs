//! Indicators compiled: their parts, what places each in periods, and what is made of the counted.

use crate::error::Result;
use crate::indicator::breaks::{Break, breaks_of};
use crate::indicator::check::Check;
use crate::indicator::plan::{Compiler, slot_of};
use crate::indicator::table::tabulate;
use crate::indicator::value::Source;
use crate::indicator::{Count, IndicatorDefinition, Part, Path, Placed, Plan, Role, Summary};
use crate::model::{PeriodType, Slot};

/// An indicator, compiled.
#[derive(Clone, Debug)]
pub(super) struct Indicator {
    pub(super) code: String,
    pub(super) parts: Vec<PartPlan>,
    /// Whether a case counts once in a cell however many parts it fulfils.
    pub(super) is_union: bool,
    pub(super) summary: SummaryPlan,
    pub(super) has_denominator: bool,
    /// Whether what it counts can be open over several periods.
    pub(super) is_running: bool,
    /// Whether its cells are running totals: what is open over several periods is told at the ends only. Numbers of
    /// days that grow from period to period are told for each.
    pub(super) at_ends: bool,
    /// Whether periods of a run can give different things, because something depends on the event.
    pub(super) by_event: bool,
    /// Whether each period of a run is looked at on its own.
    pub(super) by_period: bool,
    /// Types of periods that are made of one another, finest first: a case is placed in the first only, and its cells
    /// add up into those of the others. Empty where they are no sums.
    pub(super) nested: Vec<PeriodType>,
    /// Its families, as a range of [`Plan::families`].
    pub(super) families: std::ops::Range<usize>,
}

/// One part, compiled.
#[derive(Clone, Debug)]
pub(super) struct PartPlan {
    pub(super) role: Role,
    /// Conditions on the case that no event decides: indices of [`Plan::checks`].
    pub(super) filter: Vec<usize>,
    /// Conditions on the case that the event decides.
    pub(super) filter_at_event: Vec<Check>,
    /// The subform that is counted, or of which one row is read.
    pub(super) subform: Option<usize>,
    /// The word of the date by which the latest row is found; every row is counted where there is none.
    pub(super) latest: Option<u16>,
    pub(super) rows: Vec<Check>,
    pub(super) follows: Option<Vec<Check>>,
    /// Index of [`Plan::placings`].
    pub(super) placing: usize,
    pub(super) numerator: Option<NumeratorPlan>,
    /// Whether a case counts once in a cell however many rows of it do.
    pub(super) is_distinct: bool,
    /// Dimensions that the part sets, with the ordinal.
    pub(super) set: Vec<(usize, u32)>,
    /// What makes the days between which every event gives the same.
    pub(super) breaks: Vec<Break>,
}

/// Conditions of a numerator, compiled.
#[derive(Clone, Debug)]
pub(super) struct NumeratorPlan {
    pub(super) filter: Vec<Check>,
    pub(super) rows: Vec<Check>,
}

/// What places a part in periods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placing {
    pub(super) placed: PlacedAt,
    pub(super) periods: Vec<PeriodType>,
}

/// What places a part in a period, compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlacedAt {
    /// By a date; a cohort as soon as so many days have passed since.
    Date(Source, Option<u32>),
    Presence,
    Stock,
    Now,
}

impl PlacedAt {
    /// Whether it places a case in all periods from one to another.
    pub(super) fn is_running(self) -> bool {
        matches!(self, Self::Presence | Self::Stock)
    }

    /// Whether its event moves with the clock.
    pub(super) fn follows_clock(self) -> bool {
        matches!(self, Self::Stock | Self::Now)
    }
}

/// What is made of the counted, compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SummaryPlan {
    Count,
    Days { value: usize, is_median: bool },
    Workers { word: u16, per_case: bool },
}

impl Plan {
    pub(super) fn lay_out_indicators(&mut self, compiler: &mut Compiler<'_>) -> Result<()> {
        for (code, definition) in &compiler.definition.indicators {
            let indicator = self.indicator(compiler, code, definition)?;
            self.indicators.push(indicator);
        }
        Ok(())
    }

    fn indicator(
        &mut self,
        compiler: &mut Compiler<'_>,
        code: &str,
        definition: &IndicatorDefinition,
    ) -> Result<Indicator> {
        let families_start = self.families.len();
        tabulate(self, code, definition)?;
        let families = families_start..self.families.len();
        let nested = nested(definition);
        let is_sum = |of: &PeriodType| nested.iter().skip(1).any(|coarser| coarser == of);
        let periods = definition.periods.iter().copied();
        let placed_in: Vec<_> = periods.filter(|of| !is_sum(of)).collect();
        let parts = definition.parts.iter();
        let parts: Vec<_> = parts.map(|part| self.part(compiler, part, &placed_in)).collect();
        let summary = match &definition.summary {
            None => SummaryPlan::Count,
            Some(Summary::Mean(name)) => {
                SummaryPlan::Days { value: compiler.value(name), is_median: false }
            }
            Some(Summary::Median(name)) => {
                SummaryPlan::Days { value: compiler.value(name), is_median: true }
            }
            Some(Summary::Workers(field)) => {
                SummaryPlan::Workers { word: word_of(compiler, field), per_case: false }
            }
            Some(Summary::CasesPerWorker(field)) => {
                SummaryPlan::Workers { word: word_of(compiler, field), per_case: true }
            }
        };
        let placed = |part: &PartPlan| self.placings[part.placing].placed;
        let is_running = parts.iter().any(|part| placed(part).is_running());
        let distinct_runs = parts.iter().any(|part| part.is_distinct && placed(part).is_running());
        let by_event = parts.iter().any(|part| self.is_by_event(part))
            || self.families[families.clone()].iter().any(|family| {
                family.parts.iter().any(|part| self.dimensions[part.dimension].of_event)
            });
        let mut parts = parts;
        for part in &mut parts {
            part.breaks = breaks_of(self, part, &self.families[families.clone()]);
        }
        let grows =
            matches!(summary, SummaryPlan::Days { value, .. } if self.values[value].needs_event());
        let by_period = distinct_runs || is_running && definition.is_union || grows;
        Ok(Indicator {
            code: code.to_owned(),
            is_union: definition.is_union,
            has_denominator: definition.has_denominator(),
            by_event: by_event || by_period,
            by_period,
            parts,
            summary,
            is_running,
            at_ends: is_running && !grows,
            nested,
            families,
        })
    }

    fn is_by_event(&self, part: &PartPlan) -> bool {
        let numerator = part.numerator.as_ref().is_some_and(|numerator| {
            self.needs_event(&numerator.filter) || self.needs_event(&numerator.rows)
        });
        part.latest.is_some()
            || !part.filter_at_event.is_empty()
            || self.needs_event(&part.rows)
            || numerator
    }

    fn part(
        &mut self,
        compiler: &mut Compiler<'_>,
        part: &Part,
        periods: &[PeriodType],
    ) -> PartPlan {
        let subform = part.subform();
        let filter = compiler.checks(None, &part.filter).into_iter();
        let (filter_at_event, filter): (Vec<_>, Vec<_>) =
            filter.partition(|check| self.needs_event(std::slice::from_ref(check)));
        let filter = filter.into_iter().map(|check| self.shared_check(check)).collect();
        let placing = self.placing(compiler, &part.placed, periods);
        PartPlan {
            role: part.role,
            filter,
            filter_at_event,
            subform: subform.and_then(|name| compiler.schema.subform(name)),
            latest: part.latest.as_ref().map(|latest| {
                let path = Path { subform: Some(latest.subform.clone()), field: latest.by.clone() };
                match Source::of(compiler.schema, &path) {
                    Source::Case(word) | Source::Row(word) => word,
                }
            }),
            rows: compiler.checks(subform, &part.rows),
            follows: part.follows.as_ref().map(|follows| compiler.checks(subform, follows)),
            placing,
            numerator: part.numerator.as_ref().map(|numerator| NumeratorPlan {
                filter: compiler.checks(None, &numerator.filter),
                rows: compiler.checks(subform, &numerator.rows),
            }),
            is_distinct: matches!(part.count, Count::CasesWith(_)),
            set: part
                .set
                .iter()
                .filter_map(|(name, value)| {
                    let index = self.dimensions.iter().position(|d| d.name == *name)?;
                    Some((index, self.dimensions[index].ordinal_of(value)))
                })
                .collect(),
            breaks: Vec::new(),
        }
    }

    /// The index of a condition, which parts share.
    fn shared_check(&mut self, check: Check) -> usize {
        let known = self.checks.iter().position(|known| *known == check);
        known.unwrap_or_else(|| {
            self.checks.push(check);
            self.checks.len() - 1
        })
    }

    /// The index of a placing, which parts share.
    fn placing(
        &mut self,
        compiler: &Compiler<'_>,
        placed: &Placed,
        periods: &[PeriodType],
    ) -> usize {
        let source = |path: &Path| Source::of(compiler.schema, path);
        let (placed, periods) = match placed {
            Placed::Flow(path) => (PlacedAt::Date(source(path), None), periods.to_vec()),
            Placed::Cohort { date, mature_after } => {
                (PlacedAt::Date(source(date), Some(*mature_after)), periods.to_vec())
            }
            Placed::Presence => (PlacedAt::Presence, periods.to_vec()),
            Placed::Stock => (PlacedAt::Stock, periods.to_vec()),
            Placed::Now => (PlacedAt::Now, vec![PeriodType::Now]),
        };
        let placing = Placing { placed, periods };
        let known = self.placings.iter().position(|known| *known == placing);
        known.unwrap_or_else(|| {
            self.placings.push(placing);
            self.placings.len() - 1
        })
    }
}

/// The types of periods whose cells are sums of cells of the first of them: what one date places in a month counts in
/// its quarter too, unless a case with several dates is to count once.
fn nested(definition: &IndicatorDefinition) -> Vec<PeriodType> {
    let by_date = |part: &Part| matches!(part.placed, Placed::Flow(_) | Placed::Cohort { .. });
    if definition.is_distinct() || !definition.parts.iter().all(by_date) {
        return Vec::new();
    }
    let nesting = [PeriodType::Month, PeriodType::Quarter, PeriodType::Half, PeriodType::Year];
    nesting.into_iter().filter(|of| definition.periods.contains(of)).collect()
}

fn word_of(compiler: &Compiler<'_>, field: &str) -> u16 {
    match slot_of(compiler.schema, &Path { subform: None, field: field.to_owned() }) {
        Slot::Word(word) => word,
        Slot::Set(_) => unreachable!("a case worker is kept in a word"),
    }
}
