//! The dictionary: each option id, location code and instance name once, as a small code. Append-only.

use std::sync::{Arc, RwLock};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

/// Longest string that becomes a code, in bytes; a longer option id is not an id.
pub const TERM_BYTES_MAX: usize = 128;

/// Most codes of one domain; a source that invents ids without end must not fill the memory.
pub const CODES_MAX: usize = 1 << 20;

/// How a term begins that was emptied; no option id does.
const EMPTIED: &str = "\u{2205}";

/// What a code stands for. Codes of different domains are not comparable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Domain {
    /// Option ids of all select fields.
    Option,
    /// Location codes.
    Location,
    /// Names of instances, as configured.
    Instance,
    /// Unique ids of agencies.
    Agency,
    /// Keyed pseudonyms of case workers.
    Worker,
}

impl Domain {
    /// Every domain, in the order of their tables.
    pub const ALL: [Self; 5] =
        [Self::Option, Self::Location, Self::Instance, Self::Agency, Self::Worker];
}

/// A code: 1 is the first of its domain, 0 is never one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Code(pub u32);

/// One addition to the dictionary, as logged: the next code of `domain` stands for `term`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which table it extends.
    pub domain: Domain,
    /// The option id, location code or instance name.
    pub term: String,
}

#[derive(Clone, Debug, Default)]
struct Table {
    codes: HashMap<Arc<str>, Code>,
    terms: Vec<Arc<str>>,
}

/// Codes for terms and back. The same entries in the same order give the same codes.
#[derive(Clone, Debug, Default)]
pub struct Dictionary {
    tables: [Table; Domain::ALL.len()],
    entries: Vec<(Domain, Code)>,
}

impl Dictionary {
    /// The code of `term`, if it has one.
    pub fn code(&self, domain: Domain, term: &str) -> Option<Code> {
        self.tables[domain as usize].codes.get(term).copied()
    }

    /// The term of `code`.
    pub fn term(&self, domain: Domain, code: Code) -> Option<&str> {
        let index = usize::try_from(code.0).ok()?.checked_sub(1)?;
        self.tables[domain as usize].terms.get(index).map(|term| &**term)
    }

    /// All terms of a domain, in the order of their codes.
    pub fn terms(&self, domain: Domain) -> impl Iterator<Item = &str> {
        self.tables[domain as usize].terms.iter().map(|term| &**term)
    }

    /// The code of `term`, made if it has none; `None` when the term is empty, too long or the domain is full.
    pub fn intern(&mut self, domain: Domain, term: &str) -> Option<Code> {
        if let Some(code) = self.code(domain, term) {
            return Some(code);
        }
        let table = &mut self.tables[domain as usize];
        if term.is_empty() || term.len() > TERM_BYTES_MAX || table.terms.len() >= CODES_MAX {
            return None;
        }
        let term: Arc<str> = term.into();
        table.terms.push(Arc::clone(&term));
        let code = Code(u32::try_from(table.terms.len()).expect("CODES_MAX fits u32"));
        table.codes.insert(term, code);
        self.entries.push((domain, code));
        Some(code)
    }

    /// Whether the entry of this number is that one, or was it before it was emptied.
    pub fn was(&self, number: usize, entry: &Entry) -> bool {
        self.entries.get(number).is_some_and(|(domain, code)| {
            let is_same = |term: &str| term == entry.term || term.starts_with(EMPTIED);
            *domain == entry.domain && self.term(*domain, *code).is_some_and(is_same)
        })
    }

    /// How many entries were ever added, over all domains.
    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// The entries from the `start`-th on, in the order they were added.
    pub fn entries_from(&self, start: usize) -> Vec<Entry> {
        let tail = self.entries.get(start..).unwrap_or_default();
        tail.iter()
            .map(|(domain, code)| Entry {
                domain: *domain,
                term: self
                    .term(*domain, *code)
                    .expect("an entry names a code that exists")
                    .to_owned(),
            })
            .collect()
    }

    /// Empties the terms of a domain whose codes are not `used`: the codes stay taken, what they stood for is gone.
    /// Returns how many were emptied. Nobody may still hold codes of the terms.
    pub fn empty_unused(&mut self, domain: Domain, used: impl Fn(Code) -> bool) -> usize {
        let table = &mut self.tables[domain as usize];
        let mut emptied = 0;
        for (index, term) in table.terms.iter_mut().enumerate() {
            let code = Code(u32::try_from(index + 1).expect("CODES_MAX fits u32"));
            if used(code) || term.starts_with(EMPTIED) {
                continue;
            }
            table.codes.remove(term);
            *term = format!("{EMPTIED}{}", code.0).into();
            table.codes.insert(Arc::clone(term), code);
            emptied += 1;
        }
        emptied
    }

    /// How many codes a domain has.
    pub fn code_count(&self, domain: Domain) -> usize {
        self.tables[domain as usize].terms.len()
    }
}

/// The dictionary shared by the sources, which add to it, and the rest, which read it.
#[derive(Clone, Debug, Default)]
pub struct Interner(Arc<RwLock<Dictionary>>);

impl Interner {
    /// Shares `dictionary`.
    pub fn new(dictionary: Dictionary) -> Self {
        Self(Arc::new(RwLock::new(dictionary)))
    }

    /// The code of `term`, made if it has none; see [`Dictionary::intern`].
    pub fn intern(&self, domain: Domain, term: &str) -> Option<Code> {
        if let Some(code) = self.read(|dictionary| dictionary.code(domain, term)) {
            return Some(code);
        }
        self.write(|dictionary| dictionary.intern(domain, term))
    }

    /// Adds to the dictionary.
    pub fn write<T>(&self, write: impl FnOnce(&mut Dictionary) -> T) -> T {
        write(&mut self.0.write().expect("no holder of the dictionary panics"))
    }

    /// Reads the dictionary.
    pub fn read<T>(&self, read: impl FnOnce(&Dictionary) -> T) -> T {
        read(&self.0.read().expect("no holder of the dictionary panics"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaying_the_entries_gives_the_same_codes() {
        let mut first = Dictionary::default();
        for (domain, term) in
            [(Domain::Option, "open"), (Domain::Location, "01"), (Domain::Option, "closed")]
        {
            first.intern(domain, term);
        }
        let mut second = Dictionary::default();
        for entry in first.entries_from(0) {
            second.intern(entry.domain, &entry.term);
        }
        assert_eq!(second.code(Domain::Option, "closed"), first.code(Domain::Option, "closed"));
        assert_eq!(second.term(Domain::Location, Code(1)), Some("01"));
        assert_eq!(first.entries_from(2).len(), 1);
    }

    #[test]
    fn what_is_no_id_gets_no_code() {
        let mut dictionary = Dictionary::default();
        assert_eq!(dictionary.intern(Domain::Option, ""), None);
        assert_eq!(dictionary.intern(Domain::Option, &"x".repeat(TERM_BYTES_MAX + 1)), None);
        assert_eq!(dictionary.term(Domain::Option, Code(0)), None);
    }
}
