//! Which tables of an indicator share a family.
//!
//! A case contributes once to each family, and each finest cell of a family is added up into all its tables. One
//! family for everything is few contributions, but when its finest cells are so fine that hardly two cases share one,
//! every case is added up into every table by itself. So tables share a family as long as its cells stay few.

use std::collections::BTreeSet;

use crate::indicator::Plan;
use crate::indicator::dimension::OriginPlan;
use crate::model::{DIMENSION_BITS, Slot};

/// Most finest cells for each period and instance of a family that several tables share. Measured: see
/// `benches/README.md`.
const SHARED_CELLS_MAX: u64 = 4_096;

/// Tables with the dimensions of their finest cells.
pub(super) type Cluster = (BTreeSet<usize>, Vec<Vec<usize>>);

/// Distributes tables: the finest first, each to where it adds the fewest cells.
pub(super) fn clusters(plan: &Plan, mut tables: Vec<Vec<usize>>) -> Vec<Cluster> {
    tables.sort_by_cached_key(|table| std::cmp::Reverse(cells(plan, &set_of(table))));
    let mut clusters: Vec<Cluster> = Vec::new();
    for table in tables {
        let own = set_of(&table);
        let joined = |cluster: &Cluster| -> BTreeSet<usize> { &cluster.0 | &own };
        let more = |cluster: &Cluster| {
            cells(plan, &joined(cluster)).saturating_sub(cells(plan, &cluster.0))
        };
        let fits = |cluster: &Cluster| {
            let union = joined(cluster);
            let is_small = cells(plan, &union) <= SHARED_CELLS_MAX;
            union == cluster.0 || is_small && bits(plan, &union) <= DIMENSION_BITS
        };
        match clusters
            .iter_mut()
            .filter(|cluster| fits(cluster))
            .min_by_key(|cluster| more(cluster))
        {
            Some(cluster) => {
                cluster.0.extend(own);
                cluster.1.push(table);
            }
            None => clusters.push((own, vec![table])),
        }
    }
    clusters
}

fn set_of(table: &[usize]) -> BTreeSet<usize> {
    table.iter().copied().collect()
}

/// How many cells these dimensions can have together. A place decides the places that it is part of, so of several
/// dimensions from one location only the finest counts.
fn cells(plan: &Plan, dimensions: &BTreeSet<usize>) -> u64 {
    let mut product = 1_u64;
    let mut places: Vec<(Slot, u64)> = Vec::new();
    for index in dimensions {
        let dimension = &plan.dimensions[*index];
        let span = u64::from(dimension.span);
        match dimension.origin {
            OriginPlan::Slot(slot) if dimension.is_location() => {
                match places.iter_mut().find(|(known, _)| *known == slot) {
                    Some((_, known)) => *known = span.max(*known),
                    None => places.push((slot, span)),
                }
            }
            OriginPlan::Caseload => {}
            _ => product = product.saturating_mul(span),
        }
    }
    places.iter().fold(product, |product, (_, span)| product.saturating_mul(*span))
}

/// Bits that these dimensions take together.
pub(super) fn bits(plan: &Plan, dimensions: &BTreeSet<usize>) -> u32 {
    dimensions.iter().map(|index| plan.dimensions[*index].bits()).sum()
}
