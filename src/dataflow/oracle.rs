//! What every indicator and every row means, once more: a plain batch function, short, slow and obviously right.
//!
//! It reads the definition and the cases by name, and shares nothing with the plan, its cells or the graph.
//! Property tests and `tonle verify` compare the tables with it.

use std::collections::{BTreeMap, BTreeSet};

use crate::indicator::{
    ALL, ColumnDefinition, Count, Definition, DimensionDefinition, DimensionKind,
    IndicatorDefinition, InstanceDefinition, Path, Placed, Test, Value,
};
use crate::model::{
    Case, Code, Day, Dictionary, Domain, Figure, LocationTree, Period, PeriodType, RecordKey,
    Schema, Slot, Subform,
};

/// Everything a value depends on besides the cases.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The packs as meant.
    pub definition: &'a Definition,
    /// How the cases are laid out.
    pub schema: &'a Schema,
    /// What their codes stand for.
    pub dictionary: &'a Dictionary,
    /// Where places are.
    pub locations: &'a LocationTree,
    /// The configured instances.
    pub instances: &'a [InstanceDefinition],
    /// The last clock tick.
    pub today: Day,
}

/// A cell by its text: indicator, instance, period type, period start, and a value for each dimension.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellName {
    /// Code of the indicator.
    pub indicator: String,
    /// Name of the instance, or `all`.
    pub instance: String,
    /// Name of the period type.
    pub period_type: &'static str,
    /// First day of the period.
    pub period_start: Option<Day>,
    /// A value for each dimension in the order of their names.
    pub dimensions: Vec<String>,
}

/// The tables that should exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Every cell that is not empty.
    pub values: BTreeMap<CellName, Figure>,
    /// Every row of every extract: by table and key, the text of its columns.
    pub rows: BTreeMap<(String, RecordKey), Vec<Option<String>>>,
}

/// Computes all tables from all cases.
pub fn tables<'a>(
    world: &World<'_>,
    records: impl IntoIterator<Item = (&'a RecordKey, &'a Case)>,
) -> Tables {
    let mut tables = Tables::default();
    for (key, case) in records {
        let Some(instance) = world.dictionary.term(Domain::Instance, case.instance()) else {
            continue;
        };
        if !world.instances.iter().any(|known| known.name == instance) {
            continue;
        }
        let view = View { world, case, instance };
        for (code, indicator) in &world.definition.indicators {
            view.count(code, indicator, &mut tables.values);
        }
        view.rows(*key, &mut tables.rows);
    }
    tables
}

/// The text of a value, as the tables of the oracle hold it.
pub fn text(value: &Value<'_>) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Text(text) => Some((*text).to_owned()),
        Value::Date(day) => Some(day.date().to_string()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(value) => Some(value.to_string()),
        Value::Key(key) => Some(format!("{:032x}", key.0)),
    }
}

/// One case, read by the names of its fields.
struct View<'a> {
    world: &'a World<'a>,
    case: &'a Case,
    instance: &'a str,
}

type Row<'a> = Option<&'a [u32]>;

impl View<'_> {
    fn count(
        &self,
        code: &str,
        indicator: &IndicatorDefinition,
        values: &mut BTreeMap<CellName, Figure>,
    ) {
        if !indicator.filter.iter().all(|(field, test)| self.holds(None, None, field, test)) {
            return;
        }
        let subform = match &indicator.count {
            Count::Cases => None,
            Count::Rows(name) | Count::CasesWith(name) => Some(name.as_str()),
        };
        let passing = |row: &&[u32]| {
            indicator.rows.iter().all(|(field, test)| self.holds(subform, Some(row), field, test))
        };
        let events: Vec<Row<'_>> = match subform {
            None => vec![None],
            Some(name) => self.rows_of(name).filter(passing).map(Some).collect(),
        };
        let mut once = BTreeSet::new();
        for row in events {
            let mut cells = BTreeSet::new();
            for period in self.periods(indicator, row) {
                for table in &indicator.tables {
                    self.cells(code, indicator, period, table, row, &mut cells);
                }
            }
            match &indicator.count {
                Count::CasesWith(_) => once.extend(cells),
                Count::Cases | Count::Rows(_) => add(cells, indicator, values),
            }
        }
        add(once, indicator, values);
    }

    /// The periods that a case, or a row of it, counts in.
    fn periods(&self, indicator: &IndicatorDefinition, row: Row<'_>) -> Vec<Period> {
        let today = self.world.today;
        let start = self.world.definition.history_start;
        let mut periods = Vec::new();
        for period_type in &indicator.periods {
            match &indicator.placed {
                Placed::Flow(path) => {
                    let Some(day) = Case::day(self.word(path, row)) else { continue };
                    let period = Period::of(*period_type, day);
                    periods.extend(Some(period).filter(|period| period.start() >= Some(start)));
                }
                Placed::Presence | Placed::Stock => {
                    let mut period = Period::of(*period_type, start);
                    while let (Some(from), Some(to)) = (period.start(), period.end())
                        && from <= today
                    {
                        let to = to.min(today);
                        let counts = match indicator.placed {
                            Placed::Stock => self.is_open(to),
                            _ => self.was_active(from, to),
                        };
                        if counts && from >= start {
                            periods.push(period);
                        }
                        period = period.next();
                    }
                }
                Placed::Now => {}
            }
        }
        if indicator.placed == Placed::Now {
            periods.push(Period::of(PeriodType::Now, today));
        }
        periods
    }

    /// The cells of one table that a case or row is in; the flag says whether it is in the numerator.
    fn cells(
        &self,
        code: &str,
        indicator: &IndicatorDefinition,
        period: Period,
        table: &[String],
        row: Row<'_>,
        into: &mut BTreeSet<(CellName, bool)>,
    ) {
        let mut combinations: Vec<(Vec<String>, bool)> = vec![(Vec::new(), true)];
        for (name, dimension) in &self.world.definition.dimensions {
            let own = match table.contains(name) {
                true => self.members(dimension, row),
                false => vec![ALL.to_owned()],
            };
            let is_share = indicator.share_over.as_ref() == Some(name);
            let values = if is_share { self.all_values(dimension) } else { own.clone() };
            combinations = combinations
                .into_iter()
                .flat_map(|(chosen, counted)| {
                    values.iter().map({
                        let own = &own;
                        move |value| {
                            let mut chosen = chosen.clone();
                            chosen.push(value.clone());
                            (chosen, counted && (!is_share || own.contains(value)))
                        }
                    })
                })
                .collect();
        }
        for (dimensions, counted) in combinations {
            for instance in [self.instance, ALL] {
                let name = CellName {
                    indicator: code.to_owned(),
                    instance: instance.to_owned(),
                    period_type: period.period_type().name(),
                    period_start: period.start(),
                    dimensions: dimensions.clone(),
                };
                into.insert((name, counted));
            }
        }
    }

    /// The values of a dimension that a case or row counts under: for a place, it and all it is part of.
    fn members(&self, dimension: &DimensionDefinition, row: Row<'_>) -> Vec<String> {
        let DimensionKind::Location { .. } = dimension.kind else {
            let mut values = self.values(dimension, row);
            values.sort();
            values.dedup();
            return values;
        };
        let values = self.values(dimension, row);
        let code = self.world.dictionary.code(Domain::Location, &values[0]);
        let places = code.into_iter().flat_map(|code| self.world.locations.lineage(code));
        let lineage: Vec<_> = places.map(|place| self.place_name(place.code)).collect();
        if lineage.is_empty() { values } else { lineage }
    }

    fn place_name(&self, code: Code) -> String {
        self.world.dictionary.term(Domain::Location, code).unwrap_or("unmapped").to_owned()
    }

    /// The values of a dimension as published; one, except for a set of options.
    fn values(&self, dimension: &DimensionDefinition, row: Row<'_>) -> Vec<String> {
        let listed = |values: &[String], word: u32| match self.term(word) {
            _ if word == 0 => "not_recorded".to_owned(),
            Some(id) if values.iter().any(|value| value == id) => id.to_owned(),
            _ => "unmapped".to_owned(),
        };
        match &dimension.kind {
            DimensionKind::Options(values) => {
                let Slot::Set(set) = self.slot(&dimension.from) else { return Vec::new() };
                let set = self.case.set(self.world.schema, set);
                match set {
                    [] => vec!["not_recorded".to_owned()],
                    set => set.iter().map(|word| listed(values, *word)).collect(),
                }
            }
            kind => {
                let word = self.word(&dimension.from, row);
                vec![match kind {
                    DimensionKind::Option(values) | DimensionKind::Options(values) => {
                        listed(values, word)
                    }
                    DimensionKind::Boolean => {
                        Case::boolean(word).map_or("not_recorded".into(), |value| value.to_string())
                    }
                    DimensionKind::Bands(bands) => match Case::integer(word) {
                        None => "not_recorded".to_owned(),
                        Some(value) => bands
                            .iter()
                            .find(|band| band.from <= value && value <= band.to)
                            .map_or("unmapped".to_owned(), |band| band.name.clone()),
                    },
                    DimensionKind::Location { level } => match word {
                        0 => "not_recorded".to_owned(),
                        word => {
                            let place = self.world.locations.at_level(Code(word), *level);
                            place.map_or("unmapped".to_owned(), |code| self.place_name(code))
                        }
                    },
                }]
            }
        }
    }

    fn all_values(&self, dimension: &DimensionDefinition) -> Vec<String> {
        let mut all = vec!["not_recorded".to_owned(), "unmapped".to_owned()];
        match &dimension.kind {
            DimensionKind::Option(values) | DimensionKind::Options(values) => {
                all.extend(values.clone());
            }
            DimensionKind::Bands(bands) => all.extend(bands.iter().map(|band| band.name.clone())),
            DimensionKind::Boolean => all.extend(["false".to_owned(), "true".to_owned()]),
            DimensionKind::Location { .. } => {
                all.extend(self.world.locations.iter().map(|place| self.place_name(place.code)));
            }
        }
        all
    }

    fn holds(&self, subform: Option<&str>, row: Row<'_>, field: &str, test: &Test) -> bool {
        let path = Path { subform: subform.map(str::to_owned), field: field.to_owned() };
        let codes: Vec<u32> = match self.slot(&path) {
            Slot::Set(set) => self.case.set(self.world.schema, set).to_vec(),
            Slot::Word(_) => {
                Some(self.word(&path, row)).filter(|word| *word != 0).into_iter().collect()
            }
        };
        let among = |ids: &[String]| {
            codes.iter().any(|code| self.term(*code).is_some_and(|id| ids.iter().any(|i| i == id)))
        };
        match test {
            Test::Is(wanted) => {
                codes.first().and_then(|word| Case::boolean(*word)) == Some(*wanted)
            }
            Test::IsNot(wanted) => {
                codes.first().and_then(|word| Case::boolean(*word)) != Some(*wanted)
            }
            Test::Any(ids) => among(ids),
            Test::None(ids) => !among(ids),
            Test::Range(from, to) => {
                let value = codes.first().and_then(|word| Case::integer(*word));
                value.is_some_and(|value| *from <= value && value <= *to)
            }
            Test::Present(present) => codes.is_empty() != *present,
        }
    }

    fn term(&self, word: u32) -> Option<&str> {
        self.world.dictionary.term(Domain::Option, Code(word))
    }

    fn slot(&self, path: &Path) -> Slot {
        let schema = self.world.schema;
        match &path.subform {
            None => schema.field(&path.field).expect("paths were resolved").slot,
            Some(name) => {
                let subform =
                    &schema.subforms()[schema.subform(name).expect("paths were resolved")];
                let index = subform.field(&path.field).expect("paths were resolved");
                Slot::Word((Subform::KEY_WORDS + index) as u16)
            }
        }
    }

    fn word(&self, path: &Path, row: Row<'_>) -> u32 {
        match (self.slot(path), &path.subform, row) {
            (Slot::Word(word), None, _) => self.case.word(word),
            (Slot::Word(word), Some(_), Some(row)) => row[usize::from(word)],
            _ => 0,
        }
    }

    fn rows_of(&self, subform: &str) -> std::slice::ChunksExact<'_, u32> {
        let index = self.world.schema.subform(subform).expect("paths were resolved");
        self.case.rows(self.world.schema, index)
    }

    /// The days that matter in the life of a case; see [`crate::indicator`] for the rule.
    fn life(&self) -> Option<Life> {
        let lifecycle = self.world.definition.lifecycle.as_ref()?;
        let field = |name: &str| self.word(&Path { subform: None, field: name.into() }, None);
        let registered = Case::day(field(&lifecycle.opened))?;
        let closed_on = Case::day(field(&lifecycle.closed)).map(|day| day.max(registered));
        let status = self.term(field(&lifecycle.status));
        let is_closed = status.is_some_and(|id| lifecycle.closed_when.iter().any(|c| c == id));
        let mut reopened: Vec<Day> = match &lifecycle.reopened {
            Some(path) => self
                .rows_of(path.subform.as_deref().unwrap_or_default())
                .filter_map(|row| Case::day(self.word(path, Some(row))))
                .collect(),
            None => Vec::new(),
        };
        reopened.retain(|day| closed_on.is_some_and(|closed_on| *day >= closed_on));
        reopened.sort();
        Some(Life { registered, closed_on, is_closed, reopened })
    }

    fn is_open(&self, day: Day) -> bool {
        self.life().is_some_and(|life| life.is_open(day))
    }

    /// Whether the case was open on any of these days, or was closed on one of them.
    fn was_active(&self, from: Day, to: Day) -> bool {
        let Some(life) = self.life() else { return false };
        let turning = [Some(from), Some(life.registered), life.closed_on];
        let turning = turning.into_iter().flatten().chain(life.reopened.iter().copied());
        let mut inside = turning.filter(|day| (from..=to).contains(day));
        inside.any(|day| life.is_open(day) || life.closes_on(day))
    }

    fn rows(&self, key: RecordKey, into: &mut BTreeMap<(String, RecordKey), Vec<Option<String>>>) {
        for (table, extract) in &self.world.definition.extracts {
            if !extract.filter.iter().all(|(field, test)| self.holds(None, None, field, test)) {
                continue;
            }
            let subform = extract.rows_of.as_deref();
            let rows: Vec<Row<'_>> = match subform {
                None => vec![None],
                Some(name) => self.rows_of(name).map(Some).collect(),
            };
            for row in rows {
                if !extract.rows.iter().all(|(field, test)| self.holds(subform, row, field, test)) {
                    continue;
                }
                let mut columns = vec![Some(self.instance.to_owned())];
                columns.extend(row.map(|_| Some(format!("{:032x}", key.0))));
                columns.extend(extract.columns.iter().map(|column| self.column(column, row)));
                into.insert((table.clone(), row.map_or(key, Case::row_key)), columns);
            }
        }
    }

    fn column(&self, column: &ColumnDefinition, row: Row<'_>) -> Option<String> {
        match column {
            ColumnDefinition::Dimension(name) => {
                self.values(&self.world.definition.dimensions[name], row).pop()
            }
            ColumnDefinition::Month { of, .. } => {
                let date = Case::day(self.word(of, row))?.date();
                Some(date.first_of_month().to_string())
            }
        }
    }
}

struct Life {
    registered: Day,
    closed_on: Option<Day>,
    is_closed: bool,
    /// On or after the closing date, in order.
    reopened: Vec<Day>,
}

impl Life {
    fn is_open(&self, day: Day) -> bool {
        if day < self.registered {
            return false;
        }
        match (self.closed_on, self.reopened.first(), self.reopened.last()) {
            (Some(closed_on), ..) if day < closed_on => true,
            (Some(_), Some(first), Some(last)) => *first <= day && (!self.is_closed || day < *last),
            _ => !self.is_closed,
        }
    }

    fn closes_on(&self, day: Day) -> bool {
        match (self.closed_on, self.reopened.last()) {
            (None, _) => self.is_closed && day == self.registered,
            (Some(closed_on), None) => self.is_closed && day == closed_on,
            (Some(closed_on), Some(last)) => day == closed_on || self.is_closed && day == *last,
        }
    }
}

fn add(
    cells: BTreeSet<(CellName, bool)>,
    indicator: &IndicatorDefinition,
    values: &mut BTreeMap<CellName, Figure>,
) {
    for (name, counted) in cells {
        let figure = values.entry(name).or_default();
        figure.numerator += i64::from(counted);
        figure.denominator += i64::from(indicator.share_over.is_some());
    }
}
