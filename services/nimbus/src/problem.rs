//! What a command says when it fails: what, why, code, and the next command to try.

use std::process::ExitCode;

use nimbus_errors::Code;
use serde::Serialize;

/// How the process ends; documented by `nimbus --help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Exit {
    /// The work failed.
    Failed,
    /// The command line, a setting or the request is wrong.
    Usage,
    /// A safety rule forbids it; the message names the way around.
    Refused,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Failed => Self::from(1),
            Exit::Usage => Self::from(2),
            Exit::Refused => Self::from(3),
        }
    }
}

/// A failure, as it is printed. Boxed, because every command returns it.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Problem(Box<Details>);

#[derive(Debug, Serialize)]
struct Details {
    /// What did not work.
    what: String,
    /// Why.
    why: Option<String>,
    /// The error catalogue's name of it.
    code: Option<String>,
    /// The request in the server's log.
    request_id: Option<String>,
    /// What to do.
    next: Option<String>,
    /// How the process ends.
    exit: Exit,
}

/// The outcome of a command.
pub(crate) type Outcome<T = ()> = Result<T, Problem>;

impl Problem {
    /// Work that failed.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self(Box::new(Details {
            what: what.into(),
            why: None,
            code: None,
            request_id: None,
            next: None,
            exit: Exit::Failed,
        }))
    }

    /// A wrong command line or setting.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        let mut problem = Self::failed(what);
        problem.0.exit = Exit::Usage;
        problem
    }

    /// Something that a safety rule forbids.
    pub(crate) fn refused(what: impl Into<String>) -> Self {
        let mut problem = Self::failed(what);
        problem.0.exit = Exit::Refused;
        problem
    }

    /// Adds the reason.
    #[must_use]
    pub(crate) fn why(mut self, why: impl Into<String>) -> Self {
        self.0.why = Some(why.into());
        self
    }

    /// Adds the reason from an error and its sources.
    #[must_use]
    pub(crate) fn because(self, error: &dyn std::error::Error) -> Self {
        let why = nimbus_errors::chain(error);
        self.why(why)
    }

    /// Adds what to do next.
    #[must_use]
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.0.next = Some(next.into());
        self
    }

    /// Adds the name of the failure, and what its catalogue entry advises.
    #[must_use]
    pub(crate) fn code(mut self, code: &str) -> Self {
        self.0.code = Some(code.to_owned());
        if let Some(entry) = Code::find(code).map(Code::entry) {
            self.0.next.get_or_insert_with(|| entry.remedy.to_owned());
        }
        if code == Code::OpInvalidInput.as_str() {
            self.0.exit = Exit::Usage;
        }
        self
    }

    /// Adds the request's name in the server's log.
    #[must_use]
    pub(crate) fn request(mut self, id: Option<String>) -> Self {
        self.0.request_id = id;
        self
    }

    /// Whether it has this code.
    pub(crate) fn is(&self, code: Code) -> bool {
        self.0.code.as_deref() == Some(code.as_str())
    }

    /// Whether the same request may succeed soon: the server is away for a moment, or says so.
    pub(crate) fn is_passing(&self) -> bool {
        let code = self.0.code.as_deref();
        code.is_none_or(|code| Code::find(code).is_some_and(|code| code.entry().retryable))
    }

    /// Prints it to stderr, as text or as one JSON object, and says how to end.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        if json {
            let line = serde_json::json!({ "error": self });
            eprintln!("{line}");
        } else {
            eprint!("{self}");
        }
        self.0.exit.into()
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "error: {}", self.0.what)?;
        if let Some(why) = &self.0.why {
            writeln!(f, "  why:  {why}")?;
        }
        match (&self.0.code, &self.0.request_id) {
            (Some(code), Some(request)) => writeln!(f, "  code: {code} (request {request})")?,
            (Some(code), None) => writeln!(f, "  code: {code}")?,
            _ => {}
        }
        if let Some(next) = &self.0.next {
            writeln!(f, "  next: {next}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_why_code_and_next() {
        let problem = Problem::failed("could not create web-1")
            .why("another machine has this hostname")
            .code("machine.hostname_taken")
            .request(Some("req_1".into()));
        assert_eq!(
            problem.to_string(),
            "error: could not create web-1\n  why:  another machine has this hostname\n  \
             code: machine.hostname_taken (request req_1)\n  next: Choose another hostname.\n"
        );
    }

    #[test]
    fn bad_input_is_a_usage_error_wherever_it_is_found() {
        assert_eq!(Problem::failed("x").code("op.invalid_input").0.exit, Exit::Usage);
        assert_eq!(Problem::failed("x").code("op.conflict").0.exit, Exit::Failed);
        assert_eq!(Problem::refused("x").0.exit, Exit::Refused);
    }
}
