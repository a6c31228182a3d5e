//! What everything that counts in a cell adds up to, and the figure that is made of it.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::dataflow::oracle::breakdown::{NOT_RECORDED, UNMAPPED, banded};
use crate::dataflow::oracle::{CellName, World};
use crate::indicator::{DimensionDefinition, DimensionKind, IndicatorDefinition, Origin, Summary};
use crate::model::Figure;

/// What one case or row adds to a cell.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Adds {
    pub(super) numerator: i64,
    pub(super) denominator: i64,
    pub(super) detail: Detail,
}

/// What is told apart inside a cell.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Detail {
    #[default]
    None,
    Days(i32),
    Worker(u32),
}

/// Everything that counts in one cell.
#[derive(Debug, Default)]
struct Total {
    numerator: i64,
    denominator: i64,
    days: Vec<i64>,
    /// By case worker: how many cases or rows.
    workers: BTreeMap<u32, i64>,
}

/// The totals of all cells; the caseload of a cell is not known yet.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// Sorted only when they are told: there are many, and their names are long.
    cells: HashMap<CellName, Total>,
}

impl Totals {
    pub(super) fn add(&mut self, cell: CellName, adds: Adds) {
        let total = self.cells.entry(cell).or_default();
        total.numerator += adds.numerator;
        total.denominator += adds.denominator;
        match adds.detail {
            Detail::None => {}
            Detail::Days(days) => total.days.push(i64::from(days)),
            Detail::Worker(worker) => *total.workers.entry(worker).or_default() += 1,
        }
    }

    /// Every cell that is not empty.
    pub(super) fn figures(self, world: &World<'_>) -> BTreeMap<CellName, Figure> {
        let mut figures = BTreeMap::new();
        for (name, total) in self.cells {
            let indicator = &world.definition.indicators[&name.indicator];
            match caseload_of(&name, world) {
                None => {
                    figures.insert(name, total.figure(indicator));
                }
                Some((index, dimension)) => {
                    let of_bands = total.by_caseload(indicator, dimension);
                    figures.extend(of_bands.into_iter().map(|(band, figure)| {
                        let mut name = name.clone();
                        name.dimensions[index] = band;
                        (name, figure)
                    }));
                }
            }
        }
        figures.retain(|_, figure| !figure.is_empty());
        figures
    }
}

/// The caseload dimension that a cell is broken down by, and where it stands.
fn caseload_of<'a>(
    name: &CellName,
    world: &'a World<'_>,
) -> Option<(usize, &'a DimensionDefinition)> {
    let mut dimensions = world.definition.dimensions.values().enumerate();
    dimensions.find(|(index, dimension)| {
        dimension.from == Origin::Caseload && name.dimensions[*index] == UNMAPPED
    })
}

impl Total {
    fn figure(mut self, indicator: &IndicatorDefinition) -> Figure {
        let (sum, count) = (self.days.iter().sum(), self.days.len() as i64);
        let cases = self.workers.values().sum();
        let workers = self.workers.len() as i64;
        let of = |numerator, denominator, median_doubled| Figure {
            numerator,
            denominator,
            median_doubled,
        };
        match &indicator.summary {
            None => of(self.numerator, self.denominator, None),
            Some(Summary::Mean(_)) => of(sum, count, None),
            Some(Summary::Median(_)) => {
                self.days.sort_unstable();
                let length = self.days.len();
                of(sum, count, Some(self.days[(length - 1) / 2] + self.days[length / 2]))
            }
            Some(Summary::Workers(_)) => of(workers, 0, None),
            Some(Summary::CasesPerWorker(_)) => of(cases, workers, None),
        }
    }

    /// How many case workers have so many cases; with `share_over` also how many there are.
    fn by_caseload(
        &self,
        indicator: &IndicatorDefinition,
        dimension: &DimensionDefinition,
    ) -> BTreeMap<String, Figure> {
        let mut figures: BTreeMap<String, Figure> = BTreeMap::new();
        if indicator.share_over.is_some() {
            let DimensionKind::Bands(bands) = &dimension.kind else { return figures };
            let all = bands.iter().map(|band| band.name.as_str());
            for band in all.chain([NOT_RECORDED, UNMAPPED]) {
                figures.entry(band.to_owned()).or_default().denominator = self.workers.len() as i64;
            }
        }
        for cases in self.workers.values() {
            let band = banded(dimension, i32::try_from(*cases).ok());
            figures.entry(band).or_default().numerator += 1;
        }
        figures
    }
}
