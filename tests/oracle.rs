//! Incremental equals recomputed: random histories, one to three workers, any split into epochs.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tonle::dataflow::oracle::{self, CellName, Tables, World};
use tonle::dataflow::{Dataflow, Input};
use tonle::indicator::{CellText, Naming};
use tonle::model::{Case, Changes, Day, RecordChange, RecordKey};

use crate::support::histories::{Country, FIRST_DAY, changes, shipped_packs};

/// The tables as a reader of the changes sees them.
#[derive(Default)]
struct Followed {
    tables: Tables,
}

impl Followed {
    /// Applies changes, checking that each says truly what was there before.
    fn apply(&mut self, country: &Country, changes: &Changes) {
        for change in &changes.cells {
            let name = named(&country.plan.cell(change.cell));
            let before = if change.new.is_empty() {
                self.tables.values.remove(&name)
            } else {
                self.tables.values.insert(name, change.new)
            };
            assert_eq!(before.unwrap_or_default(), change.old);
        }
        for change in &changes.rows {
            let table = country.plan.catalog().extracts[usize::from(change.extract)].table.clone();
            let before = match &change.row {
                None => self.tables.rows.remove(&(table, change.key)),
                Some(row) => {
                    let values = country.plan.row(change.extract, row);
                    let texts = values.iter().map(oracle::text).collect();
                    self.tables.rows.insert((table, change.key), texts)
                }
            };
            assert_eq!(before.is_some(), change.existed);
        }
    }
}

fn named(text: &CellText<'_>) -> CellName {
    CellName {
        indicator: text.indicator.to_owned(),
        instance: text.instance.to_owned(),
        period_type: text.period_type,
        period_start: text.period_start,
        dimensions: text.dimensions.iter().map(|value| (*value).to_owned()).collect(),
    }
}

fn recomputed(country: &Country, today: Day, records: &BTreeMap<RecordKey, Case>) -> Tables {
    let world = World {
        definition: &country.definition,
        schema: country.plan.schema(),
        dictionary: &country.dictionary,
        locations: &country.tree,
        instances: &country.instances,
        today,
    };
    oracle::tables(&world, records)
}

/// Runs a history of `epoch_count` epochs and compares after each.
fn incremental_equals_recomputed(seed: u64, workers: usize, epoch_count: usize, most: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut country = Country::new(shipped_packs());
    let mut dataflow = Dataflow::start(Arc::clone(&country.plan), workers).unwrap();
    let mut records: BTreeMap<RecordKey, Case> = BTreeMap::new();
    let mut followed = Followed::default();
    let mut today = Day(FIRST_DAY.0 + rng.random_range(300..900));
    for epoch in 0..epoch_count {
        let ticks = epoch == 0 || rng.random_bool(0.4);
        if ticks {
            // Mostly onwards; backwards too, as a restored clock may go.
            today = Day(today.0 + rng.random_range(0..120) - 10);
        }
        let changes = changes(&mut country, &mut rng, most);
        for RecordChange { key, case } in &changes {
            match case {
                Some(case) => records.insert(*key, case.clone()),
                None => records.remove(key),
            };
        }
        let input = Input { changes, today: ticks.then_some(today) };
        followed.apply(&country, &dataflow.advance(input).unwrap());
        let expected = recomputed(&country, today, &records);
        compare(&followed.tables.values, &expected.values, epoch);
        compare(&followed.tables.rows, &expected.rows, epoch);
    }
}

/// Fails with the first entry that differs.
fn compare<K, V>(ours: &BTreeMap<K, V>, expected: &BTreeMap<K, V>, epoch: usize)
where
    K: Ord + std::fmt::Debug,
    V: PartialEq + std::fmt::Debug,
{
    for (key, value) in expected {
        assert_eq!(ours.get(key), Some(value), "epoch {epoch}, {key:?}");
    }
    for (key, value) in ours {
        assert!(expected.contains_key(key), "epoch {epoch}: surplus {key:?} = {value:?}");
    }
}

// 256 histories, or as many as PROPTEST_CASES says; a failure prints the seed that repeats it.
proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn random_histories(seed in any::<u64>(), workers in 1_usize..4, epochs in 1_usize..8, most in 1_usize..16) {
        incremental_equals_recomputed(seed, workers, epochs, most);
    }
}

#[test]
fn a_split_into_epochs_changes_nothing() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut country = Country::new(shipped_packs());
    let all: Vec<_> = (0..40).flat_map(|_| changes(&mut country, &mut rng, 6)).collect();
    let tables = |split: usize, workers| {
        let mut dataflow = Dataflow::start(Arc::clone(&country.plan), workers).unwrap();
        let mut followed = Followed::default();
        for (index, part) in all.chunks(split).enumerate() {
            let today = (index == 0).then_some(Day(FIRST_DAY.0 + 800));
            let input = Input { changes: part.to_vec(), today };
            followed.apply(&country, &dataflow.advance(input).unwrap());
        }
        followed.tables
    };
    let once = tables(all.len(), 1);
    assert!(once.values.len() > 1_000, "the history is too small to prove anything");
    for (split, workers) in [(1, 1), (7, 2), (all.len(), 3)] {
        assert!(tables(split, workers) == once, "split by {split}, {workers} workers");
    }
}
