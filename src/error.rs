//! One error for the whole program: what was being done, what was wrong, and what to do about it.

use std::error::Error as StdError;
use std::fmt;

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an [`Error`] means for the person at the keyboard; it decides the exit code and whether a retry can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An invariant of this program does not hold: report it.
    Bug,
    /// A flag, configuration file, pack or key file is wrong: mend it.
    Config,
    /// Two things that must be equal are not: tables and state, or damaged state.
    DataDiffers,
    /// A server that is needed does not answer.
    Unavailable,
    /// It may work when tried again.
    Temporary,
    /// A server refused the credentials or the role lacks a right.
    Permission,
}

impl Kind {
    /// The exit code of a command that ends with this kind of error (BSD `sysexits`, 2 for usage).
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Bug => 1,
            Self::Config => 2,
            Self::DataDiffers => 65,
            Self::Unavailable => 69,
            Self::Temporary => 75,
            Self::Permission => 77,
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Unavailable | Self::Temporary)
    }
}

/// What was being done, why it failed, and what to do. Never carries the content of a record.
pub struct Error {
    kind: Kind,
    doing: String,
    advice: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` that happened while `doing` ("reading tonle.toml: line 3: …").
    pub fn new(kind: Kind, doing: impl Into<String>) -> Self {
        Self { kind, doing: doing.into(), advice: None, source: None }
    }

    /// A broken invariant of our own.
    pub fn bug(doing: impl Into<String>) -> Self {
        Self::new(Kind::Bug, doing)
    }

    /// A wrong setting.
    pub fn config(doing: impl Into<String>) -> Self {
        Self::new(Kind::Config, doing)
    }

    /// Keeps the cause apart from what was being done.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says what the reader can do about it.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Puts what the caller was doing in front.
    #[must_use]
    pub fn while_doing(mut self, outer: impl fmt::Display) -> Self {
        self.doing = format!("{outer}: {}", self.doing);
        self
    }

    /// What this error means for the caller.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The exit code of a command that ends with it.
    pub fn exit_code(&self) -> u8 {
        self.kind.exit_code()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        match &self.advice {
            Some(advice) => write!(f, " ({advice})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_doing_then_cause_then_advice() {
        let error = Error::new(Kind::Temporary, "asking for changed cases")
            .caused_by(std::io::Error::other("connection reset"))
            .advise("it is tried again by itself")
            .while_doing("instance kampot");
        assert_eq!(
            error.to_string(),
            "instance kampot: asking for changed cases: connection reset (it is tried again by itself)"
        );
        assert_eq!(error.exit_code(), 75);
    }
}
