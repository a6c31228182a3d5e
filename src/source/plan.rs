//! The schema of a pack as the decoder needs it: every key of a record to its meaning by one
//! look-up.

use std::sync::Arc;

use hashbrown::HashMap;

use super::moment::Zone;
use super::pseudonym::Pseudonyms;
use crate::error::{Error, Result};
use crate::model::{Code, FieldType, Schema, Secret, Slot};

/// What a key of a record or of a row means.
#[derive(Clone, Copy, Default)]
pub(super) struct Target {
    pub(super) role: Role,
    /// Index of the field or subform it fills, if any.
    pub(super) field: Option<u16>,
}

#[derive(Clone, Copy, Default, PartialEq)]
pub(super) enum Role {
    #[default]
    Field,
    Id,
    Enabled,
    Stamp,
    Subform,
}

/// Names are looked up once per key, millions of times: a hash map, not the schema's list.
pub(super) type Targets = HashMap<Box<str>, Target>;

/// How the records of one instance are read, compiled from the schema.
pub(super) struct Plan {
    pub(super) schema: Arc<Schema>,
    pub(super) instance: Code,
    pub(super) zone: Zone,
    pub(super) targets: Targets,
    pub(super) cases: Pseudonyms,
    pub(super) subforms: Vec<SubformPlan>,
    /// Slot of `record_state`, where `enabled` stands in.
    pub(super) state: Option<Slot>,
    pub(super) misfit_names: Vec<String>,
}

/// The same for the rows of one subform.
pub(super) struct SubformPlan {
    pub(super) targets: Targets,
    pub(super) rows: Pseudonyms,
    /// Index of its own name in the misfit names; those of its fields follow.
    pub(super) misfit: u16,
}

impl Plan {
    pub(super) fn new(
        instance: &str,
        code: Code,
        schema: Arc<Schema>,
        key: &Secret,
        zone: Zone,
    ) -> Result<Self> {
        let mut targets = Targets::new();
        let mut misfit_names = Vec::new();
        for (index, field) in schema.fields().iter().enumerate() {
            let field_index = Some(index as u16);
            targets.insert(
                field.name.as_str().into(),
                Target { role: Role::Field, field: field_index },
            );
            misfit_names.push(field.name.clone());
        }
        for (name, role) in
            [("id", Role::Id), ("enabled", Role::Enabled), ("last_updated_at", Role::Stamp)]
        {
            targets.entry(name.into()).or_default().role = role;
        }
        let mut subforms = Vec::new();
        for (index, subform) in schema.subforms().iter().enumerate() {
            let target = Target { role: Role::Subform, field: Some(index as u16) };
            targets.insert(subform.name.as_str().into(), target);
            let misfit = misfit_names.len() as u16;
            misfit_names.push(subform.name.clone());
            let mut fields = Targets::new();
            for (index, field) in subform.fields.iter().enumerate() {
                let target = Target { role: Role::Field, field: Some(index as u16) };
                fields.insert(field.name.as_str().into(), target);
                misfit_names.push(format!("{}.{}", subform.name, field.name));
            }
            fields.entry("unique_id".into()).or_default().role = Role::Id;
            let rows = Pseudonyms::new(key, instance, &subform.name)?;
            subforms.push(SubformPlan { targets: fields, rows, misfit });
        }
        if u16::try_from(misfit_names.len()).is_err() {
            return Err(Error::config("reading the packs: more than 65,535 fields"));
        }
        let state = schema
            .field("record_state")
            .filter(|field| field.field_type == FieldType::Boolean)
            .map(|field| field.slot);
        let cases = Pseudonyms::new(key, instance, "case")?;
        Ok(Self { schema, instance: code, zone, targets, cases, subforms, state, misfit_names })
    }
}
