//! How a job ended: from what the engine says and what the worker did, decided in one place.

use std::time::Duration;

use nimbus_gpu_wire::{Outcome, OutcomeState};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A container as the engine shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Whether it is made and was never started.
    pub(crate) created: bool,
    /// Whether it has a process now.
    pub(crate) running: bool,
    pub(crate) exit_code: i32,
    pub(crate) oom_killed: bool,
    /// Why it could not be started.
    pub(crate) error: Option<String>,
    /// Microseconds since 1970.
    pub(crate) started_at: Option<i64>,
    pub(crate) finished_at: Option<i64>,
    /// Which attempt of the job it was made for.
    pub(crate) attempt: u32,
}

impl Seen {
    /// Whether nothing more will happen to it.
    pub(crate) fn is_over(&self) -> bool {
        !self.running && (!self.created || self.error.is_some())
    }
}

/// What happened to a container that it does not say itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Circumstances {
    /// The worker stopped it for its time limit.
    pub(crate) timed_out: bool,
    /// The engine went away while it ran.
    pub(crate) engine_lost: bool,
    /// The box was started anew since.
    pub(crate) box_restarted: bool,
    /// The limits, to be named.
    pub(crate) time_limit: Duration,
    pub(crate) memory_bytes: Option<u64>,
}

/// A failure that is not the job's own doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: &'static str,
    pub(crate) error: String,
}

impl Fault {
    pub(crate) const IMAGE: &'static str = "gpu.image_unavailable";
    pub(crate) const ENGINE: &'static str = "gpu.engine_failed";
    const TIME: &'static str = "gpu.time_limit";
    const MEMORY: &'static str = "gpu.out_of_memory";

    pub(crate) fn image(error: String) -> Self {
        Self {
            code: Self::IMAGE,
            error,
        }
    }

    pub(crate) fn engine(error: impl Into<String>) -> Self {
        Self {
            code: Self::ENGINE,
            error: error.into(),
        }
    }

    /// The outcome of a job whose container never ran, or is gone without a trace.
    pub(crate) fn outcome(self, attempt: u32) -> Outcome {
        Outcome {
            attempt,
            state: OutcomeState::Failed,
            exit_code: -1,
            code: Some(self.code.to_owned()),
            error: Some(self.error),
            log_bytes: 0,
            artifact_bytes: None,
            artifact_sha256: None,
            artifact_note: None,
            started_at: None,
            finished_at: None,
        }
    }
}

/// The outcome of a container that has ended.
pub(crate) fn judge(seen: &Seen, what: &Circumstances, attempt: u32, log_bytes: u64) -> Outcome {
    let (code, error) = reason(seen, what);
    let state = match error {
        None => OutcomeState::Succeeded,
        Some(_) => OutcomeState::Failed,
    };
    Outcome {
        attempt,
        state,
        exit_code: seen.exit_code,
        code: code.map(str::to_owned),
        error,
        log_bytes,
        artifact_bytes: None,
        artifact_sha256: None,
        artifact_note: None,
        started_at: seen.started_at,
        finished_at: seen.finished_at,
    }
}

/// Code and sentence; no sentence for success.
fn reason(seen: &Seen, what: &Circumstances) -> (Option<&'static str>, Option<String>) {
    let ours = |code, error: String| (Some(code), Some(error));
    if what.timed_out {
        let limit = humantime::format_duration(what.time_limit);
        return ours(
            Fault::TIME,
            format!("it ran longer than its time limit of {limit}"),
        );
    }
    if let Some(error) = &seen.error {
        return match could_not_start(error) {
            Some(_) => (None, Some(error.clone())),
            None => ours(Fault::ENGINE, error.clone()),
        };
    }
    if what.box_restarted {
        return ours(Fault::ENGINE, "the box was restarted while it ran".to_owned());
    }
    if seen.exit_code == 0 {
        return (None, None);
    }
    if seen.oom_killed {
        let limit = what.memory_bytes.map_or_else(
            || "of the box".to_owned(),
            |bytes| format!("limit of {} MiB", bytes >> 20),
        );
        return ours(
            Fault::MEMORY,
            format!("it was killed for using more than the memory {limit}"),
        );
    }
    // Killed from outside, or without anybody having seen its end.
    if what.engine_lost && matches!(seen.exit_code, 137 | 143 | 255) {
        return ours(
            Fault::ENGINE,
            format!(
                "the container engine was restarted while it ran (exit code {})",
                seen.exit_code
            ),
        );
    }
    // The engine does not always notice that the kernel did it.
    if let (137, Some(bytes)) = (seen.exit_code, what.memory_bytes) {
        let limit = bytes >> 20;
        return ours(
            Fault::MEMORY,
            format!("it was killed, most likely for using more than its memory limit of {limit} MiB"),
        );
    }
    let text = match seen.exit_code {
        code @ 129..=192 => format!(
            "its process was ended by signal {} (exit code {code})",
            code - 128
        ),
        code => format!("its process ended with exit code {code}"),
    };
    (None, Some(text))
}

/// The exit code a shell would give, when it is the job's own fault that there is nothing to start.
pub(crate) fn could_not_start(error: &str) -> Option<i32> {
    let says = |text: &str| error.contains(text);
    if says("executable file not found") || says("no such file or directory") {
        return Some(127);
    }
    if says("permission denied") || says("is a directory") || says("exec format error") {
        return Some(126);
    }
    None
}

/// A time of the engine's; its zero time is none.
pub(crate) fn micros(text: Option<&str>) -> Option<i64> {
    let time = OffsetDateTime::parse(text?, &Rfc3339).ok()?;
    if time.year() < 1970 {
        return None;
    }
    i64::try_from(time.unix_timestamp_nanos() / 1000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(exit_code: i32) -> Seen {
        Seen {
            exit_code,
            ..Seen::default()
        }
    }

    fn told(seen: &Seen, what: Circumstances) -> (OutcomeState, Option<String>, String) {
        let outcome = judge(seen, &what, 1, 0);
        (outcome.state, outcome.code, outcome.error.unwrap_or_default())
    }

    #[test]
    fn every_way_to_end_has_its_reason() {
        let plain = Circumstances::default();
        assert_eq!(told(&ended(0), plain).0, OutcomeState::Succeeded);
        let (state, code, error) = told(&ended(3), plain);
        assert_eq!((state, code), (OutcomeState::Failed, None));
        assert!(error.contains("exit code 3"), "{error}");
        assert!(told(&ended(139), plain).2.contains("signal 11"));

        let oom = Seen {
            oom_killed: true,
            ..ended(137)
        };
        assert_eq!(told(&oom, plain).1.as_deref(), Some("gpu.out_of_memory"));
        let limited = Circumstances {
            memory_bytes: Some(1 << 30),
            ..plain
        };
        assert_eq!(told(&ended(137), limited).1.as_deref(), Some("gpu.out_of_memory"));
        assert_eq!(told(&ended(137), plain).1, None);
        // A child was killed, but the job itself came to a good end.
        let survived = Seen {
            oom_killed: true,
            ..ended(0)
        };
        assert_eq!(told(&survived, plain).0, OutcomeState::Succeeded);

        let late = Circumstances {
            timed_out: true,
            time_limit: Duration::from_secs(60),
            ..plain
        };
        let (state, code, error) = told(&ended(0), late);
        assert_eq!(
            (state, code.as_deref()),
            (OutcomeState::Failed, Some("gpu.time_limit"))
        );
        assert!(error.contains("1m"), "{error}");

        let lost = Circumstances {
            engine_lost: true,
            ..plain
        };
        assert_eq!(told(&ended(137), lost).1.as_deref(), Some("gpu.engine_failed"));
        assert_eq!(told(&ended(1), lost).1, None);
        assert_eq!(told(&ended(0), lost).0, OutcomeState::Succeeded);
        let rebooted = Circumstances {
            box_restarted: true,
            ..plain
        };
        assert_eq!(
            told(&ended(255), rebooted).1.as_deref(),
            Some("gpu.engine_failed")
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_the_jobs_own_fault() {
        let seen = |error: &str| Seen {
            created: true,
            exit_code: 127,
            error: Some(error.to_owned()),
            ..Seen::default()
        };
        let missing = seen("OCI runtime create failed: exec: \"nope\": executable file not found in $PATH");
        assert!(missing.is_over());
        assert_eq!(told(&missing, Circumstances::default()).1, None);
        let driver = seen("could not select device driver \"\" with capabilities: [[gpu]]");
        assert_eq!(
            told(&driver, Circumstances::default()).1.as_deref(),
            Some("gpu.engine_failed")
        );
    }

    #[test]
    fn the_engines_zero_time_is_no_time() {
        assert_eq!(micros(Some("0001-01-01T00:00:00Z")), None);
        assert_eq!(micros(Some("1970-01-01T00:00:01.5Z")), Some(1_500_000));
        assert_eq!(micros(Some("")), None);
    }
}
