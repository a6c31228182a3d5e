//! Incremental equals recomputed: random histories, one to three workers, any split into epochs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tonle::dataflow::oracle::{self, CellName, Tables, World};
use tonle::dataflow::{Dataflow, Input};
use tonle::indicator::{CellText, Definition, Naming};
use tonle::model::{
    Basis, Case, Changes, Day, FineCell, Measure, RecordChange, RecordKey, SharedMap, Summed,
};

use crate::support::histories::{Country, FIRST_DAY, changes, shipped_packs};
use crate::support::packs::{FORMS, random_pack};

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

/// What is followed of one country from epoch to epoch.
struct History {
    rng: ChaCha8Rng,
    country: Country,
    workers: usize,
    dataflow: Dataflow,
    records: BTreeMap<RecordKey, Case>,
    followed: Followed,
    today: Option<Day>,
    kept: Option<Kept>,
    /// Told when something differs.
    seed: u64,
}

/// What a snapshot keeps.
struct Kept {
    basis: Basis,
    today: Day,
    sums: BTreeMap<FineCell, Measure>,
    records: BTreeMap<RecordKey, Case>,
}

impl History {
    fn new(seed: u64, country: Country, workers: usize) -> Self {
        let dataflow = Dataflow::start(Arc::clone(&country.plan), workers).unwrap();
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            country,
            workers,
            dataflow,
            records: BTreeMap::new(),
            followed: Followed::default(),
            today: None,
            kept: None,
            seed,
        }
    }

    /// An epoch with random changes, now and then of the clock, and rarely of the places.
    fn epoch(&mut self, most: usize) {
        if self.rng.random_bool(0.08) && self.today.is_some() {
            self.relocate();
        }
        let ticks = (self.today.is_none() || self.rng.random_bool(0.4)).then(|| {
            let before = self.today.unwrap_or(Day(FIRST_DAY.0 + self.rng.random_range(300..900)));
            // Mostly onwards; backwards too, as a restored clock may go. Small steps are as likely as large ones.
            let reach = *[2, 10, 120].choose(&mut self.rng).unwrap();
            Day(before.0 + self.rng.random_range(0..reach + reach / 5) - reach / 5)
        });
        let changes = changes(&mut self.country, &mut self.rng, most);
        self.advance(ticks, changes);
        if self.rng.random_bool(0.3) {
            self.keep();
        } else if self.rng.random_bool(0.3) {
            self.restart();
        }
    }

    /// As a snapshot does.
    fn keep(&mut self) {
        let mut sums: BTreeMap<FineCell, Measure> = BTreeMap::new();
        let (records, cells) = self.dataflow.held().unwrap();
        for (cell, more) in cells.iter().flat_map(SharedMap::iter) {
            let sum = sums.entry(*cell).or_default();
            sum.numerator += more.numerator;
            sum.denominator += more.denominator;
        }
        sums.retain(|_, sum| !sum.is_empty());
        assert!(records.into_sorted().eq(self.records.clone()), "seed {}", self.seed);
        let today = self.today.unwrap();
        let basis = self.country.plan.basis();
        self.kept = Some(Kept { basis, today, sums, records: self.records.clone() });
    }

    /// Another program goes on from what was kept, and from what changed since.
    fn restart(&mut self) {
        let Some(Kept { basis, today, sums, records }) = &self.kept else { return };
        if *basis != self.country.plan.basis() {
            return; // the places are others now
        }
        let keys: BTreeSet<_> = records.keys().chain(self.records.keys()).collect();
        let is_changed = |key: &&RecordKey| records.get(key) != self.records.get(key);
        let is_named = |key: &&RecordKey| is_changed(key) || key.0.is_multiple_of(7); // changed to and fro
        let changed = keys.into_iter().filter(is_named);
        let summed = Summed {
            basis: *basis,
            today: *today,
            cells: sums.iter().map(|(cell, sum)| (*cell, *sum)).collect(),
            before: changed.map(|key| (*key, records.get(key).cloned())).collect(),
        };
        assert!(summed.cells.iter().all(|sum| self.country.plan.can_sum(sum)));
        let workers = self.rng.random_range(1..4);
        self.dataflow = Dataflow::start(Arc::clone(&self.country.plan), workers).unwrap();
        let records = self.records.clone().into_iter().collect();
        let changes = self.dataflow.resume(records, self.today.unwrap(), summed).unwrap();
        self.followed = Followed::default();
        self.follow(&changes);
    }

    /// Applies changes and compares everything.
    fn follow(&mut self, changes: &Changes) {
        self.followed.apply(&self.country, changes);
        let expected = recomputed(&self.country, self.today.unwrap(), &self.records);
        compare(&self.followed.tables.values, &expected.values, self.seed);
        compare(&self.followed.tables.rows, &expected.rows, self.seed);
    }

    /// Another tree is another plan, and everything is told anew.
    fn relocate(&mut self) {
        self.country.relocate(&mut self.rng);
        self.dataflow = Dataflow::start(Arc::clone(&self.country.plan), self.workers).unwrap();
        self.followed = Followed::default();
        let records = self.records.iter();
        let all = records.map(|(key, case)| RecordChange { key: *key, case: Some(case.clone()) });
        self.advance(self.today, all.collect());
    }

    /// Advances, compares everything, and tells how many cells changed.
    fn advance(&mut self, today: Option<Day>, changes: Vec<RecordChange>) -> usize {
        self.today = today.or(self.today);
        for RecordChange { key, case } in &changes {
            match case {
                Some(case) => self.records.insert(*key, case.clone()),
                None => self.records.remove(key),
            };
        }
        let changes = self.dataflow.advance(Input { changes, today }).unwrap();
        self.follow(&changes);
        changes.cells.len()
    }
}

/// Runs a history of `epoch_count` epochs and compares after each.
fn incremental_equals_recomputed(
    seed: u64,
    country: Country,
    workers: usize,
    epoch_count: usize,
    most: usize,
) {
    let mut history = History::new(seed, country, workers);
    for _ in 0..epoch_count {
        history.epoch(most);
    }
}

/// A country with a random pack; none when the pack is too large, which a pack may be.
fn random_country(seed: u64) -> Option<Country> {
    let pack = random_pack(seed);
    let definition = match Definition::read(vec![pack.text.clone()]) {
        Ok(definition) => Arc::new(definition),
        Err(error) => panic!("seed {seed}: {error}\n{}", pack.text.text),
    };
    match Country::with(definition, pack.instances) {
        Ok(country) => Some(country),
        Err(error) if error.to_string().contains("compiling the pack") => None,
        Err(error) => panic!("seed {seed}: {error}\n{}", pack.text.text),
    }
}

/// Fails with the first entry that differs.
fn compare<K, V>(ours: &BTreeMap<K, V>, expected: &BTreeMap<K, V>, seed: u64)
where
    K: Ord + std::fmt::Debug,
    V: PartialEq + std::fmt::Debug,
{
    if ours == expected {
        return;
    }
    for (key, value) in expected {
        assert_eq!(ours.get(key), Some(value), "seed {seed}, {key:?}");
    }
    for (key, value) in ours {
        assert!(expected.contains_key(key), "seed {seed}: surplus {key:?} = {value:?}");
    }
}

// 256 histories of the shipped packs, or as many as PROPTEST_CASES says; a failure prints the seed that repeats it.
proptest! {
    #[test]
    fn random_histories(seed in any::<u64>(), workers in 1_usize..4, epochs in 1_usize..8, most in 1_usize..16) {
        incremental_equals_recomputed(seed, Country::new(shipped_packs()), workers, epochs, most);
    }
}

// 256 histories of as many packs, or as many as PROPTEST_CASES says; a failure prints the seed that repeats it.
proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn random_histories_of_random_packs(
        seed in any::<u64>(), workers in 1_usize..4, epochs in 1_usize..8, most in 1_usize..24,
    ) {
        if let Some(country) = random_country(seed) {
            incremental_equals_recomputed(seed, country, workers, epochs, most);
        }
    }
}

#[test]
fn sums_hold_for_one_tree_of_places_only() {
    let mut country = Country::new(shipped_packs());
    let mut known = vec![country.plan.basis()];
    for (code, parent, level) in [("0102", "01", 3), ("0102", "02", 3), ("010203", "0102", 3)] {
        country.put_place(code, parent, level);
        let basis = country.plan.basis();
        assert!(!known.contains(&basis), "{code} below {parent}, level {level}");
        known.push(basis);
    }
    country.put_place("010203", "0102", 3);
    assert_eq!(country.plan.basis(), known[3], "nothing has changed");
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

#[test]
fn random_packs_say_everything_that_the_grammar_allows() {
    let (mut forms, mut too_large) = (BTreeSet::new(), 0);
    let count = 200;
    for seed in 0..count {
        match random_country(seed) {
            Some(_) => forms.extend(random_pack(seed).forms),
            None => too_large += 1,
        }
    }
    assert!(too_large * 20 < count, "{too_large} of {count} packs are too large");
    let missing: Vec<_> = FORMS.iter().filter(|form| !forms.contains(*form)).collect();
    assert!(missing.is_empty(), "never drawn: {missing:?}");
    let unknown: Vec<_> = forms.iter().filter(|form| !FORMS.contains(form)).collect();
    assert!(unknown.is_empty(), "not in the list: {unknown:?}");
}

/// Days of the simulated year.
const DAYS: u32 = 365;

/// Random packs whose figures are few enough to be recomputed every day.
const PACKS_OF_A_YEAR: [u64; 8] = [4, 8, 11, 14, 15, 17, 21, 22];

/// Cases of each of them.
const CASES_OF_A_YEAR: u128 = 30;

#[test]
fn a_year_of_days_passes_in_seconds() {
    let mut changed = 0;
    for seed in PACKS_OF_A_YEAR {
        let mut history = History::new(seed, random_country(seed).unwrap(), 2);
        let start = Day(FIRST_DAY.0 + 500);
        let cases: Vec<_> = (0..CASES_OF_A_YEAR)
            .map(|number| RecordChange {
                key: RecordKey(number << 100 | 1),
                case: Some(history.country.case(&mut history.rng)),
            })
            .collect();
        history.advance(Some(start), cases);
        for day in 1..=DAYS {
            changed += history.advance(Some(Day(start.0 + day)), Vec::new());
        }
    }
    assert!(changed > 1_000, "the clock changed only {changed} cells");
}
