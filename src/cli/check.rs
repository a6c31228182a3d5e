//! `tonle check`: everything that can be known before anything runs.

use super::{ConfigArgs, say};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::indicator::{LabelFinding, schema_of};
use crate::model::{Interner, LocationTree, RecordType, Schema};
use crate::pipeline::compile;
use crate::{sink, source};

pub(super) fn run(args: &ConfigArgs) -> Result<()> {
    let config = args.read(None)?;
    super::runtime()?.block_on(check(&config))
}

async fn check(config: &Config) -> Result<()> {
    let schema = schema_of(&config.definition);
    let plan = compile(config, &LocationTree::default(), &Interner::default())?;
    let catalog = plan.catalog();
    say(format!("packs      {}", catalog.pack));
    say(format!("indicators {}", catalog.indicators.len()));
    say(format!("reads      {}", read_of(&schema)));
    say(
        "           and keeps nothing else of a case: no names, contacts, document numbers or notes",
    );
    let mut failure = None;
    for instance in &config.instances {
        match source::check(instance, &schema).await {
            Ok(findings) => {
                tell(instance, &findings);
                if let Err(error) = compare_labels(config, instance, &schema).await {
                    failure.get_or_insert(error);
                }
            }
            Err(error) => {
                say(format!("instance   {}: FAILED: {error}", instance.name));
                failure.get_or_insert(error);
            }
        }
    }
    match sink::check(&config.sink, catalog).await {
        Ok(found) => {
            say(format!("postgres   {}, {}", found.server, found.database));
            let state = if found.schema_exists { "exists" } else { "will be made" };
            say(format!("           schema {} {state}", config.sink.schema));
            say(format!("writes     {}", found.tables.join(", ")));
            found.warnings.iter().for_each(|warning| say(format!("           note: {warning}")));
        }
        Err(error) => {
            say(format!("postgres   FAILED: {error}"));
            failure.get_or_insert(error);
        }
    }
    say(format!("state      {}", config.state.directory().display()));
    match failure {
        None => {
            say("all is well");
            Ok(())
        }
        Some(error) => Err(summary(error)),
    }
}

/// Compares what a server calls its options with what the packs assert.
async fn compare_labels(
    config: &Config,
    instance: &source::Settings,
    schema: &Schema,
) -> Result<()> {
    let definitions = config.instance_definitions();
    let this = definitions.iter().find(|one| one.name == instance.name);
    let Some(this) = this.filter(|_| config.definition.asserts_labels()) else { return Ok(()) };
    let labels = match source::labels_of(instance, schema).await {
        Ok(Some(labels)) => labels,
        Ok(None) => return Ok(()),
        Err(error) => {
            say(format!("           labels asserted by concepts were not compared: {error}"));
            return Ok(());
        }
    };
    let label_of = |field: &str, id: &str| source::FieldLabels::label(&labels, field, id);
    let findings = config.definition.label_findings(this, label_of);
    let (wrong, absent): (Vec<_>, Vec<_>) =
        findings.iter().partition(|finding| finding.found.is_some());
    // Forms of incidents do not hold the fields of cases.
    let is_asked = |finding: &&&LabelFinding| {
        let has_field = labels.iter().any(|one| one.field == finding.field);
        instance.record_type == RecordType::Case || has_field
    };
    let absent: Vec<_> = absent.iter().filter(is_asked).collect();
    if !absent.is_empty() {
        let ids: Vec<_> = absent.iter().map(|one| format!("{} {:?}", one.field, one.id)).collect();
        say(format!(
            "           labels asserted by concepts that the server does not give: {}",
            ids.join(", ")
        ));
    }
    for finding in &wrong {
        say(format!("           FAILED: {finding}"));
    }
    match wrong.as_slice() {
        [] => Ok(()),
        [first, ..] => {
            let doing = format!("instance {:?}: comparing labels: {first}", instance.name);
            Err(Error::new(Kind::DataDiffers, doing).advise(format!(
                "ask what the option means there; then correct assert_labels, or give the concept other ids there: \
                 [concepts.{}] instances.{} = […]",
                first.concept, instance.name
            )))
        }
    }
}

fn tell(instance: &source::Settings, findings: &source::Findings) {
    let (name, records) = (&instance.name, instance.record_type.plural());
    if findings.request_line_bytes == 0 {
        say(format!("instance   {name}: its files can be opened"));
        return;
    }
    let count = |count: Option<u64>| count.map_or("?".to_owned(), |count| count.to_string());
    say(format!(
        "instance   {name}: version {}, {} {records} visible, {} places, request line {} bytes",
        findings.version.as_deref().unwrap_or("?"),
        count(findings.case_count),
        count(findings.location_count.map(|count| count as u64)),
        findings.request_line_bytes,
    ));
    let asked = findings.fields_seen.len() + findings.fields_missing.len();
    if !findings.fields_missing.is_empty() {
        say(format!(
            "           of {asked} fields asked for, these did not come in {} {records}: {}",
            findings.sample_count,
            findings.fields_missing.join(", ")
        ));
        say(
            "           (not filled in, not on a form that the role can read, or not existing here)",
        );
    }
}

/// The fields that are kept: those of the case, then those of each subform behind its name.
fn read_of(schema: &Schema) -> String {
    let fields = schema.fields().iter().map(|field| field.name.clone());
    let subforms = schema.subforms().iter().map(|subform| {
        let fields: Vec<_> = subform.fields.iter().map(|field| field.name.as_str()).collect();
        format!("{} ({})", subform.name, fields.join(", "))
    });
    fields.chain(subforms).collect::<Vec<_>>().join(", ")
}

/// The kind of the first failure decides the exit code; what it was has been said above.
fn summary(error: Error) -> Error {
    error.while_doing("checking")
}
