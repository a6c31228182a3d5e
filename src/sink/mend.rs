//! Puts back what somebody dropped of the tables that are the same for every pack.
//!
//! Most of it is filled again by the next epochs. The history of changes and what was frozen cannot be computed
//! anew; of those the log says that they are lost, and the program goes on.

use tokio_postgres::GenericClient;

use super::Sink;
use super::connection::failed;
use super::identifier::{Identifier, literal};
use super::labels::data_dictionary;
use super::schema::{
    EXTRACT_KEY_COMMENT, column_sql, columns_of, create, following_pipeline, following_status,
    must_equal, put,
};
use super::step_two::differences_view;
use super::tables::{
    ADDED, ERASED, FIXED, FROZEN, FROZEN_DIFFERENCES, INDICATORS_3, LABELLED, LATER, TableDef,
    VALUES,
};
use crate::error::Result;
use crate::model::Changes;
use crate::report::{self, Event};

const DOING: &str = "putting dropped tables back";

/// The view of everything with its meaning.
const DATA_DICTIONARY: &str = "data_dictionary";

/// Tables whose rows nobody can compute anew.
const IRREPLACEABLE: &[&str] = &["changes", "epochs", FROZEN];

/// By what a step is known to have been taken when the table that says so is gone: a table, and a column of it
/// where the table is older.
const MARKS: &[(i32, &str, Option<&str>)] = &[
    (5, "tonle_erased", None),
    (4, "tonle_pipeline", Some("instances_fingerprint")),
    (4, "sync_status", Some("backfill")),
    (3, "tonle_made", None),
    (3, "dimensions", None),
    (2, "tonle_left", None),
    (2, FROZEN, None),
    (1, "tonle_pipeline", None),
    (1, "changes", None),
    (1, "epochs", None),
];

/// A table that was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mended {
    /// Its name.
    pub(super) table: &'static str,
    /// Whether its rows are lost.
    pub(super) is_lost: bool,
}

/// Tells the operator.
pub(super) fn tell(mended: &[Mended]) {
    for Mended { table, is_lost } in mended {
        report::emit(&Event::TableMended { table, is_lost: *is_lost });
    }
}

/// The last step that was taken, judged by what is there; 0 in a schema without tables of ours.
pub(super) async fn version_found(client: &impl GenericClient, schema: &Identifier) -> Result<i32> {
    for (version, table, column) in MARKS {
        let columns = columns_of(client, schema, &Identifier::new(table)?).await?;
        let is_marked = match column {
            Some(column) => columns.iter().any(|(name, _)| name == column),
            None => !columns.is_empty(),
        };
        if is_marked {
            return Ok(*version);
        }
    }
    Ok(0)
}

/// Makes what is missing of the fixed tables, views and functions.
pub(super) async fn mend(client: &impl GenericClient, schema: &Identifier) -> Result<Vec<Mended>> {
    let there = relations(client, schema).await?;
    let is_there = |name: &str| there.iter().any(|other| other == name);
    let mut sql = String::new();
    let mut mended = Vec::new();
    let fixed = FIXED.iter().chain(LATER).chain(LABELLED).chain([&ERASED]);
    for table in fixed.filter(|table| !is_there(table.name)) {
        make(&mut sql, schema, table);
        sql.push_str(&refill(schema, table.name));
        mended.push(Mended { table: table.name, is_lost: IRREPLACEABLE.contains(&table.name) });
    }
    if !is_there(DATA_DICTIONARY) {
        sql.push_str(&data_dictionary(schema));
    }
    if !is_there(FROZEN_DIFFERENCES) && is_there(VALUES) {
        sql.push_str(&differences_view(schema));
    }
    if !has_function(client, schema).await? {
        sql.push_str(&must_equal(schema));
    }
    if !sql.is_empty() {
        client.batch_execute(&sql).await.map_err(failed(DOING))?;
    }
    Ok(mended)
}

async fn relations(client: &impl GenericClient, schema: &Identifier) -> Result<Vec<String>> {
    let sql = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v')";
    let rows = client.query(sql, &[&schema.name()]).await.map_err(failed(DOING))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn has_function(client: &impl GenericClient, schema: &Identifier) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                               WHERE n.nspname = $1 AND p.proname = 'tonle_must_equal')";
    let row = client.query_one(sql, &[&schema.name()]).await.map_err(failed(DOING))?;
    Ok(row.get(0))
}

/// A fixed table with all columns that it has by now.
fn make(sql: &mut String, schema: &Identifier, table: &TableDef) {
    create(sql, schema, table);
    let added = ADDED.iter().filter(|(name, _)| *name == table.name).map(|(_, column)| column);
    let labelled = INDICATORS_3.iter().filter(|_| table.name == "indicators");
    for column in added.chain(labelled) {
        let (declared, meaning) = (column_sql(column), literal(column.2));
        put(
            sql,
            format_args!(
                "ALTER TABLE {schema}.{table} ADD COLUMN {declared};
                 COMMENT ON COLUMN {schema}.{table}.\"{name}\" IS {meaning};",
                table = table.name,
                name = column.0,
            ),
        );
    }
    match table.name {
        "tonle_pipeline" => sql.push_str(&following_pipeline(schema)),
        "sync_status" => sql.push_str(&following_status(schema)),
        _ => {}
    }
}

/// What the other tables still tell of the rows of one that was put back.
fn refill(schema: &Identifier, table: &str) -> String {
    match table {
        // Numbers of epochs never come back. What the rows follow is not known, so they are compared.
        "tonle_pipeline" => format!(
            "INSERT INTO {schema}.tonle_pipeline (epoch, run_id, fingerprint)
             SELECT max(epoch), '00000000-0000-0000-0000-000000000000', 0
               FROM (SELECT epoch FROM {schema}.epochs UNION ALL SELECT epoch FROM {schema}.changes) e
             HAVING max(epoch) > 0;"
        ),
        "tonle_left" => format!(
            "INSERT INTO {schema}.tonle_left (cell, revision)
             SELECT cell, revision
               FROM (SELECT DISTINCT ON (cell) cell, revision, new_numerator
                       FROM {schema}.changes ORDER BY cell, epoch DESC) c
              WHERE new_numerator IS NULL AND revision IS NOT NULL;"
        ),
        "tonle_extracts" => format!(
            "INSERT INTO {schema}.tonle_extracts (table_name)
             SELECT c.relname FROM pg_class c
              WHERE c.relnamespace = {name}::regnamespace AND c.relkind = 'r'
                AND col_description(c.oid, 1) = {comment};",
            name = literal(&schema.to_string()),
            comment = literal(EXTRACT_KEY_COMMENT),
        ),
        // Nobody else says of each column of a view what it means.
        "tonle_made" => format!(
            "INSERT INTO {schema}.tonle_made (name, fingerprint)
             SELECT c.relname, '' FROM pg_class c
              WHERE c.relnamespace = {name}::regnamespace
                AND obj_description(c.oid, 'pg_class') IS NOT NULL
                AND (c.relkind = 'i' AND c.relname = 'indicator_values_breakdown'
                  OR c.relkind = 'v' AND c.relname NOT IN ('{DATA_DICTIONARY}', '{FROZEN_DIFFERENCES}')
                     AND NOT EXISTS (SELECT FROM pg_attribute a
                                      WHERE a.attrelid = c.oid AND a.attnum > 0
                                        AND col_description(c.oid, a.attnum) IS NULL));",
            name = literal(&schema.to_string()),
        ),
        _ => String::new(),
    }
}

impl Sink {
    /// A table of the catalog that is gone, or that is empty though `complete` has rows of it: what can be seen
    /// at once. Of anything else a row tells, or `tonle verify`.
    ///
    /// # Errors
    /// Whatever Postgres answers.
    pub async fn gap(&mut self, complete: &Changes) -> Result<Option<String>> {
        self.reconnect().await?;
        let has_cells = complete.cells.iter().any(|change| !change.new.is_empty());
        let mut tables = vec![(VALUES.to_owned(), has_cells)];
        for (index, extract) in self.layout.extracts.iter().enumerate() {
            let mut rows = complete.rows.iter().filter(|row| usize::from(row.extract) == index);
            tables.push((extract.table.name().to_owned(), rows.any(|row| row.row.is_some())));
        }
        for (name, has_rows) in tables {
            let table = format!("{}.{}", self.schema, Identifier::new(&name)?);
            let sql = format!("SELECT to_regclass({}) IS NULL", literal(&table));
            let row = self.client.query_one(&sql, &[]).await.map_err(failed(DOING))?;
            if row.get(0) {
                return Ok(Some(format!("the table {name} is gone")));
            }
            let sql = format!("SELECT NOT EXISTS (SELECT FROM {table})");
            let row = self.client.query_one(&sql, &[]).await.map_err(failed(DOING))?;
            if has_rows && row.get(0) {
                return Ok(Some(format!("the table {name} was emptied")));
            }
        }
        Ok(None)
    }
}
