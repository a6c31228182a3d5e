//! What the packs say that option ids are called, compared with what a server calls them.
//!
//! An id that means something else on a server would be counted under the wrong concept, and nothing would look wrong.

use std::collections::BTreeMap;
use std::fmt;

use crate::indicator::{Definition, InstanceDefinition, Labels};

/// Longest label that is told, in characters.
const LABEL_CHARS_MAX: usize = 120;

/// A label that is not as a concept asserts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelFinding {
    /// The concept.
    pub concept: String,
    /// Its field.
    pub field: String,
    /// The option id.
    pub id: String,
    /// The language of the label.
    pub language: String,
    /// What the pack says the id is called.
    pub expected: String,
    /// What the server calls it; none where it does not say.
    pub found: Option<String>,
}

impl Definition {
    /// Whether any concept asserts a label.
    pub fn asserts_labels(&self) -> bool {
        self.concepts.values().any(|concept| !concept.assert_labels.is_empty())
    }

    /// The asserted labels that an instance does not have. `label_of` gives what it calls an option id of a field.
    /// Only ids that the concept means at this instance are looked at.
    pub fn label_findings<'a>(
        &self,
        instance: &InstanceDefinition,
        label_of: impl Fn(&str, &str) -> Option<&'a Labels>,
    ) -> Vec<LabelFinding> {
        let mut findings = Vec::new();
        for (name, concept) in &self.concepts {
            let (field, ids) = (concept.field.to_string(), self.concept_ids(name, instance));
            let here = concept.assert_labels.iter().filter(|(id, _)| ids.contains(id));
            for (id, (language, expected)) in
                here.flat_map(|(id, labels)| labels.iter().map(move |label| (id, label)))
            {
                let is_mapped = |ids: &BTreeMap<String, String>| ids.values().any(|to| to == id);
                let found = label_of(&field, id).and_then(|labels| labels.get(language));
                if found.is_some_and(|found| found.trim() == expected.trim()) {
                    continue;
                }
                // An id that stands for one of the instance's own need not exist there.
                if found.is_none() && instance.mappings.get(&field).is_some_and(is_mapped) {
                    continue;
                }
                findings.push(LabelFinding {
                    concept: name.clone(),
                    field: field.clone(),
                    id: id.clone(),
                    language: language.clone(),
                    expected: expected.clone(),
                    found: found.map(|found| found.chars().take(LABEL_CHARS_MAX).collect()),
                });
            }
        }
        findings
    }
}

impl fmt::Display for LabelFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { concept, field, id, language, expected, found } = self;
        write!(
            f,
            "concept {concept}: {field} {id:?} should be called {expected:?} ({language}), "
        )?;
        match found {
            Some(found) => write!(f, "the server calls it {found:?}"),
            None => write!(f, "the server gives no label"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::indicator::PackText;

    const PACK: &str = r#"
        [pack]
        id = "x"
        version = "1"
        [fields]
        care = { type = "option", values = ["home", "aunt"] }
        [concepts.residential]
        field = "care"
        ids = ["home"]
        assert_labels.home = { en = "Residential care", km = "មណ្ឌល" }
        assert_labels.home_7 = { en = "Residential care" }
        instances.takeo = ["home_7"]
    "#;

    fn findings(instance: &str, labels: &[(&str, &str, &str)]) -> Vec<String> {
        findings_of(&InstanceDefinition::plain(instance), labels)
    }

    fn findings_of(instance: &InstanceDefinition, labels: &[(&str, &str, &str)]) -> Vec<String> {
        let text = PackText { name: "x.toml".into(), text: PACK.into() };
        let definition = Definition::read(vec![text]).unwrap();
        let known: Vec<(&str, Labels)> = labels
            .iter()
            .map(|(id, language, text)| (*id, [((*language).into(), (*text).into())].into()))
            .collect();
        let label_of = |field: &str, id: &str| {
            assert_eq!(field, "care");
            known.iter().find(|(known, _)| *known == id).map(|(_, labels)| labels)
        };
        let found = definition.label_findings(instance, label_of);
        found.iter().map(|one| format!("{} {} {:?}", one.id, one.language, one.found)).collect()
    }

    #[test]
    fn what_is_called_otherwise_or_not_at_all_is_found() {
        let right = ("home", "en", " Residential care ");
        assert_eq!(findings("kampot", &[right]), ["home km None"]);
        let wrong = ("home", "en", "Home of the child");
        assert_eq!(
            findings("kampot", &[wrong]),
            ["home en Some(\"Home of the child\")", "home km None"]
        );
        assert_eq!(findings("kampot", &[]), ["home en None", "home km None"]);
    }

    #[test]
    fn only_ids_that_are_meant_here_are_looked_at() {
        assert_eq!(findings("takeo", &[("home_7", "en", "Residential care")]), [""; 0]);
        assert_eq!(findings("takeo", &[]), ["home_7 en None"]);
    }

    #[test]
    fn an_id_that_stands_for_an_own_one_need_not_exist() {
        let mut instance = InstanceDefinition::plain("kampot");
        let ids = [("children_home".to_owned(), "home".to_owned())].into();
        instance.mappings.insert("care".to_owned(), ids);
        assert_eq!(findings_of(&instance, &[]), [""; 0]);
        let wrong = ("home", "en", "Home of the child");
        assert_eq!(findings_of(&instance, &[wrong]), ["home en Some(\"Home of the child\")"]);
    }
}
