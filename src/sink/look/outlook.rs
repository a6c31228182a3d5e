//! What would be written if the tables were to become those of another catalog, counted and not written.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use futures_util::StreamExt;
use hashbrown::HashMap;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::figure_text;
use crate::error::{Error, Result};
use crate::indicator::{Catalog, IndicatorText, Labels, Naming};
use crate::model::{Cell, Changes, Day, Figure};
use crate::sink::Position;
use crate::sink::cell_key::CellKeys;
use crate::sink::compare::{Comparison, against, expected_rows};
use crate::sink::connection::failed;
use crate::sink::encode::Uuid;
use crate::sink::identifier::Identifier;
use crate::sink::layout::{ExtractLayout, Layout, sql_type};
use crate::sink::rows::{NamedCell, median};
use crate::sink::schema::columns_of;
use crate::sink::step_two::dimensions;
use crate::sink::tables::{VALUES, VALUES_HEAD, VALUES_TAIL};
use crate::sink::wide::table_name;

const DOING: &str = "comparing the tables with what they would hold";

/// What would be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outlook {
    /// What the tables hold; none when they were never written.
    pub position: Option<Position>,
    /// Indicators by code: those that have a difference of any kind.
    pub indicators: BTreeMap<String, IndicatorOutlook>,
    /// The tables of rows, by name: those that have a difference.
    pub extracts: BTreeMap<String, RowsOutlook>,
    /// Columns that would be added, as `table.column`.
    pub columns_added: Vec<String>,
    /// Columns that would be dropped, as `table.column`; a table that goes as a whole as `table`.
    pub columns_dropped: Vec<String>,
}

/// Rows that would be written to one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowsOutlook {
    /// Rows that would appear.
    pub added: u64,
    /// Rows that would have another content.
    pub changed: u64,
    /// Rows that would leave.
    pub removed: u64,
}

impl RowsOutlook {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.added + self.changed + self.removed
    }
}

/// What would become of one indicator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndicatorOutlook {
    /// Whether it is new, gone, described otherwise, or the same.
    pub fate: Fate,
    /// Its cells.
    pub cells: RowsOutlook,
    /// The first cells that would change or leave, then the first that would appear.
    pub examples: Vec<String>,
}

/// What becomes of the description of an indicator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    #[default]
    Same,
    /// The packs declare it now.
    Added,
    /// They do not any more.
    Removed,
    /// Its texts, unit, periods or breakdowns are others.
    Described,
}

impl Outlook {
    /// Rows of all tables that would be written.
    pub fn rows(&self) -> u64 {
        let cells = self.indicators.values().map(|indicator| indicator.cells.total());
        cells.chain(self.extracts.values().map(RowsOutlook::total)).sum()
    }

    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.indicators.is_empty()
            && self.extracts.is_empty()
            && self.columns_added.is_empty()
            && self.columns_dropped.is_empty()
    }
}

/// Looks inside one transaction.
pub(super) struct Outlooker<'a> {
    pub(super) client: &'a Client,
    pub(super) schema: &'a Identifier,
    pub(super) catalog: &'a Catalog,
    pub(super) naming: &'a dyn Naming,
    pub(super) today: Option<Day>,
    pub(super) examples_max: usize,
}

/// Cells that should be, by key; what is not found in the table is left.
type Wanted = HashMap<[u8; 16], (Cell, Figure)>;

impl Outlooker<'_> {
    pub(super) async fn run(
        &self,
        position: Option<Position>,
        complete: &Changes,
    ) -> Result<Outlook> {
        let layout = Layout::new(self.schema, self.catalog)?;
        let mut outlook = Outlook { position, ..Outlook::default() };
        self.described(&mut outlook).await?;
        self.cells(&layout, complete, &mut outlook).await?;
        for (index, extract) in layout.extracts.iter().enumerate() {
            let rows = self.rows(index, extract, complete, &mut outlook).await?;
            if rows.total() > 0 {
                outlook.extracts.insert(extract.table.name().to_owned(), rows);
            }
        }
        if outlook.position.is_some() {
            self.left(&layout, &mut outlook).await?;
        }
        let all_same = IndicatorOutlook::default();
        outlook.indicators.retain(|_, indicator| *indicator != all_same);
        Ok(outlook)
    }

    /// Which indicators come, go, or are told in other words.
    async fn described(&self, outlook: &mut Outlook) -> Result<()> {
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        if outlook.position.is_some() {
            let sql = format!(
                "SELECT indicator, title::text, definition::text, unit, kind, periods, breakdowns
                   FROM {}.indicators",
                self.schema
            );
            for row in self.client.query(&sql, &[]).await.map_err(failed(DOING))? {
                let (title, definition) = (labels(row.get(1)), labels(row.get(2)));
                let (unit, kind): (String, String) = (row.get(3), row.get(4));
                let (periods, tables): (Vec<String>, Vec<String>) = (row.get(5), row.get(6));
                let text = described(&title, &definition, &unit, &kind, &periods, &tables);
                known.insert(row.get(0), text);
            }
        }
        for indicator in &self.catalog.indicators {
            let fate = match known.remove(&indicator.code) {
                None => Fate::Added,
                Some(text) if text == text_of(indicator) => Fate::Same,
                Some(_) => Fate::Described,
            };
            outlook.indicators.entry(indicator.code.clone()).or_default().fate = fate;
        }
        for code in known.into_keys() {
            outlook.indicators.entry(code).or_default().fate = Fate::Removed;
        }
        Ok(())
    }

    async fn cells(
        &self,
        layout: &Layout,
        complete: &Changes,
        outlook: &mut Outlook,
    ) -> Result<()> {
        let keys = CellKeys::new(self.catalog);
        let mut wanted = Wanted::with_capacity(complete.cells.len());
        for change in complete.cells.iter().filter(|change| !change.new.is_empty()) {
            let cell = NamedCell::of(change.cell, self.naming, &keys, layout)?;
            wanted.insert(cell.key, (change.cell, change.new));
        }
        let table = Identifier::new(VALUES)?;
        let there = columns_of(self.client, self.schema, &table).await?;
        if !there.is_empty() {
            self.standing(&keys, layout, &mut wanted, outlook).await?;
        }
        for change in complete.cells.iter().filter(|_| !wanted.is_empty()) {
            let cell = NamedCell::of(change.cell, self.naming, &keys, layout)?;
            if !wanted.contains_key(&cell.key) {
                continue;
            }
            let entry = outlook.indicators.entry(cell.text.indicator.to_owned()).or_default();
            entry.cells.added += 1;
            if entry.examples.len() < self.examples_max {
                let new = stored(&cell, change.new);
                entry.examples.push(format!("{}: new, {new}", self.words(&cell)));
            }
        }
        let own: BTreeSet<_> = VALUES_HEAD.iter().chain(VALUES_TAIL).map(|c| c.0).collect();
        let wanted = layout.dimensions.iter().map(|dimension| dimension.name.name().to_owned());
        let there = there.into_iter().map(|(name, _)| name);
        let there = there.filter(|name| !own.contains(name.as_str())).collect();
        columns(VALUES, wanted.collect(), there, outlook);
        Ok(())
    }

    /// Compares what the table shows; what it does not show is left in `wanted`.
    async fn standing(
        &self,
        keys: &CellKeys,
        layout: &Layout,
        wanted: &mut Wanted,
        outlook: &mut Outlook,
    ) -> Result<()> {
        let sql = format!(
            "SELECT uuid_send(cell), indicator, numerator, denominator, median, provisional
               FROM {}.{VALUES} ORDER BY indicator, period_type, period_start, instance, cell",
            self.schema
        );
        let none: [&(dyn ToSql + Sync); 0] = [];
        let rows = self.client.query_raw(&sql, none).await.map_err(failed(DOING))?;
        let mut rows = pin!(rows);
        let mut leaving = Vec::new();
        while let Some(row) = rows.next().await {
            let row = row.map_err(failed(DOING))?;
            let key: Vec<u8> = row.get(0);
            let key = key.try_into().map_err(|_| Error::bug("a key is not 16 bytes"))?;
            let old = figure_text(row.get(2), row.get(3), row.get(4));
            let entry = outlook.indicators.entry(row.get(1)).or_default();
            let Some((cell, figure)) = wanted.remove(&key) else {
                entry.cells.removed += 1;
                if entry.examples.len() < self.examples_max {
                    leaving.push((row.get::<_, String>(1), entry.examples.len(), key));
                    entry.examples.push(old);
                }
                continue;
            };
            let cell = NamedCell::of(cell, self.naming, keys, layout)?;
            let new = stored(&cell, figure);
            if old == new && cell.is_provisional(self.today) == row.get::<_, bool>(5) {
                continue;
            }
            entry.cells.changed += 1;
            if entry.examples.len() < self.examples_max {
                let (name, same) = (self.words(&cell), old == new);
                let over = if same { " (its period is over)" } else { "" };
                entry.examples.push(format!("{name}: {old} → {new}{over}"));
            }
        }
        // The names of cells that leave are only in the table.
        for (indicator, index, key) in leaving {
            let name = self.leaving(key).await?;
            if let Some(entry) = outlook.indicators.get_mut(&indicator) {
                let old = &entry.examples[index];
                entry.examples[index] = format!("{name}: {old} → gone");
            }
        }
        Ok(())
    }

    async fn leaving(&self, key: [u8; 16]) -> Result<String> {
        let dimensions = dimensions("v");
        let sql = format!(
            "SELECT period_type, period_start::text, instance, ({dimensions})::text
               FROM {}.{VALUES} v WHERE cell = $1",
            self.schema
        );
        let row = self.client.query_one(&sql, &[&Uuid(key)]).await.map_err(failed(DOING))?;
        let (period, start): (String, Option<String>) = (row.get(0), row.get(1));
        let broken_down = labels(row.get(3));
        let broken_down = broken_down.iter().map(|(name, value)| format!(" {name}={value}"));
        let start = start.map_or(String::new(), |start| format!(" {start}"));
        let (instance, rest): (String, String) = (row.get(2), broken_down.collect());
        Ok(format!("{period}{start} instance={instance}{rest}"))
    }

    fn words(&self, cell: &NamedCell<'_>) -> String {
        let text = &cell.text;
        let start = text.period_start.map_or(String::new(), |day| format!(" {}", day.date()));
        let mut words = format!("{}{start} instance={}", text.period_type, text.instance);
        for (column, value) in self.catalog.dimensions.iter().zip(&text.dimensions) {
            if *value != crate::sink::cell_key::ALL {
                words += &format!(" {}={value}", column.name);
            }
        }
        words
    }

    /// The rows of one table; a column that is not there yet counts as empty.
    async fn rows(
        &self,
        index: usize,
        extract: &ExtractLayout,
        complete: &Changes,
        outlook: &mut Outlook,
    ) -> Result<RowsOutlook> {
        let expected = expected_rows(index, extract, complete, self.naming)?;
        let there = columns_of(self.client, self.schema, &extract.table).await?;
        let has = |name: &str, sql_type: &str| {
            there.iter().any(|(known, of)| known == name && of == sql_type)
        };
        let kept = |name: &str| name != "epoch" && name != "updated_at";
        let own = there.iter().map(|(name, _)| name.clone()).filter(|name| kept(name));
        let wanted = extract.columns.iter().map(|column| column.name.name().to_owned());
        let wanted = wanted.chain([extract.key.name().to_owned()]);
        columns(extract.table.name(), wanted.collect(), own.collect(), outlook);
        if !has(extract.key.name(), "uuid") {
            return Ok(RowsOutlook { added: expected.len() as u64, ..RowsOutlook::default() });
        }
        let key = (extract.key.to_string(), "uuid");
        let read = extract.columns.iter().map(|column| {
            let of = sql_type(column.column_type);
            let is_there = has(column.name.name(), of);
            (if is_there { column.name.to_string() } else { "NULL".to_owned() }, of)
        });
        let read: Vec<_> = std::iter::once(key).chain(read).collect();
        let target = format!("{}.{}", self.schema, extract.table);
        let mut found = Comparison::default();
        against(self.client, &target, &read, expected, &mut found, false).await?;
        let Comparison { different, missing, surplus, .. } = found;
        Ok(RowsOutlook { added: missing, changed: different, removed: surplus })
    }

    /// Tables of rows that would go.
    async fn left(&self, layout: &Layout, outlook: &mut Outlook) -> Result<()> {
        let schema = self.schema;
        let sql = format!("SELECT table_name FROM {schema}.tonle_extracts ORDER BY 1");
        for row in self.client.query(&sql, &[]).await.map_err(failed(DOING))? {
            let name: String = row.get(0);
            if layout.extracts.iter().any(|extract| extract.table.name() == name) {
                continue;
            }
            let sql = format!("SELECT count(*) FROM {schema}.{}", Identifier::new(&name)?);
            let row = self.client.query_one(&sql, &[]).await.map_err(failed(DOING))?;
            let removed = row.get::<_, i64>(0).cast_unsigned();
            outlook.columns_dropped.push(name.clone());
            outlook.extracts.insert(name, RowsOutlook { removed, ..RowsOutlook::default() });
        }
        Ok(())
    }
}

/// Notes which columns of a table would come and go; of a table that is not there yet, only the table.
fn columns(table: &str, wanted: BTreeSet<String>, there: BTreeSet<String>, outlook: &mut Outlook) {
    if there.is_empty() {
        outlook.columns_added.push(table.to_owned());
        return;
    }
    let named = |name: &String| format!("{table}.{name}");
    outlook.columns_added.extend(wanted.difference(&there).map(named));
    outlook.columns_dropped.extend(there.difference(&wanted).map(named));
}

fn stored(cell: &NamedCell<'_>, figure: Figure) -> String {
    figure_text(figure.numerator, cell.denominator(figure), median(figure))
}

/// Texts by language; what is no object of texts, which nobody writes, has none.
fn labels(json: &str) -> Labels {
    serde_json::from_str(json).unwrap_or_default()
}

fn text_of(indicator: &IndicatorText) -> String {
    let IndicatorText { title, definition, unit, kind, periods, tables, .. } = indicator;
    let tables: Vec<_> = tables.iter().map(|table| table_name(table)).collect();
    described(title, definition, unit, kind, periods, &tables)
}

fn described(
    title: &Labels,
    definition: &Labels,
    unit: &str,
    kind: &str,
    periods: &[String],
    tables: &[String],
) -> String {
    format!("{title:?}{definition:?}{unit} {kind} {periods:?} {tables:?}")
}
