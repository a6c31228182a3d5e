//! The tables that say what rows mean, and how current each instance is.

use std::collections::BTreeMap;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Statement};

use super::connection::failed;
use super::encode::{Array, PutValue, Uuid};
use super::identifier::Identifier;
use super::layout::Layout;
use super::wide::{column_names, table_name};
use super::{RowCounts, RunId, replaced, views};
use crate::crash::{self, Step};
use crate::error::Result;
use crate::indicator::{Catalog, Labels, OptionText};
use crate::model::{Dictionary, Domain, Instant, Location, LocationTree};

/// Longest error text that is stored, in characters.
const ERROR_CHARS_MAX: usize = 500;

/// How current the data of one instance is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InstanceStatus {
    /// Its configured name.
    pub instance: String,
    /// `loading`, `live` or `failing`.
    pub state: &'static str,
    /// Everything changed up to here was read.
    pub cursor: Option<Instant>,
    /// Newest change seen in the instance.
    pub newest_change: Option<Instant>,
    /// When it was asked last.
    pub polled_at: Option<Instant>,
    /// Age of the oldest change not yet published, in seconds.
    pub lag_seconds: Option<i64>,
    /// Cases read from it that are not erased.
    pub cases_known: u64,
    /// Records that could not be read.
    pub cases_refused: u64,
    /// Values that did not fit their declared type.
    pub misfits: u64,
    /// How much of the first load is read, 0 to 1.
    pub progress: Option<f64>,
    /// The fields for which it is being read again, while it is.
    pub backfill: Option<String>,
    /// The last error, without content of any record.
    pub last_error: Option<String>,
    /// When all this was so.
    pub at: Instant,
}

/// What rows mean: all that [`describe`] writes.
pub(super) struct Meaning<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) places: &'a LocationTree,
    pub(super) dictionary: &'a Dictionary,
    /// Options of the servers.
    pub(super) labels: &'a [OptionText],
}

/// Writes the rows of `indicators`, `dimensions`, `options` and `locations` that differ, in one transaction. Where
/// the columns follow the layout, it also makes wide views that are missing: in tables of an older program.
pub(super) async fn describe(
    client: &mut Client,
    run: RunId,
    layout: &Layout,
    is_followed: bool,
    meaning: &Meaning<'_>,
) -> Result<RowCounts> {
    let schema = &layout.schema;
    let fail = failed("writing what the rows mean");
    let transaction = client.transaction().await.map_err(&fail)?;
    let whole_tables = "SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on;
                        SET LOCAL plan_cache_mode = force_custom_plan";
    transaction.batch_execute(whole_tables).await.map_err(&fail)?;
    let fence = format!("SELECT FROM {schema}.tonle_pipeline WHERE run_id = $1 FOR SHARE");
    let may_write = transaction.query(&fence, &[&Uuid(run.to_bytes())]).await.map_err(&fail)?;
    if may_write.is_empty() {
        return Err(replaced());
    }
    if is_followed {
        views::bring_up(&transaction, layout).await?;
    }
    let mut counts = RowCounts::default();
    let catalog = meaning.catalog;
    let options = options(catalog, meaning.labels);
    let places = locations(meaning.places, meaning.dictionary);
    let tables = [indicators(catalog)?, dimensions(catalog), options, places];
    for table in &tables {
        let parameters: Vec<&(dyn ToSql + Sync)> =
            table.columns.iter().map(|(_, _, array)| array as &(dyn ToSql + Sync)).collect();
        let [write, remove] = table.statements(schema);
        let row = transaction.query_one(&write, &parameters).await.map_err(&fail)?;
        let (inserted, updated): (i64, i64) = (row.get(0), row.get(1));
        counts.inserted += inserted.cast_unsigned();
        counts.updated += updated.cast_unsigned();
        counts.deleted +=
            transaction.execute(&remove, &parameters[..table.keys]).await.map_err(&fail)?;
    }
    crash::point(Step::MeaningWritten);
    transaction.commit().await.map_err(&fail)?;
    crash::point(Step::MeaningCommitted);
    Ok(counts)
}

/// All rows of a table as arrays; the first `keys` columns are its key.
struct Described {
    name: &'static str,
    keys: usize,
    /// Name, how an element of the array becomes the column's value, and the values as text or integer.
    columns: Vec<(&'static str, &'static str, Array)>,
}

impl Described {
    fn new(name: &'static str, keys: usize, columns: &[(&'static str, &'static str)]) -> Self {
        let array = |kind| Array::new(if kind == "integer" { Type::INT4 } else { Type::TEXT });
        let columns = columns.iter().map(|(name, kind)| (*name, *kind, array(*kind))).collect();
        Self { name, keys, columns }
    }

    fn text(&mut self, column: usize, text: &str) {
        self.columns[column].2.push(|array| array.text(text));
    }

    fn labels(&mut self, column: usize, labels: &Labels) {
        self.text(column, &serde_json::json!(labels).to_string());
    }

    fn list(&mut self, column: usize, texts: &[String]) {
        self.text(column, &serde_json::json!(texts).to_string());
    }

    fn integer(&mut self, column: usize, number: i32) {
        self.columns[column].2.push(|array| array.integer(number));
    }

    /// Writes what differs and returns how many rows were inserted and updated; removes the rest.
    fn statements(&self, schema: &Identifier) -> [String; 2] {
        let list = |make: &dyn Fn(usize, &str, &str) -> String, columns: &[_]| {
            let each = columns.iter().enumerate();
            let each =
                each.map(|(i, (name, kind, _)): (usize, &(&str, &str, Array))| make(i, name, kind));
            each.collect::<Vec<_>>().join(", ")
        };
        let (all, (keys, rest)) = (&self.columns[..], self.columns.split_at(self.keys));
        let names = list(&|_, name, _| name.to_owned(), all);
        let arrays = list(&|i, _, kind| format!("${}::{}[]", i + 1, element(kind)), all);
        let key_arrays = list(&|i, _, kind| format!("${}::{}[]", i + 1, element(kind)), keys);
        let values = list(&|_, name, kind| converted(name, kind), all);
        let key_names = list(&|_, name, _| name.to_owned(), keys);
        let set = list(&|_, name, _| format!("{name} = excluded.{name}"), rest);
        let ours = list(&|_, name, _| format!("t.{name}"), rest);
        let theirs = list(&|_, name, _| format!("excluded.{name}"), rest);
        let table = format!("{schema}.{}", self.name);
        let key_ours = list(&|_, name, _| format!("t.{name}"), keys);
        let key_given = list(&|_, name, _| format!("a.{name}"), keys);
        [
            format!(
                "WITH written AS (
                     INSERT INTO {table} AS t ({names})
                     SELECT {values} FROM unnest({arrays}) AS a ({names})
                     ON CONFLICT ({key_names}) DO UPDATE SET {set}
                      WHERE ROW({ours}) IS DISTINCT FROM ROW({theirs})
                     RETURNING xmax = 0 AS is_new)
                 SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new) FROM written"
            ),
            format!(
                "DELETE FROM {table} t WHERE NOT EXISTS (
                     SELECT FROM unnest({key_arrays}) AS a ({key_names})
                      WHERE ROW({key_ours}) = ROW({key_given}))"
            ),
        ]
    }
}

fn element(kind: &str) -> &'static str {
    if kind == "integer" { "integer" } else { "text" }
}

fn converted(name: &str, kind: &str) -> String {
    match kind {
        "jsonb" | "boolean" => format!("a.{name}::{kind}"),
        "list" => format!("ARRAY(SELECT jsonb_array_elements_text(a.{name}::jsonb))"),
        _ => format!("a.{name}"),
    }
}

fn indicators(catalog: &Catalog) -> Result<Described> {
    let columns = [
        ("indicator", "text"),
        ("title", "jsonb"),
        ("definition", "jsonb"),
        ("unit", "text"),
        ("kind", "text"),
        ("not_additive_over", "list"),
        ("pack", "text"),
        ("periods", "list"),
        ("breakdowns", "list"),
        ("view_column", "text"),
        ("framework", "jsonb"),
        ("direction", "text"),
    ];
    let mut table = Described::new("indicators", 1, &columns);
    for (indicator, view_column) in catalog.indicators.iter().zip(column_names(catalog)?) {
        let breakdowns: Vec<_> = indicator.tables.iter().map(|table| table_name(table)).collect();
        let codes = indicator.framework.iter();
        let codes: Vec<_> =
            codes.map(|one| serde_json::json!({ "set": one.set, "code": one.code })).collect();
        table.text(0, &indicator.code);
        table.labels(1, &indicator.title);
        table.labels(2, &indicator.definition);
        table.text(3, &indicator.unit);
        table.text(4, &indicator.kind);
        table.list(5, &indicator.not_additive_over);
        table.text(6, &indicator.pack);
        table.list(7, &indicator.periods);
        table.list(8, &breakdowns);
        table.text(9, &view_column);
        table.text(10, &serde_json::json!(codes).to_string());
        let direction = indicator.direction.as_deref();
        table.columns[11].2.push(|array| array.optional(direction, PutValue::text));
    }
    Ok(table)
}

fn dimensions(catalog: &Catalog) -> Described {
    let columns = [("dimension", "text"), ("title", "jsonb"), ("is_place", "boolean")];
    let mut table = Described::new("dimensions", 1, &columns);
    for dimension in &catalog.dimension_texts {
        table.text(0, &dimension.name);
        table.labels(1, &dimension.title);
        table.text(2, if dimension.is_place { "true" } else { "false" });
    }
    table
}

/// The options of the catalog. What the pack says goes first; the servers fill the languages it lacks, the
/// first of them that has one.
fn options(catalog: &Catalog, labels: &[OptionText]) -> Described {
    let columns =
        [("dimension", "text"), ("value", "text"), ("position", "integer"), ("label", "jsonb")];
    let mut table = Described::new("options", 2, &columns);
    let mut all = BTreeMap::new();
    for option in catalog.options.iter().chain(labels) {
        let (_, label) = all
            .entry((&option.dimension, &option.value))
            .or_insert_with(|| (option.position, Labels::new()));
        for (language, text) in &option.label {
            label.entry(language.clone()).or_insert_with(|| text.clone());
        }
    }
    for ((dimension, value), (position, label)) in &all {
        table.text(0, dimension);
        table.text(1, value);
        table.integer(2, *position);
        table.labels(3, label);
    }
    table
}

fn locations(places: &LocationTree, dictionary: &Dictionary) -> Described {
    let columns = [
        ("code", "text"),
        ("parent", "text"),
        ("level", "integer"),
        ("kind", "text"),
        ("label", "jsonb"),
    ];
    let mut table = Described::new("locations", 1, &columns);
    let term = |code| dictionary.term(Domain::Location, code);
    let known = |place: &Location| term(place.code).map(str::to_owned);
    for (code, place) in places.iter().filter_map(|place| Some((known(place)?, place))) {
        table.text(0, &code);
        let parent = place.parent.and_then(term);
        table.columns[1].2.push(|array| array.optional(parent, PutValue::text));
        table.integer(2, i32::from(place.level));
        table.text(3, &place.kind);
        table.labels(4, &place.names);
    }
    table
}

/// Prepares the statement of [`status`].
pub(super) async fn prepare_status(client: &Client, schema: &Identifier) -> Result<Statement> {
    let sql = format!(
        "INSERT INTO {schema}.sync_status AS s (instance, state, cursor, newest_change, polled_at,
             lag_seconds, cases_known, cases_refused, misfits, progress, last_error, updated_at, backfill)
         SELECT a.* FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[],
             $5::timestamptz[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
             $10::double precision[], $11::text[], $12::timestamptz[], $13::text[]) AS a
          WHERE EXISTS (SELECT FROM {schema}.tonle_pipeline WHERE run_id = $14::uuid FOR SHARE)
         ON CONFLICT (instance) DO UPDATE SET state = excluded.state, cursor = excluded.cursor,
             newest_change = coalesce(excluded.newest_change, s.newest_change), polled_at = excluded.polled_at,
             lag_seconds = excluded.lag_seconds, cases_known = excluded.cases_known,
             cases_refused = excluded.cases_refused, misfits = excluded.misfits,
             progress = excluded.progress, last_error = excluded.last_error,
             updated_at = excluded.updated_at, backfill = excluded.backfill"
    );
    client.prepare(&sql).await.map_err(failed("preparing to write the status"))
}

/// Inserts or updates one row for each instance; writes nothing when another run has taken over, and lets none do so
/// while it writes.
pub(super) async fn status(
    client: &Client,
    statement: &Statement,
    run: RunId,
    instances: &[InstanceStatus],
) -> Result<u64> {
    let types = [
        Type::TEXT,
        Type::TEXT,
        Type::TIMESTAMPTZ,
        Type::TIMESTAMPTZ,
        Type::TIMESTAMPTZ,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::FLOAT8,
        Type::TEXT,
        Type::TIMESTAMPTZ,
        Type::TEXT,
    ];
    let mut arrays = types.map(Array::new);
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    for one in instances {
        let error: Option<String> =
            one.last_error.as_ref().map(|text| text.chars().take(ERROR_CHARS_MAX).collect());
        arrays[0].push(|a| a.text(&one.instance));
        arrays[1].push(|a| a.text(one.state));
        for (array, at) in [(2, one.cursor), (3, one.newest_change), (4, one.polled_at)] {
            arrays[array].push(|a| a.optional(at, PutValue::instant));
        }
        arrays[5].push(|a| a.optional(one.lag_seconds, PutValue::bigint));
        arrays[6].push(|a| a.bigint(number(one.cases_known)));
        arrays[7].push(|a| a.bigint(number(one.cases_refused)));
        arrays[8].push(|a| a.bigint(number(one.misfits)));
        // A double has the bytes of the integer with the same bits.
        let progress = one.progress.map(|share| share.to_bits().cast_signed());
        arrays[9].push(|a| a.optional(progress, PutValue::bigint));
        arrays[10].push(|a| a.optional(error.as_deref(), PutValue::text));
        arrays[11].push(|a| a.instant(one.at));
        arrays[12].push(|a| a.optional(one.backfill.as_deref(), PutValue::text));
    }
    let run = Uuid(run.to_bytes());
    let arrays = arrays.iter().map(|array| array as &(dyn ToSql + Sync));
    let parameters: Vec<_> = arrays.chain([&run as &(dyn ToSql + Sync)]).collect();
    client.execute(statement, &parameters).await.map_err(failed("writing the status"))
}
