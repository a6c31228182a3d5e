//! What each indicator of the core pack costs, alone: its load through the dataflow, and what one tick of a day costs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tonle::dataflow::{Dataflow, Input};
use tonle::indicator::Plan;
use tonle::model::{Day, Dictionary, LocationTree, RecordChange};

use crate::row;
use crate::steady::Editor;
use crate::world::World;

/// Prints a line for each indicator and one for each kind.
pub(crate) fn measure(world: &World) {
    let config = world.config();
    let restored = Editor::new(world).restored;
    let mut dictionary: Dictionary = restored.dictionary.clone();
    let mut tree = LocationTree::default();
    restored.locations.values().for_each(|places| tree.extend(places.iter().cloned()));
    let records = restored.records.iter().cloned();
    let changes: Vec<_> =
        records.map(|(key, case)| RecordChange { key, case: Some(case) }).collect();
    let today = restored.today.expect("the first load has a tick");
    let mut kinds: BTreeMap<String, (usize, f64, usize)> = BTreeMap::new();
    let codes = [None].into_iter().chain(config.definition.indicators.keys().map(Some));
    for code in codes {
        let mut definition = (*config.definition).clone();
        definition.indicators.retain(|known, _| Some(known) == code);
        definition.extracts.clear();
        let instances = config.instance_definitions();
        let plan = Plan::compile(Arc::new(definition), &instances, &tree, &mut dictionary);
        let plan = Arc::new(plan.expect("it compiled before"));
        let indicator = plan.catalog().indicators.first();
        let kind = indicator.map_or("nothing".to_owned(), |i| format!("{}, {}", i.kind, i.unit));
        let mut dataflow = Dataflow::start(plan, world.workers).expect("threads can be started");
        let begun = Instant::now();
        let input = Input { changes: changes.clone(), today: Some(today) };
        let cells = dataflow.advance(input).expect("it runs").cells.len();
        let seconds = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let input = Input { changes: Vec::new(), today: Some(Day(today.0 + 1)) };
        let moved = dataflow.advance(input).expect("it runs").cells.len();
        let tick = begun.elapsed().as_secs_f64() * 1e3;
        let name = code.map_or("records alone", String::as_str);
        row(
            &format!("  {name} ({kind})"),
            &format!("{seconds:.2} s, {cells} cells; a day later {tick:.0} ms, {moved} cells"),
            "",
        );
        let sum = kinds.entry(kind).or_default();
        *sum = (sum.0 + 1, sum.1 + seconds, sum.2 + cells);
    }
    for (kind, (count, seconds, cells)) in kinds {
        row(&format!("{kind}: {count}"), &format!("{seconds:.2} s, {cells} cells"), "");
    }
}
