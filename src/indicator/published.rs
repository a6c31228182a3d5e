//! The part of resolving that concerns extracts: tables of anonymized rows.

use toml::Spanned;

use crate::error::Result;
use crate::indicator::definition::*;
use crate::indicator::filter::Scope;
use crate::indicator::pack::{At, Place};
use crate::indicator::raw::{RawColumn, RawExtract};
use crate::indicator::resolve::{DATES, Resolver};

impl Resolver<'_> {
    pub(super) fn extracts(&mut self) -> Result<()> {
        for (table, At { value, place }) in &self.raw.extracts {
            let extract = self.extract(table, place, value)?;
            self.definition.extracts.insert(table.clone(), extract);
        }
        Ok(())
    }

    fn extract(&self, table: &str, place: &Place, raw: &RawExtract) -> Result<ExtractDefinition> {
        let key = format!("extracts.{table}");
        self.check_name(place, &key, table)?;
        self.check_name(&place.part(&raw.key), &key, raw.key.get_ref())?;
        let rows_of = raw.rows_of.as_ref().map(Spanned::get_ref).cloned();
        if let (Some(name), Some(spanned)) = (&rows_of, &raw.rows_of)
            && !self.definition.subforms.contains_key(name)
        {
            let known = self.definition.subforms.keys().map(String::as_str);
            return Err(self.raw.unknown(&place.part(spanned), &key, "subform", name, known));
        }
        if rows_of.is_none() && !raw.rows.is_empty() {
            let wrong = "`rows` are conditions on the rows of a subform: expected `rows_of`";
            return Err(self.raw.error(place, &format!("{key}.rows"), wrong));
        }
        let case = Scope::without_event(None);
        let mut columns: Vec<ColumnDefinition> = Vec::new();
        for column in &raw.columns {
            let place = place.part(column);
            columns.push(self.column(&place, &key, column.get_ref(), rows_of.as_deref())?);
        }
        Ok(ExtractDefinition {
            comment: raw.comment.clone(),
            key: raw.key.get_ref().clone(),
            filter: self.filter(&key, place, raw.population.as_ref(), &raw.filter, case)?,
            rows: match &rows_of {
                Some(subform) => {
                    let scope = Scope::without_event(Some(subform));
                    self.conditions(&format!("{key}.rows"), place, &raw.rows, scope)?
                }
                None => Vec::new(),
            },
            rows_of,
            columns,
        })
    }

    fn column(
        &self,
        place: &Place,
        key: &str,
        raw: &RawColumn,
        subform: Option<&str>,
    ) -> Result<ColumnDefinition> {
        match raw {
            RawColumn::Dimension(name) => {
                let found = self.column_dimension(place, key, name, subform)?;
                self.single(place, key, found)?;
                Ok(ColumnDefinition::Dimension(name.clone()))
            }
            RawColumn::Month { name, month_of } => {
                self.check_name(place, key, name)?;
                let of = self.path(place, key, month_of, DATES)?;
                if of.subform.is_some() && of.subform.as_deref() != subform {
                    return Err(self.raw.error(place, key, "the date is not of these rows"));
                }
                Ok(ColumnDefinition::Month { name: name.clone(), of })
            }
        }
    }

    /// A dimension of the case, or of the rows that the extract holds.
    fn column_dimension(
        &self,
        place: &Place,
        key: &str,
        name: &str,
        subform: Option<&str>,
    ) -> Result<&DimensionDefinition> {
        let known = self.definition.dimensions.keys().map(String::as_str);
        let found = self.definition.dimensions.get(name);
        let found = found.ok_or_else(|| self.raw.unknown(place, key, "dimension", name, known))?;
        let of = self.definition.subform_of(&found.from);
        if of.is_some() && of != subform {
            let wrong = format!("dimension {name:?} is of rows that are not in this table");
            return Err(self.raw.error(place, key, wrong));
        }
        Ok(found)
    }

    /// A column holds one value, and the same whatever day it is.
    fn single(&self, place: &Place, key: &str, dimension: &DimensionDefinition) -> Result<()> {
        let is_set = match &dimension.from {
            Origin::Field(path) => self.field(path).field_type.is_set(),
            Origin::Value(_) => false,
            Origin::Caseload => true,
        };
        if is_set || self.definition.depends_on_event(&dimension.from) {
            let wrong = "a set, a caseload or a value taken at the event can not be a column";
            return Err(self.raw.error(place, key, wrong));
        }
        Ok(())
    }
}
