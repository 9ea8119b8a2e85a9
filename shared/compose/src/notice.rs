//! What has to be said about a file that is used all the same.

use std::fmt;
use std::sync::Arc;

/// A place in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file, relative to the project where it can be.
    pub file: Arc<str>,
    /// The line, from one; zero for what stands in no file.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.is_empty(), self.line) {
            (true, _) => f.write_str("nimbus"),
            (false, 0) => f.write_str(&self.file),
            (false, line) => write!(f, "{}:{line}", self.file),
        }
    }
}

/// How much a notice weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Something that was asked for is not there in the result. `--strict` fails on it.
    Warning,
    /// Something to do or to know; the result is what was asked for.
    Info,
}

/// A sentence about one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Notice {
    /// How much it weighs.
    pub level: Level,
    /// Where the key stands.
    pub at: Origin,
    /// The key, such as `services.web.ports`.
    pub key: String,
    /// What is not as asked for.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

impl Notice {
    /// Something that is lost.
    pub fn warning(
        at: &Origin,
        key: impl Into<String>,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            level: Level::Warning,
            at: at.clone(),
            key: key.into(),
            what: what.into(),
            advice: advice.into(),
        }
    }

    /// Something to know.
    pub fn info(
        at: &Origin,
        key: impl Into<String>,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            level: Level::Info,
            ..Self::warning(at, key, what, advice)
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.level {
            Level::Warning => "Warning",
            Level::Info => "Note",
        };
        write!(
            f,
            "{word}: {} ({}): {}; {}",
            self.key, self.at, self.what, self.advice
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_names_key_file_line_and_what_to_do() {
        let at = Origin {
            file: "compose.yaml".into(),
            line: 7,
        };
        let notice = Notice::warning(
            &at,
            "services.web.privileged",
            "is not exported",
            "name the capability",
        );
        assert_eq!(
            notice.to_string(),
            "Warning: services.web.privileged (compose.yaml:7): is not exported; name the capability"
        );
        assert_eq!(Origin::default().to_string(), "nimbus");
    }
}
