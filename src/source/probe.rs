//! Looks at an instance without taking anything over, for the operator who sets it up.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::client::{Client, REQUEST_LINE_BYTES_MAX};
use super::paths::By;
use super::settings::{ServerSettings, Settings, SourceKind};
use super::{parts, paths, places};
use crate::error::{Error, Kind, Result};
use crate::model::{Instant, Interner, RecordType, Schema};

/// Records that are looked at.
const SAMPLE: u32 = 100;

/// A number of a page that is as long as any.
const PAGE_MAX: u32 = 9_999;

/// What a look at an instance found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Version of the server, where it says so.
    pub version: Option<String>,
    /// Records that the user can see.
    pub case_count: Option<u64>,
    /// Records that were looked at.
    pub sample_count: usize,
    /// Fields that came back, `sub.field` for those of subforms.
    pub fields_seen: Vec<String>,
    /// Fields that never came back: nobody filled them, or the role may not read them, or they do
    /// not exist here.
    pub fields_missing: Vec<String>,
    /// Bytes of the longest request line that asks for records.
    pub request_line_bytes: usize,
    /// Places, where they could be read.
    pub location_count: Option<usize>,
}

#[derive(Deserialize)]
struct Sample<'a> {
    #[serde(borrow)]
    data: Vec<BTreeMap<Cow<'a, str>, &'a RawValue>>,
    metadata: Option<super::decode::Metadata>,
}

#[derive(Deserialize)]
struct SystemSettings {
    data: SystemData,
}

#[derive(Deserialize)]
struct SystemData {
    primero_version: Option<String>,
}

/// Looks at a server or at files; asks only a few questions, and changes nothing.
///
/// # Errors
/// The first question that is not answered, as the kinds of errors of reading.
pub async fn check(settings: &Settings, schema: &Schema) -> Result<Findings> {
    let findings = match &settings.kind {
        SourceKind::Server(server) => server_findings(server, settings.record_type, schema).await,
        SourceKind::File(files) => {
            for path in files.paths.iter().chain(&files.locations) {
                tokio::fs::File::open(path).await.map_err(|error| {
                    Error::config(format!("opening {}", path.display())).caused_by(error)
                })?;
            }
            Ok(Findings::default())
        }
    };
    findings.map_err(|error| error.while_doing(format!("instance {:?}", settings.name)))
}

async fn server_findings(
    server: &ServerSettings,
    record_type: RecordType,
    schema: &Schema,
) -> Result<Findings> {
    let client = Client::new(server)?;
    let fields = parts::fields(&client, record_type, schema, server.page_size, PAGE_MAX)?;
    let line = |fields: &String| {
        let path =
            paths::since(record_type, By::Changed, fields, Instant(0), server.page_size, PAGE_MAX);
        client.request_line_bytes(&path)
    };
    let request_line_bytes = fields.iter().map(line).max().unwrap_or(0);
    let system = client.get(paths::SYSTEM_SETTINGS, "asking for the version").await?;
    let system: Option<SystemSettings> = serde_json::from_slice(&system.body).ok();
    let doing = format!("asking for a few {}", record_type.plural());
    let mut seen = BTreeSet::new();
    let (mut case_count, mut sample_count) = (None, 0);
    for fields in &fields {
        let sample = paths::since(record_type, By::Changed, fields, Instant(0), SAMPLE, 1);
        let sample = client.get(&sample, &doing).await?;
        let sample: Sample<'_> = serde_json::from_slice(&sample.body).map_err(|_| {
            Error::new(Kind::Unavailable, format!("{doing}: the reply is not a list of them"))
        })?;
        seen.extend(fields_of(&sample, schema));
        case_count = sample.metadata.and_then(|metadata| metadata.total);
        sample_count = sample.data.len();
    }
    let (fields_seen, fields_missing) =
        asked(schema).into_iter().partition(|name| seen.contains(name));
    let locations = client.get(&paths::locations(1, 100_000), "asking for locations").await;
    // Codes of places are counted here, not kept.
    let counted = |body: &[u8]| places::locations(body, &Interner::default()).map(|all| all.1);
    Ok(Findings {
        version: system.and_then(|system| system.data.primero_version),
        case_count,
        sample_count,
        fields_seen,
        fields_missing,
        request_line_bytes,
        location_count: locations.ok().and_then(|reply| counted(&reply.body).ok()),
    })
}

/// Every field that is asked for, by the name that misfits are counted under.
fn asked(schema: &Schema) -> Vec<String> {
    let fields = schema.fields().iter().filter(|field| field.is_asked());
    let fields = fields.map(|field| field.name.clone());
    let rows = schema.subforms().iter().flat_map(|subform| {
        subform.fields.iter().map(move |field| format!("{}.{}", subform.name, field.name))
    });
    fields.chain(rows).collect()
}

/// The names that came back. Values are looked into only for the names in subform rows, and dropped
/// where they are.
fn fields_of(sample: &Sample<'_>, schema: &Schema) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for record in &sample.data {
        for (name, value) in record {
            if schema.subform(name).is_none() {
                seen.insert(name.to_string());
                continue;
            }
            let rows: Vec<BTreeMap<Cow<'_, str>, IgnoredAny>> =
                serde_json::from_str(value.get()).unwrap_or_default();
            for field in rows.iter().flat_map(BTreeMap::keys) {
                seen.insert(format!("{name}.{field}"));
            }
        }
    }
    seen
}

const _: () = assert!(REQUEST_LINE_BYTES_MAX < 1_024, "the shipped proxy refuses longer lines");
