//! What an error becomes when it leaves the process.

use std::error::Error;

use serde::{Deserialize, Serialize};

use crate::{Code, Entry};

/// An error that has a place in the catalogue.
pub trait Coded: Error {
    /// Its code.
    fn code(&self) -> Code;

    /// Facts for programs: an object whose keys the catalogue's users know, or nothing.
    fn detail(&self) -> Option<serde_json::Value> {
        None
    }
}

/// A failure as it crosses the bus and as it is kept in an operation.
///
/// `detail` is JSON text rather than a value because postcard, the bus' encoding, does not describe
/// itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Stable name; text, because a newer peer may know codes that this one does not.
    pub code: String,
    /// For people; may change between releases.
    pub message: String,
    /// A JSON object as text.
    pub detail: Option<String>,
    /// Whether the same request can succeed later.
    pub retryable: bool,
}

impl Fault {
    /// A fault of `code` with the given message.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code: code.as_str().to_owned(),
            message: message.into(),
            detail: None,
            retryable: code.entry().retryable,
        }
    }

    /// Adds facts for programs.
    #[must_use]
    pub fn with_detail(mut self, detail: &serde_json::Value) -> Self {
        self.detail = Some(detail.to_string());
        self
    }

    /// The fault of an error.
    ///
    /// The message is the error's own for failures whose cause the reader can act on; for
    /// `service.internal` and damaged storage it is only the catalogue's sentence, and the cause
    /// goes to the log.
    #[must_use]
    pub fn of<E: Coded + ?Sized>(error: &E) -> Self {
        let code = error.code();
        let entry = code.entry();
        let message = match code {
            Code::ServiceInternal | Code::ServiceStorageCorruption | Code::ServiceStorageIo => {
                log_cause(error);
                entry.meaning.to_owned()
            }
            _ => error.to_string(),
        };
        Self {
            code: entry.code.to_owned(),
            message,
            detail: error.detail().map(|detail| detail.to_string()),
            retryable: entry.retryable,
        }
    }

    /// The catalogue's row; a code of a newer peer is treated as an internal error.
    #[must_use]
    pub fn entry(&self) -> Entry {
        Code::find(&self.code).unwrap_or(Code::ServiceInternal).entry()
    }

    /// Whether this is `code`.
    #[must_use]
    pub fn is(&self, code: Code) -> bool {
        self.code == code.as_str()
    }

    /// The detail as JSON; `None` when there is none or it is not JSON.
    #[must_use]
    pub fn detail_json(&self) -> Option<serde_json::Value> {
        self.detail
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok())
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl Error for Fault {}

impl<E: Coded> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::of(&error)
    }
}

fn log_cause<E: Error + ?Sized>(error: &E) {
    tracing::error!(cause = %chain(error), "a request failed inside");
}

/// The error and its sources, joined by `: `, without repeating a source that its parent quotes.
///
/// ```
/// let inner = std::io::Error::other("disk full");
/// assert_eq!(nimbus_errors::chain(&inner), "disk full");
/// ```
#[must_use]
pub fn chain<E: Error + ?Sized>(error: &E) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let line = cause.to_string();
        if !text.ends_with(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("could not save {name}")]
    struct Save {
        name: &'static str,
        #[source]
        source: std::io::Error,
    }
    impl Coded for Save {
        fn code(&self) -> Code {
            if self.name == "secret" {
                Code::ServiceStorageIo
            } else {
                Code::OpConflict
            }
        }
    }

    #[test]
    fn the_chain_names_every_cause_once() {
        let error = Save {
            name: "row",
            source: std::io::Error::other("disk full"),
        };
        assert_eq!(chain(&error), "could not save row: disk full");
    }

    #[test]
    fn causes_of_internal_failures_do_not_leave_the_process() {
        let fault = Fault::from(Save {
            name: "secret",
            source: std::io::Error::other("disk full"),
        });
        assert!(!fault.message.contains("secret"), "{}", fault.message);
        assert_eq!(
            Fault::from(Save {
                name: "row",
                source: std::io::Error::other("x")
            })
            .message,
            "could not save row"
        );
    }

    #[test]
    fn a_code_of_a_newer_peer_is_an_internal_error_here() {
        let fault = Fault {
            code: "machine.from_the_future".into(),
            message: "?".into(),
            detail: None,
            retryable: false,
        };
        assert_eq!(fault.entry().http_status, 500);
    }
}
