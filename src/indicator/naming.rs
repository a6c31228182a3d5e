//! The plan in words: the catalog of what is published, and the text of cells and rows.

use std::collections::BTreeMap;

use crate::indicator::dimension::{Dimension, FIRST, Reading};
use crate::indicator::{
    Catalog, CellText, Column, ColumnDefinition, ColumnType, DimensionText, Extract, Fingerprint,
    IndicatorDefinition, IndicatorText, Labels, Naming, OptionText, Part, Placed, Plan, Role,
    Summary, Value,
};
use crate::model::{Cell, PeriodType};

/// What a dimension holds in a table that is not broken down by it.
pub const ALL: &str = "all";

impl Plan {
    /// The name of the instance with this number in cells; 0 is all.
    pub(super) fn instance_name(&self, number: u8) -> &str {
        match usize::from(number).checked_sub(1) {
            None => ALL,
            Some(index) => self.published.get(index).map_or(ALL, String::as_str),
        }
    }
}

impl Naming for Plan {
    fn cell(&self, cell: Cell) -> CellText<'_> {
        let table = &self.tables[usize::from(cell.table())];
        let indicator = &self.indicators[table.indicator];
        let mut dimensions = vec![ALL; self.dimensions.len()];
        for part in &table.parts {
            let ordinal = part.ordinal(cell.dimensions());
            dimensions[part.dimension] =
                self.dimensions[part.dimension].text(ordinal, &self.places);
        }
        if let Some(caseload) = table.caseload {
            let dimension = &self.dimensions[caseload.dimension];
            let ordinal = cell.dimensions() >> caseload.shift;
            dimensions[caseload.dimension] = dimension.text(ordinal, &self.places);
        }
        CellText {
            indicator: &indicator.code,
            instance: self.instance_name(cell.instance()),
            period_type: cell.period().period_type().name(),
            period_start: cell.period().start(),
            dimensions,
            is_share: indicator.has_denominator,
        }
    }

    fn row(&self, extract: u16, row: &[u32]) -> Vec<Value<'_>> {
        self.row_values(extract, row)
    }
}

/// Everything `plan` publishes.
pub(super) fn catalog_of(plan: &Plan, fingerprint: Fingerprint) -> Catalog {
    let definition = plan.definition();
    Catalog {
        pack: definition.packs.join(", "),
        fingerprint,
        dimensions: plan
            .dimensions
            .iter()
            .map(|dimension| column_of(plan, dimension, "; `all` where not broken down by it"))
            .collect(),
        dimension_texts: plan.dimensions.iter().map(|dimension| text_of(plan, dimension)).collect(),
        extracts: extracts_of(plan),
        indicators: definition
            .indicators
            .iter()
            .map(|(code, definition)| IndicatorText {
                code: code.clone(),
                title: definition.title.clone(),
                definition: definition.definition.clone(),
                unit: unit_of(definition).into(),
                kind: kind_of(definition).into(),
                not_additive_over: not_additive(plan, definition),
                pack: definition_pack(plan),
                periods: periods_of(definition),
                tables: definition.tables.clone(),
                has_denominator: definition.has_denominator(),
                framework: definition.framework.clone(),
                direction: definition.direction.clone(),
            })
            .collect(),
        options: plan.dimensions.iter().flat_map(|dimension| options_of(plan, dimension)).collect(),
    }
}

fn definition_pack(plan: &Plan) -> String {
    plan.definition().packs.join(", ")
}

fn text_of(plan: &Plan, dimension: &Dimension) -> DimensionText {
    DimensionText {
        name: dimension.name.clone(),
        title: plan.definition().dimensions[&dimension.name].title.clone(),
        is_place: dimension.is_location(),
    }
}

fn column_of(plan: &Plan, dimension: &Dimension, suffix: &str) -> Column {
    let title = plan.definition().dimensions[&dimension.name].title.get("en");
    let title = title.map_or(dimension.name.as_str(), String::as_str);
    let kind = match &dimension.reading {
        Reading::Location { .. } => "code of a place, see locations",
        Reading::Bands(_) => "band",
        Reading::Codes { .. } => "option id, see options",
        Reading::Concepts { .. } => "kind of option, see options",
        Reading::Boolean => "true or false",
    };
    Column {
        name: dimension.name.clone(),
        column_type: ColumnType::Text,
        comment: format!("{title}: {kind}, `not_recorded` or `unmapped`{suffix}"),
    }
}

fn extracts_of(plan: &Plan) -> Vec<Extract> {
    let text = |name: &str, column_type, comment: &str| Column {
        name: name.into(),
        column_type,
        comment: comment.into(),
    };
    let mut extracts = Vec::new();
    for (table, definition) in &plan.definition().extracts {
        let mut columns = vec![text("instance", ColumnType::Text, "name of the Primero instance")];
        if definition.rows_of.is_some() {
            let comment = "pseudonym of the case the row belongs to";
            columns.push(text("case_key", ColumnType::Key, comment));
        }
        for column in &definition.columns {
            columns.push(match column {
                ColumnDefinition::Dimension(name) => {
                    let found = plan.dimensions.iter().find(|dimension| dimension.name == *name);
                    column_of(plan, found.expect("the resolver checked the names"), "")
                }
                ColumnDefinition::Month { name, of } => {
                    let comment = format!("first day of the month of {}", of.field);
                    text(name, ColumnType::Date, &comment)
                }
            });
        }
        extracts.push(Extract {
            table: table.clone(),
            comment: definition.comment.clone(),
            key_column: definition.key.clone(),
            columns,
        });
    }
    extracts
}

/// The names of the periods; that of now where there are none.
fn periods_of(definition: &IndicatorDefinition) -> Vec<String> {
    match definition.periods.as_slice() {
        [] => vec![PeriodType::Now.name().to_owned()],
        periods => periods.iter().map(|period| period.name().to_owned()).collect(),
    }
}

fn unit_of(definition: &IndicatorDefinition) -> &'static str {
    match &definition.summary {
        Some(Summary::Mean(_) | Summary::Median(_)) => "days",
        Some(Summary::CasesPerWorker(_)) => "ratio",
        _ if definition.parts.iter().any(|part| part.role != Role::Counted) => "ratio",
        _ if definition.has_denominator() => "share",
        _ => "count",
    }
}

fn kind_of(definition: &IndicatorDefinition) -> &'static str {
    match &definition.parts[..] {
        [part, ..] => match part.placed {
            Placed::Flow(_) => "flow",
            Placed::Cohort { .. } => "cohort",
            Placed::Presence => "presence",
            Placed::Stock => "stock",
            Placed::Now => "now",
        },
        [] => "flow",
    }
}

/// Over periods a presence, a stock or a distinct count never adds up; over a dimension it does not where
/// one case has several values. Means, medians and case workers add up over nothing.
fn not_additive(plan: &Plan, definition: &IndicatorDefinition) -> Vec<String> {
    let distinct = definition.is_distinct();
    let is_flow = |part: &Part| matches!(part.placed, Placed::Flow(_) | Placed::Cohort { .. });
    let mut names = Vec::new();
    if distinct || definition.summary.is_some() || !definition.parts.iter().all(is_flow) {
        names.push("period".to_owned());
    }
    if definition.summary.is_some() {
        names.push("instance".to_owned());
    }
    let used = |name: &String| definition.tables.iter().any(|table| table.contains(name));
    for ((name, dimension), compiled) in plan.definition().dimensions.iter().zip(&plan.dimensions) {
        let several = compiled.is_set();
        let of_event = compiled.of_event || plan.definition().subform_of(&dimension.from).is_some();
        if used(name) && (several || definition.summary.is_some() || distinct && of_event) {
            names.push(name.clone());
        }
    }
    names
}

/// The values of a dimension; of places only those that are none, the rest are in `locations`.
fn options_of(plan: &Plan, dimension: &Dimension) -> Vec<OptionText> {
    let labels = &plan.definition().dimensions[&dimension.name].labels;
    let size = if dimension.is_location() { FIRST } else { dimension.size };
    (0..size)
        .map(|ordinal| {
            let value = dimension.text(ordinal, &plan.places).to_owned();
            let mut label = fixed_label(&value);
            if let (Reading::Bands(_), FIRST..) = (&dimension.reading, ordinal) {
                label.insert("en".to_owned(), value.clone());
            }
            label.extend(labels.get(&value).cloned().unwrap_or_default());
            OptionText {
                dimension: dimension.name.clone(),
                position: i32::try_from(ordinal).unwrap_or(i32::MAX),
                label,
                value,
            }
        })
        .collect()
}

/// The label of a value that means the same in every pack.
fn fixed_label(value: &str) -> Labels {
    let (en, km) = match value {
        "not_recorded" => ("Not recorded", "មិនបានកត់ត្រា"),
        "unmapped" => ("Other value", "តម្លៃផ្សេងទៀត"),
        "true" => ("Yes", "បាទ/ចាស"),
        "false" => ("No", "ទេ"),
        _ => return BTreeMap::new(),
    };
    [("en", en), ("km", km)].map(|(language, text)| (language.to_owned(), text.to_owned())).into()
}
