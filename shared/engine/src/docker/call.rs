//! One call to the engine: its time limit, and what its failure means.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error;

use crate::EngineError;

/// Looking something up.
pub(super) const LOOK: Duration = Duration::from_secs(15);
/// Making a container: the engine prepares a layer and mounts.
pub(super) const CREATE: Duration = Duration::from_secs(30);
/// Starting one: the runtime runs.
pub(super) const START: Duration = Duration::from_secs(30);
/// Ending one, beyond the time that its process has been given.
pub(super) const END: Duration = Duration::from_secs(30);
/// Removing one, and walking its layer.
pub(super) const REMOVE: Duration = Duration::from_secs(120);

/// What a call is about, for errors.
#[derive(Clone, Copy, Debug)]
pub(super) enum Subject<'a> {
    Engine,
    Container(&'a str),
    Volume(&'a str),
    Image(&'a str),
}

/// Runs one call.
pub(super) async fn timed<T>(
    call: &'static str,
    subject: Subject<'_>,
    limit: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(meaning(call, subject, error)),
        Err(_) => Err(EngineError::Timeout { call, limit }),
    }
}

/// What the engine's answer means to a caller.
pub(super) fn meaning(call: &'static str, subject: Subject<'_>, error: Error) -> EngineError {
    match error {
        Error::DockerResponseServerError { status_code, message } => {
            refused(call, subject, status_code, message)
        }
        Error::IOError { .. } | Error::HyperResponseError { .. } | Error::SocketNotFoundError(_) => {
            EngineError::Unavailable {
                missing: vec!["the container engine does not answer on its socket".to_owned()],
                source: Some(Arc::new(error)),
            }
        }
        Error::RequestTimeoutError => EngineError::Timeout { call, limit: LOOK },
        Error::DockerStreamError { error } => EngineError::Failed { call, message: error },
        other => EngineError::Failed {
            call,
            message: other.to_string(),
        },
    }
}

fn refused(call: &'static str, subject: Subject<'_>, status: u16, message: String) -> EngineError {
    if message.contains("no space left on device") {
        return EngineError::NoSpace { call, message };
    }
    match (status, subject) {
        (404, _) if message.contains("page not found") || message.trim() == "Not Found" => {
            EngineError::Unsupported {
                call,
                engine: "this engine".to_owned(),
            }
        }
        (404, Subject::Image(image)) => EngineError::ImageNotFound {
            image: image.to_owned(),
        },
        (404, Subject::Container(name)) => EngineError::NotFound {
            kind: "container",
            name: name.to_owned(),
        },
        (404, Subject::Volume(name)) => EngineError::NotFound {
            kind: "volume",
            name: name.to_owned(),
        },
        (409, _) => EngineError::Conflict { call, message },
        // Podman's answers to a name that is taken and to a signal for what does not run.
        (500, _) if message.contains("is already in use") || message.contains("container state improper") => {
            EngineError::Conflict { call, message }
        }
        (400..=499, _) => EngineError::Refused { call, message },
        _ => EngineError::Failed { call, message },
    }
}

/// Success when there was nothing to take away.
pub(super) fn gone_is_fine(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(EngineError::NotFound { .. }) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status_code: u16, message: &str) -> Error {
        Error::DockerResponseServerError {
            status_code,
            message: message.to_owned(),
        }
    }

    #[test]
    fn answers_are_told_apart_by_what_the_caller_can_do() {
        let about = |subject, status, message| meaning("create", subject, said(status, message));
        assert!(matches!(
            about(Subject::Image("sha256:1"), 404, "No such image: sha256:1"),
            EngineError::ImageNotFound { .. }
        ));
        assert!(matches!(
            about(Subject::Container("c"), 500, "that name is already in use"),
            EngineError::Conflict { .. }
        ));
        assert!(about(Subject::Container("c"), 404, "No such container: c").is_not_found());
        assert!(matches!(
            about(Subject::Container("c"), 404, "404 page not found"),
            EngineError::Unsupported { .. }
        ));
        assert!(matches!(
            about(Subject::Container("c"), 404, "Not Found\n"),
            EngineError::Unsupported { .. }
        ));
        assert!(matches!(
            about(
                Subject::Container("c"),
                500,
                "c is in state exited: container state improper"
            ),
            EngineError::Conflict { .. }
        ));
        assert!(matches!(
            about(Subject::Container("c"), 409, "already in use"),
            EngineError::Conflict { .. }
        ));
        assert!(matches!(
            about(Subject::Container("c"), 500, "write /x: no space left on device"),
            EngineError::NoSpace { .. }
        ));
        assert!(matches!(
            about(Subject::Engine, 400, "invalid mount"),
            EngineError::Refused { .. }
        ));
        assert!(matches!(
            about(Subject::Engine, 500, "?"),
            EngineError::Failed { .. }
        ));
        let lost = meaning(
            "list",
            Subject::Engine,
            Error::from(std::io::Error::other("refused")),
        );
        assert!(matches!(lost, EngineError::Unavailable { .. }), "{lost}");
    }

    #[test]
    fn taking_away_what_is_gone_is_success() {
        let gone = Err(EngineError::NotFound {
            kind: "container",
            name: "c".to_owned(),
        });
        assert!(gone_is_fine(gone).is_ok());
        assert!(gone_is_fine(Err(EngineError::missing("x"))).is_err());
    }
}
