//! Tables and families: which bits of a cell mean what, and which cells a finest cell adds up into.
//!
//! A *family* holds the finest cells of several tables of one indicator: all their dimensions at once. Its
//! cells are what a case contributes to; each table's cells are sums over them. Tables with a dimension in which a
//! case has several values are apart from those without, or the total would count such a case more than once.
//!
//! The caseload of a case worker is known only when the cases of a cell are summed up: it is a dimension of the
//! table, but not of the family.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::error::{Error, Result};
use crate::indicator::cluster::{bits, clusters};
use crate::indicator::dimension::OriginPlan;
use crate::indicator::part::SummaryPlan;
use crate::indicator::resolve::too_large;
use crate::indicator::{IndicatorDefinition, Plan, Written};
use crate::model::{Cell, DIMENSION_BITS, FineCell, Measure, Period, Sum, TABLES_MAX};

/// Most cells that a table may have for each period: more is read by nobody, and kept and written all the same.
const TABLE_CELLS_MAX: u64 = 1_000_000;

/// Greatest sum that one cell can have: what is added to it on the way to a total does not overflow then.
const SUM_MAX: u32 = 1 << 30;

/// The detail of a finest cell of a share that stands for its whole, that is for every value that shares it. What
/// counts for one value has no detail.
pub(super) const WHOLE: u32 = 1;

/// The finest cells of some tables of one indicator.
#[derive(Clone, Debug)]
pub(super) struct Family {
    pub(super) parts: Vec<FamilyPart>,
    /// Index into `parts` of the dimension whose values share a denominator.
    pub(super) share: Option<usize>,
    /// The indicator.
    indicator: usize,
    /// Tables of the plan that are sums of this family.
    tables: std::ops::Range<usize>,
}

/// A dimension within a family's cells.
#[derive(Clone, Copy, Debug)]
pub(super) struct FamilyPart {
    pub(super) dimension: usize,
    pub(super) shift: u32,
    /// For a place: whether its finest cells tell it apart from what it is part of, because those are no sums: a
    /// case with rows in two districts counts once in their province, and a share is of the same whole in each.
    pub(super) is_apart: bool,
}

/// A published breakdown.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) indicator: usize,
    pub(super) parts: Vec<TablePart>,
    /// The caseload dimension, and where its ordinal goes.
    pub(super) caseload: Option<FamilyPart>,
    /// Index into `parts` of the location dimension that also adds up into what the place is part of.
    location: Option<usize>,
}

/// A dimension within a table's cells.
#[derive(Clone, Copy, Debug)]
pub(super) struct TablePart {
    pub(super) dimension: usize,
    from: u32,
    pub(super) to: u32,
    mask: u32,
}

impl TablePart {
    /// Its ordinal in a cell of the table.
    pub(super) fn ordinal(self, dimensions: u32) -> u32 {
        dimensions >> self.to & self.mask
    }
}

/// Lays out the families and tables of one indicator at the end of the plan's.
pub(super) fn tabulate(plan: &mut Plan, code: &str, indicator: &IndicatorDefinition) -> Result<()> {
    let distinct = indicator.is_distinct();
    let number = |name: &String| {
        let found = plan.dimensions.iter().position(|dimension| dimension.name == *name);
        found.expect("the resolver checked the names")
    };
    let share = indicator.share_over.as_ref().map(number);
    let mut groups: BTreeMap<BTreeSet<usize>, Vec<Vec<usize>>> = BTreeMap::new();
    let declared = Declared { code, indicator, share };
    for names in &indicator.tables {
        let table: Vec<_> = names.iter().map(number).collect();
        check_size(plan, declared, &table)?;
        let several = table.iter().copied().filter(|index| {
            let dimension = &plan.dimensions[*index];
            dimension.is_set() || distinct && (dimension.of_row || dimension.of_event)
        });
        groups.entry(several.collect()).or_default().push(table);
    }
    for tables in groups.into_values() {
        for (union, tables) in clusters(plan, tables) {
            add_family(plan, declared, &union, &tables)?;
        }
    }
    Ok(())
}

/// Refuses a table that would be larger than anybody can use: found before it is computed, not after.
fn check_size(plan: &Plan, declared: Declared<'_>, table: &[usize]) -> Result<()> {
    let mut cells = table.iter().map(|index| u64::from(plan.dimensions[*index].span));
    let cells = cells.try_fold(1_u64, |product, size| product.checked_mul(size));
    if cells.is_some_and(|cells| cells <= TABLE_CELLS_MAX) {
        return Ok(());
    }
    let names: Vec<_> = table.iter().map(|index| plan.dimensions[*index].name.as_str()).collect();
    let cells = cells.map_or("more than 2^64".to_owned(), |cells| cells.to_string());
    let what = format!("the table {names:?} could have {cells} cells for each period");
    Err(declared.too_large(&what))
}

/// The indicator whose tables are laid out.
#[derive(Clone, Copy)]
struct Declared<'a> {
    code: &'a str,
    indicator: &'a IndicatorDefinition,
    share: Option<usize>,
}

impl Declared<'_> {
    fn too_large(self, what: &str) -> Error {
        let Written(place) = &self.indicator.written;
        let what = format!("{place}: indicators.{}.tables: {what}", self.code);
        let advice =
            "break it down by fewer dimensions, a coarser level or shorter lists of values";
        too_large(&what, advice)
    }
}

fn add_family(
    plan: &mut Plan,
    declared: Declared<'_>,
    union: &BTreeSet<usize>,
    tables: &[Vec<usize>],
) -> Result<()> {
    let wanted = bits(plan, union);
    if wanted > DIMENSION_BITS {
        let what = format!("a table needs {wanted} bits, {DIMENSION_BITS} fit");
        return Err(declared.too_large(&what));
    }
    if plan.tables.len() + tables.len() > TABLES_MAX || plan.families.len() >= TABLES_MAX {
        return Err(too_large(&format!("more than {TABLES_MAX} tables"), "declare fewer"));
    }
    let mut shift = 0;
    let mut parts = Vec::new();
    let known =
        union.iter().filter(|index| plan.dimensions[**index].origin != OriginPlan::Caseload);
    for dimension in known {
        let place = &plan.dimensions[*dimension];
        let distinct = declared.indicator.is_distinct();
        let apart = declared.share == Some(*dimension) || distinct && place.of_row;
        let is_apart = place.is_location() && apart;
        parts.push(FamilyPart { dimension: *dimension, shift, is_apart });
        shift += place.bits();
    }
    let start = plan.tables.len();
    for table in tables {
        let table = table_of(plan, declared, &parts, table)?;
        plan.tables.push(table);
    }
    plan.families.push(Family {
        share: declared
            .share
            .and_then(|share| parts.iter().position(|part| part.dimension == share)),
        parts,
        indicator: plan.indicators.len(),
        tables: start..plan.tables.len(),
    });
    Ok(())
}

fn table_of(
    plan: &Plan,
    declared: Declared<'_>,
    parts: &[FamilyPart],
    table: &[usize],
) -> Result<Table> {
    let mut to = 0;
    let mut placed = Vec::new();
    for part in parts.iter().filter(|part| table.contains(&part.dimension)) {
        let bits = plan.dimensions[part.dimension].bits();
        let mask = (1 << bits) - 1;
        placed.push(TablePart { dimension: part.dimension, from: part.shift, to, mask });
        to += bits;
    }
    let of_caseload = |index: &&usize| plan.dimensions[**index].origin == OriginPlan::Caseload;
    let mut caseloads = table.iter().filter(of_caseload);
    let caseload =
        caseloads.next().map(|index| FamilyPart { dimension: *index, shift: to, is_apart: false });
    if caseloads.next().is_some() {
        return Err(declared.too_large("a table has two caseload dimensions"));
    }
    let is_location = |part: &TablePart| plan.dimensions[part.dimension].is_location();
    let is_apart = |part: &TablePart| {
        parts.iter().any(|known| known.dimension == part.dimension && known.is_apart)
    };
    if placed.iter().filter(|part| is_location(part)).count() > 1 {
        return Err(declared.too_large("a table has two location dimensions"));
    }
    Ok(Table {
        indicator: plan.indicators.len(),
        location: placed.iter().position(|part| is_location(part) && !is_apart(part)),
        parts: placed,
        caseload,
    })
}

impl Plan {
    /// Hands over the cells of published tables that a finest cell is part of: every table of its family, for its
    /// period and those that are made of such periods, for its place and all it is part of, for its instance and for
    /// all. Of the whole of a share, for each value that shares it.
    pub fn roll_up(&self, finest: FineCell, mut give: impl FnMut(FineCell)) {
        let family = &self.families[usize::from(finest.cell().table())];
        let share = family.share.map(|share| family.parts[share]);
        match share.filter(|_| finest.detail() == WHOLE) {
            None => self.roll_up_one(family, finest, &mut give),
            Some(share) => {
                let dimension = &self.dimensions[share.dimension];
                for ordinal in (0..dimension.size).filter(|o| dimension.has(*o, &self.places)) {
                    let cell = finest.cell().with(ordinal << share.shift);
                    self.roll_up_one(family, FineCell::new(cell, 0), &mut give);
                }
            }
        }
    }

    fn roll_up_one(&self, family: &Family, finest: FineCell, give: &mut impl FnMut(FineCell)) {
        let (cell, detail) = (finest.cell(), finest.detail());
        let mut periods: SmallVec<[Period; 4]> = SmallVec::from_slice(&[cell.period()]);
        periods.extend(self.coarser(family, cell.period()));
        for index in family.tables.clone() {
            let table = &self.tables[index];
            let mut fixed = 0;
            for (part_index, part) in table.parts.iter().enumerate() {
                if table.location != Some(part_index) {
                    fixed |= (cell.dimensions() >> part.from & part.mask) << part.to;
                }
            }
            let mut give = |dimensions| {
                for period in &periods {
                    for instance in [cell.instance(), 0] {
                        let cell = Cell::new(index as u16, *period, instance, dimensions);
                        give(FineCell::new(cell, detail));
                    }
                }
            };
            match table.location.map(|part| table.parts[part]) {
                None => give(fixed),
                Some(part) => {
                    let place = cell.dimensions() >> part.from & part.mask;
                    for ordinal in self.places.lineage(&place) {
                        give(fixed | ordinal << part.to);
                    }
                }
            }
        }
    }

    /// The published periods that are made of periods like this one.
    fn coarser(&self, family: &Family, period: Period) -> impl Iterator<Item = Period> {
        let nested = &self.indicators[family.indicator].nested;
        let start = period.start().filter(|_| nested.first() == Some(&period.period_type()));
        let coarser = nested.iter().skip(1).filter_map(move |of| Some(Period::of(*of, start?)));
        coarser.filter(|period| self.is_published(*period))
    }

    /// Whether this can be the sum of a cell that contributions were rolled up into.
    pub fn can_sum(&self, (fine, sum): &Sum) -> bool {
        let cell = fine.cell();
        usize::from(cell.table()) < self.tables.len()
            // Details of days are one more than the days.
            && (fine.detail() > 0 || !self.summing(cell).is_days())
            && sum.numerator.unsigned_abs().max(sum.denominator.unsigned_abs()) <= SUM_MAX
    }

    /// What is made of the totals of the table that a rolled-up cell belongs to.
    pub fn summing(&self, cell: Cell) -> Summing {
        let indicator = &self.indicators[self.tables[usize::from(cell.table())].indicator];
        match indicator.summary {
            SummaryPlan::Count => Summing::Count,
            SummaryPlan::Days { is_median, .. } => Summing::Days { is_median },
            SummaryPlan::Workers { .. } => Summing::Workers,
        }
    }

    /// Whether the table that a rolled-up cell belongs to holds running totals: what is added at a period holds in all
    /// later ones, until it is taken away.
    pub fn is_running(&self, cell: Cell) -> bool {
        self.indicators[self.tables[usize::from(cell.table())].indicator].at_ends
    }

    /// What one case worker with so many cases in a cell adds to the cells of case workers.
    pub fn workload(&self, cell: Cell, cases: i32) -> SmallVec<[(Cell, Measure); 4]> {
        let mut cells = SmallVec::new();
        if cases == 0 {
            return cells;
        }
        let table = &self.tables[usize::from(cell.table())];
        let indicator = &self.indicators[table.indicator];
        let is_share = indicator.has_denominator;
        let per_case = matches!(indicator.summary, SummaryPlan::Workers { per_case: true, .. });
        let Some(caseload) = table.caseload else {
            let numerator = if per_case { cases } else { 1 };
            cells.push((cell, Measure { numerator, denominator: i32::from(is_share) }));
            return cells;
        };
        let dimension = &self.dimensions[caseload.dimension];
        let own = dimension.band(Some(cases));
        for ordinal in 0..dimension.size {
            if is_share || ordinal == own {
                let dimensions = cell.dimensions() | ordinal << caseload.shift;
                let cell = Cell::new(cell.table(), cell.period(), cell.instance(), dimensions);
                let numerator = i32::from(ordinal == own);
                cells.push((cell, Measure { numerator, denominator: i32::from(is_share) }));
            }
        }
        cells
    }

    /// What a published cell has in common with all that are changed together with it: without its caseload, and,
    /// of running totals, without its period.
    pub fn line_of(&self, cell: Cell) -> Cell {
        let table = &self.tables[usize::from(cell.table())];
        let kept = table.caseload.map_or(u32::MAX, |caseload| (1 << caseload.shift) - 1);
        let period = match self.indicators[table.indicator].is_running {
            true => cell.period().first_in_line(),
            false => cell.period(),
        };
        Cell::new(cell.table(), period, cell.instance(), cell.dimensions() & kept)
    }
}

impl Summing {
    /// Whether the totals are the figures.
    pub fn is_count(self) -> bool {
        self == Self::Count
    }

    /// Whether mean or median is taken.
    pub fn is_days(self) -> bool {
        matches!(self, Self::Days { .. })
    }
}

/// What is made of the totals of a table's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Summing {
    /// They are the figures.
    Count,
    /// Their details are numbers of days plus one, of which mean or median is taken.
    Days {
        /// Whether the median is published.
        is_median: bool,
    },
    /// Their details are case workers, who are counted.
    Workers,
}
