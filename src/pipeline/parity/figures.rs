//! Figures by sex and age: ours, from the tables of the oracle, and Primero's, from its reports, in the same words.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::config::Config;
use crate::dataflow::oracle::{self, CellName, Tables, World};
use crate::error::{Error, Result};
use crate::indicator::{ALL, Definition, DimensionKind, InstanceDefinition, PackText};
use crate::model::Figure;
use crate::source::{ReportCell, ReportValue, Settings};

use super::records::Held;
use super::{Period, row_reports};

/// The pack that counts as Primero's reports do.
const PACK: &str = "primero-parity";
/// The dimension of the pack that one concern is taken from.
const CONCERN: &str = "protection_concern";
/// Where nothing is recorded.
pub(super) const NOT_RECORDED: &str = "not_recorded";
/// Where something else is recorded than the pack lists.
const UNMAPPED: &str = "unmapped";
/// What Primero calls a sum, and an age that is missing or in no band.
const TOTAL: &str = "total";
const INCOMPLETE: &str = "incomplete_data";

/// The pack, with the same indicators once more for what else Primero might count: cases that have a row, instead of
/// rows.
pub(super) fn definition() -> Result<Definition> {
    let missing = || Error::bug("the pack primero-parity is not in the program");
    let pack = PackText::shipped(PACK).ok_or_else(missing)?;
    let mut text =
        "[pack]\nid = \"reconcile\"\nversion = \"1.0.0\"\ntitle = { en = \"Variants\" }\n"
            .to_owned();
    for (code, subform) in row_reports() {
        for (suffix, population) in [("", "enabled"), (".disabled", "all")] {
            for (infix, placed, periods) in [
                ("", "\"now\"".to_owned(), ""),
                ("-dated", dated(subform), "periods = [\"month\"]\n"),
            ] {
                let rows = match (infix, subform) {
                    ("-dated", "services_section") => {
                        "rows = { service_implemented = \"implemented\" }\n"
                    }
                    _ => "",
                };
                // Writing to a text cannot fail.
                let _ = write!(
                    text,
                    "[indicators.\"{code}{infix}.cases{suffix}\"]\ntitle = {{ en = \"Cases\" }}\n\
                     count = \"cases with {subform}\"\n\
                     population = \"{population}\"\n{rows}placed = {placed}\n{periods}\
                     tables = [[\"age\", \"sex\"]]\n"
                );
            }
        }
    }
    Definition::read(vec![pack, PackText { name: "reconcile".to_owned(), text }])
}

/// The placing of the dated report on a subform.
fn dated(subform: &str) -> String {
    let date = match subform {
        "services_section" => "service_implemented_day_time",
        _ => "followup_date",
    };
    format!("{{ flow = \"{subform}.{date}\" }}")
}

/// A table by sex and age with its sums: how many, by sex and by band. Empty cells are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Grid(BTreeMap<(String, String), i64>);

impl Grid {
    /// What a report says; nothing when it holds something else than counts. `sexes` says which of its option ids
    /// stand for others.
    pub(super) fn of_report(
        cells: &[ReportCell],
        sexes: &BTreeMap<String, String>,
    ) -> Option<Self> {
        let mut grid = Self::default();
        for cell in cells {
            let ReportValue::Count(count) = cell.value else { return None };
            let row = cell.row.as_deref();
            let sex = match row.map(|id| sexes.get(id).map_or(id, String::as_str)) {
                None | Some(INCOMPLETE) => NOT_RECORDED,
                Some(TOTAL) => ALL,
                Some(sex @ ("male" | "female")) => sex,
                Some(_) => UNMAPPED,
            };
            let age = match cell.column.as_str() {
                INCOMPLETE => NOT_RECORDED.to_owned(),
                TOTAL => ALL.to_owned(),
                band => band.replace(' ', ""),
            };
            *grid.0.entry((sex.to_owned(), age)).or_default() += count;
        }
        grid.0.retain(|_, count| *count != 0);
        Some(grid)
    }

    /// How many in a cell.
    pub(super) fn get(&self, sex: &str, age: &str) -> i64 {
        self.0.get(&(sex.to_owned(), age.to_owned())).copied().unwrap_or(0)
    }

    /// How many in all.
    pub(super) fn total(&self) -> i64 {
        self.get(ALL, ALL)
    }

    /// Sex and age of every cell that is not empty.
    pub(super) fn places(&self) -> impl Iterator<Item = &(String, String)> {
        self.0.keys()
    }

    /// Adds to a cell and to the sums that it is in.
    pub(super) fn add(&mut self, sex: &str, age: &str, count: i64) {
        for (sex, age) in [(sex, age), (sex, ALL), (ALL, age), (ALL, ALL)] {
            *self.0.entry((sex.to_owned(), age.to_owned())).or_default() += count;
        }
    }
}

/// Which of our figures.
#[derive(Clone, Debug)]
pub(super) struct Measure {
    code: String,
    /// Only cases with this concern.
    concern: Option<String>,
    with_disabled: bool,
    as_cases: bool,
}

impl Measure {
    pub(super) fn new(code: &str) -> Self {
        Self { code: code.to_owned(), concern: None, with_disabled: false, as_cases: false }
    }

    /// Only cases with this concern, if there is one.
    pub(super) fn of_concern(self, concern: Option<&str>) -> Self {
        Self { concern: concern.map(str::to_owned), ..self }
    }

    /// With disabled records, as Primero counts up to 2.14.0.
    pub(super) fn with_disabled(self) -> Self {
        Self { with_disabled: true, ..self }
    }

    /// Cases that have a row, each once, instead of rows.
    pub(super) fn of_cases(self) -> Self {
        Self { as_cases: true, ..self }
    }

    fn indicator(&self) -> String {
        let cases = if self.as_cases { ".cases" } else { "" };
        let disabled = if self.with_disabled { ".disabled" } else { "" };
        format!("{}{cases}{disabled}", self.code)
    }
}

/// All our figures of one instance.
pub(super) struct Figures<'a> {
    held: &'a Held,
    tables: Tables,
    published_as: String,
}

impl<'a> Figures<'a> {
    /// Counts the records.
    pub(super) fn compute(config: &Config, settings: &Settings, held: &'a Held) -> Result<Self> {
        let instances: Vec<InstanceDefinition> = config.instance_definitions();
        let own = instances.iter().find(|instance| instance.name == settings.name);
        let own = own.ok_or_else(|| Error::bug("an instance is not in its own configuration"))?;
        let world = World {
            definition: &held.definition,
            schema: &held.schema,
            dictionary: &held.dictionary,
            locations: &held.places,
            instances: &instances,
            today: held.today,
        };
        let tables = oracle::tables(&world, &held.records);
        Ok(Self { held, tables, published_as: own.published_as.clone() })
    }

    /// A table by sex and age: as of now, or of the months of a period.
    pub(super) fn grid(&self, measure: &Measure, period: Option<Period>) -> Grid {
        let mut grid = Grid::default();
        let concern = measure.concern.as_deref().unwrap_or(ALL);
        for (cell, figure) in self.cells(&measure.indicator(), period) {
            let (sex, age) = (self.value(cell, "sex"), self.value(cell, "age"));
            if sex != ALL && age != ALL && self.is_whole_but(cell, concern) {
                // Primero has one column for an age that is missing and one that is in no band.
                let age = if age == UNMAPPED { NOT_RECORDED } else { age };
                grid.add(sex, age, figure.numerator);
            }
        }
        grid
    }

    /// The concern that most cases have; of several the first by name.
    pub(super) fn commonest_concern(&self) -> Option<String> {
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        for (cell, figure) in self.cells("MR-concerns", None) {
            let concern = self.value(cell, CONCERN);
            if ![ALL, NOT_RECORDED, UNMAPPED].contains(&concern) {
                *counts.entry(concern).or_default() += figure.numerator;
            }
        }
        let most = counts.values().max().copied()?;
        let (concern, _) = counts.into_iter().find(|(_, count)| *count == most)?;
        Some(concern.to_owned())
    }

    /// The age bands of the pack, youngest first.
    pub(super) fn bands(&self) -> Vec<String> {
        match self.held.definition.dimensions.get("age").map(|dimension| &dimension.kind) {
            Some(DimensionKind::Bands(bands)) => {
                let mut bands: Vec<_> = bands.iter().collect();
                bands.sort_by_key(|band| band.from);
                bands.into_iter().map(|band| band.name.clone()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn cells(
        &self,
        indicator: &str,
        period: Option<Period>,
    ) -> impl Iterator<Item = (&CellName, &Figure)> {
        self.tables.values.iter().filter(move |(cell, _)| {
            let in_time = match (period, cell.period_start) {
                (None, None) => true,
                (Some(Period { from, to }), Some(start)) => {
                    cell.period_type == "month" && from <= start && start <= to
                }
                _ => false,
            };
            in_time && cell.indicator == indicator && cell.instance == self.published_as
        })
    }

    fn value<'c>(&self, cell: &'c CellName, dimension: &str) -> &'c str {
        let names = self.held.definition.dimensions.keys();
        let index = names.into_iter().position(|name| name == dimension);
        index.and_then(|index| cell.dimensions.get(index)).map_or(ALL, String::as_str)
    }

    /// Whether a cell is of all values of every dimension but sex and age, and of this concern.
    fn is_whole_but(&self, cell: &CellName, concern: &str) -> bool {
        let names = self.held.definition.dimensions.keys();
        names.zip(&cell.dimensions).all(|(name, value)| match name.as_str() {
            "sex" | "age" => true,
            CONCERN => value == concern,
            _ => value == ALL,
        })
    }
}
