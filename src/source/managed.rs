//! Primero's own figures: its managed reports, and how many cases the user can see.
//!
//! **Invariant:** the JSON of a report stays here; what leaves is ids, age bands and counts.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::client::{Client, Failure};
use super::decode::Metadata;
use super::paths;
use super::settings::ServerSettings;
use crate::error::{Error, Kind, Result};

/// How often a report is asked for when the server asks for patience.
const ATTEMPTS_MAX: u32 = 3;
/// Longest wait between two attempts, whatever the server asks for.
const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// Most figures of one reply; a report by sex and age has a few dozen for each group.
const CELLS_MAX: usize = 100_000;

/// A report to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportQuery {
    /// Its id, as `cases_workflow_report`.
    pub report: &'static str,
    /// Its sub-report, as `cases_workflow`.
    pub subreport: &'static str,
    /// Names and values of filters; lists and ranges as `status[0]`, `registration_date[from]`.
    pub filters: Vec<(String, String)>,
}

impl ReportQuery {
    fn path(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("subreport", self.subreport);
        query.extend_pairs(&self.filters);
        format!("/api/v2/managed_reports/{}?{}", self.report, query.finish())
    }
}

/// What a report says in one place.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportCell {
    /// Id of the report.
    pub report: String,
    /// Name of the sub-report.
    pub subreport: String,
    /// Name of the indicator.
    pub indicator: String,
    /// The period, in a report grouped by one: `2026-09`, `2026-Q3`.
    pub group: Option<String>,
    /// Id of the row: a sex, `total`; `None` where it is not recorded.
    pub row: Option<String>,
    /// Name of the column: `0 - 5`, `18+`, `incomplete_data`, `total`.
    pub column: String,
    /// How many.
    pub value: ReportValue,
}

/// A figure of a report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ReportValue {
    /// A count.
    Count(i64),
    /// A share, in percent.
    Percent(f64),
}

/// Asks one server for its own figures.
pub struct ReportReader {
    client: Client,
    /// Whether a sign-in failed: another failure would bring the account nearer to its lock.
    is_refused: bool,
}

impl ReportReader {
    /// A reader; nothing is asked yet.
    ///
    /// # Errors
    /// A configuration error when TLS cannot be set up.
    pub fn new(settings: &ServerSettings) -> Result<Self> {
        Ok(Self { client: Client::new(settings)?, is_refused: false })
    }

    /// How many cases the user can see, enabled or disabled ones.
    ///
    /// # Errors
    /// As for any request; temporary when the reply is not a list of cases.
    pub async fn visible(&mut self, enabled: bool) -> Result<i64> {
        let doing = "asking how many cases are visible";
        let body = self.ask(&paths::visible(enabled), doing).await?;
        let list: Option<List> = serde_json::from_slice(&body).ok();
        let total = list.and_then(|list| i64::try_from(list.metadata.total?).ok());
        total.ok_or_else(|| Error::new(Kind::Temporary, format!("{doing}: the reply is no list")))
    }

    /// The figures of a report, in the order of the reply.
    ///
    /// # Errors
    /// A lacking right, a report that does not exist there, a server that fails on a filter: none
    /// of them says anything of another report. Temporary when the reply is no report.
    pub async fn report(&mut self, query: &ReportQuery) -> Result<Vec<ReportCell>> {
        let doing = format!("asking for {}", query.report);
        let body = self.ask(&query.path(), &doing).await.map_err(|error| {
            match error.kind() == Kind::Permission && !self.is_refused {
                true => Error::new(Kind::Permission, format!("{doing}: the server answered 403"))
                    .advise("give the role the right to read managed reports"),
                false => error,
            }
        })?;
        cells(&body, query.subreport).map_err(|error| error.while_doing(doing))
    }

    async fn ask(&mut self, path: &str, doing: &str) -> Result<Vec<u8>> {
        if self.is_refused {
            let why = format!("{doing}: not asked, because the sign-in was refused before");
            return Err(Error::new(Kind::Permission, why));
        }
        let mut attempt = 1;
        loop {
            let Failure { error, retry_after, is_final } = match self.client.get(path, doing).await
            {
                Ok(reply) => return Ok(reply.body),
                Err(failure) => failure,
            };
            self.is_refused |= is_final;
            match retry_after {
                Some(wait) if attempt < ATTEMPTS_MAX => {
                    tokio::time::sleep(wait.min(PATIENCE_MAX)).await;
                }
                _ => return Err(error),
            }
            attempt += 1;
        }
    }
}

#[derive(Deserialize)]
struct List {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Reply {
    data: Report,
}

#[derive(Deserialize)]
struct Report {
    id: String,
    /// Absent where the sub-report is not known.
    #[serde(default)]
    report_data: Map<String, Value>,
}

/// Every figure of a reply.
fn cells(body: &[u8], wanted: &str) -> Result<Vec<ReportCell>> {
    let wrong = |why: &str| Error::new(Kind::Temporary, format!("reading the reply: {why}"));
    let reply: Reply = serde_json::from_slice(body).map_err(|_| wrong("it is no report"))?;
    let Report { id, report_data } = reply.data;
    if !report_data.contains_key(wanted) {
        let why = format!("the report has no part {wanted:?} on this server");
        return Err(Error::new(Kind::Unavailable, why));
    }
    let mut found = Vec::new();
    for (subreport, content) in &report_data {
        let indicators = content["data"].as_object().ok_or_else(|| wrong("it has no data"))?;
        for (indicator, lines) in indicators {
            let place = |group: Option<&str>| ReportCell {
                report: id.clone(),
                subreport: subreport.clone(),
                indicator: indicator.clone(),
                group: group.map(str::to_owned),
                row: None,
                column: String::new(),
                value: ReportValue::Count(0),
            };
            for line in lines.as_array().into_iter().flatten() {
                let taken = match line.get("group_id") {
                    None => row(&place(None), line, &mut found),
                    Some(group) => line["data"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .try_for_each(|line| row(&place(group.as_str()), line, &mut found)),
                };
                taken.ok_or_else(|| wrong("a figure is no number, or there are too many"))?;
            }
        }
    }
    Ok(found)
}

/// Adds the figures of one row; nothing when one of them is none.
fn row(place: &ReportCell, line: &Value, found: &mut Vec<ReportCell>) -> Option<()> {
    let line = line.as_object()?;
    let id = line.get("id").and_then(Value::as_str).map(str::to_owned);
    for (column, figure) in line.iter().filter(|(column, _)| *column != "id") {
        let value = match figure {
            Value::String(percent) => ReportValue::Percent(percent.parse().ok()?),
            count => ReportValue::Count(count.as_i64()?),
        };
        (found.len() < CELLS_MAX).then_some(())?;
        found.push(ReportCell { row: id.clone(), column: column.clone(), value, ..place.clone() });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    /// Every recorded report that was answered: its name, the sub-report, the body.
    fn recorded() -> Vec<(String, String, Value)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/recordings");
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if !name.starts_with("managed-report-") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let exchange: Value = serde_json::from_str(&text).unwrap();
            let query = exchange["request"]["query"].as_str().unwrap().to_owned();
            let subreport = query.split('&').next().unwrap().replace("subreport=", "");
            found.push((name, subreport, exchange["body"].clone()));
        }
        found
    }

    fn read(body: &Value, subreport: &str) -> Result<Vec<ReportCell>> {
        cells(body.to_string().as_bytes(), subreport)
    }

    #[test]
    fn every_recorded_report_is_read_and_its_rows_add_up() {
        let (mut answered, mut failed) = (0, 0);
        for (name, subreport, body) in recorded() {
            if name.ends_with("-500") {
                failed += 1;
                assert_eq!(read(&body, &subreport).unwrap_err().kind(), Kind::Temporary, "{name}");
                continue;
            }
            answered += 1;
            let cells = read(&body, &subreport).unwrap();
            assert!(!cells.is_empty(), "{name}");
            let mut sums: BTreeMap<_, (i64, i64)> = BTreeMap::new();
            for cell in &cells {
                assert_eq!(cell.subreport, subreport, "{name}");
                let is_share = name.ends_with("reasons-for-closure");
                let ReportValue::Count(count) = cell.value else {
                    assert!(is_share, "{name}");
                    continue;
                };
                let (parts, total) = sums.entry((&cell.group, &cell.row)).or_default();
                *(if cell.column == "total" { total } else { parts }) += count;
            }
            for (row, (parts, total)) in sums {
                assert_eq!(parts, total, "{name} {row:?}");
            }
        }
        assert_eq!((answered, failed), (24, 2));
    }

    #[test]
    fn groups_missing_sexes_and_missing_ages_keep_their_places() {
        let recorded = recorded();
        let find = |wanted: &str| {
            let (_, subreport, body) = recorded.iter().find(|(name, ..)| name == wanted).unwrap();
            read(body, subreport).unwrap()
        };
        let count = |cells: &[ReportCell], group: Option<&str>, row: Option<&str>, column: &str| {
            let same = |cell: &&ReportCell| {
                cell.group.as_deref() == group
                    && cell.row.as_deref() == row
                    && cell.column == column
            };
            cells.iter().find(same).map(|cell| cell.value)
        };
        let months = find("managed-report-workflow-by-month");
        let november = Some("2026-11");
        let value = count(&months, november, None, "incomplete_data");
        assert_eq!(value, Some(ReportValue::Count(6)));
        assert_eq!(count(&months, november, Some("male"), "12 - 17"), None);
        let closed = find("managed-report-kpi-reasons-for-closure");
        let value = count(&closed, None, Some("other"), "male");
        assert_eq!(value, Some(ReportValue::Percent(6.45)));
    }

    #[test]
    fn what_is_no_report_is_refused_without_its_content() {
        let check = |body: &str, kind: Kind| {
            let error = cells(body.as_bytes(), "x").unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(!error.to_string().contains("7f3a"), "{error}");
        };
        check("<html>7f3a", Kind::Temporary);
        check(r#"{"data":{"id":"7f3a"}}"#, Kind::Unavailable);
        check(r#"{"data":{"id":"a","report_data":{"x":{}}}}"#, Kind::Temporary);
        let odd =
            r#"{"data":{"id":"a","report_data":{"x":{"data":{"i":[{"id":"m","t":"7f3a"}]}}}}}"#;
        check(odd, Kind::Temporary);
    }

    #[test]
    fn filters_are_asked_for_in_brackets() {
        let query = ReportQuery {
            report: "services_report",
            subreport: "services",
            filters: vec![("status[0]".into(), "a b".into())],
        };
        let path = "/api/v2/managed_reports/services_report?subreport=services&status%5B0%5D=a+b";
        assert_eq!(query.path(), path);
    }
}
