//! Tables and families: which bits of a cell mean what, and which cells a finest cell adds up into.
//!
//! A *family* holds the finest cells of several tables of one indicator: all their dimensions at once. Its
//! cells are what a case contributes to; each table's cells are sums over them. Tables with a dimension in which a
//! case has several values are apart from those without, or the total would count such a case more than once.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use crate::error::Result;
use crate::indicator::resolve::too_large;
use crate::indicator::{IndicatorDefinition, Plan};
use crate::model::{Cell, DIMENSION_BITS, TABLES_MAX};

/// The finest cells of some tables of one indicator.
#[derive(Clone, Debug)]
pub(super) struct Family {
    pub(super) parts: Vec<FamilyPart>,
    /// Index into `parts` of the dimension whose values share a denominator.
    pub(super) share: Option<usize>,
    /// Tables of the plan that are sums of this family.
    tables: std::ops::Range<usize>,
}

/// A dimension within a family's cells.
#[derive(Clone, Copy, Debug)]
pub(super) struct FamilyPart {
    pub(super) dimension: usize,
    pub(super) shift: u32,
}

/// A published breakdown.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) indicator: usize,
    pub(super) parts: Vec<TablePart>,
    /// Index into `parts` of its location dimension, which also adds up into what the place is part of.
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
pub(super) fn tabulate(
    plan: &mut Plan,
    code: &str,
    indicator: &IndicatorDefinition,
    distinct: bool,
) -> Result<()> {
    let number = |name: &String| {
        let found = plan.dimensions.iter().position(|dimension| dimension.name == *name);
        found.expect("the resolver checked the names")
    };
    let share = indicator.share_over.as_ref().map(number);
    let mut groups: BTreeMap<BTreeSet<usize>, Vec<Vec<usize>>> = BTreeMap::new();
    for names in &indicator.tables {
        let table: Vec<_> = names.iter().map(number).collect();
        let several = table.iter().copied().filter(|index| {
            let dimension = &plan.dimensions[*index];
            dimension.is_set() || distinct && dimension.of_row
        });
        groups.entry(several.collect()).or_default().push(table);
    }
    for tables in groups.into_values() {
        let union: BTreeSet<_> = tables.iter().flatten().copied().collect();
        if bits(plan, &union) <= DIMENSION_BITS {
            add_family(plan, code, &union, share, &tables)?;
        } else {
            for table in tables {
                let alone = table.iter().copied().collect();
                add_family(plan, code, &alone, share, &[table])?;
            }
        }
    }
    Ok(())
}

fn bits(plan: &Plan, dimensions: &BTreeSet<usize>) -> u32 {
    dimensions.iter().map(|index| plan.dimensions[*index].bits()).sum()
}

fn add_family(
    plan: &mut Plan,
    code: &str,
    union: &BTreeSet<usize>,
    share: Option<usize>,
    tables: &[Vec<usize>],
) -> Result<()> {
    let wanted = bits(plan, union);
    if wanted > DIMENSION_BITS {
        let what = format!("a table of {code} needs {wanted} bits, {DIMENSION_BITS} fit");
        return Err(too_large(
            &what,
            "break it down by fewer dimensions, or shorter lists of values",
        ));
    }
    if plan.tables.len() + tables.len() > TABLES_MAX || plan.families.len() >= TABLES_MAX {
        return Err(too_large(&format!("more than {TABLES_MAX} tables"), "declare fewer"));
    }
    let mut shift = 0;
    let mut parts = Vec::new();
    for dimension in union {
        parts.push(FamilyPart { dimension: *dimension, shift });
        shift += plan.dimensions[*dimension].bits();
    }
    let start = plan.tables.len();
    for table in tables {
        let table = table_of(plan, code, &parts, table)?;
        plan.tables.push(table);
    }
    plan.families.push(Family {
        share: share.and_then(|share| parts.iter().position(|part| part.dimension == share)),
        parts,
        tables: start..plan.tables.len(),
    });
    Ok(())
}

fn table_of(plan: &Plan, code: &str, parts: &[FamilyPart], table: &[usize]) -> Result<Table> {
    let mut to = 0;
    let mut placed = Vec::new();
    for part in parts.iter().filter(|part| table.contains(&part.dimension)) {
        let bits = plan.dimensions[part.dimension].bits();
        let mask = (1 << bits) - 1;
        placed.push(TablePart { dimension: part.dimension, from: part.shift, to, mask });
        to += bits;
    }
    let is_location = |part: &TablePart| plan.dimensions[part.dimension].is_location();
    if placed.iter().filter(|part| is_location(part)).count() > 1 {
        let what = format!("a table of {code} has two location dimensions");
        return Err(too_large(&what, "declare a table for each"));
    }
    Ok(Table {
        indicator: plan.indicators.len(),
        location: placed.iter().position(is_location),
        parts: placed,
    })
}

impl Plan {
    /// The cells of published tables that a finest cell is part of: every table of its family, for its place and
    /// all it is part of, for its instance and for all.
    pub fn roll_up(&self, finest: Cell) -> SmallVec<[Cell; 32]> {
        let mut cells = SmallVec::new();
        let family = &self.families[usize::from(finest.table())];
        for index in family.tables.clone() {
            let table = &self.tables[index];
            let mut fixed = 0;
            for (part_index, part) in table.parts.iter().enumerate() {
                if table.location != Some(part_index) {
                    fixed |= (finest.dimensions() >> part.from & part.mask) << part.to;
                }
            }
            let mut give = |dimensions| {
                for instance in [finest.instance(), 0] {
                    cells.push(Cell::new(index as u16, finest.period(), instance, dimensions));
                }
            };
            match table.location.map(|part| table.parts[part]) {
                None => give(fixed),
                Some(part) => {
                    let place = finest.dimensions() >> part.from & part.mask;
                    for ordinal in self.places.lineage(&place) {
                        give(fixed | ordinal << part.to);
                    }
                }
            }
        }
        cells
    }
}
