//! GPU jobs; the boxes that run them and how they are set up are in [`plane`].

mod plane;

use std::collections::BTreeMap;

use nimbus_gpu_wire::{Command, Dataset, EnvVar, Phase};
use nimbus_model::MachineId;
use nimbus_proto::gpu::{Job, SubmitRequest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[cfg(test)]
pub(crate) use plane::BusAccessView;
pub(crate) use plane::{
    GpuSettingsBody, GpuSettingsView, GpuWorkerView, InferenceView, PairingView, RegisteredView,
    RegistrationBody, UnpairBody, UnpairedView, UsageView, WorkerBody,
};

use super::At;
use crate::envelope::{Answer, ApiError};

/// What a job runs: a line for the image's shell, or exactly these arguments.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(untagged, expecting = "expected a line for the shell, or a list of arguments")]
pub(crate) enum GpuCommandView {
    /// A line for `sh -c`.
    Line(String),
    /// The arguments.
    Arguments(Vec<String>),
}

impl GpuCommandView {
    fn of(command: Command) -> Option<Self> {
        match command {
            Command::Image => None,
            Command::Shell(line) => Some(Self::Line(line)),
            Command::Argv(arguments) => Some(Self::Arguments(arguments)),
        }
    }

    /// As a person would type it.
    fn line(&self) -> String {
        match self {
            Self::Line(line) => line.clone(),
            Self::Arguments(arguments) => shell_line(arguments),
        }
    }
}

/// Arguments as one line that a POSIX shell takes apart into them.
pub(crate) fn shell_line(arguments: &[String]) -> String {
    let words: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
    words.join(" ")
}

/// An argument as a POSIX shell takes it for one word.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@%+".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

/// A volume of the box that a job sees at `/datasets/<name>`.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatasetView {
    /// Its name.
    #[schema(pattern = "^[a-z0-9][a-z0-9_-]{0,62}$")]
    pub name: String,
    /// Whether the job may write to it.
    #[serde(default)]
    pub writable: bool,
}

/// Submits a job.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubmitBody {
    /// Reference of its image.
    #[schema(examples("docker.io/library/python:3.13"))]
    pub image: String,
    /// What runs in it; what the image says when it is left out.
    #[serde(default)]
    pub command: Option<GpuCommandView>,
    /// Its own environment.
    #[serde(default)]
    pub env: Option<BTreeMap<String, String>>,
    /// Boxes that may run it; `default` when it is left out.
    #[serde(default)]
    pub pool: Option<String>,
    /// The machine it is for, `vm_…`; for the caller to know.
    #[serde(default)]
    pub vm_id: Option<String>,
    /// Volumes of the box.
    #[serde(default)]
    pub datasets: Option<Vec<DatasetView>>,
    /// How long it may run; a day when it is left out.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 604_800)]
    pub time_limit_seconds: Option<u64>,
    /// Bytes of memory it may use; what the box has when it is left out.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Higher goes first; other than 0 for administrators.
    #[serde(default)]
    #[schema(minimum = -100, maximum = 100)]
    pub priority: Option<i32>,
    /// Whether it runs again when its box is lost; else it fails then.
    #[serde(default)]
    pub rerun: Option<bool>,
}

impl SubmitBody {
    pub(crate) fn request(self) -> Answer<SubmitRequest> {
        let machine = self.vm_id.map(|id| id.parse::<MachineId>()).transpose();
        Ok(SubmitRequest {
            image: self.image,
            command: match self.command {
                None => Command::Image,
                Some(GpuCommandView::Line(line)) => Command::Shell(line),
                Some(GpuCommandView::Arguments(arguments)) => Command::Argv(arguments),
            },
            env: self
                .env
                .into_iter()
                .flatten()
                .map(|(name, value)| EnvVar { name, value })
                .collect(),
            pool: self.pool,
            machine: machine.map_err(|error| ApiError::field("vm_id", error.to_string()))?,
            datasets: self
                .datasets
                .into_iter()
                .flatten()
                .map(|dataset| Dataset {
                    name: dataset.name,
                    writable: dataset.writable,
                })
                .collect(),
            time_s: self.time_limit_seconds,
            memory_bytes: self.memory_bytes,
            priority: self.priority.unwrap_or(0),
            rerun: self.rerun.unwrap_or(false),
        })
    }
}

/// Changes the place of a queued job.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PrioritizeBody {
    /// Higher goes first.
    #[schema(minimum = -100, maximum = 100)]
    pub priority: i32,
}

/// A job.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct GpuJobView {
    /// Its id, `job_…`.
    pub id: String,
    /// Who submitted it.
    pub owner_id: String,
    /// The machine it was submitted from or for, `vm_…`.
    pub vm_id: Option<String>,
    /// `queued`, `running`, `succeeded`, `failed` or `cancelled`.
    pub state: &'static str,
    /// How far its box is with it: `assigned`, `pulling`, `running` or `ending`.
    pub phase: Option<&'static str>,
    /// The same in words.
    pub phase_note: Option<String>,
    /// Reference of its image.
    pub image: String,
    /// What runs in it; null for what the image says.
    pub command: Option<GpuCommandView>,
    /// Its own environment; left out of events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// Volumes of the box that it sees.
    pub datasets: Vec<DatasetView>,
    /// Boxes that may run it.
    pub pool: String,
    /// Higher goes first.
    pub priority: i32,
    /// Whether it runs again when its box is lost.
    pub rerun: bool,
    /// How often it was given to a box.
    pub attempt: u32,
    /// The box that has or had it.
    pub worker_id: Option<String>,
    /// How many jobs of its pool go before it, while it is queued.
    pub ahead: u64,
    /// How long it may run.
    pub time_limit_seconds: u64,
    /// Bytes of memory it may use; null for what the box has.
    pub memory_bytes: Option<u64>,
    /// Exit code of its first process; -1 when it never ran.
    pub exit_code: Option<i32>,
    /// Code of the error catalogue when it failed by more than its exit code.
    pub error_code: Option<String>,
    /// Why it failed.
    pub error_msg: Option<String>,
    /// Bytes of its log that are kept.
    pub log_end: u64,
    /// Bytes that it printed.
    pub log_bytes: u64,
    /// Whether it printed more than is kept.
    pub log_truncated: bool,
    /// Size of what it left, as `.tar.gz`.
    pub artifact_bytes: Option<u64>,
    /// SHA-256 of that.
    pub artifact_sha256: Option<String>,
    /// Why there is nothing although it left something.
    pub artifact_note: Option<String>,
    /// When it was submitted.
    pub queued_at: At,
    /// When its container started.
    pub started_at: Option<At>,
    /// When it ended.
    pub finished_at: Option<At>,
}

const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Assigned => "assigned",
        Phase::Pulling => "pulling",
        Phase::Running => "running",
        Phase::Ending => "ending",
    }
}

impl From<Job> for GpuJobView {
    fn from(job: Job) -> Self {
        let (artifact_bytes, artifact_sha256) = job
            .artifact
            .map(|artifact| (artifact.bytes, artifact.sha256))
            .unzip();
        Self {
            id: job.id.to_string(),
            owner_id: job.owner.to_string(),
            vm_id: job.machine.map(|machine| machine.to_string()),
            state: job.state.into(),
            phase: job.phase.map(phase_name),
            phase_note: job.phase_note,
            image: job.image,
            command: GpuCommandView::of(job.command),
            env: Some(job.env.into_iter().map(|var| (var.name, var.value)).collect()),
            datasets: job
                .datasets
                .into_iter()
                .map(|dataset| DatasetView {
                    name: dataset.name,
                    writable: dataset.writable,
                })
                .collect(),
            pool: job.pool,
            priority: job.priority,
            rerun: job.rerun,
            attempt: job.attempt,
            worker_id: job.worker.map(|worker| worker.to_string()),
            ahead: job.ahead,
            time_limit_seconds: job.limits.time_s,
            memory_bytes: job.limits.memory_bytes,
            exit_code: job.exit_code,
            error_code: job.code,
            error_msg: job.error,
            log_end: job.log_end,
            log_bytes: job.log_bytes,
            log_truncated: job.log_truncated,
            artifact_bytes,
            artifact_sha256,
            artifact_note: job.artifact_note,
            queued_at: job.queued_at.into(),
            started_at: job.started_at.map(At),
            finished_at: job.finished_at.map(At),
        }
    }
}

impl GpuJobView {
    /// The job as an event shows it.
    pub(crate) fn of_event(job: Job) -> Self {
        Self {
            env: None,
            ..Self::from(job)
        }
    }

    /// What it is about, on one line.
    fn command_line(&self) -> String {
        self.command
            .as_ref()
            .map_or_else(String::new, GpuCommandView::line)
    }

    /// Where it stands, in a word or two.
    fn standing(&self) -> String {
        match (self.state, self.phase, self.exit_code) {
            ("running", Some(phase), _) if phase != "running" => format!("running ({phase})"),
            ("failed", _, Some(code)) => format!("failed ({code})"),
            (state, ..) => state.to_owned(),
        }
    }

    /// Facts for a person, one a line.
    pub(crate) fn text(&self) -> String {
        let mut facts = vec![
            ("id", self.id.clone()),
            ("state", self.standing()),
            ("image", self.image.clone()),
            ("command", self.command_line()),
            ("queued", moment(self.queued_at)),
        ];
        if self.state == "queued" {
            facts.push(("ahead", self.ahead.to_string()));
        }
        let more = [
            ("started", self.started_at.map(moment)),
            ("finished", self.finished_at.map(moment)),
            ("worker", self.worker_id.clone()),
            ("note", self.phase_note.clone()),
            ("exit code", self.exit_code.map(|code| code.to_string())),
            ("error", self.error_msg.clone()),
            (
                "artifact",
                self.artifact_bytes.map(|bytes| format!("{bytes} bytes")),
            ),
            ("artifact", self.artifact_note.clone()),
        ];
        facts.extend(more.into_iter().filter_map(|(name, value)| Some((name, value?))));
        facts
            .into_iter()
            .map(|(name, value)| format!("{name:<10} {}\n", one_line(&value)))
            .collect()
    }

    /// A row of [`heading`].
    pub(crate) fn row(&self) -> String {
        format!(
            "{:<37} {:<18} {:<16} {:<24} {}\n",
            self.id,
            self.standing(),
            moment(self.queued_at),
            shortened(self.image.trim_start_matches("docker.io/library/"), 24),
            shortened(&one_line(&self.command_line()), 60)
        )
    }
}

/// The heading over rows of jobs.
pub(crate) fn heading() -> String {
    format!(
        "{:<37} {:<18} {:<16} {:<24} {}\n",
        "ID", "STATE", "QUEUED", "IMAGE", "COMMAND"
    )
}

/// To the minute, in UTC.
fn moment(at: At) -> String {
    let text = at.0.to_string();
    text.get(..16).map_or(text.clone(), |text| text.replace('T', " "))
}

/// Without line ends and anything else that a terminal would obey.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Its beginning, when it is too long.
fn shortened(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use nimbus_bus::Method;
    use nimbus_proto::gpu::GetJob;

    use super::*;

    #[test]
    fn a_command_is_a_line_or_arguments_and_is_shown_as_a_shell_takes_it() {
        let read =
            |text: &str| serde_json::from_str::<SubmitBody>(text).map(|body| body.request().unwrap().command);
        assert_eq!(read(r#"{"image":"i"}"#).unwrap(), Command::Image);
        assert_eq!(
            read(r#"{"image":"i","command":"a b"}"#).unwrap(),
            Command::Shell("a b".into())
        );
        assert_eq!(
            read(r#"{"image":"i","command":["a","b c"]}"#).unwrap(),
            Command::Argv(vec!["a".into(), "b c".into()])
        );
        let error = read(r#"{"image":"i","command":7}"#).unwrap_err().to_string();
        assert!(error.contains("a line for the shell"), "{error}");
        let shown = GpuCommandView::Arguments(vec!["a-b".into(), "it's".into(), String::new()]);
        assert_eq!(shown.line(), r"a-b 'it'\''s' ''");
    }

    #[test]
    fn text_for_people_has_one_line_for_each_fact_and_no_control_characters() {
        let mut job = GetJob::sample_reply();
        job.command = Command::Shell("printf 'a\n\u{1b}[31m'".into());
        job.error = Some("line\nline".into());
        let view = GpuJobView::from(job);
        let text = view.text();
        assert!(
            text.lines()
                .all(|line| line.len() > 10 && line.as_bytes()[10] == b' '),
            "{text}"
        );
        assert!(!text.contains('\u{1b}') && view.row().ends_with('\n'), "{text}");
        assert_eq!(view.row().lines().count(), 1);
        assert!(
            serde_json::to_string(&GpuJobView { env: None, ..view })
                .unwrap()
                .contains("\"command\":\"printf")
        );
    }
}
