//! Whether conditions hold, and what computed values are.

use crate::dataflow::oracle::view::{Row, View, of_case, of_row};
use crate::indicator::{Condition, Path, Test, ValueDefinition, When};
use crate::model::Day;

/// Months of a year.
const YEAR_MONTHS: i32 = 12;

impl View<'_> {
    /// Whether all conditions hold for the case, or for this row of `subform`, on the day of the event.
    pub(super) fn all_hold(
        &self,
        conditions: &[Condition],
        subform: Option<&str>,
        row: Row<'_>,
        event: Day,
    ) -> bool {
        conditions.iter().all(|condition| self.holds(condition, subform, row, event))
    }

    fn holds(
        &self,
        condition: &Condition,
        subform: Option<&str>,
        row: Row<'_>,
        event: Day,
    ) -> bool {
        match condition {
            Condition::Field(field, test) => {
                let path = Path { subform: subform.map(str::to_owned), field: field.clone() };
                self.passes(&path, row, test, event)
            }
            Condition::Value(name, test) => {
                let value = self.value(name, row, event);
                match test {
                    Test::Range(from, to) => value.is_some_and(|v| *from <= v && v <= *to),
                    Test::Present(wanted) => value.is_some() == *wanted,
                    _ => false,
                }
            }
            Condition::Any(groups) => {
                groups.iter().any(|group| self.all_hold(group, subform, row, event))
            }
            Condition::Has(has) => self.rows_of(&has.subform).into_iter().any(|row| {
                let near = match &has.date {
                    None => true,
                    Some(date) => self
                        .day(&of_row(&has.subform, date), Some(row))
                        .is_some_and(|day| is_within(day, event, has.within)),
                };
                near && self.all_hold(&has.tests, Some(&has.subform), Some(row), event)
            }),
        }
    }

    fn passes(&self, path: &Path, row: Row<'_>, test: &Test, event: Day) -> bool {
        let among =
            |wanted: &dyn Fn(&str) -> bool| self.ids(path, row).into_iter().flatten().any(wanted);
        let in_concepts =
            |names: &[String]| among(&|id| names.iter().any(|name| self.is_in_concept(id, name)));
        match test {
            Test::Is(wanted) => self.boolean(path, row) == Some(*wanted),
            Test::IsNot(wanted) => self.boolean(path, row) != Some(*wanted),
            Test::Any(ids) => among(&|id| ids.iter().any(|known| known == id)),
            Test::None(ids) => !among(&|id| ids.iter().any(|known| known == id)),
            Test::Concepts(names) => in_concepts(names),
            Test::NotConcepts(names) => !in_concepts(names),
            Test::Unmapped(wanted) => {
                let values = &self.field(path).values;
                let listed = |id: Option<&str>| id.is_some_and(|id| values.iter().any(|v| v == id));
                self.ids(path, row).into_iter().any(|id| !listed(id)) == *wanted
            }
            Test::Range(from, to) => {
                self.integer(path, row).is_some_and(|value| *from <= value && value <= *to)
            }
            Test::Within(from, to) => {
                self.days(path, row).into_iter().any(|day| is_within(day, event, (*from, *to)))
            }
            Test::Present(wanted) => self.words(path, row).is_empty() != *wanted,
        }
    }

    /// Whether an option id is one of a concept at the instance of this case.
    pub(super) fn is_in_concept(&self, id: &str, name: &str) -> bool {
        let ids = self.world.definition.concept_ids(name, self.instance);
        ids.iter().any(|known| known == id)
    }

    /// A computed value; none where something it is made from is not recorded.
    pub(super) fn value(&self, name: &str, row: Row<'_>, event: Day) -> Option<i32> {
        let when = |when: &When| match when {
            When::Event => Some(event),
            When::Field(path) => self.day(path, row),
        };
        match &self.world.definition.values[name] {
            ValueDefinition::Days { from, to } => {
                let (from, to) = (self.day(from, row)?, when(to)?);
                Some(days_between(from, to))
            }
            ValueDefinition::Conflict => {
                Some(i32::from(self.life().is_some_and(|life| life.is_in_conflict())))
            }
            ValueDefinition::Age { born, on, otherwise, recorded_on } => {
                let on = months(when(on)?);
                if let Some(word) = self.words(&of_case(born), None).pop() {
                    let born = i32::try_from(word).ok()? - 1;
                    return Some((on - born).div_euclid(YEAR_MONTHS));
                }
                let recorded = self.integer(&of_case(otherwise.as_ref()?), None)?;
                let since = recorded_on.as_ref().and_then(|date| self.day(&of_case(date), None));
                let years = since.map_or(0, |since| (on - months(since)).div_euclid(YEAR_MONTHS));
                Some(recorded + years)
            }
        }
    }
}

/// Months since January 1900.
fn months(day: Day) -> i32 {
    let date = day.date();
    (i32::from(date.year()) - 1900) * YEAR_MONTHS + i32::from(date.month()) - 1
}

fn days_between(from: Day, to: Day) -> i32 {
    to.0 as i32 - from.0 as i32
}

/// Whether `day` is so many days after the event.
fn is_within(day: Day, event: Day, (from, to): (i32, i32)) -> bool {
    let days = days_between(event, day);
    from <= days && days <= to
}
