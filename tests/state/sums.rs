//! What records add up to comes back with them, and with those that changed since.

use std::collections::BTreeMap;

use tonle::model::{
    Basis, Case, Cell, Day, FieldType, FineCell, Measure, RecordKey, Schema, Summed, Sums,
};
use tonle::state::{Restored, State};

use super::world::{World, schema, settings, small_world, step};

/// What the sums of a test hold for.
const BASIS: Basis = Basis([1, 2, u64::MAX, 4, 5]);

/// What a snapshot says that these records add up to: made up, but other records give other sums.
pub(super) fn sums_of(records: &BTreeMap<RecordKey, Case>, today: Option<Day>) -> Sums {
    let cell = |key: &RecordKey| FineCell::new(Cell((key.0 >> 64) as u64 ^ key.0 as u64), 1);
    let sum = |case: &Case| {
        let words = case.words().iter().fold(7_u32, |sum, w| sum.wrapping_mul(31).wrapping_add(*w));
        Measure { numerator: words as i32 | 1, denominator: (words >> 3) as i32 }
    };
    let sums = records.iter().map(|(key, case)| (cell(key), sum(case)));
    Sums { basis: BASIS, today: today.unwrap_or(Day(1)), cells: vec![sums.collect()] }
}

/// Restored sums are those of the records as they were before they changed.
pub(super) fn check_sums(summed: &Summed, mut records: BTreeMap<RecordKey, Case>) {
    for (key, was) in &summed.before {
        match was {
            Some(case) => records.insert(*key, case.clone()),
            None => records.remove(key),
        };
    }
    let mut expected: Vec<_> =
        sums_of(&records, None).cells.remove(0).iter().map(|(cell, sum)| (*cell, *sum)).collect();
    expected.sort_unstable();
    assert_eq!((&summed.cells, summed.basis), (&expected, BASIS));
}

/// What is restored for another schema, or the same.
fn restored(world: &World, schema: &Schema) -> Restored {
    let copied = super::world::copy(world.directory.path());
    let mut state = State::open(&settings(copied.path())).unwrap();
    state.restore(Some(world.last()), schema).unwrap()
}

#[test]
fn sums_come_back_with_what_changed_since() {
    let mut world = small_world(true);
    world.snapshot();
    let unchanged = restored(&world, &schema()).sums.unwrap();
    assert!(unchanged.before.is_empty() && !unchanged.cells.is_empty());
    let now = &world.contents().records;
    let (first, second) = (*now.keys().next().unwrap(), *now.keys().nth(1).unwrap());
    let number = |key: RecordKey| (0..=u8::MAX).find(|n| super::world::key(*n) == key).unwrap();
    let changes = vec![(number(first), None), (number(second), Some(12_34)), (250, Some(7))];
    world.step(&super::world::Step { changes, ..step(90) });
    let changed = restored(&world, &schema()).sums.unwrap();
    assert_eq!(changed.cells, unchanged.cells);
    let was = |key| changed.before.iter().find(|(k, _)| *k == key).unwrap().1.is_some();
    assert!(was(first) && was(second) && !was(super::world::key(250)));
    assert_eq!(changed.before.len(), 3);
    check_sums(&changed, world.contents().records.clone());
}

#[test]
fn sums_of_other_fields_are_none() {
    let mut world = small_world(true);
    world.snapshot();
    let other = restored(&world, &Schema::new([("sex".into(), FieldType::Option)], Vec::new()));
    assert!(other.schema_changed && other.sums.is_none());
    assert!(restored(&world, &schema()).sums.is_some());
}
