//! Wide views: for each breakdown of the pack a view with one column for each indicator, for spreadsheets
//! and dashboards that want no codes in rows.
//!
//! Names are made from the names of the pack, always the same for the same pack. Where two would be equal, or
//! one would be longer than Postgres keeps, a part of a hash of what it stands for is added.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::cell_key::ALL;
use super::identifier::{IDENTIFIER_BYTES_MAX, Identifier, literal};
use super::tables::VALUES;
use crate::error::{Error, Result};
use crate::indicator::{Catalog, IndicatorText, Labels};

/// Most columns that Postgres gives a view; what does not fit goes into a second one.
const COLUMNS_MAX: usize = 1_600;
/// Most wide views: they change in one transaction, which locks each of them.
const VIEWS_MAX: usize = 1_000;
/// Hexadecimal digits of a hash in a name.
const HASH_DIGITS: usize = 8;
/// Columns of every wide view.
const HEAD: [(&str, &str); 3] = [
    ("instance", "The Primero instance, or all for every instance together"),
    ("period_type", "Length of the period, as in indicator_values; choose one"),
    ("period_start", "First day of the period; empty when period_type is now"),
];

/// A view that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WideView {
    pub(super) name: Identifier,
    pub(super) comment: String,
    pub(super) columns: Vec<WideColumn>,
    /// What the expressions of the columns read: `FROM …`.
    from: String,
}

/// A column of a wide view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WideColumn {
    pub(super) name: Identifier,
    pub(super) comment: String,
    expression: String,
}

impl WideView {
    /// Its query, the columns in the order given.
    pub(super) fn query(&self, columns: &[&WideColumn]) -> String {
        let list = columns.iter().map(|column| format!("{} AS {}", column.expression, column.name));
        format!("SELECT {} {}", list.collect::<Vec<_>>().join(", "), self.from)
    }
}

/// Which dimensions a row of `indicator_values` is broken down by, as an expression: one digit for each, 1 if
/// it is. None where there are no dimensions.
pub(super) fn breakdown<'a>(dimensions: impl Iterator<Item = &'a Identifier>) -> Option<String> {
    let digits = dimensions.map(|name| format!("CASE WHEN {name} = '{ALL}' THEN '0' ELSE '1' END"));
    let digits: Vec<_> = digits.collect();
    (!digits.is_empty()).then(|| digits.join(" || "))
}

/// What a breakdown is called: its dimensions, or `total`.
pub(super) fn table_name(table: &[String]) -> String {
    if table.is_empty() { "total".to_owned() } else { table.join("_") }
}

/// All wide views of a catalog. `taken` are the names of tables.
///
/// # Errors
/// A configuration error when there would be too many, or two of one name.
pub(super) fn wide_views(
    schema: &Identifier,
    catalog: &Catalog,
    taken: &BTreeSet<&str>,
) -> Result<Vec<WideView>> {
    let maker = Maker::new(schema, catalog)?;
    let mut breakdowns: BTreeMap<&[String], Vec<usize>> = BTreeMap::new();
    for (index, indicator) in catalog.indicators.iter().enumerate() {
        for table in &indicator.tables {
            breakdowns.entry(table).or_default().push(index);
        }
    }
    let mut taken: BTreeSet<String> = taken.iter().map(|name| (*name).to_owned()).collect();
    let mut names = Vec::new();
    let mut parts = Vec::new();
    for (table, indicators) in &breakdowns {
        let pieces = maker.split(table, indicators);
        let suffixes =
            (1..=pieces.len()).map(|n| if n == 1 { String::new() } else { format!("_{n}") });
        let base = format!("v_{}", table_name(table));
        let claim = Claim { identity: table.join("\u{1f}"), base, suffixes: suffixes.collect() };
        // The total comes first and keeps its name, whatever a dimension is called.
        if table.is_empty() {
            taken.extend(claim.names(&claim.base));
            names.push(claim.base);
        } else {
            parts.push(claim);
        }
    }
    names.extend(distinct(&parts, &taken)?);
    let mut views = Vec::new();
    for ((table, indicators), base) in breakdowns.into_iter().zip(names) {
        for (piece, chosen) in maker.split(table, &indicators).into_iter().enumerate() {
            let suffix = if piece == 0 { String::new() } else { format!("_{}", piece + 1) };
            views.push(maker.view(Identifier::new(&(base.clone() + &suffix))?, table, &chosen)?);
        }
    }
    if views.len() > VIEWS_MAX {
        let what = format!("the packs have {} breakdowns, at most {VIEWS_MAX} fit", views.len());
        return Err(Error::config(what).advise("declare fewer different `tables`"));
    }
    Ok(views)
}

/// The name of the column of each indicator, in the order of the catalog; a share has two more, with `_n`
/// for the numerator and `_d` for the denominator.
///
/// # Errors
/// A configuration error when two would have one name.
pub(super) fn column_names(catalog: &Catalog) -> Result<Vec<String>> {
    let labels = label_names(catalog)?;
    let mut taken: BTreeSet<String> = HEAD.iter().map(|(name, _)| (*name).to_owned()).collect();
    taken.extend(catalog.dimensions.iter().map(|column| column.name.clone()));
    taken.extend(labels.iter().flat_map(|base| [format!("{base}_label"), format!("{base}_kind")]));
    let claims = catalog.indicators.iter().map(|indicator| Claim {
        identity: indicator.code.clone(),
        base: column_base(&indicator.code),
        suffixes: if indicator.has_denominator { vec!["", "_n", "_d"] } else { vec![""] }
            .into_iter()
            .map(str::to_owned)
            .collect(),
    });
    distinct(&claims.collect::<Vec<_>>(), &taken)
}

/// `CM-01` as it can be typed without quotes: `cm_01`.
fn column_base(code: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let name: String = code.chars().map(plain).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("i_{name}") } else { name }
}

/// What the label and the kind of each dimension begin with, in the order of the catalog.
fn label_names(catalog: &Catalog) -> Result<Vec<String>> {
    let mut taken: BTreeSet<String> = HEAD.iter().map(|(name, _)| (*name).to_owned()).collect();
    taken.extend(catalog.dimensions.iter().map(|column| column.name.clone()));
    let claims = catalog.dimensions.iter().map(|column| Claim {
        identity: column.name.clone(),
        base: column.name.clone(),
        suffixes: vec!["_label".to_owned(), "_kind".to_owned()],
    });
    distinct(&claims.collect::<Vec<_>>(), &taken)
}

/// Something that wants the names `base` + each of `suffixes`.
struct Claim {
    /// What it stands for; no two claims have the same.
    identity: String,
    base: String,
    suffixes: Vec<String>,
}

impl Claim {
    fn names(&self, base: &str) -> Vec<String> {
        self.suffixes.iter().map(|suffix| format!("{base}{suffix}")).collect()
    }

    fn is_too_long(&self) -> bool {
        self.names(&self.base).iter().any(|name| name.len() > IDENTIFIER_BYTES_MAX)
    }

    /// A base that no other claim comes to.
    fn hashed(&self) -> String {
        let longest = self.suffixes.iter().map(String::len).max().unwrap_or(0);
        let room = IDENTIFIER_BYTES_MAX - longest - HASH_DIGITS - "_".len();
        let end = self.base.floor_char_boundary(room);
        let digest = Sha256::digest(self.identity.as_bytes());
        let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}_{}", &self.base[..end], &hash[..HASH_DIGITS])
    }
}

/// A base for each claim, so that no two names are equal, taken or too long.
fn distinct(claims: &[Claim], taken: &BTreeSet<String>) -> Result<Vec<String>> {
    let mut wanted: BTreeMap<String, usize> = BTreeMap::new();
    for name in claims.iter().flat_map(|claim| claim.names(&claim.base)) {
        *wanted.entry(name).or_default() += 1;
    }
    let is_free = |name: &String| wanted[name] == 1 && !taken.contains(name);
    let mut bases = Vec::with_capacity(claims.len());
    let mut given = taken.clone();
    for claim in claims {
        let keeps = !claim.is_too_long() && claim.names(&claim.base).iter().all(is_free);
        let base = if keeps { claim.base.clone() } else { claim.hashed() };
        for name in claim.names(&base) {
            if let Some(twice) = given.replace(name) {
                let what = format!("two columns or views would have the name {twice:?}");
                return Err(Error::config(what).advise("rename a dimension or code of the pack"));
            }
        }
        bases.push(base);
    }
    Ok(bases)
}

/// Makes the views of one catalog.
struct Maker<'a> {
    schema: &'a Identifier,
    catalog: &'a Catalog,
    dimensions: Vec<Identifier>,
    labels: Vec<String>,
    columns: Vec<String>,
    places: BTreeSet<&'a str>,
}

impl<'a> Maker<'a> {
    fn new(schema: &'a Identifier, catalog: &'a Catalog) -> Result<Self> {
        let dimensions = catalog.dimensions.iter().map(|column| Identifier::new(&column.name));
        let places = catalog.dimension_texts.iter().filter(|text| text.is_place);
        Ok(Self {
            schema,
            catalog,
            dimensions: dimensions.collect::<Result<_>>()?,
            labels: label_names(catalog)?,
            columns: column_names(catalog)?,
            places: places.map(|text| text.name.as_str()).collect(),
        })
    }

    /// The indicators of one breakdown in as many views as they need.
    fn split(&self, table: &[String], indicators: &[usize]) -> Vec<Vec<usize>> {
        let head = HEAD.len() + 3 * table.len();
        let mut pieces = vec![Vec::new()];
        let mut used = head;
        for index in indicators {
            let width = if self.catalog.indicators[*index].has_denominator { 3 } else { 1 };
            if used + width > COLUMNS_MAX {
                pieces.push(Vec::new());
                used = head;
            }
            used += width;
            pieces.last_mut().expect("it begins with one").push(*index);
        }
        pieces
    }

    fn view(&self, name: Identifier, table: &[String], indicators: &[usize]) -> Result<WideView> {
        let schema = self.schema;
        let mut columns = Vec::new();
        for (name, comment) in HEAD {
            columns.push(WideColumn::of(name, format!("g.{name}"), comment.to_owned())?);
        }
        let mut keys: Vec<_> = HEAD.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut joins = String::new();
        for (index, dimension) in self.dimensions.iter().enumerate() {
            if table.iter().any(|name| name == dimension.name()) {
                keys.push(dimension.to_string());
                joins += &self.labelled(index, dimension, &mut columns)?;
            }
        }
        let mut figures = Vec::new();
        for index in indicators {
            let indicator = &self.catalog.indicators[*index];
            for (name, column, comment) in figures_of(indicator, &self.columns[*index]) {
                let (name, code) = (Identifier::new(&name)?, literal(&indicator.code));
                figures.push(format!("max({column}) FILTER (WHERE indicator = {code}) AS {name}"));
                columns.push(WideColumn::of(name.name(), format!("g.{name}"), comment)?);
            }
        }
        let codes = indicators.iter().map(|index| literal(&self.catalog.indicators[*index].code));
        let codes = codes.collect::<Vec<_>>().join(", ");
        let of_table = match breakdown(self.dimensions.iter()) {
            None => String::new(),
            Some(digits) => format!("{digits} = '{}' AND ", self.digits(table)),
        };
        let (keys, figures) = (keys.join(", "), figures.join(", "));
        let from = format!(
            "FROM (SELECT {keys}, {figures} FROM {schema}.{VALUES}
                    WHERE {of_table}indicator IN ({codes}) GROUP BY {keys}) g{joins}"
        );
        Ok(WideView { name, comment: comment_of(table), columns, from })
    }

    /// Adds the columns of a dimension; returns the joins they need. Both tables have the joined columns as
    /// their key, so a query that asks for no label pays for none.
    fn labelled(
        &self,
        index: usize,
        dimension: &Identifier,
        columns: &mut Vec<WideColumn>,
    ) -> Result<String> {
        let (schema, name) = (self.schema, dimension.name());
        let (base, comment) = (&self.labels[index], &self.catalog.dimensions[index].comment);
        let (option, value) = (format!("o{index}"), format!("g.{dimension}"));
        columns.push(WideColumn::of(name, value.clone(), comment.clone())?);
        let mut label = format!("{option}.label->>'en', {value}");
        let mut joins = format!(
            " LEFT JOIN {schema}.options {option}
               ON {option}.dimension = {} AND {option}.value = {value}",
            literal(name)
        );
        let is_place = self.places.contains(name);
        if is_place {
            let place = format!("p{index}");
            label = format!("{place}.label->>'en', {label}");
            joins += &format!(" LEFT JOIN {schema}.locations {place} ON {place}.code = {value}");
            let what =
                "What the place is, for example district: choose one, they contain each other";
            let kind = format!("{place}.kind");
            columns.push(WideColumn::of(&format!("{base}_kind"), kind, what.to_owned())?);
        }
        let what = format!("English label of {name}, or its value where there is none");
        columns.push(WideColumn::of(&format!("{base}_label"), format!("coalesce({label})"), what)?);
        Ok(joins)
    }

    /// The value of [`breakdown`] in the rows of a table.
    fn digits(&self, table: &[String]) -> String {
        let digit =
            |name: &Identifier| if table.iter().any(|t| t == name.name()) { '1' } else { '0' };
        self.dimensions.iter().map(digit).collect()
    }
}

impl WideColumn {
    fn of(name: &str, expression: String, comment: String) -> Result<Self> {
        Ok(Self { name: Identifier::new(name)?, comment, expression })
    }
}

/// Name, column of `indicator_values`, and comment of each column of an indicator.
fn figures_of(indicator: &IndicatorText, name: &str) -> Vec<(String, &'static str, String)> {
    let english = |labels: &Labels| labels.get("en").or(labels.values().next()).cloned();
    let code = &indicator.code;
    let texts = [english(&indicator.title), english(&indicator.definition)];
    let sentence = |text: &String| format!("{}. ", text.trim_end_matches('.'));
    let what: String = texts.iter().flatten().map(sentence).collect();
    let published = indicator.periods.join(", ");
    let periods = format!("Published by {published}; empty for other periods");
    if !indicator.has_denominator {
        let comment = format!("{code}: {what}{periods}, and where nothing was counted, which is 0");
        return vec![(name.to_owned(), "value", comment)];
    }
    let nothing = "where there is nothing to divide by";
    vec![
        (name.to_owned(), "value", format!("{code}: {what}{periods}, and {nothing}")),
        (format!("{name}_n"), "numerator", format!("{code}: the numerator of {name}")),
        (format!("{name}_d"), "denominator", format!("{code}: the denominator of {name}")),
    ]
}

fn comment_of(table: &[String]) -> String {
    let by = match table {
        [] => "totals, not broken down".to_owned(),
        names => format!("broken down by {}", names.join(", ")),
    };
    format!(
        "Wide: one row for each instance and period, {by}; one column for each indicator that has this \
         breakdown. Filter by instance and period_type; figures come from {VALUES}. Made anew with the pack"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::indicator::{Column, ColumnType};

    fn catalog(dimensions: &[&str], indicators: &[(&str, &[&str], bool)]) -> Catalog {
        let column = |name: &&str| Column {
            name: (*name).into(),
            column_type: ColumnType::Text,
            comment: format!("what {name} is"),
        };
        let indicator = |(code, table, has_denominator): &(&str, &[&str], bool)| IndicatorText {
            code: (*code).into(),
            tables: vec![table.iter().map(|name| (*name).to_owned()).collect()],
            has_denominator: *has_denominator,
            ..IndicatorText::default()
        };
        Catalog {
            dimensions: dimensions.iter().map(column).collect(),
            indicators: indicators.iter().map(indicator).collect(),
            ..Catalog::default()
        }
    }

    fn views(catalog: &Catalog) -> Vec<WideView> {
        let schema = Identifier::new("tonle").unwrap();
        wide_views(&schema, catalog, &BTreeSet::from(["v_taken"])).unwrap()
    }

    fn names(catalog: &Catalog) -> Vec<String> {
        views(catalog).iter().map(|view| view.name.name().to_owned()).collect()
    }

    #[test]
    fn codes_become_names_that_need_no_quotes() {
        let check = |code: &str, name: &str| assert_eq!(column_base(code), name);
        check("CM-01", "cm_01");
        check("4.11a-seed", "i_4_11a_seed");
    }

    #[test]
    fn two_that_want_one_name_both_get_another_each_time_the_same() {
        let two =
            [("A-1", &[][..], false), ("A.1", &[], false), ("B", &[], true), ("B-N", &[], false)];
        let names = column_names(&catalog(&["b_d"], &two)).unwrap();
        assert_eq!(names[0].len(), "a_1_".len() + HASH_DIGITS);
        assert!(names[0] != names[1] && names[0].starts_with("a_1_"));
        assert!(names[2].starts_with("b_") && names[3].starts_with("b_n_"), "{names:?}");
        let turned: Vec<_> = two.into_iter().rev().collect();
        let again = column_names(&catalog(&["b_d"], &turned)).unwrap();
        assert_eq!(names, again.into_iter().rev().collect::<Vec<_>>());
    }

    #[test]
    fn a_view_has_a_name_of_its_own_within_63_bytes() {
        let long = "x".repeat(60);
        let tables: [&[&str]; 6] =
            [&[], &["total"], &["taken"], &["a", "b_c"], &["a_b", "c"], &["a", &long]];
        let codes = ["A", "B", "C", "D", "E", "F"];
        let indicators: Vec<_> =
            codes.into_iter().zip(tables).map(|(code, table)| (code, table, false)).collect();
        let names =
            names(&catalog(&["a", "a_b", "b_c", "c", "taken", "total", &long], &indicators));
        assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len(), "{names:?}");
        assert!(names.iter().all(|name| name.len() <= IDENTIFIER_BYTES_MAX));
        assert!(names.contains(&"v_total".to_owned()) && !names.contains(&"v_taken".to_owned()));
    }

    #[test]
    fn what_does_not_fit_goes_into_a_second_view() {
        let codes: Vec<_> = (0..700).map(|n| format!("I-{n}")).collect();
        let indicators: Vec<_> =
            codes.iter().map(|code| (code.as_str(), &["sex"][..], true)).collect();
        let views = views(&catalog(&["sex"], &indicators));
        let sizes: Vec<_> = views.iter().map(|v| (v.name.name(), v.columns.len())).collect();
        // instance, period_type, period_start, sex, sex_label, then three for each indicator
        assert_eq!(sizes, [("v_sex", 5 + 3 * 531), ("v_sex_2", 5 + 3 * 169)]);
    }
}
