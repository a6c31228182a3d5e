//! What was wrong in a TOML file, said so that it can be found and mended: line, key, and the nearest valid name.

use crate::error::Error;

/// Longest name that a near one is looked for, in bytes: comparing takes time with the product of the lengths.
const NAME_BYTES_MAX: usize = 200;

/// Longest key that an error quotes, in bytes.
const KEY_BYTES_MAX: usize = 40;

/// The error for a file that `toml` could not read, while `doing`.
pub fn misread(doing: &str, text: &str, error: &toml::de::Error) -> Error {
    let offset = error.span().map_or(0, |span| span.start);
    let (line, wrong) = (line_of(text, offset), error.message());
    let key = key_at(text, offset).map_or(String::new(), |key| format!("{key}: "));
    let said = Error::config(format!("{doing} line {line}: {key}{wrong}"));
    match nearest_in(wrong) {
        Some(known) => said.advise(format!("the nearest is {known:?}")),
        None => said,
    }
}

/// The line of an offset, counted from 1.
pub fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// The name among `valid` that `name` was most likely meant to be, if one is near: a few letters away, or
/// one that begins or ends with it.
pub fn nearest<'a>(name: &str, valid: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let valid = valid.filter(|known| known.len() <= NAME_BYTES_MAX);
    let distance = |known: &str| {
        let is_part = name.len() >= 3 && (known.starts_with(name) || known.ends_with(name));
        if is_part { 1 } else { strsim::damerau_levenshtein(known, name) }
    };
    let near = valid.map(|known| (distance(known), known)).min()?;
    (near.0 <= name.len().max(3) / 2).then_some(near.1)
}

/// The same for an error of the TOML reader, which quotes the name and then those that it expected.
fn nearest_in(message: &str) -> Option<&str> {
    let begins = ["unknown field ", "unknown variant "];
    if !begins.iter().any(|begin| message.starts_with(begin)) {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let name = quoted.next()?;
    nearest(name, quoted)
}

/// The key in front of the equals sign of a line. Nothing that is not spelt like a key is quoted: somebody may
/// have named a file of secrets.
fn key_at(text: &str, offset: usize) -> Option<&str> {
    let line = text.lines().nth(line_of(text, offset) - 1)?;
    let key = line.split_once('=')?.0.trim();
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte == b'_' || byte == b'.';
    let is_key = !key.is_empty() && key.len() <= KEY_BYTES_MAX && key.bytes().all(fits);
    is_key.then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_named() {
        let near = |name| nearest(name, ["services_section", "reopened_logs", "sex"].into_iter());
        assert_eq!(near("service_section"), Some("services_section"));
        assert_eq!(near("services"), Some("services_section"));
        assert_eq!(near("sxe"), Some("sex"));
        assert_eq!(near("x"), None);
        assert_eq!(near("nationality"), None);
        assert_eq!(near(""), None);
        assert_eq!(nearest("sex", std::iter::empty()), None);
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Found {
        #[allow(dead_code, reason = "only the error is looked at")]
        packs: Option<Kind>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Stock,
        Flow,
    }

    #[test]
    fn an_error_has_line_key_and_nearest_name() {
        let check = |text: &str, expected: &str| {
            let error = toml::from_str::<Found>(text).unwrap_err();
            let said = misread("reading x", text, &error).to_string();
            assert!(said.starts_with(expected), "{said}");
        };
        check("\npack = 1", "reading x line 2: pack: unknown field `pack`");
        check("packs = \"stok\"", "reading x line 1: packs: unknown variant `stok`");
        check("packs = 7", "reading x line 1: packs: ");
        check("packs = \"", "reading x line 1: packs: ");
        check("c2VjcmV0LXNlY3JldA==", "reading x line 1: ");
        let error = toml::from_str::<Found>("\npacks = \"stok\"").unwrap_err();
        assert!(misread("", "", &error).to_string().ends_with("(the nearest is \"stock\")"));
        assert_eq!(key_at("c2VjcmV0LXNlY3JldA==", 3), None);
        assert_eq!(nearest_in("unknown field "), None);
    }
}
