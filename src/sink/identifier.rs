//! Names of schemas, tables and columns, quoted so that no name can end a statement.

use std::fmt;

use crate::error::{Error, Result};

/// Longest identifier that Postgres keeps whole, in bytes.
pub(super) const IDENTIFIER_BYTES_MAX: usize = 63;

/// A checked identifier; prints quoted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identifier(String);

impl Identifier {
    /// Takes any name that Postgres can keep whole.
    ///
    /// # Errors
    /// A configuration error for an empty name, one that Postgres would cut, or one with a NUL.
    pub(super) fn new(name: &str) -> Result<Self> {
        if name.is_empty() || name.len() > IDENTIFIER_BYTES_MAX || name.contains('\0') {
            return Err(Error::config(format!(
                "the name {name:?} cannot be a table or column in Postgres"
            ))
            .advise("1 to 63 bytes, without a NUL character"));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as it is, for use as a value.
    pub(super) fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

/// A string constant, quoted so that it means the same whatever `standard_conforming_strings` says.
pub(super) fn literal(text: &str) -> String {
    let text = text.replace('\0', "").replace('\'', "''");
    if text.contains('\\') {
        format!("E'{}'", text.replace('\\', "\\\\"))
    } else {
        format!("'{text}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_ends_a_statement() {
        let hostile = Identifier::new(r#"x"; DROP TABLE cases; --"#).unwrap();
        assert_eq!(hostile.to_string(), r#""x""; DROP TABLE cases; --""#);
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"\'; --"), r"E'\\''; --'");
    }

    #[test]
    fn a_name_that_postgres_would_cut_is_refused() {
        assert!(Identifier::new(&"x".repeat(63)).is_ok());
        assert!(Identifier::new(&"x".repeat(64)).is_err());
        assert!(Identifier::new("").is_err());
        assert!(Identifier::new("a\0b").is_err());
    }
}
