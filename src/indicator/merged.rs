//! Several packs as they lie over each other, for people: what holds, where it stands, and what it replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use crate::error::Result;
use crate::indicator::pack::PackText;
use crate::indicator::spelling::misread;

/// A declaration that holds after all packs were laid over each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Declaration {
    /// Its names from the outermost: `["fields", "sex"]`, `["lifecycle"]`.
    pub path: Vec<String>,
    /// What it says.
    pub value: Value,
    /// File and line.
    pub from: String,
    /// Files and lines of what it replaced, the earliest first.
    pub replaces: Vec<String>,
}

/// The order in which people read a pack, and how many names under it make one declaration.
const ORDER: [(&str, usize); 11] = [
    ("pack", 1),
    ("locations", 0),
    ("lifecycle", 0),
    ("fields", 1),
    ("subforms", 2),
    ("populations", 1),
    ("concepts", 1),
    ("values", 1),
    ("dimensions", 1),
    ("indicators", 1),
    ("extracts", 1),
];

/// What of `[pack]` is told of all packs; of the rest the last one holds.
const JOINED: [&str; 2] = ["id", "version"];

/// Lays packs over each other as [`crate::indicator::Definition::read`] does, which has checked them.
///
/// # Errors
/// A configuration error when a pack is no TOML.
pub fn merged(texts: &[PackText]) -> Result<Vec<Declaration>> {
    let mut found = BTreeMap::new();
    for text in texts {
        let misread = |error| misread(&format!("reading {}", text.name), &text.text, &error);
        let values: Table = text.text.parse().map_err(misread)?;
        let lines = Lines::read(&text.name, &text.text)?;
        for (at, (kind, depth)) in ORDER.iter().enumerate() {
            let Some(value) = values.get(*kind) else { continue };
            walk(&mut vec![(*kind).to_owned()], value, *depth, &mut |path, value| {
                let from = lines.of(path);
                lay(&mut found, (at, path.to_vec()), value.clone(), from);
            });
        }
    }
    let mut all: Vec<Declaration> = found.into_values().collect();
    // A subform that one pack declares without fields and another with some.
    let longer: BTreeSet<_> =
        all.iter().map(|one| one.path[..one.path.len() - 1].to_vec()).collect();
    all.retain(|one| !longer.contains(&one.path));
    Ok(all)
}

/// Gives each declaration under `value` to `take`.
fn walk(
    path: &mut Vec<String>,
    value: &Value,
    depth: usize,
    take: &mut dyn FnMut(&[String], &Value),
) {
    let is_empty = path.len() > 1 && value.as_table().is_some_and(Table::is_empty);
    let Some(table) = value.as_table().filter(|_| depth > 0 && !is_empty) else {
        return take(path, value);
    };
    for (name, value) in table {
        path.push(name.clone());
        walk(path, value, depth - 1, take);
        path.pop();
    }
}

/// Lays a declaration over the one with the same names.
fn lay(
    found: &mut BTreeMap<(usize, Vec<String>), Declaration>,
    key: (usize, Vec<String>),
    value: Value,
    from: String,
) {
    let path = key.1.clone();
    let mut new = Declaration { path, value, from, replaces: Vec::new() };
    if let Some(old) = found.remove(&key) {
        let is_joined = new.path[0] == "pack" && JOINED.contains(&new.path[1].as_str());
        if let (true, Value::String(before), Value::String(own)) =
            (is_joined, &old.value, &new.value)
        {
            new.value = Value::String(format!("{before}, {own}"));
            new.from = format!("{}, {}", old.from, new.from);
        } else {
            new.replaces = old.replaces;
            new.replaces.push(old.from);
        }
    }
    found.insert(key, new);
}

/// Where each name of a TOML file stands.
pub struct Lines {
    name: String,
    lines: BTreeMap<Vec<String>, usize>,
}

impl Lines {
    /// Finds the names of `text`, which is called `name`.
    ///
    /// # Errors
    /// A configuration error when it is no TOML.
    pub fn read(name: &str, text: &str) -> Result<Self> {
        let table = DeTable::parse(text)
            .map_err(|error| misread(&format!("reading {name}"), text, &error))?;
        let mut lines = Self { name: name.to_owned(), lines: BTreeMap::new() };
        lines.note(&starts_of(text), &mut Vec::new(), table.get_ref());
        Ok(lines)
    }

    fn note(&mut self, text: &Starts, path: &mut Vec<String>, table: &DeTable<'_>) {
        for (name, value) in table {
            path.push(name.get_ref().to_string());
            self.lines.insert(path.clone(), line_at(text, &name.span()));
            match value.get_ref() {
                DeValue::Table(inner) => self.note(text, path, inner),
                DeValue::Array(items) => {
                    for (at, item) in items.iter().enumerate() {
                        self.note_item(text, path, at, item);
                    }
                }
                _ => {}
            }
            path.pop();
        }
    }

    /// The names in a table of a list; the list's index is one of them.
    fn note_item(
        &mut self,
        text: &Starts,
        path: &mut Vec<String>,
        at: usize,
        item: &Spanned<DeValue<'_>>,
    ) {
        if let DeValue::Table(inner) = item.get_ref() {
            path.push(at.to_string());
            self.lines.insert(path.clone(), line_at(text, &item.span()));
            self.note(text, path, inner);
            path.pop();
        }
    }

    /// File and line of these names; the file alone when they do not stand there.
    pub fn of(&self, path: &[String]) -> String {
        match self.lines.get(path) {
            Some(line) => format!("{} line {line}", self.name),
            None => self.name.clone(),
        }
    }

    /// Whether these names stand there.
    pub fn has(&self, path: &[String]) -> bool {
        self.lines.contains_key(path)
    }
}

/// The offsets at which the lines of a text begin.
type Starts = [usize];

fn starts_of(text: &str) -> Vec<usize> {
    let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
    std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect()
}

fn line_at(starts: &Starts, span: &Range<usize>) -> usize {
    starts.partition_point(|start| *start <= span.start)
}

/// The JSON Schema of a pack.
pub const PACK_SCHEMA: &str = include_str!("pack.schema.json");
