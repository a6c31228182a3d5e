//! A definition in plain English: what is counted, when, and each condition as a sentence, held or not held.
//!
//! For people who ask why a figure is what it is; nothing is decided by these words.

use crate::indicator::{
    Condition, Count, Definition, HasRow, IndicatorDefinition, Part, Placed, Role, Summary, Test,
    ValueDefinition, When,
};

/// Days back that a window without a beginning has, and likewise ahead: see [`Test::Within`].
const OPEN_ENDS: (i32, i32) = (i32::MIN, i32::MAX);

impl Definition {
    /// Everything that decides the figures of an indicator, line by line; none for a code that is not declared.
    pub fn in_words(&self, code: &str) -> Option<Vec<String>> {
        let indicator = self.indicators.get(code)?;
        let mut lines = Vec::new();
        if let Some(summary) = &indicator.summary {
            lines.push(format!("shows     {}", self.summary(summary)));
        }
        if let Some(name) = &indicator.share_over {
            lines.push(format!("shows     the share of each value of {name} in all of them"));
        }
        if indicator.is_union {
            lines.push("each case once in a cell, whichever of these it fulfils:".to_owned());
        }
        for (index, part) in indicator.parts.iter().enumerate() {
            if let Some(heading) = indicator.heading(index) {
                lines.push(heading);
            }
            lines.extend(self.part(part));
        }
        Some(lines)
    }

    fn part(&self, part: &Part) -> Vec<String> {
        let mut lines = vec![
            format!("counts    {}", count(&part.count)),
            format!("placed    {}", placed(&part.placed)),
        ];
        let mut list = |title: &str, conditions: Vec<String>| {
            for (index, condition) in conditions.into_iter().enumerate() {
                let title = if index == 0 { title } else { "" };
                lines.push(format!("{title:<9} {condition}"));
            }
        };
        list("only if", part.filter.iter().map(|c| self.condition(c)).collect());
        if let Some(latest) = &part.latest {
            let row = format!("of the row of {} with the latest {}", latest.subform, latest.by);
            list("reads", vec![format!("{row} up to then")]);
        }
        list("its row", part.rows.iter().map(|c| self.condition(c)).collect());
        if let Some(conditions) = &part.follows {
            let mut said = vec!["exists".to_owned()];
            said.extend(conditions.iter().map(|c| self.condition(c)));
            list("row before", said);
        }
        if let Some(numerator) = &part.numerator {
            let all = numerator.filter.iter().chain(&numerator.rows);
            list("numerator", all.map(|c| self.condition(c)).collect());
        }
        list("as", part.set.iter().map(|(name, value)| format!("{name} {value}")).collect());
        lines
    }

    fn summary(&self, summary: &Summary) -> String {
        match summary {
            Summary::Mean(value) => format!("the mean of {}", self.value(value)),
            Summary::Median(value) => format!("the median of {}", self.value(value)),
            Summary::Workers(_) => "how many case workers they have".to_owned(),
            Summary::CasesPerWorker(_) => "their number for each case worker".to_owned(),
        }
    }

    /// A computed value as it is made.
    fn value(&self, name: &str) -> String {
        let when = |when: &When| match when {
            When::Event => "the day that places the count".to_owned(),
            When::Field(path) => path.to_string(),
        };
        match self.values.get(name) {
            Some(ValueDefinition::Age { on, .. }) => {
                format!("{name} (years of age on {})", when(on))
            }
            Some(ValueDefinition::Days { from, to }) => {
                format!("{name} (days from {from} to {})", when(to))
            }
            Some(ValueDefinition::Conflict) => {
                format!("{name} (1 where dates and status disagree)")
            }
            None => name.to_owned(),
        }
    }

    /// A condition that holds.
    pub fn condition(&self, condition: &Condition) -> String {
        self.said(condition, true)
    }

    /// A condition that does not hold.
    pub fn failed(&self, condition: &Condition) -> String {
        self.said(condition, false)
    }

    fn said(&self, condition: &Condition, holds: bool) -> String {
        let all = |conditions: &[Condition]| {
            let said: Vec<_> = conditions.iter().map(|c| self.condition(c)).collect();
            if said.is_empty() { "anything".to_owned() } else { said.join(" and ") }
        };
        match condition {
            Condition::Field(field, test) => format!("{field} {}", tested(test, holds)),
            Condition::Value(name, test) => {
                let name = if holds { self.value(name) } else { name.clone() };
                format!("{name} {}", tested(test, holds))
            }
            Condition::Any(groups) => {
                let said: Vec<_> = groups.iter().map(|group| all(group)).collect();
                let head = if holds { "at least one" } else { "none" };
                format!("{head} of: {}", said.join("; "))
            }
            Condition::Has(has) => {
                let head = if holds { "has a row" } else { "has no row" };
                format!("{head} of {} with {}{}", has.subform, all(&has.tests), near(has))
            }
        }
    }
}

impl IndicatorDefinition {
    /// What stands above one of several parts.
    pub fn heading(&self, index: usize) -> Option<String> {
        match self.parts.get(index)?.role {
            Role::Numerator => Some("numerator:".to_owned()),
            Role::Denominator => Some("denominator:".to_owned()),
            Role::Counted if self.parts.len() > 1 => Some(format!("alternative {}:", index + 1)),
            Role::Counted => None,
        }
    }
}

fn count(count: &Count) -> String {
    match count {
        Count::Cases => "cases".to_owned(),
        Count::Rows(name) => format!("rows of {name}"),
        Count::CasesWith(name) => format!("cases with a row of {name}, each once in a cell"),
    }
}

fn placed(placed: &Placed) -> String {
    match placed {
        Placed::Flow(date) => format!("in the period of {date}"),
        Placed::Cohort { date, mature_after } => {
            format!("in the period of {date}, once {mature_after} days have passed since")
        }
        Placed::Presence => "in each period in which the case was open on some day".to_owned(),
        Placed::Stock => "in each period at whose end (or today) the case was open".to_owned(),
        Placed::Now => "as of today".to_owned(),
    }
}

fn near(has: &HasRow) -> String {
    match &has.date {
        Some(date) => {
            format!(" and {date} {}", tested(&Test::Within(has.within.0, has.within.1), true))
        }
        None => String::new(),
    }
}

/// What follows the name of the field.
fn tested(test: &Test, holds: bool) -> String {
    let be = if holds { "is" } else { "is not" };
    let list = |ids: &[String]| match ids {
        [single] => single.clone(),
        several => format!("one of {}", several.join(", ")),
    };
    match (test, holds) {
        (Test::Is(value), _) => format!("{be} {value}"),
        (Test::IsNot(value), true) => format!("is not {value}"),
        (Test::IsNot(value), false) => format!("is {value}"),
        (Test::Any(ids), _) => format!("{be} {}", list(ids)),
        (Test::None(ids), true) => format!("is not {}", list(ids)),
        (Test::None(ids), false) => format!("is {}", list(ids)),
        (Test::Concepts(names), _) => format!("{be} {} (concept)", list(names)),
        (Test::NotConcepts(names), true) => format!("is not {} (concept)", list(names)),
        (Test::NotConcepts(names), false) => format!("is {} (concept)", list(names)),
        (Test::Unmapped(wanted), holds) if *wanted == holds => {
            "has a value that the packs do not list".to_owned()
        }
        (Test::Unmapped(_), _) => "has no value beside those that the packs list".to_owned(),
        (Test::Range(from, to), _) => format!("{be} {}", range(*from, *to)),
        (Test::Within(from, to), _) => format!("{be} {}", window(*from, *to)),
        (Test::Present(wanted), holds) if *wanted == holds => "is recorded".to_owned(),
        (Test::Present(_), _) => "is not recorded".to_owned(),
    }
}

fn range(from: i32, to: i32) -> String {
    match (from, to) {
        OPEN_ENDS => "any number".to_owned(),
        (from, to) if from == to => from.to_string(),
        (from, i32::MAX) => format!("{from} or more"),
        (i32::MIN, to) => format!("{to} or less"),
        (from, to) => format!("{from} to {to}"),
    }
}

/// Days from the event, which may lie before it.
fn window(from: i32, to: i32) -> String {
    let edge = |days: i32| match days {
        0 => "the day that places the count".to_owned(),
        days if days < 0 => format!("{} days before it", days.unsigned_abs()),
        days => format!("{days} days after it"),
    };
    match (from, to) {
        OPEN_ENDS => "any day".to_owned(),
        (i32::MIN, -1) => "before the day that places the count".to_owned(),
        (1, i32::MAX) => "after the day that places the count".to_owned(),
        (i32::MIN, to) => format!("up to {}", edge(to)),
        (from, i32::MAX) => format!("from {} on", edge(from)),
        (from, 0) => {
            format!("within {} days up to the day that places the count", 1 - i64::from(from))
        }
        (from, to) => format!(
            "from {} to {}, counted from the day that places the count",
            edge(from),
            edge(to)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_reads_both_ways() {
        let check = |test: Test, holds: &str, fails: &str| {
            assert_eq!(
                (tested(&test, true).as_str(), tested(&test, false).as_str()),
                (holds, fails)
            );
        };
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        check(Test::Is(true), "is true", "is not true");
        check(Test::IsNot(true), "is not true", "is true");
        check(Test::Any(ids(&["a", "b"])), "is one of a, b", "is not one of a, b");
        check(Test::None(ids(&["duplicate"])), "is not duplicate", "is duplicate");
        check(Test::Range(0, 17), "is 0 to 17", "is not 0 to 17");
        check(Test::Range(18, i32::MAX), "is 18 or more", "is not 18 or more");
        check(Test::Present(false), "is not recorded", "is recorded");
        let recent = "within 30 days up to the day that places the count";
        check(Test::Within(-29, 0), &format!("is {recent}"), &format!("is not {recent}"));
    }
}
