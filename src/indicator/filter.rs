//! Tables of conditions as they are written: `[populations.NAME]`, `where`, `rows`, `follows`, `numerator`.

use toml::{Spanned, Value};

use crate::error::Result;
use crate::indicator::condition::{expected, range_of, test_of};
use crate::indicator::definition::*;
use crate::indicator::pack::{At, Place};
use crate::indicator::raw::RawTests;
use crate::indicator::resolve::{ANY_TYPE, DATES, LIST_MAX, Resolver};
use crate::indicator::terms::*;
use crate::model::FieldType;

/// How deep `any` and `has` may lie within each other.
const DEPTH_MAX: usize = 4;

/// Where conditions stand.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    /// The subform whose row they are about; none for the case.
    pub(super) subform: Option<&'a str>,
    /// Whether there is an event that `within` and values of the event can be measured from.
    pub(super) has_event: bool,
    depth: usize,
}

impl<'a> Scope<'a> {
    /// Conditions of an indicator.
    pub(super) fn of(subform: Option<&'a str>) -> Self {
        Self { subform, has_event: true, depth: 0 }
    }

    /// Conditions of an extract, whose rows no event places.
    pub(super) fn without_event(subform: Option<&'a str>) -> Self {
        Self { subform, has_event: false, depth: 0 }
    }
}

impl Resolver<'_> {
    /// Checks every population, those too that nothing uses yet.
    pub(super) fn populations(&self) -> Result<()> {
        for (name, At { value, place }) in &self.raw.populations {
            self.conditions(&format!("populations.{name}"), place, value, Scope::of(None))?;
        }
        Ok(())
    }

    /// The conditions of a population and of `where`; all of them must hold.
    pub(super) fn filter(
        &self,
        key: &str,
        place: &Place,
        population: Option<&Spanned<String>>,
        raw: &RawTests,
        scope: Scope<'_>,
    ) -> Result<Vec<Condition>> {
        let mut conditions = Vec::new();
        if let Some(name) = population {
            let known = self.raw.populations.keys().map(String::as_str);
            let At { value, place } =
                self.raw.populations.get(name.get_ref()).ok_or_else(|| {
                    self.raw.unknown(&place.part(name), key, "population", name.get_ref(), known)
                })?;
            let key = format!("populations.{}", name.get_ref());
            conditions = self.conditions(&key, place, value, scope)?;
        }
        conditions.extend(self.conditions(&format!("{key}.where"), place, raw, scope)?);
        Ok(conditions)
    }

    /// The conditions of one table.
    pub(super) fn conditions(
        &self,
        key: &str,
        place: &Place,
        raw: &RawTests,
        scope: Scope<'_>,
    ) -> Result<Vec<Condition>> {
        raw.iter()
            .map(|(name, value)| {
                let key = format!("{key}.{name}");
                self.condition(&key, &place.part(value), name, value.get_ref(), scope)
            })
            .collect()
    }

    fn condition(
        &self,
        key: &str,
        place: &Place,
        name: &str,
        value: &Value,
        scope: Scope<'_>,
    ) -> Result<Condition> {
        match name {
            "any" if scope.subform.is_none() => self.any(key, place, value, scope),
            "has" if scope.subform.is_none() => self.has(key, place, value, scope),
            name if self.definition.values.contains_key(name) => {
                self.value_test(key, place, name, value, scope)
            }
            name => self.field_test(key, place, name, value, scope),
        }
    }

    fn field_test(
        &self,
        key: &str,
        place: &Place,
        name: &str,
        value: &Value,
        scope: Scope<'_>,
    ) -> Result<Condition> {
        let path = match scope.subform {
            None => name.to_owned(),
            Some(subform) => format!("{subform}.{name}"),
        };
        let path = self.path(place, key, &path, ANY_TYPE)?;
        if path.subform.as_deref() != scope.subform {
            return Err(self.raw.error(place, key, "expected a field of the case"));
        }
        let field_type = self.field(&path).field_type;
        let test = test_of(field_type, value).ok_or_else(|| {
            self.raw.error(place, key, format!("expected {}", expected(field_type)))
        })?;
        self.check_test(place, key, &path, &test, scope)?;
        Ok(Condition::Field(path.field, test))
    }

    /// What a test names exists; a misspelt id or concept would count nothing, silently.
    fn check_test(
        &self,
        place: &Place,
        key: &str,
        path: &Path,
        test: &Test,
        scope: Scope<'_>,
    ) -> Result<()> {
        let values = &self.field(path).values;
        match test {
            Test::Any(ids) | Test::None(ids) if !values.is_empty() => {
                self.all_known(place, key, "listed value", ids, values)
            }
            Test::Concepts(names) | Test::NotConcepts(names) => {
                for name in names {
                    self.concept(place, key, name, path)?;
                }
                Ok(())
            }
            Test::Unmapped(_) if values.is_empty() => {
                Err(self.raw.error(place, key, "the field has no `values`, so none is unmapped"))
            }
            Test::Within(..) if !scope.has_event => {
                Err(self.raw.error(place, key, "there is no event here that days are counted from"))
            }
            _ => Ok(()),
        }
    }

    /// A concept of this very field.
    pub(super) fn concept(&self, place: &Place, key: &str, name: &str, of: &Path) -> Result<()> {
        let known = self.definition.concepts.keys().map(String::as_str);
        match self.definition.concepts.get(name) {
            None => Err(self.raw.unknown(place, key, "concept", name, known)),
            Some(concept) if concept.field == *of => Ok(()),
            Some(concept) => {
                let wrong = format!("concept {name:?} is of the field {}", concept.field);
                Err(self.raw.error(place, key, wrong))
            }
        }
    }

    pub(super) fn all_known(
        &self,
        place: &Place,
        key: &str,
        what: &str,
        ids: &[String],
        known: &[String],
    ) -> Result<()> {
        match ids.iter().find(|id| !known.contains(id)) {
            None => Ok(()),
            Some(id) => {
                Err(self.raw.unknown(place, key, what, id, known.iter().map(String::as_str)))
            }
        }
    }

    fn value_test(
        &self,
        key: &str,
        place: &Place,
        name: &str,
        value: &Value,
        scope: Scope<'_>,
    ) -> Result<Condition> {
        let definition = &self.definition.values[name];
        if definition.subform().is_some() && definition.subform() != scope.subform {
            return Err(self.raw.error(
                place,
                key,
                "the value is of rows that are not counted here",
            ));
        }
        if definition.needs_event() && !scope.has_event {
            return Err(self.raw.error(place, key, "there is no event here that it is taken at"));
        }
        let test = test_of(FieldType::Integer, value).ok_or_else(|| {
            self.raw.error(place, key, format!("expected {}", expected(FieldType::Integer)))
        })?;
        Ok(Condition::Value(name.to_owned(), test))
    }

    fn any(&self, key: &str, place: &Place, value: &Value, scope: Scope<'_>) -> Result<Condition> {
        let scope = self.deeper(key, place, scope)?;
        let wrong = || self.raw.error(place, key, "expected a list of condition tables");
        let groups = value.as_array().filter(|list| !list.is_empty() && list.len() <= LIST_MAX);
        let groups = groups.ok_or_else(wrong)?.iter().map(|group| {
            let raw = self.nested(place, group).ok_or_else(wrong)?;
            self.conditions(key, place, &raw, scope)
        });
        Ok(Condition::Any(groups.collect::<Result<_>>()?))
    }

    fn has(&self, key: &str, place: &Place, value: &Value, scope: Scope<'_>) -> Result<Condition> {
        let scope = self.deeper(key, place, scope)?;
        let wrong = || {
            let form =
                "expected [{ row_of = SUBFORM, where = {…}, date = FIELD, within = \"-29..0\" }]";
            self.raw.error(place, key, form)
        };
        let list = value.as_array().filter(|list| !list.is_empty() && list.len() <= LIST_MAX);
        let mut rows = Vec::new();
        for item in list.ok_or_else(wrong)? {
            let table = item.as_table().ok_or_else(wrong)?;
            let known = ["row_of", "where", "date", "within"];
            if let Some(name) = table.keys().find(|name| !known.contains(&name.as_str())) {
                return Err(self.raw.unknown(place, key, "key", name, known.into_iter()));
            }
            let subform = table.get("row_of").and_then(Value::as_str).ok_or_else(wrong)?;
            self.subform(place, key, subform)?;
            let inner = Scope { subform: Some(subform), ..scope };
            let tests = match table.get("where") {
                None => Vec::new(),
                Some(value) => {
                    let raw = self.nested(place, value).ok_or_else(wrong)?;
                    self.conditions(key, place, &raw, inner)?
                }
            };
            let date = table.get("date").map(|date| -> Result<String> {
                let path = format!("{subform}.{}", date.as_str().ok_or_else(wrong)?);
                Ok(self.path(place, key, &path, DATES)?.field)
            });
            let date = date.transpose()?;
            let within = match (table.get("within"), &date) {
                (None, _) => (i32::MIN, i32::MAX),
                (Some(range), Some(_)) if scope.has_event => range_of(range).ok_or_else(wrong)?,
                _ => return Err(wrong()),
            };
            rows.push(Condition::Has(HasRow { subform: subform.to_owned(), tests, date, within }));
        }
        // All of them must hold: a group of its own.
        match rows.len() {
            1 => Ok(rows.remove(0)),
            _ => Ok(Condition::Any(vec![rows])),
        }
    }

    fn deeper<'a>(&self, key: &str, place: &Place, scope: Scope<'a>) -> Result<Scope<'a>> {
        if scope.depth >= DEPTH_MAX {
            return Err(self.raw.error(place, key, format!("nested more than {DEPTH_MAX} deep")));
        }
        Ok(Scope { depth: scope.depth + 1, ..scope })
    }

    /// A condition table inside another; an error in it is told at the place of the outer one.
    fn nested(&self, place: &Place, value: &Value) -> Option<RawTests> {
        let table = value.as_table()?;
        Some(
            table
                .iter()
                .map(|(name, value)| (name.clone(), place.spanned(value.clone())))
                .collect(),
        )
    }

    /// A declared subform.
    pub(super) fn subform(&self, place: &Place, key: &str, name: &str) -> Result<String> {
        let known = self.definition.subforms.keys().map(String::as_str);
        match self.definition.subforms.contains_key(name) {
            true => Ok(name.to_owned()),
            false => Err(self.raw.unknown(place, key, "subform", name, known)),
        }
    }
}
