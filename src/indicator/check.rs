//! Conditions compiled to word comparisons.

use crate::indicator::Plan;
use crate::indicator::plan::{Compiler, slot_of};
use crate::indicator::value::{Source, Subject};
use crate::indicator::{Condition, HasRow, Path, Test};
use crate::model::{Case, CaseBuilder, Day, Domain, FieldType, Slot};

/// One condition on a case, its row and the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// On a single word.
    Word(Source, Compiled),
    /// On a set of the case.
    Set(u16, Compiled),
    /// On the value with this index.
    Value(usize, Compiled),
    /// At least one group holds as a whole.
    Any(Vec<Vec<Check>>),
    /// Some row of the subform holds, its date so many days from the event.
    Has { subform: usize, rows: Vec<Check>, date: Option<u16>, within: (i32, i32) },
}

/// A test, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Compiled {
    Any(Vec<u32>),
    None(Vec<u32>),
    /// By the index of the stream the case came from.
    AnyAt(Vec<Vec<u32>>),
    NoneAt(Vec<Vec<u32>>),
    /// Whether something is recorded that is not among these.
    Unmapped(Vec<u32>, bool),
    Range(i32, i32),
    Within(i32, i32),
    Present(bool),
}

impl Compiler<'_> {
    /// Compiles conditions on a case, or on the rows of `subform`. Option ids get their codes here, so they are
    /// interned even when no record holds them yet.
    pub(super) fn checks(&mut self, subform: Option<&str>, conditions: &[Condition]) -> Vec<Check> {
        conditions.iter().map(|condition| self.check(subform, condition)).collect()
    }

    fn check(&mut self, subform: Option<&str>, condition: &Condition) -> Check {
        match condition {
            Condition::Field(field, test) => {
                let path = Path { subform: subform.map(str::to_owned), field: field.clone() };
                let test = self.test(&path, test);
                match slot_of(self.schema, &path) {
                    Slot::Set(set) => Check::Set(set, test),
                    Slot::Word(_) => Check::Word(Source::of(self.schema, &path), test),
                }
            }
            Condition::Value(name, test) => {
                let index = self.value(name);
                Check::Value(index, number_test(test))
            }
            Condition::Any(groups) => {
                Check::Any(groups.iter().map(|group| self.checks(None, group)).collect())
            }
            Condition::Has(HasRow { subform, tests, date, within }) => Check::Has {
                subform: self.schema.subform(subform).expect("the resolver checked the names"),
                rows: self.checks(Some(subform), tests),
                date: date.as_ref().map(|date| {
                    let path = Path { subform: Some(subform.clone()), field: date.clone() };
                    match Source::of(self.schema, &path) {
                        Source::Row(word) | Source::Case(word) => word,
                    }
                }),
                within: *within,
            },
        }
    }

    fn test(&mut self, path: &Path, test: &Test) -> Compiled {
        let (domain, values) = {
            let field = self.definition.field_of(path);
            let is_agency = field.field_type == FieldType::Agency;
            (if is_agency { Domain::Agency } else { Domain::Option }, field.values.clone())
        };
        match test {
            Test::Is(value) => Compiled::Any(vec![CaseBuilder::boolean(*value)]),
            Test::IsNot(value) => Compiled::None(vec![CaseBuilder::boolean(*value)]),
            Test::Any(ids) => Compiled::Any(self.codes(domain, ids)),
            Test::None(ids) => Compiled::None(self.codes(domain, ids)),
            Test::Concepts(names) => Compiled::AnyAt(self.concepts(names)),
            Test::NotConcepts(names) => Compiled::NoneAt(self.concepts(names)),
            Test::Unmapped(is_unmapped) => {
                Compiled::Unmapped(self.codes(domain, &values), *is_unmapped)
            }
            test => number_test(test),
        }
    }
}

fn number_test(test: &Test) -> Compiled {
    match test {
        Test::Range(from, to) => Compiled::Range(*from, *to),
        Test::Within(from, to) => Compiled::Within(*from, *to),
        Test::Present(present) => Compiled::Present(*present),
        _ => unreachable!("the resolver allows no other test of a number"),
    }
}

impl Plan {
    /// Whether all conditions hold. `stream` is the index of the stream the case came from.
    pub(super) fn hold(&self, checks: &[Check], subject: &Subject<'_>, stream: usize) -> bool {
        checks.iter().all(|check| self.holds(check, subject, stream))
    }

    /// The same of shared conditions on the case, each looked at once for a case, however many parts ask for it.
    pub(super) fn hold_shared(
        &self,
        checks: &[usize],
        subject: &Subject<'_>,
        stream: usize,
        known: &mut [Option<bool>],
    ) -> bool {
        checks.iter().all(|index| {
            let check = &self.checks[*index];
            *known[*index].get_or_insert_with(|| self.holds(check, subject, stream))
        })
    }

    fn holds(&self, check: &Check, subject: &Subject<'_>, stream: usize) -> bool {
        match check {
            Check::Word(source, test) => test.word(subject.word(*source), subject.event, stream),
            Check::Set(set, test) => {
                test.set(subject.case.set(&self.schema, *set), subject.event, stream)
            }
            Check::Value(index, test) => {
                let value = self.values[*index].value(subject, &self.schema);
                match test {
                    Compiled::Range(from, to) => value.is_some_and(|v| (*from..=*to).contains(&v)),
                    Compiled::Present(present) => value.is_some() == *present,
                    _ => false,
                }
            }
            Check::Any(groups) => groups.iter().any(|group| self.hold(group, subject, stream)),
            Check::Has { subform, rows, date, within } => {
                subject.case.rows(&self.schema, *subform).any(|row| {
                    let near = date.is_none_or(|date| {
                        let day = Case::day(row[usize::from(date)]);
                        day.is_some_and(|day| is_within(day, subject.event, *within))
                    });
                    near && self.hold(rows, &Subject { row: Some(row), ..*subject }, stream)
                })
            }
        }
    }

    /// Whether the outcome depends on the event.
    pub(super) fn needs_event(&self, checks: &[Check]) -> bool {
        checks.iter().any(|check| match check {
            Check::Word(_, test) | Check::Set(_, test) => matches!(test, Compiled::Within(..)),
            Check::Value(index, _) => self.values[*index].needs_event(),
            Check::Any(groups) => groups.iter().any(|group| self.needs_event(group)),
            Check::Has { rows, date, within, .. } => {
                date.is_some() && *within != (i32::MIN, i32::MAX) || self.needs_event(rows)
            }
        })
    }
}

/// Whether `day` is so many days after `event`.
fn is_within(day: Day, event: Day, (from, to): (i32, i32)) -> bool {
    (from..=to).contains(&(day.0 as i32 - event.0 as i32))
}

impl Compiled {
    fn word(&self, word: u32, event: Day, stream: usize) -> bool {
        match self {
            Self::Any(codes) => codes.contains(&word),
            Self::None(codes) => !codes.contains(&word),
            Self::AnyAt(codes) => codes[stream].contains(&word),
            Self::NoneAt(codes) => !codes[stream].contains(&word),
            Self::Unmapped(listed, wanted) => (word != 0 && !listed.contains(&word)) == *wanted,
            Self::Range(from, to) => {
                Case::integer(word).is_some_and(|value| (*from..=*to).contains(&value))
            }
            Self::Within(from, to) => {
                Case::day(word).is_some_and(|day| is_within(day, event, (*from, *to)))
            }
            Self::Present(present) => (word != 0) == *present,
        }
    }

    fn set(&self, set: &[u32], event: Day, stream: usize) -> bool {
        let among = |codes: &[u32]| set.iter().any(|code| codes.contains(code));
        match self {
            Self::Any(codes) => among(codes),
            Self::None(codes) => !among(codes),
            Self::AnyAt(codes) => among(&codes[stream]),
            Self::NoneAt(codes) => !among(&codes[stream]),
            Self::Unmapped(listed, wanted) => {
                set.iter().any(|code| !listed.contains(code)) == *wanted
            }
            Self::Within(..) => set.iter().any(|word| self.word(*word, event, stream)),
            Self::Present(present) => set.is_empty() != *present,
            Self::Range(..) => false,
        }
    }
}
