//! What can go wrong with a database, by what the caller can do about it.

use std::sync::Arc;

use camino::Utf8PathBuf;
use nimbus_errors::{Code, Coded};
use sqlx::error::ErrorKind;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Locked, out of connections, deadlocked or out of resources: the same again can succeed.
    #[error("the database is busy")]
    Busy {
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// The database does not answer, or ended the connection; whether a commit under way was done is not known.
    #[error("the database cannot be reached")]
    Unavailable {
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// A row with this key exists already.
    #[error("there is such a row already")]
    Unique {
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// A foreign key: the row referred to is missing, or the row is still referred to.
    #[error("a reference between rows does not hold")]
    Reference {
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// A CHECK or NOT NULL rule of the table.
    #[error("a value breaks a rule of its table")]
    Rule {
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// The disk: full, read-only or failing.
    #[error("the database could not read or write its files")]
    Io {
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// What is stored is damaged, or is not what this version writes.
    #[error("stored data could not be understood")]
    Corruption {
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// A statement that the engine does not accept, or an answer of another shape: a bug.
    #[error("a statement failed")]
    Statement {
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// Another process has the file open.
    #[error("{path} is in use by another nimbus process{}", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    InUse {
        /// The database.
        path: Utf8PathBuf,
        /// Who has it.
        pid: Option<u32>,
    },
    /// The file is something else.
    #[error("{path} is not a nimbus database")]
    Foreign {
        /// The file.
        path: Utf8PathBuf,
    },
    /// There is a file already and the caller did not say that it may go.
    #[error("{path} exists already")]
    Exists {
        /// The file.
        path: Utf8PathBuf,
    },
    /// The file's own check found damage.
    #[error("{path} is damaged: {finding}")]
    Damaged {
        /// The file.
        path: Utf8PathBuf,
        /// The first finding.
        finding: String,
    },
    /// A file next to the database, or the file itself.
    #[error("could not {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: Utf8PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Only the other engine can do this.
    #[error("{what} is for SQLite only; use PostgreSQL's own tools, such as pg_dump")]
    SqliteOnly {
        /// What was asked for.
        what: &'static str,
    },
    /// The name of a service becomes part of SQL names, so it is checked.
    #[error("{name:?} cannot be the name of a store: expected ^[a-z][a-z0-9_]{{0,30}}$")]
    Name {
        /// The name.
        name: String,
    },
    /// The list of migrations is not in order.
    #[error("migration {name} of {service} is not after the one before it")]
    MigrationOrder {
        /// The service.
        service: String,
        /// The migration out of order.
        name: String,
    },
    /// A migration's text differs from the one that was applied.
    #[error("migration {name} of {service} was changed after it had been applied")]
    MigrationChanged {
        /// The service.
        service: String,
        /// The migration.
        name: String,
    },
    /// The tables were made by a newer (or another) version.
    #[error("the tables of {service} have migration {name}, which this version does not know")]
    MigrationUnknown {
        /// The service.
        service: String,
        /// The migration.
        name: String,
    },
    /// A migration did not run; nothing of it was kept.
    #[error("migration {name} of {service} failed")]
    Migration {
        /// The service.
        service: String,
        /// The migration.
        name: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The failure of a commit that several writes shared.
    #[error(transparent)]
    Shared(Arc<StoreError>),
    /// The write ended without an answer: it panicked, the process is ending, or another one for which there was no
    /// space took its transaction along.
    #[error("the write was interrupted")]
    Interrupted,
}

impl StoreError {
    /// Whether a row with this key exists already. SQLite does not say which constraint it was.
    #[must_use]
    pub fn is_unique_violation(&self) -> bool {
        matches!(self.root(), Self::Unique { .. })
    }

    /// Whether the same transaction, run again, can succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.root(), Self::Busy { .. } | Self::Unavailable { .. })
    }

    fn root(&self) -> &Self {
        match self {
            Self::Shared(inner) => inner.root(),
            other => other,
        }
    }
}

impl Coded for StoreError {
    fn code(&self) -> Code {
        match self.root() {
            Self::Busy { .. } | Self::InUse { .. } => Code::ServiceStorageBusy,
            Self::Unavailable { .. } | Self::Interrupted => Code::ServiceUnavailable,
            Self::Unique { .. } | Self::Exists { .. } => Code::OpAlreadyExists,
            Self::Io { .. } | Self::File { .. } => Code::ServiceStorageIo,
            Self::Corruption { .. } | Self::Damaged { .. } => Code::ServiceStorageCorruption,
            Self::Foreign { .. } | Self::SqliteOnly { .. } => Code::OpInvalidInput,
            Self::Reference { .. }
            | Self::Rule { .. }
            | Self::Statement { .. }
            | Self::Name { .. }
            | Self::MigrationOrder { .. }
            | Self::MigrationChanged { .. }
            | Self::MigrationUnknown { .. }
            | Self::Migration { .. }
            | Self::Shared(_) => Code::ServiceInternal,
        }
    }
}

/// Sorts a driver's error by what can be done about it.
impl From<sqlx::Error> for StoreError {
    fn from(source: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &source {
            E::Database(inner) => match inner.kind() {
                ErrorKind::UniqueViolation => Self::Unique { source },
                ErrorKind::ForeignKeyViolation => Self::Reference { source },
                ErrorKind::NotNullViolation | ErrorKind::CheckViolation | ErrorKind::ExclusionViolation => {
                    Self::Rule { source }
                }
                _ => match inner.code().map(|code| Trouble::of(&code)) {
                    Some(Trouble::Busy) => Self::Busy { source },
                    Some(Trouble::Unavailable) => Self::Unavailable { source },
                    Some(Trouble::Io) => Self::Io { source },
                    Some(Trouble::Corruption) => Self::Corruption { source },
                    Some(Trouble::Other) | None => Self::Statement { source },
                },
            },
            E::PoolTimedOut => Self::Busy { source },
            E::Io(_) | E::Tls(_) | E::PoolClosed | E::WorkerCrashed | E::BeginFailed => {
                Self::Unavailable { source }
            }
            E::Decode(_) | E::ColumnDecode { .. } => Self::Corruption { source },
            _ => Self::Statement { source },
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Trouble {
    Busy,
    Unavailable,
    Io,
    Corruption,
    Other,
}

impl Trouble {
    /// An SQLSTATE has five characters (PostgreSQL documentation, appendix A); SQLite's extended
    /// result codes are decimal numbers of at most four, whose low byte is the primary code
    /// (sqlite.org/rescode.html).
    fn of(code: &str) -> Self {
        if code.len() == 5 {
            let (class, _) = code.split_at_checked(2).unwrap_or((code, ""));
            return match (class, code) {
                // serialization failure, deadlock, lock not available, query canceled
                (_, "40001" | "40P01" | "55P03" | "57014") => Self::Busy,
                (_, "53100" | "58030") => Self::Io,
                ("53", _) => Self::Busy,
                ("08" | "57", _) => Self::Unavailable,
                ("58", _) => Self::Io,
                ("XX", "XX001" | "XX002") => Self::Corruption,
                _ => Self::Other,
            };
        }
        match code.parse::<u32>().map(|extended| extended & 0xff) {
            Ok(5 | 6) => Self::Busy,
            // read-only, I/O, full, cannot open
            Ok(8 | 10 | 13 | 14) => Self::Io,
            Ok(11 | 26) => Self::Corruption,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_both_engines_are_sorted_by_what_one_can_do() {
        for (code, trouble) in [
            ("5", Trouble::Busy),
            ("517", Trouble::Busy),
            ("13", Trouble::Io),
            ("778", Trouble::Io),
            ("11", Trouble::Corruption),
            ("1", Trouble::Other),
            ("40001", Trouble::Busy),
            ("53300", Trouble::Busy),
            ("53100", Trouble::Io),
            ("57P01", Trouble::Unavailable),
            ("XX001", Trouble::Corruption),
            ("42601", Trouble::Other),
        ] {
            assert_eq!(Trouble::of(code), trouble, "{code}");
        }
    }

    #[test]
    fn a_shared_failure_keeps_its_kind() {
        let shared = StoreError::Shared(Arc::new(StoreError::from(sqlx::Error::PoolTimedOut)));
        assert!(shared.is_transient());
        assert_eq!(shared.code(), Code::ServiceStorageBusy);
        assert_eq!(shared.to_string(), "the database is busy");
    }
}
