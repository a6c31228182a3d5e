//! Faults to order: what the next requests to a path get instead of an answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::generator::Dice;

/// Rules waiting at most; more are refused by forgetting the oldest.
const RULES_MAX: usize = 10_000;

/// A way to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 500 with the usual error body.
    Broken,
    /// 429 with a text body; the shipped server sends no `Retry-After`, a gateway in front may.
    TooManyRequests {
        /// Seconds for the `Retry-After` header.
        retry_after_s: Option<u32>,
    },
    /// 503; with `Retry-After` it is the configuration lock, without one it is the proxy.
    Unavailable {
        /// Seconds for the `Retry-After` header.
        retry_after_s: Option<u32>,
    },
    /// Nothing is sent for this long, then the connection is closed.
    Hang(Duration),
    /// The right answer, of which only half is sent before the connection is closed.
    CutBody,
    /// The right answer in pieces, with this pause before each.
    SlowBody(Duration),
    /// 200 with a text that is not JSON.
    NotJson,
    /// 200 with JSON of another shape: `data` is an object of its own.
    OddShape,
    /// 200, `data: []`, `total: 0`: an error nobody sees.
    FalseEmpty,
    /// 401, as after a change of password.
    Unauthorized,
}

struct Rule {
    path_prefix: String,
    skip: u64,
    left: u64,
    fault: Fault,
}

struct Rate {
    path_prefix: String,
    per_mille: u64,
    fault: Fault,
    dice: Dice,
}

#[derive(Default)]
struct Plan {
    rules: Vec<Rule>,
    rates: Vec<Rate>,
}

/// Sets faults while the server runs. Copies of it set the same faults.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

impl Faults {
    /// The next `count` requests whose path begins with `path_prefix` get `fault`.
    pub fn next(&self, path_prefix: &str, count: u64, fault: Fault) {
        self.after(path_prefix, 0, count, fault);
    }

    /// The same, but `skip` such requests are answered properly first. Rules are served in the
    /// order they were set: a request counts for the first rule that fits and is not used up.
    pub fn after(&self, path_prefix: &str, skip: u64, count: u64, fault: Fault) {
        let path_prefix = path_prefix.to_owned();
        let mut plan = self.plan();
        if plan.rules.len() >= RULES_MAX {
            plan.rules.remove(0);
        }
        plan.rules.push(Rule { path_prefix, skip, left: count, fault });
    }

    /// From now on each request to `path_prefix` gets `fault` so many times in a thousand,
    /// decided by `seed` and the order of requests alone.
    pub fn at_rate(&self, path_prefix: &str, per_mille: u32, fault: Fault, seed: u64) {
        let path_prefix = path_prefix.to_owned();
        let rate =
            Rate { path_prefix, per_mille: u64::from(per_mille), fault, dice: Dice::new(seed) };
        self.plan().rates.push(rate);
    }

    /// Forgets all faults.
    pub fn clear(&self) {
        *self.plan() = Plan::default();
    }

    /// How many ordered faults have not been served yet.
    pub fn waiting(&self) -> u64 {
        self.plan().rules.iter().map(|rule| rule.left).sum()
    }

    /// The fault of a request to `path`, if it gets one.
    pub(super) fn take(&self, path: &str) -> Option<Fault> {
        let mut plan = self.plan();
        plan.rules.retain(|rule| rule.left > 0);
        if let Some(rule) = plan.rules.iter_mut().find(|rule| path.starts_with(&rule.path_prefix)) {
            if rule.skip > 0 {
                rule.skip -= 1;
                return None;
            }
            rule.left -= 1;
            return Some(rule.fault.clone());
        }
        let mut fault = None;
        for rate in plan.rates.iter_mut().filter(|rate| path.starts_with(&rate.path_prefix)) {
            if rate.dice.per_mille(rate.per_mille) {
                fault.get_or_insert(rate.fault.clone());
            }
        }
        fault
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordered_faults_are_served_in_order_to_their_path_only() {
        let faults = Faults::default();
        faults.after("/api/v2/cases", 1, 2, Fault::Broken);
        faults.next("/api/v2/cases", 1, Fault::NotJson);
        assert_eq!(faults.take("/health/api"), None);
        let served: Vec<_> = (0..5).map(|_| faults.take("/api/v2/cases")).collect();
        let broken = Some(Fault::Broken);
        assert_eq!(served, [None, broken.clone(), broken, Some(Fault::NotJson), None]);
        assert_eq!(faults.waiting(), 0);
    }

    #[test]
    fn a_rate_depends_on_its_seed() {
        let serve = |seed| {
            let faults = Faults::default();
            faults.at_rate("/api", 300, Fault::Broken, seed);
            (0..200).map(|_| faults.take("/api/v2/cases").is_some()).collect::<Vec<_>>()
        };
        assert_eq!(serve(1), serve(1));
        assert_ne!(serve(1), serve(2));
        assert!((30..90).contains(&serve(1).iter().filter(|hit| **hit).count()));
    }
}
