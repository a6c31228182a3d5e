//! Our figures laid beside those that Primero's own managed reports show, cell by cell.
//!
//! Ours come from the records of the state, or from a reading of their own, by the pack `primero-parity` and the
//! plain batch function that `tonle verify` trusts. Nothing is written.

mod figures;
mod records;
mod verdict;

use std::collections::BTreeMap;

use jiff::civil::Date;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::{Day, RecordType};
use crate::source::{ReportQuery, ReportReader, ServerSettings, Settings, SourceKind};

use figures::{Figures, Grid, Measure};
use records::Held;
use verdict::{Evidence, Scope};

pub use verdict::{Cause, Line, Verdict};

/// What is compared.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only this instance; every server without it.
    pub instance: Option<String>,
    /// First and last day of the dated reports, which begin and end a month; the undated ones without them.
    pub period: Option<(Date, Date)>,
    /// Whether the records are read anew instead of taken from the state.
    pub fresh: bool,
}

/// What Primero's reports filter by a date, and how much of it is asked for.
#[derive(Clone, Copy)]
struct Period {
    from: Day,
    to: Day,
}

/// A report of Primero and what of ours it should equal.
struct Report {
    /// The name it is told by.
    name: &'static str,
    report: &'static str,
    subreport: &'static str,
    /// Code of the indicator of the pack, without what follows for its variants.
    code: &'static str,
    /// The date it filters by.
    date: &'static str,
    /// The subform whose rows it counts.
    rows_of: Option<&'static str>,
    /// What it needs beyond what every report needs; the last ones only with a period.
    needs: &'static [&'static str],
    needs_dated: &'static [&'static str],
}

const WORKFLOW: Report = Report {
    name: "workflow",
    report: "cases_workflow_report",
    subreport: "cases_workflow",
    code: "MR-workflow",
    date: "registration_date",
    rows_of: None,
    needs: &[],
    needs_dated: &["registration_date"],
};

const CONCERNS: Report = Report {
    name: "concerns",
    report: "protection_concerns_report",
    subreport: "protection_concerns",
    code: "MR-concerns",
    ..WORKFLOW
};

const REPORTS: [Report; 5] = [
    WORKFLOW,
    CONCERNS,
    Report {
        name: "locations",
        report: "reporting_locations_report",
        subreport: "reporting_locations",
        code: "MR-locations",
        ..WORKFLOW
    },
    Report {
        name: "followups",
        report: "followups_report",
        subreport: "followups",
        code: "MR-followups",
        date: "followup_date",
        rows_of: Some("followup_subform_section"),
        needs: &["followup_subform_section"],
        needs_dated: &["followup_subform_section.followup_date"],
    },
    Report {
        name: "services",
        report: "services_report",
        subreport: "services",
        code: "MR-services",
        date: "service_implemented_day_time",
        rows_of: Some("services_section"),
        needs: &["services_section"],
        needs_dated: &[
            "services_section.service_implemented",
            "services_section.service_implemented_day_time",
        ],
    },
];

/// The subforms whose rows reports count, with the codes of those reports.
fn row_reports() -> impl Iterator<Item = (&'static str, &'static str)> {
    REPORTS.iter().filter_map(|report| Some((report.code, report.rows_of?)))
}

/// What every report counts by.
const ALWAYS_NEEDED: [&str; 3] = ["record_state", "sex", "age"];

/// Compares every server that is wanted, report by report.
///
/// # Errors
/// When the period is not whole months, no server is wanted, the state cannot be read, or a fresh reading fails. What
/// one report says, or refuses to say, is in its lines.
pub async fn reconcile(config: &Config, wanted: &Wanted) -> Result<Vec<Line>> {
    let period = wanted.period.map(whole_months).transpose()?;
    let mut lines = Vec::new();
    for (settings, server) in servers(config, wanted.instance.as_deref())? {
        let held = match wanted.fresh {
            true => records::read(config, settings).await,
            false => records::of_state(config, settings),
        }?;
        let mut one = Comparison {
            config,
            settings,
            held: &held,
            period,
            may_age: !wanted.fresh,
            lines: Vec::new(),
        };
        one.compare(&mut ReportReader::new(server)?).await?;
        lines.append(&mut one.lines);
    }
    Ok(lines)
}

fn servers<'c>(
    config: &'c Config,
    wanted: Option<&str>,
) -> Result<Vec<(&'c Settings, &'c ServerSettings)>> {
    let is_wanted = |settings: &&Settings| {
        // Incidents are a stream of their own, and have other reports.
        settings.record_type == RecordType::Case && wanted.is_none_or(|name| settings.name == name)
    };
    let servers: Vec<_> = config
        .instances
        .iter()
        .filter(is_wanted)
        .filter_map(|settings| match &settings.kind {
            SourceKind::Server(server) => Some((settings, server)),
            SourceKind::File(_) => None,
        })
        .collect();
    match (servers.is_empty(), wanted) {
        (false, _) => Ok(servers),
        (true, Some(name)) => {
            Err(Error::config(format!("reconciling: no instance with a server is called {name:?}")))
        }
        (true, None) => Err(Error::config("reconciling: no instance has a server to ask")),
    }
}

/// Our figures are by month, so only whole months can be compared.
fn whole_months((from, to): (Date, Date)) -> Result<Period> {
    let is_whole = from <= to && from == from.first_of_month() && to == to.last_of_month();
    let days = Day::of(from).zip(Day::of(to)).filter(|_| is_whole);
    let (from, to) = days.ok_or_else(|| {
        Error::config(format!("reading --from {from} --to {to}: these are not whole months"))
            .advise("let it begin on the first day of a month and end on the last of one")
    })?;
    Ok(Period { from, to })
}

/// One server being compared.
struct Comparison<'a> {
    config: &'a Config,
    settings: &'a Settings,
    held: &'a Held,
    period: Option<Period>,
    /// Whether birthdays may have passed since the records were read.
    may_age: bool,
    lines: Vec<Line>,
}

impl Comparison<'_> {
    async fn compare(&mut self, reader: &mut ReportReader) -> Result<()> {
        let figures = Figures::compute(self.config, self.settings, self.held)?;
        let workflow = match self.why_not(&WORKFLOW, None, &[]) {
            Some(why) => Err(why),
            None => self.ask(reader, &WORKFLOW, Vec::new()).await,
        };
        let scope = self.totals(reader, &figures, workflow.as_ref().ok()).await;
        if self.period.is_none() {
            self.judge(&WORKFLOW, "workflow", None, &figures, workflow, scope);
        }
        let period = self.period;
        for report in REPORTS.iter().filter(|r| period.is_some() || r.name != WORKFLOW.name) {
            self.one(reader, report, None, &figures, scope).await;
        }
        if let Some(concern) = figures.commonest_concern() {
            self.one(reader, &CONCERNS, Some(&concern), &figures, scope).await;
        }
        Ok(())
    }

    /// Compares one report, or one concern of it.
    async fn one(
        &mut self,
        reader: &mut ReportReader,
        report: &Report,
        concern: Option<&str>,
        figures: &Figures<'_>,
        scope: Option<Scope>,
    ) {
        let name =
            concern.map_or(report.name.to_owned(), |concern| format!("{} {concern}", report.name));
        let more: &[&str] = if concern.is_some() { &["protection_concerns"] } else { &[] };
        let asked = match self.why_not(report, self.period, more) {
            Some(why) => Err(why),
            None => {
                let mut filters = Vec::new();
                for (index, id) in concern.map_or(Vec::new(), |c| self.ids_of(c)).iter().enumerate()
                {
                    filters.push((format!("protection_concerns[{index}]"), id.clone()));
                }
                if let Some(Period { from, to }) = self.period {
                    filters.push((format!("{}[from]", report.date), from.date().to_string()));
                    filters.push((format!("{}[to]", report.date), to.date().to_string()));
                }
                self.ask(reader, report, filters).await
            }
        };
        self.judge(report, &name, concern, figures, asked, scope);
    }

    /// Why our side of a report cannot be known.
    fn why_not(&self, report: &Report, period: Option<Period>, more: &[&str]) -> Option<String> {
        if !self.held.is_complete {
            return Some("this instance was not read completely yet".to_owned());
        }
        let dated = period.map_or(&[][..], |_| report.needs_dated);
        let mut needed = ALWAYS_NEEDED.iter().chain(report.needs).chain(dated).chain(more);
        // A subform that is not read at all is missing as a whole.
        let is_missing = |name: &str| {
            let whole = name.split('.').next().unwrap_or(name);
            self.held.missing.iter().any(|missing| missing == name || missing == whole)
        };
        let missing = needed.find(|name| is_missing(name))?;
        Some(format!("field {missing} is not read; add pack primero-parity, or use --fresh"))
    }

    /// The figures of a report in our words; the error says why there are none.
    async fn ask(
        &self,
        reader: &mut ReportReader,
        report: &Report,
        filters: Vec<(String, String)>,
    ) -> Result<Grid, String> {
        let Report { report, subreport, .. } = *report;
        let query = ReportQuery { report, subreport, filters };
        let cells = reader.report(&query).await.map_err(|error| error.to_string())?;
        let grid = Grid::of_report(&cells, &self.mapping("sex"));
        grid.ok_or_else(|| "it holds other things than counts".to_owned())
    }

    /// What option ids of this instance stand for.
    fn mapping(&self, field: &str) -> BTreeMap<String, String> {
        let mut definitions = self.config.instance_definitions().into_iter();
        let own = definitions.find(|definition| definition.name == self.settings.name);
        own.and_then(|mut own| own.mappings.remove(field)).unwrap_or_default()
    }

    /// The option ids of this instance that stand for a concern: its own name, unless that stands for another.
    fn ids_of(&self, concern: &str) -> Vec<String> {
        let mapping = self.mapping("protection_concerns");
        let mut ids: Vec<String> = mapping
            .iter()
            .filter(|(_, meant)| *meant == concern)
            .map(|(id, _)| id.clone())
            .collect();
        if !mapping.contains_key(concern) {
            ids.push(concern.to_owned());
        }
        ids
    }

    /// Compares how many records there are, and finds out whether the reports count others than the role can see.
    async fn totals(
        &mut self,
        reader: &mut ReportReader,
        figures: &Figures<'_>,
        workflow: Option<&Grid>,
    ) -> Option<Scope> {
        let enabled = reader.visible(true).await;
        let disabled = reader.visible(false).await;
        let measure = Measure::new(WORKFLOW.code);
        let ours_enabled = figures.grid(&measure, None).total();
        let ours_all = figures.grid(&measure.with_disabled(), None).total();
        let unknown = self.why_not(&WORKFLOW, None, &[]);
        for (cell, ours, theirs) in
            [("enabled", ours_enabled, &enabled), ("disabled", ours_all - ours_enabled, &disabled)]
        {
            let verdict = match (&unknown, theirs) {
                (Some(why), _) => Verdict::NotCompared(why.clone()),
                (None, Err(error)) => Verdict::NotCompared(error.to_string()),
                (None, Ok(theirs)) if *theirs == ours => Verdict::Equal,
                (None, Ok(_)) => Verdict::Different(None),
            };
            let line = Line {
                instance: self.settings.name.clone(),
                report: "records".to_owned(),
                cell: cell.to_owned(),
                ours: unknown.is_none().then_some(ours),
                theirs: theirs.as_ref().ok().copied(),
                verdict,
            };
            self.lines.push(line);
        }
        let (enabled, disabled, reported) = (enabled.ok()?, disabled.ok()?, workflow?.total());
        // Only when we hold what the role sees can a difference be due to what it does not see.
        let is_ours = ours_enabled == enabled && ours_all == enabled + disabled;
        Scope::of(reported, enabled, enabled + disabled).filter(|_| is_ours)
    }

    fn judge(
        &mut self,
        report: &Report,
        name: &str,
        concern: Option<&str>,
        figures: &Figures<'_>,
        asked: Result<Grid, String>,
        scope: Option<Scope>,
    ) {
        let (instance, report_name) = (self.settings.name.clone(), name.to_owned());
        let line = move |cell: String, ours, theirs, verdict| Line {
            instance: instance.clone(),
            report: report_name.clone(),
            cell,
            ours,
            theirs,
            verdict,
        };
        let theirs = match asked {
            Ok(theirs) => theirs,
            Err(why) => {
                let cell = "all cells".to_owned();
                return self.lines.push(line(cell, None, None, Verdict::NotCompared(why)));
            }
        };
        let dated = if self.period.is_some() { "-dated" } else { "" };
        let code = format!("{}{dated}", report.code);
        let measure = Measure::new(&code).of_concern(concern);
        let period = self.period;
        let mut variants = vec![(
            Some(Cause::DisabledCounted),
            figures.grid(&measure.clone().with_disabled(), period),
        )];
        if report.rows_of.is_some() {
            let cases = measure.clone().as_cases();
            variants.push((Some(Cause::CasesNotRows), figures.grid(&cases, period)));
            let both = figures.grid(&cases.with_disabled(), period);
            variants.push((Some(Cause::DisabledCasesNotRows), both));
        }
        let ours = figures.grid(&measure, period);
        let evidence = Evidence {
            ours: &ours,
            theirs: &theirs,
            variants: &variants,
            bands: &figures.bands(),
            scope,
            may_age: self.may_age,
        };
        for (cell, ours, theirs, verdict) in evidence.verdicts() {
            self.lines.push(line(cell, Some(ours), Some(theirs), verdict));
        }
    }
}
