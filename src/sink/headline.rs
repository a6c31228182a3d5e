//! The newest total of each indicator, for people who look at a terminal.

use super::identifier::Identifier;
use super::{Settings, connection, failed, schema_name};
use crate::error::Result;
use crate::indicator::Catalog;

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Headline {
    /// Code of the indicator.
    pub indicator: String,
    /// Its English title.
    pub title: String,
    /// What kind of period the figure is for.
    pub period_type: String,
    /// First day of the period.
    pub period_start: Option<String>,
    /// The figure.
    pub value: f64,
}

/// The total over all instances of every indicator that has one: for the newest month that is there, or now.
///
/// # Errors
/// Whatever Postgres answers.
pub async fn headlines(settings: &Settings, catalog: &Catalog) -> Result<Vec<Headline>> {
    let schema = schema_name(settings)?;
    let mut totals = String::new();
    for dimension in &catalog.dimensions {
        totals += &format!(" AND v.{} = 'all'", Identifier::new(&dimension.name)?);
    }
    let client = connection::connect(&settings.address).await?;
    let sql = format!(
        "SELECT DISTINCT ON (indicator) indicator, coalesce(i.title->>'en', ''), v.period_type,
                v.period_start::text, v.value::float8
         FROM {schema}.indicator_values v JOIN {schema}.indicators i USING (indicator)
         WHERE v.instance = 'all' AND i.unit = 'count'
           AND (v.period_start IS NULL OR v.period_start <= date_trunc('month', v.updated_at))
           {totals}
         ORDER BY indicator, v.period_type = 'month' DESC, v.period_start DESC"
    );
    let rows = client.query(&sql, &[]).await.map_err(failed("reading the newest totals"))?;
    Ok(rows
        .iter()
        .map(|row| Headline {
            indicator: row.get(0),
            title: row.get(1),
            period_type: row.get(2),
            period_start: row.get(3),
            value: row.get::<_, Option<f64>>(4).unwrap_or_default(),
        })
        .collect())
}
