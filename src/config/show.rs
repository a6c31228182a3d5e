//! The configuration that holds, as TOML: the file, what was left out, the command line, and the packs as they lie
//! over each other; on demand with where each value came from. No secret is shown, only the file it is in.

use std::fmt::Write;
use std::path::Path;

use toml::{Table, Value};

use super::{Checker, Config, Overrides, SCHEMA_DEFAULT, text_of};
use crate::error::Result;
use crate::indicator::{Declaration, Lines, merged, misread};
use crate::report;
use crate::source;

/// Where a value came from that nobody wrote.
const DEFAULT: &str = "default";

impl Config {
    /// Reads and checks a configuration as [`Config::read`] does, and tells what holds. With `origin` each line says
    /// where it came from.
    ///
    /// # Errors
    /// A configuration error with file, line and key.
    pub fn show(path: &Path, overrides: &Overrides, origin: bool) -> Result<String> {
        let text = text_of(path)?;
        let (checker, raw) = Checker::new(path, &text)?;
        let packs = merged(&checker.pack_texts(&raw.packs)?)?;
        let config = checker.check(raw, overrides)?;
        let name = path.display().to_string();
        let values: Table =
            text.parse().map_err(|error| misread(&format!("reading {name}"), &text, &error))?;
        let mut page = Page { text: String::new(), origin, lines: Lines::read(&name, &text)? };
        page.top(&values, &config);
        page.database(&values, &config, overrides);
        page.log(&values);
        page.instances(&values);
        page.packs(&packs);
        Ok(page.text)
    }
}

struct Page {
    text: String,
    origin: bool,
    lines: Lines,
}

impl Page {
    fn top(&mut self, values: &Table, config: &Config) {
        for key in ["packs", "pseudonym_key_file", "time_zone"] {
            self.written(&[], key, values);
        }
        let workers = i64::try_from(config.workers).unwrap_or(i64::MAX);
        let state: Value = "state".into();
        let erasure = i64::try_from(config.erasure_within.as_secs()).unwrap_or(i64::MAX);
        let optional: [(&str, Value); 3] = [
            ("workers", workers.into()),
            ("state_directory", state),
            ("erasure_seconds", erasure.into()),
        ];
        for (key, default) in optional {
            if !self.written(&[], key, values) {
                self.line(key, &default, DEFAULT);
            }
        }
        if let Some(state) = values.get("state").and_then(Value::as_table) {
            self.header("[state]", "");
            for key in ["key_file", "previous_key_files"] {
                self.written(&["state"], key, state);
            }
        }
        if let Some(web) = values.get("web").and_then(Value::as_table) {
            self.header("[web]", "");
            self.written(&["web"], "listen", web);
        }
    }

    fn database(&mut self, values: &Table, config: &Config, overrides: &Overrides) {
        self.header("[database]", "");
        let none = Table::new();
        let written = values.get("database").and_then(Value::as_table).unwrap_or(&none);
        let url = Value::String(config.sink.address.without_password());
        match overrides.database_url {
            Some(_) => self.line("url", &url, "--database-url or TONLE_DATABASE_URL"),
            None => {
                let from = self.lines.of(&path(&["database", "url"]));
                self.line("url", &url, &format!("{from}, shown without password"));
                self.written(&["database"], "password_file", written);
            }
        }
        if !self.written(&["database"], "schema", written) {
            self.line("schema", &SCHEMA_DEFAULT.into(), DEFAULT);
        }
    }

    fn log(&mut self, values: &Table) {
        self.header("[log]", "");
        let none = Table::new();
        let written = values.get("log").and_then(Value::as_table).unwrap_or(&none);
        if !self.written(&["log"], "format", written) {
            self.line("format", &"text".into(), DEFAULT);
        }
        if !self.written(&["log"], "level", written) {
            let of_environment = std::env::var(report::LEVEL_VARIABLE).ok();
            match of_environment.filter(|level| level.parse::<report::Level>().is_ok()) {
                Some(level) => self.line("level", &level.into(), report::LEVEL_VARIABLE),
                None => self.line("level", &"info".into(), DEFAULT),
            }
        }
    }

    fn instances(&mut self, values: &Table) {
        let Some(instances) = values.get("instances").and_then(Value::as_array) else { return };
        for (at, instance) in instances.iter().enumerate() {
            let Some(instance) = instance.as_table() else { continue };
            let at = at.to_string();
            let from = self.lines.of(&path(&["instances", &at]));
            self.header("[[instances]]", &from);
            for key in instance.keys() {
                self.written(&["instances", &at], key, instance);
            }
            for (key, value) in source::defaults(instance.contains_key("url")) {
                if !instance.contains_key(key) {
                    self.line(key, &value, DEFAULT);
                }
            }
        }
    }

    fn packs(&mut self, packs: &[Declaration]) {
        let mut before: &[String] = &[];
        for declaration in packs {
            let (from, shown) = (told(declaration), &declaration.path);
            match (&declaration.value, shown.as_slice()) {
                // Small ones stand together under one header.
                (value, [outer @ .., name])
                    if ["pack", "fields", "subforms"].contains(&shown[0].as_str()) =>
                {
                    if before != outer {
                        self.header(&format!("[{}]", joined(outer)), "");
                    }
                    self.line(&key_of(name), value, &from);
                    before = outer;
                }
                (Value::Table(table), path) => {
                    self.header(&format!("[{}]", joined(path)), &from);
                    for (key, value) in table {
                        self.line(&key_of(key), value, "");
                    }
                }
                (value, path) => self.line(&joined(path), value, &from),
            }
        }
    }

    /// Shows a key as it is written in the file; says whether it is.
    fn written(&mut self, outer: &[&str], key: &str, values: &Table) -> bool {
        let Some(value) = values.get(key) else { return false };
        let from = self.lines.of(&path(&[outer, &[key]].concat()));
        self.line(&key_of(key), value, &from);
        true
    }

    fn header(&mut self, header: &str, from: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        let origin = self.comment(from);
        writeln!(self.text, "{gap}{header}{origin}").ok();
    }

    fn line(&mut self, key: &str, value: &Value, from: &str) {
        let origin = self.comment(from);
        writeln!(self.text, "{key} = {value}{origin}").ok();
    }

    fn comment(&self, from: &str) -> String {
        match from {
            from if self.origin && from == DEFAULT => format!("  # {DEFAULT}"),
            from if self.origin && !from.is_empty() => {
                // A file may be called anything: a comment ends with its line.
                let from: String =
                    from.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
                format!("  # from {from}")
            }
            _ => String::new(),
        }
    }
}

fn told(declaration: &Declaration) -> String {
    match declaration.replaces.as_slice() {
        [] => declaration.from.clone(),
        replaced => format!("{}, replaces {}", declaration.from, replaced.join(", ")),
    }
}

fn path(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn joined(path: &[String]) -> String {
    path.iter().map(|name| key_of(name)).collect::<Vec<_>>().join(".")
}

/// A key as TOML wants it: bare where that is allowed.
fn key_of(name: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match !name.is_empty() && name.bytes().all(is_bare) {
        true => name.to_owned(),
        // The escapes of JSON are those of TOML.
        false => serde_json::Value::from(name).to_string(),
    }
}
