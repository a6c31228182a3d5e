//! Small draws.

use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

pub(super) fn chance(rng: &mut ChaCha8Rng, of: f64) -> bool {
    rng.random_bool(of)
}

pub(super) fn one<'a, T>(rng: &mut ChaCha8Rng, from: &'a [T]) -> &'a T {
    from.choose(rng).unwrap()
}

/// Some of these in their order, at least so many.
pub(super) fn some_of<'a>(rng: &mut ChaCha8Rng, from: &[&'a str], at_least: usize) -> Vec<&'a str> {
    let mut kept: Vec<_> = from.iter().copied().filter(|_| rng.random_bool(0.7)).collect();
    for item in from {
        if kept.len() >= at_least.min(from.len()) {
            break;
        }
        if !kept.contains(item) {
            kept.push(item);
        }
    }
    kept
}

/// As a list of strings.
pub(super) fn quoted(ids: &[&str]) -> String {
    format!("{ids:?}")
}
