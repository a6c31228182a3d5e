//! Managed reports by sex and age, computed from the cases as the recorded server (v2.14.0) does.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::calendar::{self, DAY_MS};
use super::params::{Given, Params, convert};
use super::reply::Reply;
use super::save::{Case, text_of};
use super::store::Row;

/// The first version that leaves disabled cases out and can filter rows by their type.
const MENDED: [u32; 3] = [2, 14, 1];
/// The age bands of the system settings: name, first and last age.
const BANDS: [(&str, i64, i64); 4] =
    [("0 - 5", 0, 5), ("6 - 11", 6, 11), ("12 - 17", 12, 17), ("18+", 18, 999)];
const INCOMPLETE: &str = "incomplete_data";
const TOTAL: &str = "total";
/// What the database says to a grouped report without a range of dates.
const NO_GROUP: &str = "PG::UndefinedColumn: ERROR:  column \"group_id\" does not exist\nLINE 42:             \
                        name, key, sum , group_id\n                                      ^\n";

/// Which cases the reports of a caller count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReportAccess {
    /// All there are, also those that lists do not show to the caller, as the recorded server does.
    #[default]
    Everything,
    /// Only those in the caller's scope.
    InScope,
    /// The caller may not see reports: 403.
    Forbidden,
}

/// One report of the server.
struct Report {
    id: &'static str,
    /// The middle of its translation keys.
    name: &'static str,
    subreport: &'static str,
    indicator: &'static str,
    /// What it counts, and the date that its period is of.
    counts: Counts,
}

#[derive(Clone, Copy)]
enum Counts {
    Cases,
    Rows { subform: &'static str, date: &'static str, kind: &'static str },
}

const REPORTS: [Report; 5] = [
    Report {
        id: "protection_concerns_report",
        name: "protection_concerns",
        subreport: "protection_concerns",
        indicator: "protection_concerns",
        counts: Counts::Cases,
    },
    Report {
        id: "reporting_locations_report",
        name: "reporting_locations",
        subreport: "reporting_locations",
        indicator: "reporting_location_by_sex_and_age",
        counts: Counts::Cases,
    },
    Report {
        id: "followups_report",
        name: "followups",
        subreport: "followups",
        indicator: "followups",
        counts: Counts::Rows {
            subform: "followup_subform_section",
            date: "followup_date",
            kind: "followup_type",
        },
    },
    Report {
        id: "services_report",
        name: "services",
        subreport: "services",
        indicator: "services",
        counts: Counts::Rows {
            subform: "services_section",
            date: "service_implemented_day_time",
            kind: "service_type",
        },
    },
    Report {
        id: "cases_workflow_report",
        name: "cases_workflow_report",
        subreport: "cases_workflow",
        indicator: "case_workflow_by_sex_and_age",
        counts: Counts::Cases,
    },
];

/// Whether reports of this version leave disabled cases out.
pub(super) fn is_mended(version: &str) -> bool {
    let numbers: Vec<u32> = version.split('.').map_while(|part| part.parse().ok()).collect();
    numbers.as_slice() >= MENDED.as_slice()
}

/// Answers `GET /api/v2/managed_reports/:id`. `rows` are the cases that the caller's reports may count.
pub(super) fn answer(path: &str, id: &str, params: &Params, version: &str, rows: &[Row]) -> Reply {
    let Some(report) = REPORTS.iter().find(|report| report.id == id) else {
        return Reply::error(422, path, None, "Invalid report");
    };
    let mut data = json!({
        "id": report.id,
        "name": format!("managed_reports.{}.name", report.name),
        "description": format!("managed_reports.{}.description", report.name),
        "module_id": "primeromodule-cp",
        "include_zeros": null,
        "subreports": [report.subreport],
    });
    if params.text("subreport").is_none_or(|name| name == report.subreport) {
        match report.data(params, is_mended(version), rows) {
            Ok(lines) => data["report_data"] = report.content(lines),
            Err(message) => return Reply::error(500, path, None, &message),
        }
    }
    Reply::json(json!({ "data": data }).to_string())
}

/// How many, by sex (those without one last) and by column.
type Table = BTreeMap<(bool, Option<String>), BTreeMap<&'static str, i64>>;

impl Report {
    fn content(&self, lines: Vec<Value>) -> Value {
        let Self { indicator, .. } = *self;
        json!({ self.subreport: {
            "data": { indicator: lines },
            "metadata": {
                "display_graph": true,
                "lookups": { indicator: "lookup-gender" },
                "table_type": "default",
                "order": [indicator],
                "indicators_rows": {},
                "indicators_subcolumns": { indicator: "AgeRange" },
            },
        }})
    }

    /// The lines of the report; the error is what the database says.
    fn data(&self, params: &Params, mended: bool, rows: &[Row]) -> Result<Vec<Value>, String> {
        if let (Counts::Rows { kind, .. }, false) = (self.counts, mended)
            && params.get(kind).is_some()
        {
            return Err(format!(
                "PG::UndefinedColumn: ERROR:  column subform_section.data does not exist\nLINE 35:             \
                 and subform_section.data @? '$.{kind} ? (@...\n                         ^\n"
            ));
        }
        let date = match self.counts {
            Counts::Cases => "registration_date",
            Counts::Rows { date, .. } => date,
        };
        let range = range_of(params, date);
        let grouping = params.text("grouped_by");
        if grouping.is_some() && range.is_none() {
            return Err(NO_GROUP.to_owned());
        }
        let mut groups: BTreeMap<String, Table> = BTreeMap::new();
        for row in rows {
            let case = &row.document();
            if mended && !row.enabled || !asked_for(case, params, &["status", "workflow"]) {
                continue;
            }
            for (day, times) in self.days(case, params, date) {
                let within =
                    |(from, to): (i64, i64)| day.is_some_and(|day| from <= day && day <= to);
                if range.is_none_or(within) {
                    let group =
                        grouping.zip(day).map_or(String::new(), |(by, day)| group_of(by, day));
                    count(groups.entry(group).or_default(), case, times);
                }
            }
        }
        Ok(match grouping {
            None => groups.remove("").map_or(Vec::new(), lines),
            Some(_) => groups
                .into_iter()
                .map(|(group, table)| json!({"group_id": group, "data": lines(table)}))
                .collect(),
        })
    }

    /// The days of what a case adds to the report, each with how often it does.
    fn days(&self, case: &Case, params: &Params, date: &str) -> Vec<(Option<i64>, i64)> {
        match self.counts {
            Counts::Cases if !asked_for(case, params, &["protection_concerns"]) => Vec::new(),
            Counts::Cases => vec![(day_of(case.get(date)), 1)],
            Counts::Rows { subform, kind, .. } => {
                let rows = case.get(subform).and_then(Value::as_array).into_iter().flatten();
                let rows = rows.filter_map(Value::as_object);
                let wanted = rows.filter(|row| asked_for(row, params, &[kind]));
                wanted.map(|row| (day_of_row(row, date), 1)).collect()
            }
        }
    }
}

/// The day of a row; a service that is not implemented has none.
fn day_of_row(row: &Case, date: &str) -> Option<i64> {
    let is_service = date == "service_implemented_day_time";
    let done = !is_service || text_of(row, "service_implemented") == "implemented";
    day_of(row.get(date)).filter(|_| done)
}

/// The day of a date, or that of a moment in UTC.
fn day_of(value: Option<&Value>) -> Option<i64> {
    let text = value?.as_str()?;
    let of_moment = || calendar::parse_instant(text).map(|ms| ms.div_euclid(DAY_MS));
    calendar::parse_date(text).or_else(of_moment)
}

/// The first and last day that are asked for. A range that is not written in brackets is ignored.
fn range_of(params: &Params, date: &str) -> Option<(i64, i64)> {
    let given = params.get(date).filter(|raw| matches!(raw, super::params::Raw::Hash(_)))?;
    let Given::Range(from, to) = convert(given) else { return None };
    let day = |given: &Given, open: i64| match given {
        Given::Date(day) => *day,
        Given::Time(ms) => ms.div_euclid(DAY_MS),
        _ => open,
    };
    Some((day(&from, i64::MIN), day(&to, i64::MAX)))
}

/// Whether a case or row has one of the values asked for, in each of these fields that is asked for.
fn asked_for(record: &Case, params: &Params, fields: &[&str]) -> bool {
    fields.iter().all(|field| {
        let wanted: BTreeSet<String> = match params.get(field).map(convert) {
            None => return true,
            Some(Given::List(values)) => values.into_iter().filter_map(text).collect(),
            Some(value) => text(value).into_iter().collect(),
        };
        match record.get(*field) {
            Some(Value::Array(own)) => {
                own.iter().filter_map(Value::as_str).any(|id| wanted.contains(id))
            }
            own => own.and_then(Value::as_str).is_some_and(|id| wanted.contains(id)),
        }
    })
}

fn text(given: Given) -> Option<String> {
    match given {
        Given::Text(text) => Some(text),
        _ => None,
    }
}

fn group_of(by: &str, day: i64) -> String {
    let (year, month, _) = calendar::civil(day);
    match by {
        "year" => format!("{year}"),
        "quarter" => format!("{year}-Q{}", (month - 1) / 3 + 1),
        _ => format!("{year}-{month:02}"),
    }
}

fn count(table: &mut Table, case: &Case, times: i64) {
    let age = case.get("age").and_then(Value::as_i64);
    let band = BANDS.iter().find(|(_, from, to)| age.is_some_and(|age| *from <= age && age <= *to));
    let column = band.map_or(INCOMPLETE, |(name, ..)| name);
    let sex = case.get("sex").and_then(Value::as_str).map(str::to_owned);
    let row = table.entry((sex.is_none(), sex)).or_default();
    *row.entry(column).or_default() += times;
    *row.entry(TOTAL).or_default() += times;
}

/// A table as the server writes it: a line for each sex, then their sum.
fn lines(table: Table) -> Vec<Value> {
    let mut sum: BTreeMap<&str, i64> = BTreeMap::new();
    for (column, count) in table.values().flatten() {
        *sum.entry(column).or_default() += count;
    }
    let line = |id: Value, columns: BTreeMap<&str, i64>| {
        let mut line = Map::new();
        line.insert("id".to_owned(), id);
        line.extend(columns.into_iter().map(|(column, count)| (column.to_owned(), count.into())));
        Value::Object(line)
    };
    let rows = table.into_iter().map(|((_, sex), columns)| line(json!(sex), columns));
    rows.chain([line(json!(TOTAL), sum)]).collect()
}
