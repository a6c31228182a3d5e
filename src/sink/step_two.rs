//! Step 2 of the tables: medians, revisions, provisional and frozen figures. Released, so it never changes.

use super::identifier::{Identifier, literal};
use super::schema::{column_sql, fixed_tables, put};
use super::statements::PERIOD_NEXT;
use super::tables::{
    ADDED, FROZEN, FROZEN_DIFFERENCES, LATER, MEDIAN, PROVISIONAL, REVISION, VALUE, VALUES,
};

/// The columns of the view of differences, each with what it means.
const VIEW_COLUMNS: &[(&str, &str)] = &[
    ("period", "The frozen period"),
    ("frozen_at", "When it was frozen"),
    ("difference", "changed; left: the figure is no longer there; came: it was not there then"),
    ("cell", "The cell, as in indicator_values"),
    ("indicator", "Code of the indicator"),
    ("instance", "The Primero instance, or all"),
    ("period_type", "Length of the period"),
    ("period_start", "First day of the period"),
    ("dimensions", "Value of each dimension that it is broken down by; all others are all"),
    ("frozen_numerator", "Numerator when it was frozen; empty when the figure came later"),
    ("frozen_denominator", "Denominator when it was frozen"),
    ("frozen_median", "Median when it was frozen"),
    ("frozen_value", "Value when it was frozen"),
    ("frozen_revision", "Revision when it was frozen"),
    ("present_numerator", "Numerator now; empty when the figure left"),
    ("present_denominator", "Denominator now"),
    ("present_median", "Median now"),
    ("present_value", "Value now"),
    ("present_revision", "Revision now"),
];

/// The SQL of the step. `has_values` says whether an earlier version made the table of values.
pub(super) fn step_two(schema: &Identifier, has_values: bool) -> String {
    let mut sql = String::new();
    fixed_tables(&mut sql, schema, LATER);
    for (table, column) in ADDED {
        let declared = column_sql(column);
        put(&mut sql, format_args!("ALTER TABLE {schema}.{table} ADD COLUMN {declared};"));
        comment(&mut sql, schema, table, column.0, column.2);
    }
    if !has_values {
        return sql;
    }
    let [median, value, revision, provisional] =
        [MEDIAN, VALUE, REVISION, PROVISIONAL].map(|column| column_sql(&column));
    // All at once, so that the table is rewritten once. The last epoch in UTC is near enough to the last clock
    // tick: the next one puts the rest right.
    put(
        &mut sql,
        format_args!(
            "ALTER TABLE {schema}.{VALUES} ADD COLUMN {median}, ADD COLUMN {revision},
                 ADD COLUMN {provisional}, DROP COLUMN value;
             ALTER TABLE {schema}.{VALUES} ADD COLUMN {value};
             UPDATE {schema}.{VALUES} SET provisional = false WHERE {PERIOD_NEXT} <=
                 (SELECT (max(at) AT TIME ZONE 'UTC')::date FROM {schema}.epochs);"
        ),
    );
    for (name, _, meaning) in [MEDIAN, VALUE, REVISION, PROVISIONAL] {
        comment(&mut sql, schema, VALUES, name, meaning);
    }
    sql.push_str(&beside_values(schema));
    sql
}

/// What can only be made once there is a table of values: the index of provisional rows, which a clock tick
/// searches, and the view of differences.
///
/// The view names no dimension, because a pack may drop the column of one.
/// A later step that adds a column to the values must make the view anew, or it would take that for a dimension.
pub(super) fn beside_values(schema: &Identifier) -> String {
    let mut sql = String::new();
    put(
        &mut sql,
        format_args!(
            "CREATE INDEX ON {schema}.{VALUES} (period_type, period_start) WHERE provisional;"
        ),
    );
    sql.push_str(&differences_view(schema));
    sql
}

/// The view of differences.
pub(super) fn differences_view(schema: &Identifier) -> String {
    let mut sql = String::new();
    let dimensions = dimensions("v");
    put(
        &mut sql,
        format_args!(
            "CREATE VIEW {schema}.{FROZEN_DIFFERENCES} AS
         SELECT f.period, f.frozen_at,
                CASE WHEN v.cell IS NULL THEN 'left' ELSE 'changed' END AS difference,
                f.cell, f.indicator, f.instance, f.period_type, f.period_start, f.dimensions,
                f.numerator AS frozen_numerator, f.denominator AS frozen_denominator,
                f.median AS frozen_median, f.value AS frozen_value, f.revision AS frozen_revision,
                v.numerator AS present_numerator, v.denominator AS present_denominator,
                v.median AS present_median, v.value AS present_value, v.revision AS present_revision
           FROM {schema}.{FROZEN} f LEFT JOIN {schema}.{VALUES} v ON v.cell = f.cell
          WHERE v.cell IS NULL OR (v.numerator, v.denominator, v.median)
                                  IS DISTINCT FROM (f.numerator, f.denominator, f.median)
         UNION ALL
         SELECT p.period, p.frozen_at, 'came', v.cell, v.indicator, v.instance, v.period_type,
                v.period_start, {dimensions}, NULL, NULL, NULL, NULL, NULL,
                v.numerator, v.denominator, v.median, v.value, v.revision
           FROM (SELECT DISTINCT period, frozen_at, period_type, period_start
                   FROM {schema}.{FROZEN}) p
           JOIN {schema}.{VALUES} v USING (period_type, period_start)
          WHERE NOT EXISTS (SELECT FROM {schema}.{FROZEN} f WHERE f.cell = v.cell);
         COMMENT ON VIEW {schema}.{FROZEN_DIFFERENCES} IS
             'Frozen figures beside the present ones, where they differ';"
        ),
    );
    for (name, meaning) in VIEW_COLUMNS {
        comment(&mut sql, schema, FROZEN_DIFFERENCES, name, meaning);
    }
    sql
}

/// The dimensions that a row of the values, under the alias `row`, is broken down by.
pub(super) fn dimensions(row: &str) -> String {
    use super::tables::{VALUES_HEAD, VALUES_TAIL};
    let own = VALUES_HEAD.iter().chain(VALUES_TAIL).map(|column| literal(column.0));
    let own = own.collect::<Vec<_>>().join(", ");
    format!(
        "(SELECT coalesce(jsonb_object_agg(d.key, d.value), '{{}}'::jsonb)
            FROM jsonb_each(to_jsonb({row}) - ARRAY[{own}]) d WHERE d.value <> '\"all\"'::jsonb)"
    )
}

fn comment(sql: &mut String, schema: &Identifier, table: &str, column: &str, meaning: &str) {
    let meaning = literal(meaning);
    put(sql, format_args!("COMMENT ON COLUMN {schema}.{table}.\"{column}\" IS {meaning};"));
}
