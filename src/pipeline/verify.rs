//! Tables against state: the oracle says what every row should be, the sink compares.

use std::collections::BTreeMap;

use jiff::civil::Date;

use super::glance::GLANCES_MAX;
use super::standing::tree_of;
use super::start::compile;
use crate::config::Config;
use crate::dataflow::oracle::{self, CellName, Tables, World};
use crate::error::{Error, Kind, Result};
use crate::indicator::{Catalog, CellText, ColumnType, Naming, Value, schema_of};
use crate::model::{
    Case, Cell, CellChange, Changes, Day, Epoch, ExtractChange, Figure, Interner, LocationTree,
    RecordKey,
};
use crate::sink::{Comparison, Sink};
use crate::state::{Restored, State};

/// What a comparison found.
#[derive(Debug)]
pub struct Verified {
    /// The epoch that the tables show.
    pub epoch: Epoch,
    /// Records that everything was computed from.
    pub records: usize,
    /// What was found.
    pub comparison: Comparison,
}

/// Computes every table from the state as of the epoch that Postgres shows, and compares.
///
/// It works beside a running pipeline; the tables are compared as they are at one moment.
///
/// # Errors
/// When the state or the database cannot be read, or they are not of the same pipeline; Temporary when the tables
/// were never left alone for long enough.
pub async fn verify(config: &Config) -> Result<Verified> {
    for _ in 0..GLANCES_MAX {
        let (verified, after) = verified(config).await?;
        if verified.comparison.is_equal() || after == Some(verified.epoch) {
            return Ok(verified);
        }
    }
    let what = "comparing the tables: epochs were written all the while";
    Err(Error::new(Kind::Temporary, what).advise("try again, or stop `tonle run` meanwhile"))
}

/// What was found, and the epoch that the tables showed after it.
async fn verified(config: &Config) -> Result<(Verified, Option<Epoch>)> {
    let bare = compile(config, &LocationTree::default(), &Interner::default())?;
    let mut sink = Sink::open(config.sink.clone(), bare.catalog()).await?;
    let position = sink.position().await?.ok_or_else(|| {
        Error::new(Kind::DataDiffers, "comparing the tables: nothing was committed to them yet")
            .advise("`tonle run` fills them")
    })?;
    let state = State::read_only(&config.state)?;
    if state.pipeline_id()?.map(|id| id.0) != position.pipeline {
        let what = "comparing the tables: they were written from another state directory";
        return Err(Error::new(Kind::DataDiffers, what).advise(
            "name the state directory and the database of one pipeline; where they are, `tonle run` \
             reads every instance and reconciles them",
        ));
    }
    let schema = schema_of(&config.definition);
    let restored = state.restore(Some(position.epoch), &schema)?;
    if restored.base != position.epoch {
        let what = format!("the state does not know epoch {}", position.epoch);
        return Err(Error::new(Kind::DataDiffers, what).advise("`tonle run` reconciles them"));
    }
    let plan = compile(
        config,
        &tree_of(&restored.locations),
        &Interner::new(restored.dictionary.clone()),
    )?;
    if !plan.catalog().fingerprint.counts_as(position.fingerprint) {
        let what = "the tables follow another pack, other instances or other places";
        return Err(
            Error::new(Kind::DataDiffers, what).advise("`tonle run` brings them up to date")
        );
    }
    let mut sink = Sink::open(config.sink.clone(), plan.catalog()).await?;
    let tables = expected(config, &restored);
    let named = Named::new(plan.catalog(), tables);
    let comparison = sink.compare(&named.complete(), restored.today, &named).await?;
    let after = sink.position().await?.map(|position| position.epoch);
    Ok((Verified { epoch: position.epoch, records: restored.records.len(), comparison }, after))
}

fn expected(config: &Config, restored: &Restored) -> Tables {
    let world = World {
        definition: &config.definition,
        schema: &schema_of(&config.definition),
        dictionary: &restored.dictionary,
        locations: &tree_of(&restored.locations),
        instances: &config.instance_definitions(),
        today: restored.today.unwrap_or(Day::FIRST),
    };
    let records: BTreeMap<RecordKey, Case> = restored.records.iter().cloned().collect();
    oracle::tables(&world, &records)
}

/// The tables of the oracle in the form the sink takes: a cell or a row is its place in a list.
struct Named<'a> {
    catalog: &'a Catalog,
    cells: Vec<(CellName, Figure)>,
    rows: Vec<NamedRow>,
}

/// Table and key of a row, and the text of its columns.
type NamedRow = ((String, RecordKey), Vec<Option<String>>);

impl<'a> Named<'a> {
    fn new(catalog: &'a Catalog, tables: Tables) -> Self {
        let Tables { values, rows } = tables;
        Self { catalog, cells: values.into_iter().collect(), rows: rows.into_iter().collect() }
    }

    fn complete(&self) -> Changes {
        let cells = self.cells.iter().enumerate().map(|(index, (_, figure))| CellChange {
            cell: Cell(index as u64),
            old: Figure::default(),
            new: *figure,
            reason: None,
        });
        let rows = self.rows.iter().enumerate().map(|(index, ((table, key), _))| {
            let extract = self.catalog.extracts.iter().position(|extract| extract.table == *table);
            ExtractChange {
                extract: u16::try_from(extract.unwrap_or(0)).unwrap_or(0),
                key: *key,
                row: Some(Box::new([index as u32])),
                existed: false,
            }
        });
        Changes { cells: cells.collect(), rows: rows.collect(), ..Changes::default() }
    }
}

impl Naming for Named<'_> {
    fn cell(&self, cell: Cell) -> CellText<'_> {
        let (name, _) = &self.cells[cell.0 as usize];
        let indicators = &self.catalog.indicators;
        let indicator = indicators.iter().find(|indicator| indicator.code == name.indicator);
        CellText {
            indicator: &name.indicator,
            instance: &name.instance,
            period_type: name.period_type,
            period_start: name.period_start,
            dimensions: name.dimensions.iter().map(String::as_str).collect(),
            is_share: indicator.is_some_and(|indicator| indicator.has_denominator),
        }
    }

    fn row(&self, extract: u16, row: &[u32]) -> Vec<Value<'_>> {
        let (_, texts) = &self.rows[row[0] as usize];
        let columns = &self.catalog.extracts[usize::from(extract)].columns;
        columns.iter().zip(texts).map(|(column, text)| value(column.column_type, text)).collect()
    }
}

fn value(column_type: ColumnType, text: &Option<String>) -> Value<'_> {
    let Some(text) = text else { return Value::Null };
    match column_type {
        ColumnType::Text => Value::Text(text),
        ColumnType::Date => {
            text.parse::<Date>().ok().and_then(Day::of).map_or(Value::Null, Value::Date)
        }
        ColumnType::Integer => text.parse().map_or(Value::Null, Value::Integer),
        ColumnType::Boolean => Value::Boolean(text == "true"),
        ColumnType::Key => {
            u128::from_str_radix(text, 16).map_or(Value::Null, |key| Value::Key(RecordKey(key)))
        }
    }
}
