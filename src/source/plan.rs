//! The schema of a pack as the decoder needs it: every key of a record to its meaning by one
//! look-up.

use std::sync::Arc;

use hashbrown::HashMap;

use super::moment::Zone;
use super::pseudonym::{Pseudonyms, Workers};
use crate::error::{Error, Result};
use crate::model::{Code, FieldType, RECORD_TYPE, RecordType, Schema, Secret, Slot};

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

/// The meaning of each name. Names are looked up once per key, hundreds of millions of times in a
/// first load, and most keys of a full record mean nothing: so the hash takes the length and both
/// ends of a name only, and the table is sparse. The names in it come from the packs, the keys that
/// probe it do not; what they can cost is bounded by the names.
pub(super) struct Targets {
    slots: Vec<Option<(Box<str>, Target)>>,
}

impl Targets {
    /// Slots for each name, so that a key without a meaning mostly meets an empty one.
    const SLOTS_PER_NAME: usize = 8;

    fn new(names: HashMap<Box<str>, Target>) -> Self {
        let count = (names.len() * Self::SLOTS_PER_NAME).next_power_of_two();
        let mut slots = Vec::new();
        slots.resize_with(count, || None);
        for (name, target) in names {
            let mut at = Self::hash(name.as_bytes()) & (count - 1);
            while slots[at].is_some() {
                at = (at + 1) & (count - 1);
            }
            slots[at] = Some((name, target));
        }
        Self { slots }
    }

    /// What `name` means, if anything.
    pub(super) fn get(&self, name: &str) -> Option<Target> {
        let last = self.slots.len() - 1;
        let mut at = Self::hash(name.as_bytes()) & last;
        while let Some((known, target)) = &self.slots[at] {
            if **known == *name {
                return Some(*target);
            }
            at = (at + 1) & last;
        }
        None
    }

    fn hash(name: &[u8]) -> usize {
        let (head, tail) = match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
            (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
            _ => (name.iter().fold(0, |all, byte| (all << 8) | u64::from(*byte)), 0),
        };
        let mixed = (head ^ tail.rotate_left(25)).wrapping_add(name.len() as u64);
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize
    }
}

/// How the records of one instance are read, compiled from the schema.
pub(super) struct Plan {
    pub(super) schema: Arc<Schema>,
    pub(super) instance: Code,
    pub(super) zone: Zone,
    pub(super) targets: Targets,
    /// Of the records themselves.
    pub(super) records: Pseudonyms,
    pub(super) workers: Workers,
    pub(super) subforms: Vec<SubformPlan>,
    /// Slot of `record_state`, where `enabled` stands in.
    pub(super) state: Option<Slot>,
    /// Slot and word of [`RECORD_TYPE`], where the packs read it.
    pub(super) record_type: Option<(Slot, u32)>,
    pub(super) misfit_names: Vec<String>,
}

/// The same for the rows of one subform.
pub(super) struct SubformPlan {
    pub(super) targets: Targets,
    pub(super) rows: Pseudonyms,
    /// Index of its own name in the misfit names; those of its fields follow.
    pub(super) misfit: u16,
}

/// Which records are read, and by what key they are named.
pub(super) struct Identity<'a> {
    /// The name the instance is published under: records and workers of one Primero share it.
    pub(super) published_as: &'a str,
    /// The code of the stream of records.
    pub(super) code: Code,
    pub(super) record_type: RecordType,
    /// The code of the record type's id, where the packs read [`RECORD_TYPE`].
    pub(super) type_code: Option<Code>,
    pub(super) key: &'a Secret,
}

impl Plan {
    /// # Errors
    /// A configuration error for an unusable key, too many fields, or a field called
    /// [`RECORD_TYPE`] that is no option.
    pub(super) fn new(identity: &Identity<'_>, schema: Arc<Schema>, zone: Zone) -> Result<Self> {
        let Identity { published_as: instance, key, .. } = *identity;
        let mut targets = HashMap::<Box<str>, Target>::new();
        let mut misfit_names = Vec::new();
        for (index, field) in schema.fields().iter().enumerate() {
            misfit_names.push(field.name.clone());
            if !field.is_asked() {
                continue; // Whatever a server may call so, it is not this.
            }
            let field_index = Some(index as u16);
            targets.insert(
                field.name.as_str().into(),
                Target { role: Role::Field, field: field_index },
            );
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
            let mut fields = HashMap::<Box<str>, Target>::new();
            for (index, field) in subform.fields.iter().enumerate() {
                let target = Target { role: Role::Field, field: Some(index as u16) };
                fields.insert(field.name.as_str().into(), target);
                misfit_names.push(format!("{}.{}", subform.name, field.name));
            }
            fields.entry("unique_id".into()).or_default().role = Role::Id;
            let rows = Pseudonyms::new(key, instance, &subform.name)?;
            subforms.push(SubformPlan { targets: Targets::new(fields), rows, misfit });
        }
        if u16::try_from(misfit_names.len()).is_err() {
            return Err(Error::config("reading the packs: more than 65,535 fields"));
        }
        let state = schema
            .field("record_state")
            .filter(|field| field.field_type == FieldType::Boolean)
            .map(|field| field.slot);
        Ok(Self {
            instance: identity.code,
            zone,
            targets: Targets::new(targets),
            records: Pseudonyms::new(key, instance, identity.record_type.id())?,
            workers: Workers::new(key, instance)?,
            subforms,
            state,
            record_type: record_type_of(&schema, identity.type_code)?,
            misfit_names,
            schema,
        })
    }
}

/// Where a record says of what type it is, and the word that says it.
fn record_type_of(schema: &Schema, code: Option<Code>) -> Result<Option<(Slot, u32)>> {
    match schema.field(RECORD_TYPE) {
        Some(field) if field.field_type != FieldType::Option => {
            let what = format!("reading the packs: the field {RECORD_TYPE} is not an option");
            Err(Error::config(what).advise("it says \"case\" or \"incident\": declare it so"))
        }
        field => Ok(field.zip(code).map(|(field, code)| (field.slot, code.0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_no_other() {
        let names: Vec<String> = (0..300).map(|n| format!("{}field_{n}_name", n % 7)).collect();
        let short = ["", "a", "b", "ab", "ba", "id", "age", "sex"].map(str::to_owned);
        let all = names.iter().chain(&short).enumerate().map(|(index, name)| {
            (name.as_str().into(), Target { role: Role::Field, field: Some(index as u16) })
        });
        let targets = Targets::new(all.collect());
        for (index, name) in names.iter().chain(&short).enumerate() {
            assert_eq!(targets.get(name).unwrap().field, Some(index as u16), "{name}");
            assert!(targets.get(&format!("{name}x")).is_none());
        }
        assert!(targets.get("0field_7_neme").is_none());
    }
}
