//! The upsert operator: a new version of a record becomes its old and its new version.

use std::cell::{Cell as Counter, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use crate::dataflow::graph::Time;
use crate::indicator::Plan;
use crate::model::{Case, Code, Day, RecordKey, SharedMap, Tally};

/// What enters the graph. Of one epoch a tick comes first.
#[derive(Clone, Debug)]
pub(super) enum Delta {
    /// Today is this day from now on.
    Tick(Day),
    /// The record has this content now, or is gone.
    Record(RecordKey, Option<Case>),
}

/// A case as of a day: what it contributes depends on nothing else.
pub(super) type Dated = (Case, Day);

/// What a record was and what it is.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) key: RecordKey,
    pub(super) old: Option<Dated>,
    pub(super) new: Option<Dated>,
    /// As what it was summed up before the program started, while it is put back.
    pub(super) summed: Option<Dated>,
}

impl Version {
    /// What of the record is in the sums.
    pub(super) fn before(&self) -> Option<&Dated> {
        self.summed.as_ref().or(self.old.as_ref())
    }
}

/// What was summed up of the records that are put back: each as it is now, but for some.
pub(super) struct Before {
    pub(super) today: Day,
    pub(super) records: HashMap<RecordKey, Option<Case>, foldhash::fast::FixedState>,
}

impl Before {
    fn of(&mut self, key: RecordKey, now: Option<&Case>) -> Option<Dated> {
        let before = self.records.remove(&key).unwrap_or_else(|| now.cloned());
        before.map(|case| (case, self.today))
    }
}

/// The records of one worker.
#[derive(Default)]
pub(super) struct Records {
    map: RefCell<SharedMap<RecordKey, Case>>,
    before: RefCell<Option<Before>>,
    tally: Counter<Tally>,
    held: RefCell<BTreeMap<Code, i64>>,
}

impl Records {
    /// All records.
    pub(super) fn all(&self) -> SharedMap<RecordKey, Case> {
        self.map.borrow().clone()
    }

    /// The next records are put back: this is what was summed up of them.
    pub(super) fn put(&self, before: Before) {
        *self.before.borrow_mut() = Some(before);
    }

    /// All of them are.
    pub(super) fn put_ended(&self) {
        self.before.take();
    }

    /// What happened since it was last asked.
    pub(super) fn take_tally(&self) -> Tally {
        self.tally.take()
    }

    /// By how much the number of records grew since it was last asked.
    pub(super) fn take_held(&self) -> BTreeMap<Code, i64> {
        self.held.take()
    }

    fn count(&self, old: Option<&Case>, new: Option<&Case>, is_disabled: impl Fn(&Case) -> bool) {
        let mut tally = self.tally.get();
        match (old, new) {
            (None, None) => {}
            (None, Some(_)) => tally.added += 1,
            (Some(_), None) => tally.disabled += 1,
            (Some(old), Some(new)) if old == new => tally.unchanged += 1,
            (Some(old), Some(new)) if is_disabled(new) && !is_disabled(old) => tally.disabled += 1,
            (Some(_), Some(_)) => tally.corrected += 1,
        }
        self.tally.set(tally);
        let (before, after) = (old.map(Case::instance), new.map(Case::instance));
        if before != after {
            let mut held = self.held.borrow_mut();
            before.into_iter().for_each(|instance| *held.entry(instance).or_default() -= 1);
            after.into_iter().for_each(|instance| *held.entry(instance).or_default() += 1);
        }
    }
}

/// Old and new version of every record that a delta changes. A tick changes those records that contribute
/// something else on the new day. Equal versions emit nothing.
pub(super) fn versions<'scope>(
    deltas: Stream<'scope, Time, Vec<Delta>>,
    plan: &Arc<Plan>,
    records: &Rc<Records>,
) -> Stream<'scope, Time, Vec<Version>> {
    let (plan, records) = (Arc::clone(plan), Rc::clone(records));
    deltas.unary::<CapacityContainerBuilder<Vec<Version>>, _, _, _>(Pipeline, "Versions", |_, _| {
        let mut today: Option<Day> = None;
        move |input, output| {
            input.for_each(|capability, deltas| {
                let mut session = output.session(&capability);
                let mut map = records.map.borrow_mut();
                let mut before = records.before.borrow_mut();
                for delta in deltas.drain(..) {
                    match delta {
                        Delta::Tick(day) => {
                            let before = today.replace(day);
                            let Some(before) = before.filter(|before| *before != day) else {
                                continue;
                            };
                            for (key, case) in map.iter() {
                                let (from, to) = (before.min(day), before.max(day));
                                if !plan.sleeps_through(case, from, to) {
                                    let old = Some((case.clone(), before));
                                    let new = Some((case.clone(), day));
                                    session.give(Version { key: *key, old, new, summed: None });
                                }
                            }
                        }
                        Delta::Record(key, case) => {
                            let today = today.expect("the first epoch has a tick");
                            let old = match &case {
                                Some(case) => map.insert(key, case.clone()),
                                None => map.remove(&key),
                            };
                            records.count(old.as_ref(), case.as_ref(), |c| plan.is_disabled(c));
                            let summed =
                                before.as_mut().and_then(|before| before.of(key, case.as_ref()));
                            if old != case || summed.is_some() {
                                let dated = |case: Case| (case, today);
                                let (old, new) = (old.map(dated), case.map(dated));
                                session.give(Version { key, old, new, summed });
                            }
                        }
                    }
                }
            });
        }
    })
}
