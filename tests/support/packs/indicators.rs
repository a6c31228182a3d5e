//! Random indicators of every kind.

use std::fmt::Write;

use rand::RngExt;

use super::Drawing;
use super::dice::{chance, one};

/// What an indicator or a part of one counts.
struct Counted {
    text: String,
    /// The subform whose rows are read.
    subform: Option<&'static str>,
    is_now: bool,
}

/// A part can be asked to be like this.
#[derive(Clone, Copy, Default)]
struct Wish {
    /// Only cases, each once in a cell.
    of_cases: bool,
    /// No "cases with".
    never_distinct: bool,
    /// In periods.
    never_now: bool,
}

impl Drawing {
    pub(super) fn indicators(&mut self) {
        for number in 0..self.rng.random_range(4..8) {
            let code = format!("R-{number}");
            match self.rng.random_range(0..10) {
                0..3 => self.plain(&code),
                3 | 4 => self.share(&code),
                5 => self.share_over(&code),
                6 => self.average(&code),
                7 => self.per_worker(&code),
                8 => self.ratio(&code),
                _ => self.any_of(&code),
            }
        }
    }

    /// What is counted, when, under which conditions; without its periods.
    fn counted(&mut self, wish: Wish) -> Counted {
        let subform = *one(&mut self.rng, &["services", "visits"]);
        let own_date = if subform == "services" { "given_on" } else { "on" };
        let kinds = if wish.never_distinct { 0..2 } else { 0..3 };
        let mut kind = self.rng.random_range(kinds);
        if wish.of_cases && kind == 1 {
            kind = 2;
        }
        let (form, count) = match kind {
            0 => ("count cases", "cases".to_owned()),
            1 => ("count rows", format!("rows of {subform}")),
            _ => ("count cases with", format!("cases with {subform}")),
        };
        self.used(form);
        let mut text = format!("count = {count:?}, ");
        let by_row = kind != 0 && chance(&mut self.rng, 0.7);
        let date = if by_row {
            format!("{subform}.{own_date}")
        } else {
            let dates = ["registered_on", "closed_on", "seen_on", "care_first_seen"];
            (*one(&mut self.rng, &dates)).to_owned()
        };
        let mut dated = false;
        let placings = if wish.never_now { 0..5 } else { 0..6 };
        let placed = match self.rng.random_range(placings) {
            0 | 1 => {
                dated = true;
                self.used(match date.as_str() {
                    "care_first_seen" => "flow of first sight",
                    _ if by_row => "flow of row",
                    _ => "flow",
                });
                format!("{{ flow = {date:?} }}")
            }
            2 => {
                dated = true;
                self.used(if by_row { "cohort of row" } else { "cohort" });
                let days = one(&mut self.rng, &[0, 1, 14, 90]);
                format!("{{ cohort = {date:?}, mature_after = {days} }}")
            }
            3 => {
                self.used("presence");
                "\"presence\"".to_owned()
            }
            4 => {
                self.used("stock");
                "\"stock\"".to_owned()
            }
            _ => {
                self.used("now");
                "\"now\"".to_owned()
            }
        };
        write!(text, "placed = {placed}").unwrap();
        let mut read = (kind != 0).then_some(subform);
        if kind == 0 && chance(&mut self.rng, 0.4) {
            self.used("latest");
            write!(text, ", latest = {{ row_of = {subform:?}, by = {own_date:?} }}").unwrap();
            read = Some(subform);
        }
        if chance(&mut self.rng, 0.3) {
            self.used("population");
            write!(text, ", population = {:?}", one(&mut self.rng, &["strict", "wide"])).unwrap();
        }
        if chance(&mut self.rng, 0.5) {
            write!(text, ", where = {}", self.conditions(None, 2, 0)).unwrap();
        }
        if read.is_some() && chance(&mut self.rng, 0.5) {
            write!(text, ", rows = {}", self.conditions(read, 2, 0)).unwrap();
        }
        if kind != 0 && by_row && dated && chance(&mut self.rng, 0.4) {
            self.used("follows");
            write!(text, ", follows = {}", self.conditions(read, 1, 0)).unwrap();
        }
        let is_now = placed == "\"now\"";
        Counted { text, subform: read, is_now }
    }

    /// An indicator: what is counted written as lines of its own, and the rest.
    fn write(&mut self, code: &str, counted: Option<&str>, is_now: bool, rest: &str) {
        let mut text = format!("[indicators.{code}]\ntitle.en = {code:?}\n");
        if let Some(counted) = counted {
            // The keys of an inline table, each on its line.
            let table: toml::Table = format!("x = {{ {counted} }}").parse().unwrap();
            for (key, value) in table["x"].as_table().unwrap() {
                writeln!(text, "{key} = {value}").unwrap();
            }
        }
        if !is_now {
            let names = ["month", "quarter", "half", "year", "fiscal_year", "week"];
            let mut periods: Vec<&'static str> = Vec::new();
            for _ in 0..self.rng.random_range(1..3) {
                let name = *one(&mut self.rng, &names);
                if !periods.contains(&name) {
                    self.used(name);
                    periods.push(name);
                }
            }
            writeln!(text, "periods = {periods:?}").unwrap();
        }
        self.line(&format!("{text}{rest}"));
    }

    /// Names of dimensions that fit what is counted.
    fn fitting(&self, subform: Option<&str>, caseload: bool) -> Vec<String> {
        let fits = self.dimensions.iter().filter(|dimension| {
            (dimension.subform.is_none() || dimension.subform == subform)
                && (caseload || !dimension.is_caseload)
        });
        fits.map(|dimension| dimension.name.clone()).collect()
    }

    /// Tables over these dimensions, each with all of `always`.
    fn tables(&mut self, names: &[String], always: &[String]) -> String {
        let mut tables: Vec<Vec<String>> = Vec::new();
        for _ in 0..self.rng.random_range(1..5) {
            let mut table = always.to_vec();
            for _ in 0..self.rng.random_range(0..3) {
                if names.is_empty() {
                    break;
                }
                let name = one(&mut self.rng, names).clone();
                let is_of = |name: &String, what: fn(&super::DimensionName) -> bool| {
                    self.dimensions.iter().any(|d| d.name == *name && what(d))
                };
                let clashes = |what| is_of(&name, what) && table.iter().any(|t| is_of(t, what));
                if !table.contains(&name)
                    && !clashes(|d| d.is_location)
                    && !clashes(|d| d.is_caseload)
                {
                    table.push(name);
                }
            }
            table.sort();
            if !tables.contains(&table) {
                tables.push(table);
            }
        }
        format!("tables = {tables:?}\n")
    }

    fn plain(&mut self, code: &str) {
        let counted = self.counted(Wish::default());
        let tables = self.tables(&self.fitting(counted.subform, false), &[]);
        self.write(code, Some(&counted.text), counted.is_now, &tables);
    }

    fn share(&mut self, code: &str) {
        let counted = self.counted(Wish::default());
        let mut rest = self.tables(&self.fitting(counted.subform, false), &[]);
        let of_row = counted.subform.is_some() && chance(&mut self.rng, 0.6);
        if of_row {
            self.used("numerator_rows");
            writeln!(rest, "numerator_rows = {}", self.conditions(counted.subform, 2, 0)).unwrap();
        }
        if !of_row || chance(&mut self.rng, 0.4) {
            self.used("numerator");
            writeln!(rest, "numerator = {}", self.conditions(None, 2, 0)).unwrap();
        }
        self.write(code, Some(&counted.text), counted.is_now, &rest);
    }

    fn share_over(&mut self, code: &str) {
        let fits = self.dimensions.iter().filter(|dimension| {
            dimension.subform.is_none() && !dimension.at_event && !dimension.is_caseload
        });
        let fits: Vec<_> = fits.map(|d| (d.name.clone(), d.is_location)).collect();
        if fits.is_empty() {
            return self.plain(code);
        }
        let (over, is_location) = one(&mut self.rng, &fits).clone();
        self.used(if is_location { "share_over location" } else { "share_over" });
        let counted = self.counted(Wish::default());
        let names = self.fitting(counted.subform, false);
        let mut rest = self.tables(&names, std::slice::from_ref(&over));
        writeln!(rest, "share_over = {over:?}").unwrap();
        self.write(code, Some(&counted.text), counted.is_now, &rest);
    }

    fn average(&mut self, code: &str) {
        let wish = Wish { never_distinct: true, ..Wish::default() };
        let counted = self.counted(wish);
        let fits =
            |value: &&super::ValueName| value.subform.is_none() || value.subform == counted.subform;
        let values: Vec<_> = self.values.iter().filter(fits).map(|v| v.name.clone()).collect();
        let value = one(&mut self.rng, &values).clone();
        let mut rest = self.tables(&self.fitting(counted.subform, false), &[]);
        let summary = *one(&mut self.rng, &["mean", "median"]);
        self.used(summary);
        writeln!(rest, "{summary} = {value:?}").unwrap();
        self.write(code, Some(&counted.text), counted.is_now, &rest);
    }

    fn per_worker(&mut self, code: &str) {
        let counted = self.counted(Wish { never_distinct: true, ..Wish::default() });
        let shown = *one(&mut self.rng, &["workers", "workers", "cases per worker"]);
        self.used(shown);
        let has_caseload = self.dimensions.iter().any(|dimension| dimension.is_caseload);
        let caseload = shown == "workers" && has_caseload;
        let names = self.fitting(counted.subform, caseload);
        let over = caseload && chance(&mut self.rng, 0.4);
        let always: Vec<_> = over.then(|| "caseload".to_owned()).into_iter().collect();
        let mut rest = self.tables(&names, &always);
        if over {
            self.used("share_over caseload");
            writeln!(rest, "share_over = \"caseload\"").unwrap();
        }
        writeln!(rest, "per = {{ field = \"worker\", show = {shown:?} }}").unwrap();
        self.write(code, Some(&counted.text), counted.is_now, &rest);
    }

    fn ratio(&mut self, code: &str) {
        self.used("ratio");
        let mut codes = Vec::new();
        let mut subforms = Vec::new();
        for number in 0..self.rng.random_range(2..4) {
            let counted = self.counted(Wish { never_now: true, ..Wish::default() });
            let code = format!("{code}-{number}");
            let tables = self.tables(&self.fitting(counted.subform, false), &[]);
            self.write(&code, Some(&counted.text), counted.is_now, &tables);
            codes.push(code);
            subforms.push(counted.subform);
        }
        let same = subforms.iter().all(|subform| *subform == subforms[0]);
        let subform = subforms[0].filter(|_| same);
        let tables = self.tables(&self.fitting(subform, false), &[]);
        let (first, others) = codes.split_first().unwrap();
        let rest =
            format!("{tables}ratio = {{ numerator = [{first:?}], denominator = {others:?} }}\n");
        self.write(code, None, false, &rest);
    }

    fn any_of(&mut self, code: &str) {
        self.used("any_of");
        let wish = Wish { of_cases: true, never_now: true, ..Wish::default() };
        let count = self.rng.random_range(2..4);
        let mut parts: Vec<_> = (0..count).map(|_| self.counted(wish)).collect();
        // A dimension of rows that some part sets, so that parts without such rows can have it.
        let settable =
            self.dimensions.iter().filter(|d| d.subform.is_some() && !d.settable.is_empty());
        let settable: Vec<_> =
            settable.map(|d| (d.name.clone(), d.subform, d.settable.clone())).collect();
        let all_same = parts.iter().all(|part| part.subform == parts[0].subform);
        let mut names = self.fitting(parts[0].subform.filter(|_| all_same), false);
        if !settable.is_empty() && chance(&mut self.rng, 0.7) {
            self.used("set");
            let (name, subform, values) = one(&mut self.rng, &settable).clone();
            for part in &mut parts {
                if part.subform != subform || chance(&mut self.rng, 0.4) {
                    let value = one(&mut self.rng, &values).clone();
                    write!(part.text, ", set = {{ {name} = {value:?} }}").unwrap();
                }
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let parts = parts.iter().map(|part| format!("  {{ {} }},\n", part.text));
        let parts: String = parts.collect();
        let tables = self.tables(&names, &[]);
        self.write(code, None, false, &format!("{tables}any_of = [\n{parts}]\n"));
    }
}
