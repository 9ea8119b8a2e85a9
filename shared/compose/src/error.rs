//! Why a Compose file cannot be used.

use camino::Utf8PathBuf;

use crate::notice::Origin;

/// A Compose file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// Nothing was named and nothing was found.
    #[error("no Compose file in {start} or a directory above it")]
    NotFound {
        /// Where the search began.
        start: Utf8PathBuf,
    },
    /// Two files that exclude each other.
    #[error("both {first} and {second} are there; name one with --file")]
    Ambiguous {
        /// One.
        first: Utf8PathBuf,
        /// The other.
        second: Utf8PathBuf,
    },
    /// A file that could not be read.
    #[error("could not read {path}")]
    Read {
        /// Which.
        path: Utf8PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Longer than anything a person writes.
    #[error("{path} has more than {limit} bytes")]
    TooLong {
        /// Which.
        path: Utf8PathBuf,
        /// What is taken.
        limit: u64,
    },
    /// Not YAML, or YAML that would be endless.
    #[error("{at}: {why}")]
    Syntax {
        /// Where.
        at: Origin,
        /// What is wrong.
        why: String,
    },
    /// A value that the Compose specification does not allow.
    #[error("{at}: {key}: {why}")]
    Invalid {
        /// Where.
        at: Origin,
        /// Which key.
        key: String,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// A variable that has to be set and is not.
    #[error("{at}: {key}: {variable} is not set: {why}")]
    Required {
        /// Where it is asked for.
        at: Origin,
        /// Which key.
        key: String,
        /// Which variable.
        variable: String,
        /// What the file says about it.
        why: String,
    },
    /// A file without services.
    #[error("{path} has no services")]
    NoServices {
        /// Which.
        path: Utf8PathBuf,
    },
    /// A service that is asked for and not there.
    #[error("there is no service {name}; there are {there}")]
    UnknownService {
        /// Which.
        name: String,
        /// Those that are.
        there: String,
    },
    /// Services that wait for each other.
    #[error("services depend on each other in a circle: {circle}")]
    Circle {
        /// The names, the first one again at the end.
        circle: String,
    },
}

impl ComposeError {
    pub(crate) fn invalid(at: &Origin, key: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid {
            at: at.clone(),
            key: key.into(),
            why: why.into(),
        }
    }
}
