//! Makes the tables and keeps them in the shape of the catalog.
//!
//! Versioned steps make what every pack has in common. The columns that a catalog declares are compared with
//! those that are there; they change only inside the transaction of a reconcile, which puts every row right.

use std::fmt::Write as _;

use tokio_postgres::{Client, GenericClient};

use super::connection::failed;
use super::identifier::{Identifier, literal};
use super::labels::labels_and_views;
use super::layout::{ExtractLayout, Layout, sql_type};
use super::mend::{self, Mended};
use super::step_two::{beside_values, step_two};
use super::tables::{
    ColumnDef, EPOCH, ERASED, FIXED, TableDef, UPDATED_AT, VALUES, VALUES_COMMENT, VALUES_HEAD,
    VALUES_TAIL,
};
use super::views;
use crate::crash::{self, Step};
use crate::error::{Error, Result};
use crate::indicator::ColumnType;

/// Serializes the migrations of two copies that start at once.
const MIGRATION_LOCK: i64 = 0x746f_6e6c_6500;

/// Free space in each page of a table whose rows are updated in place, in percent of the page.
const FILLFACTOR: u8 = 80;

/// What the key column of a table of anonymized rows is said to be; no other column is.
pub(super) const EXTRACT_KEY_COMMENT: &str = "Pseudonym; it says nothing about the child";

/// A versioned step; it makes the SQL for one schema, and is told whether the values of a pack are in it already.
type Migration = (i32, &'static str, fn(&Identifier, bool) -> String);

/// Every step ever released, in order; a released step never changes.
const STEPS: &[Migration] = &[
    (1, "first tables", first_tables),
    (2, "medians, revisions, provisional and frozen figures", step_two),
    (3, "labels and wide views", labels_and_views),
    (4, "what the tables follow, and backfills", following),
    (5, "erased records", erased),
];

/// Runs the steps that are missing and puts back what was dropped, all in one transaction; gives the latter.
///
/// # Errors
/// Permission when the role may not create, DataDiffers when the tables were made by a newer version.
pub(super) async fn migrate(client: &mut Client, schema: &Identifier) -> Result<Vec<Mended>> {
    let fail = failed("making the tables");
    let transaction = client.transaction().await.map_err(&fail)?;
    transaction
        .execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK])
        .await
        .map_err(&fail)?;
    if !exists(&transaction, schema).await? {
        transaction.batch_execute(&format!("CREATE SCHEMA {schema}")).await.map_err(&fail)?;
    }
    let ledger = format!(
        "CREATE TABLE IF NOT EXISTS {schema}.tonle_migrations
             (version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
         COMMENT ON TABLE {schema}.tonle_migrations IS 'Internal: which steps made these tables';
         COMMENT ON COLUMN {schema}.tonle_migrations.version IS 'Number of the step';
         COMMENT ON COLUMN {schema}.tonle_migrations.name IS 'What the step does';
         COMMENT ON COLUMN {schema}.tonle_migrations.applied_at IS 'When it was done'"
    );
    transaction.batch_execute(&ledger).await.map_err(&fail)?;
    let newest = format!("SELECT coalesce(max(version), 0) FROM {schema}.tonle_migrations");
    let done: i32 = transaction.query_one(&newest, &[]).await.map_err(&fail)?.get(0);
    let done = match done {
        0 => mend::version_found(&transaction, schema).await?,
        done => done,
    };
    let known = STEPS.last().map_or(0, |step| step.0);
    if done > known {
        return Err(Error::new(
            crate::error::Kind::DataDiffers,
            format!("the tables are of version {done}, this program knows {known}"),
        )
        .advise("use the newer program, or another schema"));
    }
    let values = Identifier::new(VALUES)?;
    let has_values = !columns_of(&transaction, schema, &values).await?.is_empty();
    let noted = format!(
        "INSERT INTO {schema}.tonle_migrations (version, name) VALUES ($1, $2) ON CONFLICT DO NOTHING"
    );
    for (version, name, sql) in STEPS {
        if *version > done {
            let sql = sql(schema, has_values);
            transaction.batch_execute(&sql).await.map_err(&fail)?;
        }
        if *version > done || done == known {
            transaction.execute(&noted, &[version, name]).await.map_err(&fail)?;
        }
    }
    let mended = mend::mend(&transaction, schema).await?;
    crash::point(Step::SchemaMade);
    transaction.commit().await.map_err(&fail)?;
    crash::point(Step::SchemaCommitted);
    Ok(mended)
}

/// Whether the schema is there.
pub(super) async fn exists(client: &impl GenericClient, schema: &Identifier) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
    let row = client.query_one(sql, &[&schema.name()]).await;
    Ok(row.map_err(failed("looking for the schema"))?.get(0))
}

/// Changes the columns and extracts to what the layout declares. Runs in the caller's transaction.
///
/// Columns, extract tables and wide views that are no longer declared are dropped, but nothing of somebody else
/// that hangs on them is.
pub(super) async fn apply(client: &impl GenericClient, layout: &Layout) -> Result<()> {
    let fail = failed("changing the tables to the columns of the pack");
    let views = views::regeneration(client, layout).await?;
    let mut sql = views.drop;
    let leaving = values_table(client, layout, &mut sql).await?;
    sql.push_str(&views.make);
    sql.push_str(&leaving);
    let schema = &layout.schema;
    let made = format!("SELECT table_name FROM {schema}.tonle_extracts");
    let made = client.query(&made, &[]).await.map_err(&fail)?;
    let made: Vec<String> = made.iter().map(|row| row.get(0)).collect();
    for extract in &layout.extracts {
        let is_known = made.iter().any(|name| name == extract.table.name());
        extract_table(client, schema, extract, is_known, &mut sql).await?;
    }
    for name in made {
        if layout.extracts.iter().all(|extract| extract.table.name() != name) {
            let table = Identifier::new(&name)?;
            put(&mut sql, format_args!("DROP TABLE IF EXISTS {schema}.{table};"));
            let name = literal(&name);
            put(
                &mut sql,
                format_args!("DELETE FROM {schema}.tonle_extracts WHERE table_name = {name};"),
            );
        }
    }
    client.batch_execute(&sql).await.map_err(&fail)
}

/// Makes the table and its new columns; returns the statements that drop those that are no longer declared.
async fn values_table(
    client: &impl GenericClient,
    layout: &Layout,
    sql: &mut String,
) -> Result<String> {
    let mut leaving = String::new();
    let schema = &layout.schema;
    let table = Identifier::new(VALUES)?;
    let there = columns_of(client, schema, &table).await?;
    if there.is_empty() {
        let mut columns: Vec<_> = VALUES_HEAD.iter().map(column_sql).collect();
        let dimension = |name: &Identifier| format!("{name} text NOT NULL DEFAULT 'all'");
        columns.extend(layout.dimensions.iter().map(|d| dimension(&d.name)));
        columns.extend(VALUES_TAIL.iter().map(column_sql));
        let columns = columns.join(", ");
        put(
            sql,
            format_args!(
                "CREATE TABLE {schema}.{table} ({columns}) WITH (fillfactor = {FILLFACTOR});
             CREATE INDEX ON {schema}.{table} (indicator, period_type, period_start);"
            ),
        );
        comment_table(sql, schema, &table, VALUES_COMMENT);
        comments(sql, schema, &table, VALUES_HEAD.iter().chain(VALUES_TAIL).copied());
        sql.push_str(&beside_values(schema));
    } else {
        let own = VALUES_HEAD.iter().chain(VALUES_TAIL).map(|column| column.0);
        let own: Vec<_> = own.collect();
        for (name, _) in there.iter().filter(|(name, _)| !own.contains(&name.as_str())) {
            if layout.dimensions.iter().all(|d| d.name.name() != name) {
                let name = Identifier::new(name)?;
                put(&mut leaving, format_args!("ALTER TABLE {schema}.{table} DROP COLUMN {name};"));
            }
        }
        for dimension in &layout.dimensions {
            if there.iter().all(|(name, _)| name != dimension.name.name()) {
                let name = &dimension.name;
                put(
                    sql,
                    format_args!(
                        "ALTER TABLE {schema}.{table} ADD COLUMN {name} text NOT NULL DEFAULT 'all';"
                    ),
                );
            }
        }
    }
    for dimension in &layout.dimensions {
        comment_column(sql, schema, &table, &dimension.name, &dimension.comment);
    }
    Ok(leaving)
}

async fn extract_table(
    client: &impl GenericClient,
    schema: &Identifier,
    extract: &ExtractLayout,
    is_known: bool,
    sql: &mut String,
) -> Result<()> {
    let (table, key) = (&extract.table, &extract.key);
    let there = columns_of(client, schema, table).await?;
    let is_ours = there.first().is_some_and(|(name, _)| name == key.name());
    if !there.is_empty() && !is_known {
        let name = table.name();
        return Err(Error::config(format!("there is a table {name:?} that tonle did not make"))
            .advise("rename it, or give tonle a schema of its own"));
    }
    if !there.is_empty() && !is_ours {
        // The key column has another name now: no row of it can stay.
        put(sql, format_args!("DROP TABLE {schema}.{table};"));
    }
    if !is_ours {
        let (epoch, updated_at) = (column_sql(&EPOCH), column_sql(&UPDATED_AT));
        put(
            sql,
            format_args!(
                "CREATE TABLE {schema}.{table} ({key} uuid PRIMARY KEY, {epoch}, {updated_at})
             WITH (fillfactor = {FILLFACTOR});"
            ),
        );
        let name = literal(table.name());
        put(
            sql,
            format_args!(
                "INSERT INTO {schema}.tonle_extracts VALUES ({name}) ON CONFLICT DO NOTHING;"
            ),
        );
    }
    comment_table(sql, schema, table, &extract.comment);
    comments(sql, schema, table, [EPOCH, UPDATED_AT].into_iter());
    comment_column(sql, schema, table, key, EXTRACT_KEY_COMMENT);
    let own = [key.name(), EPOCH.0, UPDATED_AT.0];
    let kept = if is_ours { there.as_slice() } else { &[] };
    for (name, there_type) in kept.iter().filter(|(name, _)| !own.contains(&name.as_str())) {
        let declared = extract.columns.iter().find(|column| column.name.name() == name);
        if declared.is_none_or(|column| sql_type(column.column_type) != there_type) {
            let name = Identifier::new(name)?;
            put(sql, format_args!("ALTER TABLE {schema}.{table} DROP COLUMN {name};"));
        }
    }
    for column in &extract.columns {
        let (name, sql_type) = (&column.name, sql_type(column.column_type));
        if !kept.iter().any(|(n, t)| n == name.name() && t == sql_type) {
            put(sql, format_args!("ALTER TABLE {schema}.{table} ADD COLUMN {name} {sql_type};"));
            if column.column_type == ColumnType::Key {
                put(sql, format_args!("CREATE INDEX ON {schema}.{table} ({name});"));
            }
        }
        comment_column(sql, schema, table, name, &column.comment);
    }
    Ok(())
}

/// Names and types of the columns of a table, in order; none when there is no such table.
pub(super) async fn columns_of(
    client: &impl GenericClient,
    schema: &Identifier,
    table: &Identifier,
) -> Result<Vec<(String, String)>> {
    let sql = "SELECT a.attname::text, format_type(a.atttypid, NULL) FROM pg_attribute a
               JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped
               ORDER BY a.attnum";
    let rows = client.query(sql, &[&schema.name(), &table.name()]).await;
    let rows = rows.map_err(failed("reading the columns of the tables"))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Makes tables that are the same for every pack.
pub(super) fn fixed_tables(sql: &mut String, schema: &Identifier, tables: &[TableDef]) {
    for table in tables {
        create(sql, schema, table);
    }
}

/// Step 1: the fixed tables, the check that aborts a transaction, and the data dictionary.
fn first_tables(schema: &Identifier, _: bool) -> String {
    let mut sql = String::new();
    fixed_tables(&mut sql, schema, FIXED);
    sql.push_str(&must_equal(schema));
    sql.push_str(&data_dictionary(schema));
    sql
}

/// The check that aborts a transaction.
pub(super) fn must_equal(schema: &Identifier) -> String {
    let mut sql = String::new();
    put(
        &mut sql,
        format_args!(
            "CREATE FUNCTION {schema}.tonle_must_equal
             (counted bigint, wanted bigint, state text, what text) RETURNS bigint
         LANGUAGE plpgsql AS $body$
         BEGIN
             IF counted IS DISTINCT FROM wanted THEN
                 RAISE EXCEPTION USING ERRCODE = state,
                     MESSAGE = what || ': found ' || counted || ' rows, expected ' || wanted;
             END IF;
             RETURN counted;
         END $body$;
         COMMENT ON FUNCTION {schema}.tonle_must_equal(bigint, bigint, text, text) IS
             'Internal: ends a transaction that did not find exactly the rows it was to change';"
        ),
    );
    sql
}

/// Step 4: what the tables follow in three parts, so that it can be told which of them changed; backfills.
fn following(schema: &Identifier, _: bool) -> String {
    [following_pipeline(schema), following_status(schema)].concat()
}

/// Step 5: what stays of erased records.
fn erased(schema: &Identifier, _: bool) -> String {
    let mut sql = String::new();
    create(&mut sql, schema, &ERASED);
    sql
}

/// The part of step 4 that concerns the row of the fence.
pub(super) fn following_pipeline(schema: &Identifier) -> String {
    let pipeline = format!("{schema}.tonle_pipeline");
    format!(
        "ALTER TABLE {pipeline} ADD COLUMN instances_fingerprint bigint,
             ADD COLUMN places_fingerprint bigint, ADD COLUMN agencies_fingerprint bigint;
         COMMENT ON COLUMN {pipeline}.fingerprint IS 'Fingerprint of the packs that the tables follow';
         COMMENT ON COLUMN {pipeline}.instances_fingerprint IS
             'The same of the instances and what their option ids mean';
         COMMENT ON COLUMN {pipeline}.places_fingerprint IS 'The same of the places';
         COMMENT ON COLUMN {pipeline}.agencies_fingerprint IS 'The same of the agencies that were met';
        "
    )
}

/// The part of step 4 that concerns the status of the instances.
pub(super) fn following_status(schema: &Identifier) -> String {
    format!(
        "ALTER TABLE {schema}.sync_status ADD COLUMN backfill text;
         COMMENT ON COLUMN {schema}.sync_status.backfill IS
             'Fields for which every case is being read again, because a changed pack asks for them; else empty';"
    )
}

fn data_dictionary(schema: &Identifier) -> String {
    let name = literal(&schema.to_string());
    format!(
        "CREATE VIEW {schema}.data_dictionary AS
         SELECT CASE WHEN a.attnum IS NULL THEN 'table' ELSE 'column' END AS entry,
                c.relname::text AS table_name, a.attname::text AS name,
                format_type(a.atttypid, a.atttypmod) AS data_type,
                coalesce(col_description(c.oid, a.attnum), obj_description(c.oid, 'pg_class')) AS meaning
           FROM pg_class c
           LEFT JOIN LATERAL (
                SELECT NULL::int2 AS attnum, NULL::name AS attname, NULL::oid AS atttypid, NULL::int4 AS atttypmod
                UNION ALL
                SELECT attnum, attname, atttypid, atttypmod FROM pg_attribute
                 WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) a ON true
          WHERE c.relnamespace = {name}::regnamespace AND c.relkind IN ('r', 'v', 'p')
            AND c.relname NOT LIKE 'tonle\\_%'
         UNION ALL
         SELECT 'indicator', 'indicator_values', indicator, unit,
                coalesce(definition->>'en', title->>'en',
                         (SELECT value FROM jsonb_each_text(definition) LIMIT 1),
                         (SELECT value FROM jsonb_each_text(title) LIMIT 1))
           FROM {schema}.indicators;
         COMMENT ON VIEW {schema}.data_dictionary IS
             'Every table, column and indicator with its meaning';
         COMMENT ON COLUMN {schema}.data_dictionary.entry IS 'table, column or indicator';
         COMMENT ON COLUMN {schema}.data_dictionary.table_name IS 'Name of the table';
         COMMENT ON COLUMN {schema}.data_dictionary.name IS
             'Name of the column or code of the indicator; empty for a table';
         COMMENT ON COLUMN {schema}.data_dictionary.data_type IS
             'Type of the column or unit of the indicator';
         COMMENT ON COLUMN {schema}.data_dictionary.meaning IS 'What it means';"
    )
}

pub(super) fn column_sql((name, sql_type, _): &ColumnDef) -> String {
    format!("\"{name}\" {sql_type}")
}

/// Makes a fixed table.
pub(super) fn create(sql: &mut String, schema: &Identifier, table: &TableDef) {
    let mut parts: Vec<_> = table.columns.iter().map(column_sql).collect();
    parts.extend(table.constraint.map(str::to_owned));
    let (name, parts) = (table.name, parts.join(", "));
    put(sql, format_args!("CREATE TABLE {schema}.{name} ({parts});"));
    let name = Identifier::new(table.name).expect("the name of a fixed table is short");
    comment_table(sql, schema, &name, table.comment);
    comments(sql, schema, &name, table.columns.iter().copied());
}

fn comment_table(sql: &mut String, schema: &Identifier, table: &Identifier, comment: &str) {
    put(sql, format_args!("COMMENT ON TABLE {schema}.{table} IS {};", literal(comment)));
}

/// Says what columns of a table or view mean: of each its name, its type and its meaning.
pub(super) fn comments<'a>(
    sql: &mut String,
    schema: &Identifier,
    table: &Identifier,
    columns: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
) {
    for (name, _, comment) in columns {
        let (name, comment) = (name.replace('"', "\"\""), literal(comment));
        put(sql, format_args!("COMMENT ON COLUMN {schema}.{table}.\"{name}\" IS {comment};"));
    }
}

fn comment_column(
    sql: &mut String,
    schema: &Identifier,
    table: &Identifier,
    column: &Identifier,
    comment: &str,
) {
    let comment = literal(comment);
    put(sql, format_args!("COMMENT ON COLUMN {schema}.{table}.{column} IS {comment};"));
}

/// Adds a statement.
pub(super) fn put(sql: &mut String, text: std::fmt::Arguments<'_>) {
    sql.write_fmt(text).expect("writing to a string never fails");
    sql.push('\n');
}
