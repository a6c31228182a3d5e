//! Random conditions.

use rand::RngExt;

use super::dice::{chance, one, quoted, some_of};
use super::{CONCEPTS, Drawing};

/// What kind of test a field takes.
#[derive(Clone, Copy)]
enum Kind {
    Ids(&'static [&'static str]),
    Open(&'static [&'static str]),
    Agency(&'static [&'static str]),
    Boolean,
    Integer,
    Date,
    Dates,
    Other,
}

const OF_CASE: &[(&str, Kind)] = &[
    ("record_state", Kind::Boolean),
    ("status", Kind::Ids(&["open", "closed", "duplicate"])),
    ("registered_on", Kind::Date),
    ("closed_on", Kind::Date),
    ("seen_on", Kind::Date),
    ("care_first_seen", Kind::Date),
    ("born", Kind::Other),
    ("age", Kind::Integer),
    ("urgent", Kind::Boolean),
    ("sex", Kind::Ids(&["male", "female"])),
    ("care", Kind::Ids(&["parents", "aunt", "foster", "home"])),
    ("source", Kind::Open(&["police", "other_x"])),
    ("concerns", Kind::Ids(&["abuse", "work", "migrant", "street"])),
    ("lives_in", Kind::Other),
    ("worker", Kind::Other),
    ("agency", Kind::Agency(&["unicef", "mosvy", "caritas"])),
    ("due", Kind::Dates),
];

const OF_SERVICE: &[(&str, Kind)] = &[
    ("kind", Kind::Ids(&["health", "legal", "school"])),
    ("asked_on", Kind::Date),
    ("given_on", Kind::Date),
    ("done", Kind::Boolean),
    ("hours", Kind::Integer),
    ("given_in", Kind::Other),
    ("given_by", Kind::Agency(&["unicef", "mosvy"])),
];

const OF_VISIT: &[(&str, Kind)] = &[
    ("kind", Kind::Ids(&["planned", "after_return"])),
    ("on", Kind::Date),
    ("home", Kind::Ids(&["parents", "aunt", "foster"])),
];

impl Drawing {
    /// A table of up to `most` conditions on a case or on a row.
    pub(super) fn conditions(
        &mut self,
        subform: Option<&'static str>,
        most: usize,
        depth: usize,
    ) -> String {
        let fields = match subform {
            None => OF_CASE,
            Some("services") => OF_SERVICE,
            Some(_) => OF_VISIT,
        };
        let mut parts: Vec<(String, String)> = Vec::new();
        for _ in 0..self.rng.random_range(0..=most) {
            let (name, test) = match self.rng.random_range(0..10) {
                0 if subform.is_none() && depth < 2 => ("any".to_owned(), self.any(depth)),
                1 | 2 if subform.is_none() && depth < 2 => ("has".to_owned(), self.has(depth)),
                3 | 4 => match self.value_test(subform) {
                    Some(found) => found,
                    None => continue,
                },
                _ => {
                    let (name, kind) = *one(&mut self.rng, fields);
                    let path = subform.map_or(name.to_owned(), |s| format!("{s}.{name}"));
                    (name.to_owned(), self.test(&path, kind))
                }
            };
            if parts.iter().all(|(known, _)| *known != name) {
                parts.push((name, test));
            }
        }
        let parts: Vec<_> = parts.iter().map(|(name, test)| format!("{name} = {test}")).collect();
        format!("{{ {} }}", parts.join(", "))
    }

    fn any(&mut self, depth: usize) -> String {
        self.used("any");
        let groups: Vec<_> =
            (0..self.rng.random_range(1..3)).map(|_| self.conditions(None, 2, depth + 1)).collect();
        format!("[{}]", groups.join(", "))
    }

    fn has(&mut self, depth: usize) -> String {
        self.used("has");
        let count = self.rng.random_range(1..3);
        if count > 1 {
            self.used("has twice");
        }
        let rows: Vec<_> = (0..count)
            .map(|_| {
                let (subform, date) =
                    *one(&mut self.rng, &[("services", "given_on"), ("visits", "on")]);
                let tests = self.conditions(Some(subform), 1, depth + 1);
                let mut text = format!("row_of = \"{subform}\", where = {tests}");
                if chance(&mut self.rng, 0.7) {
                    text += &format!(", date = \"{date}\"");
                    if !self.no_event {
                        self.used("has within");
                        text += &format!(", within = \"{}\"", self.days());
                    }
                }
                format!("{{ {text} }}")
            })
            .collect();
        format!("[{}]", rows.join(", "))
    }

    fn days(&mut self) -> &'static str {
        let days = ["-29..0", "..-1", "0..30", "-400..400", "0..", "-90..-30", "0..0"];
        let drawn: &&'static str = one(&mut self.rng, &days);
        drawn
    }

    fn value_test(&mut self, subform: Option<&'static str>) -> Option<(String, String)> {
        let no_event = self.no_event;
        let fits: Vec<_> = self
            .values
            .iter()
            .filter(|v| (v.subform.is_none() || v.subform == subform) && !(v.at_event && no_event))
            .map(|value| value.name.clone())
            .collect();
        if fits.is_empty() {
            return None;
        }
        self.used("test value");
        let name = one(&mut self.rng, &fits).clone();
        let range = *one(
            &mut self.rng,
            &["\"0..17\"", "\"..5\"", "\"12..\"", "\"-3..200\"", "0", "{ present = true }"],
        );
        Some((name, range.to_owned()))
    }

    fn test(&mut self, path: &str, kind: Kind) -> String {
        if chance(&mut self.rng, 0.12) {
            self.used("test present");
            return format!("{{ present = {} }}", chance(&mut self.rng, 0.7));
        }
        match kind {
            Kind::Boolean if chance(&mut self.rng, 0.5) => {
                self.used("test is not");
                format!("{{ not = {} }}", chance(&mut self.rng, 0.7))
            }
            Kind::Boolean => {
                self.used("test is");
                chance(&mut self.rng, 0.7).to_string()
            }
            Kind::Integer => {
                self.used("test range");
                (*one(&mut self.rng, &["\"0..17\"", "\"6..\"", "\"..11\"", "5"])).to_owned()
            }
            Kind::Date | Kind::Dates if self.no_event => "{ present = true }".to_owned(),
            Kind::Date => {
                self.used("test within");
                format!("{{ within = \"{}\" }}", self.days())
            }
            Kind::Dates => {
                self.used("test within dates");
                format!("{{ within = \"{}\" }}", self.days())
            }
            Kind::Other => {
                self.used("test present");
                "{ present = true }".to_owned()
            }
            Kind::Ids(ids) | Kind::Open(ids) | Kind::Agency(ids) => self.id_test(path, kind, ids),
        }
    }

    fn id_test(&mut self, path: &str, kind: Kind, ids: &'static [&'static str]) -> String {
        let concepts: Vec<_> =
            CONCEPTS.iter().filter(|concept| concept.1 == path).map(|concept| concept.0).collect();
        match self.rng.random_range(0..7) {
            0 => {
                self.used("test id");
                format!("{:?}", one(&mut self.rng, ids))
            }
            1 | 2 if !concepts.is_empty() => {
                self.used("test concept");
                format!("{{ concepts = {} }}", quoted(&some_of(&mut self.rng, &concepts, 1)))
            }
            3 if !concepts.is_empty() => {
                self.used("test not_concept");
                format!("{{ not_concept = {:?} }}", one(&mut self.rng, &concepts))
            }
            4 if matches!(kind, Kind::Ids(_)) => {
                self.used("test unmapped");
                format!("{{ unmapped = {} }}", chance(&mut self.rng, 0.3))
            }
            5 | 6 => {
                self.used("test not");
                format!("{{ not = {:?} }}", one(&mut self.rng, ids))
            }
            _ => {
                self.used("test ids");
                quoted(&some_of(&mut self.rng, ids, 2))
            }
        }
    }
}
