//! Makes the wide views what the catalog says, in the transaction of whoever calls.
//!
//! A view that stays as it is is not touched. One that only gets more columns is replaced in place, the new ones
//! at its right end, so that grants and views of others that use it stay. One that loses a column, or is no longer
//! declared, is dropped; if somebody else's view uses it, that is an error which names both, and nothing changes.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use tokio_postgres::{GenericClient, Row};

use super::connection::{RECONCILE_STATEMENT_MS_MAX, failed};
use super::identifier::{Identifier, literal};
use super::layout::Layout;
use super::schema::{comments, put};
use super::tables::VALUES;
use super::wide::{WideColumn, WideView, breakdown};
use crate::error::{Error, Result};

/// The index by which a view finds the rows of its breakdown.
const INDEX: &str = "indicator_values_breakdown";
const DOING: &str = "making the wide views";

/// Statements that lead from the views that are there to those of a layout.
pub(super) struct Regeneration {
    /// To run first: drops what is no longer declared.
    pub(super) drop: String,
    /// To run when the columns of the layout are there, and before others leave.
    pub(super) make: String,
    /// Whether the index is among them.
    makes_index: bool,
}

/// Makes what is missing, for tables whose columns follow `layout` already.
pub(super) async fn bring_up(client: &impl GenericClient, layout: &Layout) -> Result<()> {
    let Regeneration { drop, make, makes_index } = regeneration(client, layout).await?;
    if drop.is_empty() && make.is_empty() {
        return Ok(());
    }
    let mut sql =
        format!("SET LOCAL statement_timeout = {RECONCILE_STATEMENT_MS_MAX};\n{drop}{make}");
    if makes_index {
        put(&mut sql, format_args!("ANALYZE {}.{VALUES};", layout.schema));
    }
    client.batch_execute(&sql).await.map_err(failed(DOING))
}

/// Compares what is there with what `layout` declares.
///
/// # Errors
/// Config when something that tonle did not make has the name of a view, or uses one that must be dropped.
pub(super) async fn regeneration(
    client: &impl GenericClient,
    layout: &Layout,
) -> Result<Regeneration> {
    let there = Present::read(client, &layout.schema).await?;
    let (mut drop, mut make) = (String::new(), String::new());
    let makes_index = index(layout, &there, &mut make)?;
    let mut dropped = Vec::new();
    for name in there.made.keys().filter(|name| name.as_str() != INDEX) {
        if layout.views.iter().all(|view| view.name.name() != name) {
            forget(layout, name, &mut drop)?;
            dropped.push(name.as_str());
        }
    }
    for wide in &layout.views {
        if view(layout, wide, &there, &mut make)? {
            dropped.push(wide.name.name());
            let (schema, name) = (&layout.schema, &wide.name);
            put(&mut drop, format_args!("DROP VIEW {schema}.{name};"));
        }
    }
    unused(client, &layout.schema, &dropped).await?;
    Ok(Regeneration { drop, make, makes_index })
}

/// What is in the schema.
struct Present {
    /// What tonle made, with its fingerprint.
    made: BTreeMap<String, String>,
    /// Columns of every view, table and index, in order.
    relations: BTreeMap<String, Vec<String>>,
}

impl Present {
    async fn read(client: &impl GenericClient, schema: &Identifier) -> Result<Self> {
        let made = format!("SELECT name, fingerprint FROM {schema}.tonle_made");
        let made = client.query(&made, &[]).await.map_err(failed(DOING))?;
        let sql = "SELECT c.relname::text, a.attname::text FROM pg_class c
                     JOIN pg_namespace n ON n.oid = c.relnamespace
                     LEFT JOIN pg_attribute a
                       ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                    WHERE n.nspname = $1 ORDER BY c.relname, a.attnum";
        let rows = client.query(sql, &[&schema.name()]).await.map_err(failed(DOING))?;
        let mut relations: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in &rows {
            relations.entry(row.get(0)).or_default().extend(row.get::<_, Option<String>>(1));
        }
        let pair = |row: &Row| (row.get(0), row.get(1));
        Ok(Self { made: made.iter().map(pair).collect(), relations })
    }

    /// Whether `name` is there, made by tonle, with its fingerprint if it is what was recorded.
    ///
    /// # Errors
    /// Config when it is somebody else's.
    fn ours(&self, name: &str) -> Result<Option<&str>> {
        match (self.relations.contains_key(name), self.made.get(name)) {
            (false, _) => Ok(None),
            (true, Some(fingerprint)) => Ok(Some(fingerprint)),
            (true, None) => Err(Error::config(format!(
                "the pack needs a view {name:?}, and there is one that tonle did not make"
            ))
            .advise("rename it, or give tonle a schema of its own")),
        }
    }
}

/// Puts the index right; true when it is made.
fn index(layout: &Layout, there: &Present, make: &mut String) -> Result<bool> {
    let (schema, is_there) = (&layout.schema, there.ours(INDEX)?);
    let Some(digits) = breakdown(layout.dimensions.iter().map(|dimension| &dimension.name)) else {
        if is_there.is_some() {
            put(make, format_args!("DROP INDEX {schema}.{INDEX};"));
            put(make, format_args!("DELETE FROM {schema}.tonle_made WHERE name = '{INDEX}';"));
        }
        return Ok(false);
    };
    let create = format!(
        "CREATE INDEX {INDEX} ON {schema}.{VALUES}
             (({digits}), period_type, period_start, instance);
         COMMENT ON INDEX {schema}.{INDEX} IS 'Internal: finds the rows of one breakdown, for the wide views';"
    );
    let fingerprint = fingerprint(&create);
    if is_there == Some(&fingerprint) {
        return Ok(false);
    }
    put(make, format_args!("DROP INDEX IF EXISTS {schema}.{INDEX};\n{create}"));
    note(layout, INDEX, &fingerprint, make);
    Ok(true)
}

/// Puts one view right; true when it must be dropped before.
fn view(layout: &Layout, view: &WideView, there: &Present, make: &mut String) -> Result<bool> {
    let (schema, name) = (&layout.schema, &view.name);
    let is_there = there.ours(name.name())?;
    let has = |column: &str| view.columns.iter().find(|declared| declared.name.name() == column);
    let present = is_there.and_then(|_| there.relations.get(name.name()));
    let kept: Option<Vec<&WideColumn>> =
        present.and_then(|columns| columns.iter().map(|column| has(column)).collect());
    // Columns that are there stay where they are; new ones follow.
    let mut columns = kept.clone().unwrap_or_default();
    for column in &view.columns {
        if !columns.iter().any(|kept| kept.name == column.name) {
            columns.push(column);
        }
    }
    let mut sql = format!("CREATE OR REPLACE VIEW {schema}.{name} AS {};\n", view.query(&columns));
    put(&mut sql, format_args!("COMMENT ON VIEW {schema}.{name} IS {};", literal(&view.comment)));
    let said = columns.iter().map(|column| (column.name.name(), "", column.comment.as_str()));
    comments(&mut sql, schema, name, said);
    let fingerprint = fingerprint(&sql);
    if is_there == Some(&fingerprint) {
        return Ok(false);
    }
    make.push_str(&sql);
    note(layout, name.name(), &fingerprint, make);
    Ok(is_there.is_some() && kept.is_none())
}

fn fingerprint(sql: &str) -> String {
    Sha256::digest(sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn note(layout: &Layout, name: &str, fingerprint: &str, make: &mut String) {
    let (schema, name) = (&layout.schema, literal(name));
    put(
        make,
        format_args!(
            "INSERT INTO {schema}.tonle_made (name, fingerprint) VALUES ({name}, '{fingerprint}')
             ON CONFLICT (name) DO UPDATE SET fingerprint = excluded.fingerprint;"
        ),
    );
}

fn forget(layout: &Layout, name: &str, drop: &mut String) -> Result<()> {
    let (schema, view, name) = (&layout.schema, Identifier::new(name)?, literal(name));
    put(drop, format_args!("DROP VIEW IF EXISTS {schema}.{view};"));
    put(drop, format_args!("DELETE FROM {schema}.tonle_made WHERE name = {name};"));
    Ok(())
}

/// Makes sure that no view of somebody else reads one of `names`.
async fn unused(client: &impl GenericClient, schema: &Identifier, names: &[&str]) -> Result<()> {
    let sql = "SELECT v.relname::text, format('%I.%I', n.nspname, c.relname) FROM pg_class v
                 JOIN pg_namespace s ON s.oid = v.relnamespace
                 JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = v.oid
                  AND d.classid = 'pg_rewrite'::regclass
                 JOIN pg_rewrite r ON r.oid = d.objid
                 JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE s.nspname = $1 AND v.relname = ANY($2::text[]) AND c.oid <> v.oid
                ORDER BY 1, 2 LIMIT 1";
    if names.is_empty() {
        return Ok(());
    }
    let found = client.query_opt(sql, &[&schema.name(), &names]).await.map_err(failed(DOING))?;
    let Some(row) = found else { return Ok(()) };
    let (view, user): (String, String) = (row.get(0), row.get(1));
    Err(Error::config(format!(
        "{DOING}: {view} is no longer what it was in the pack before, and {user} uses it"
    ))
    .advise(format!("drop {user}, start tonle, and make it again from what is there then")))
}
