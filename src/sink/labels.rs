//! Step 3 of the schema: titles of dimensions, more about indicators, and a data dictionary in every language.

use super::identifier::{Identifier, literal};
use super::schema::{comments, create, put};
use super::tables::{DIMENSIONS, INDICATORS_3, MADE};

/// The statements of the step.
pub(super) fn labels_and_views(schema: &Identifier, _: bool) -> String {
    let mut sql = String::new();
    create(&mut sql, schema, &DIMENSIONS);
    create(&mut sql, schema, &MADE);
    for (name, sql_type, comment) in INDICATORS_3 {
        let comment = literal(comment);
        put(
            &mut sql,
            format_args!(
                "ALTER TABLE {schema}.indicators ADD COLUMN \"{name}\" {sql_type};
                 COMMENT ON COLUMN {schema}.indicators.\"{name}\" IS {comment};"
            ),
        );
    }
    sql.push_str(&data_dictionary(schema));
    sql
}

/// The columns of step 1, then one more: a view that hangs on this one stays.
pub(super) fn data_dictionary(schema: &Identifier) -> String {
    let name = literal(&schema.to_string());
    let columns = &[
        ("entry", "", "table, view, column, indicator or option"),
        ("table_name", "", "Name of the table or view"),
        (
            "name",
            "",
            "Name of the column, code of the indicator or value of the option; empty for a table or view",
        ),
        ("data_type", "", "Type of the column, unit of the indicator or dimension of the option"),
        ("meaning", "", "What it means, in English where there is English"),
        ("by_language", "", "What it means or is called, by language"),
    ];
    let mut sql = format!(
        "CREATE OR REPLACE VIEW {schema}.data_dictionary AS
         SELECT CASE WHEN a.attnum IS NOT NULL THEN 'column' WHEN c.relkind = 'v' THEN 'view'
                     ELSE 'table' END AS entry,
                c.relname::text AS table_name, a.attname::text AS name,
                format_type(a.atttypid, a.atttypmod) AS data_type, m.meaning,
                coalesce(d.title, '{{}}') || jsonb_strip_nulls(jsonb_build_object('en', m.meaning))
                    AS by_language
           FROM pg_class c
           LEFT JOIN LATERAL (
                SELECT NULL::int2 AS attnum, NULL::name AS attname, NULL::oid AS atttypid, NULL::int4 AS atttypmod
                UNION ALL
                SELECT attnum, attname, atttypid, atttypmod FROM pg_attribute
                 WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) a ON true
          CROSS JOIN LATERAL (
                SELECT CASE WHEN a.attnum IS NULL THEN obj_description(c.oid, 'pg_class')
                            ELSE col_description(c.oid, a.attnum) END AS meaning) m
           LEFT JOIN {schema}.dimensions d ON d.dimension = a.attname::text
          WHERE c.relnamespace = {name}::regnamespace AND c.relkind IN ('r', 'v', 'p')
            AND c.relname NOT LIKE 'tonle\\_%'
         UNION ALL
         SELECT 'indicator', 'indicator_values', indicator, unit,
                coalesce(definition->>'en', title->>'en',
                         (SELECT value FROM jsonb_each_text(definition) LIMIT 1),
                         (SELECT value FROM jsonb_each_text(title) LIMIT 1)),
                title || definition
           FROM {schema}.indicators
         UNION ALL
         SELECT 'option', 'options', value, dimension,
                coalesce(label->>'en', (SELECT l.value FROM jsonb_each_text(label) l LIMIT 1), value),
                label
           FROM {schema}.options;
         COMMENT ON VIEW {schema}.data_dictionary IS
             'Every table, view, column, indicator and option with its meaning: start here';"
    );
    let view = Identifier::new("data_dictionary").expect("the name is short");
    comments(&mut sql, schema, &view, columns.iter().copied());
    sql
}
