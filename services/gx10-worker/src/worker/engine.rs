//! The container engine, through its socket. Every call has a limit and says what its failure means.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, CreateImageInfo,
};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, DownloadFromContainerOptions, KillContainerOptions,
    ListContainersOptions, LogsOptions, RemoveContainerOptions, UploadToContainerOptions,
    WaitContainerOptions,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tracing::info;

use crate::create::{ATTEMPT_LABEL, JOB_LABEL, WORKER_LABEL};
use crate::outcome::{Seen, micros};

/// Looking something up.
const LOOK: Duration = Duration::from_secs(15);
/// Making a container: layers are mounted.
const CREATE: Duration = Duration::from_secs(60);
/// Starting one: the runtime and its hooks run, and a GPU may have to wake up.
const START: Duration = Duration::from_secs(120);
/// Removing one: its layer is deleted.
const REMOVE: Duration = Duration::from_secs(120);
/// Dying after SIGKILL; longer only where the kernel does not let go.
const KILLED: Duration = Duration::from_secs(30);
/// bollard's limit for the head of an answer, in seconds; a wait has it only at the end of a job.
const HEAD_LIMIT_S: u64 = 30 * 24 * 3600;

/// What a failure means to a job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    /// Ask again when it is back.
    #[error("the container engine does not answer (to {call}): {detail}")]
    Away { call: &'static str, detail: String },
    #[error("{call}: it is not there: {detail}")]
    Missing { call: &'static str, detail: String },
    #[error("{call}: {detail}")]
    Conflict { call: &'static str, detail: String },
    #[error("no space is left on the box: {detail}")]
    NoSpace { detail: String },
    #[error("{call}: {detail}")]
    Refused { call: &'static str, detail: String },
}

impl EngineError {
    /// Only what the engine said.
    pub(crate) fn detail(&self) -> &str {
        match self {
            Self::Away { detail, .. }
            | Self::Missing { detail, .. }
            | Self::Conflict { detail, .. }
            | Self::NoSpace { detail }
            | Self::Refused { detail, .. } => detail,
        }
    }
}

/// How many entries tell that two readings of a log ended at the same place.
const LAST: usize = 4;

/// One entry of a container's log: a line, or a piece of a long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When the engine read it, as it writes that, and a space.
    time: Bytes,
    /// What the job printed.
    pub(crate) text: Bytes,
}

impl Entry {
    fn of(mut frame: Bytes) -> Option<Self> {
        let space = frame.iter().position(|byte| *byte == b' ')?;
        let text = frame.split_off(space + 1);
        Some(Self { time: frame, text })
    }
}

/// The newest entries of a log as far as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Last(VecDeque<Entry>);

impl Last {
    pub(crate) fn note(&mut self, entry: Entry) {
        if self.0.len() == LAST {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }
}

/// What the engine can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) nvidia_runtime: bool,
    /// Has a small init for containers.
    pub(crate) init: bool,
    /// Folders where descriptions of devices lie.
    pub(crate) cdi_dirs: Vec<PathBuf>,
    /// Where it keeps its data.
    pub(crate) root_dir: PathBuf,
}

/// A client that finds the engine again after its restart.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    socket: PathBuf,
    client: Arc<Mutex<Option<Docker>>>,
}

impl Engine {
    pub(crate) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            client: Arc::default(),
        }
    }

    /// The client, speaking a version of the API that the engine knows.
    async fn client(&self) -> Result<Docker, EngineError> {
        let known = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(client) = known {
            return Ok(client);
        }
        let socket = self.socket.to_string_lossy();
        let negotiated = async {
            Docker::connect_with_unix(&socket, HEAD_LIMIT_S, API_DEFAULT_VERSION)?
                .negotiate_version()
                .await
        };
        let client = timed("connect", LOOK, negotiated).await?;
        info!("the container engine answers on {socket}");
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok(client)
    }

    /// After its return the engine may be another version.
    fn forget(&self) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) async fn facts(&self) -> Result<Facts, EngineError> {
        let asked = timed("info", LOOK, self.client().await?.info()).await;
        if matches!(asked, Err(EngineError::Away { .. })) {
            self.forget();
        }
        let info = asked?;
        Ok(Facts {
            nvidia_runtime: info.runtimes.unwrap_or_default().contains_key("nvidia"),
            init: info
                .init_commit
                .and_then(|commit| commit.id)
                .is_some_and(|id| id != "N/A"),
            cdi_dirs: info
                .cdi_spec_dirs
                .unwrap_or_default()
                .into_iter()
                .map(PathBuf::from)
                .collect(),
            root_dir: info.docker_root_dir.unwrap_or_default().into(),
        })
    }

    /// The user that an image's programs run as, empty for root; `None` if the image is not there.
    pub(crate) async fn image_user(&self, image: &str) -> Result<Option<String>, EngineError> {
        let client = self.client().await?;
        match timed("look for the image", LOOK, client.inspect_image(image)).await {
            Ok(found) => Ok(Some(
                found.config.and_then(|config| config.user).unwrap_or_default(),
            )),
            Err(EngineError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Pulls an image; what is told on the way.
    pub(crate) async fn pull(
        &self,
        name: &str,
        version: &str,
    ) -> Result<impl Stream<Item = Result<CreateImageInfo, EngineError>> + use<>, EngineError> {
        let options = CreateImageOptions {
            from_image: Some(name.to_owned()),
            tag: Some(version.to_owned()),
            ..CreateImageOptions::default()
        };
        let client = self.client().await?;
        Ok(client
            .create_image(Some(options), None, None)
            .map(|told| told.map_err(|error| meaning("pull", error))))
    }

    pub(crate) async fn has_volume(&self, name: &str) -> Result<bool, EngineError> {
        let client = self.client().await?;
        match timed("look for a volume", LOOK, client.inspect_volume(name)).await {
            Ok(_) => Ok(true),
            Err(EngineError::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<(), EngineError> {
        let options = CreateContainerOptions {
            name: Some(name.to_owned()),
            ..CreateContainerOptions::default()
        };
        let client = self.client().await?;
        timed(
            "make the container",
            CREATE,
            client.create_container(Some(options), body),
        )
        .await?;
        Ok(())
    }

    /// Unpacks a tar archive at the root of a container.
    pub(crate) async fn put(&self, name: &str, archive: Bytes) -> Result<(), EngineError> {
        let options = UploadToContainerOptions {
            path: "/".to_owned(),
            ..UploadToContainerOptions::default()
        };
        let client = self.client().await?;
        let body = bollard::body_full(archive);
        timed(
            "prepare the container",
            CREATE,
            client.upload_to_container(name, Some(options), body),
        )
        .await
    }

    pub(crate) async fn start(&self, name: &str) -> Result<(), EngineError> {
        let client = self.client().await?;
        timed("start the container", START, client.start_container(name, None)).await
    }

    /// The container of this name, if there is one.
    pub(crate) async fn inspect(&self, name: &str) -> Result<Option<Seen>, EngineError> {
        let client = self.client().await?;
        match timed(
            "look at the container",
            LOOK,
            client.inspect_container(name, None),
        )
        .await
        {
            Ok(found) => Ok(Some(seen(found))),
            Err(EngineError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns when the container does not run; at once if it does not now.
    pub(crate) async fn wait(&self, name: &str) -> Result<(), EngineError> {
        let options = WaitContainerOptions {
            condition: "not-running".to_owned(),
        };
        let client = self.client().await?;
        let mut ended = client.wait_container(name, Some(options));
        match ended.next().await {
            // An exit code that is not 0 is an error to bollard.
            Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) => Ok(()),
            Some(Err(error)) => Err(meaning("wait", error)),
            None => Err(EngineError::Away {
                call: "wait",
                detail: "the connection ended".to_owned(),
            }),
        }
    }

    /// SIGTERM, and SIGKILL after `grace`; returns when the container does not run.
    pub(crate) async fn stop(&self, name: &str, grace: Duration) -> Result<(), EngineError> {
        self.signal(name, "SIGTERM").await?;
        if let Ok(ended) = tokio::time::timeout(grace, self.wait(name)).await {
            return gone_is_fine(ended);
        }
        self.signal(name, "SIGKILL").await?;
        match tokio::time::timeout(KILLED, self.wait(name)).await {
            Ok(ended) => gone_is_fine(ended),
            Err(_) => Err(EngineError::Refused {
                call: "stop",
                detail: format!("it still runs {KILLED:?} after SIGKILL"),
            }),
        }
    }

    async fn signal(&self, name: &str, signal: &str) -> Result<(), EngineError> {
        let options = KillContainerOptions {
            signal: signal.to_owned(),
        };
        let client = self.client().await?;
        match timed("signal", LOOK, client.kill_container(name, Some(options))).await {
            // It does not run.
            Err(EngineError::Missing { .. } | EngineError::Conflict { .. }) => Ok(()),
            other => other,
        }
    }

    /// Takes a container away, running or not.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptions {
            force: true,
            v: true,
            link: false,
        };
        let client = self.client().await?;
        gone_is_fine(timed("remove", REMOVE, client.remove_container(name, Some(options))).await)
    }

    /// The container's output from its beginning, both streams in the engine's order. Ends when it does,
    /// or with what is there if it is not to be followed.
    pub(crate) async fn log(
        &self,
        name: &str,
        follow: bool,
    ) -> Result<impl Stream<Item = Result<Entry, EngineError>> + use<>, EngineError> {
        self.entries(name, follow, "all").await
    }

    /// The newest entries of a container's log, [`LAST`] at most. The engine reads them from its end.
    pub(crate) async fn last_of_log(&self, name: &str) -> Result<Last, EngineError> {
        let mut last = Last::default();
        let mut entries = std::pin::pin!(self.entries(name, false, &LAST.to_string()).await?);
        while let Some(entry) = entries.next().await {
            last.note(entry?);
        }
        Ok(last)
    }

    async fn entries(
        &self,
        name: &str,
        follow: bool,
        tail: &str,
    ) -> Result<impl Stream<Item = Result<Entry, EngineError>> + use<>, EngineError> {
        let options = LogsOptions {
            follow,
            stdout: true,
            stderr: true,
            timestamps: true,
            tail: tail.to_owned(),
            ..LogsOptions::default()
        };
        let broken = |detail: &str| EngineError::Away {
            call: "log",
            detail: detail.to_owned(),
        };
        let client = self.client().await?;
        Ok(client.logs(name, Some(options)).map(move |frame| match frame {
            Ok(LogOutput::StdOut { message } | LogOutput::StdErr { message }) => {
                Entry::of(message).ok_or_else(|| broken("an entry has no time"))
            }
            // What bollard makes of a frame that was cut off.
            Ok(_) => Err(broken("the connection ended")),
            Err(error) => Err(meaning("log", error)),
        }))
    }

    /// A tar archive of what lies in a folder of a container, which need not run.
    pub(crate) async fn archive(
        &self,
        name: &str,
        folder: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, EngineError>> + use<>, EngineError> {
        let options = DownloadFromContainerOptions {
            // With the dot: its content, under names that begin with it.
            path: format!("{folder}/."),
        };
        let client = self.client().await?;
        Ok(client
            .download_from_container(name, Some(options))
            .map(|piece| piece.map_err(|error| meaning("archive", error))))
    }

    /// Names and jobs of the containers that a worker of this name made.
    pub(crate) async fn ours(&self, worker: &str) -> Result<Vec<(String, String)>, EngineError> {
        let filter = vec![format!("{WORKER_LABEL}={worker}"), JOB_LABEL.to_owned()];
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("label".to_owned(), filter)])),
            ..ListContainersOptions::default()
        };
        let client = self.client().await?;
        let found = timed("list", LOOK, client.list_containers(Some(options))).await?;
        Ok(found
            .into_iter()
            .filter_map(|container| {
                let name = container.names?.first()?.trim_start_matches('/').to_owned();
                let job = container.labels?.get(JOB_LABEL)?.clone();
                Some((name, job))
            })
            .collect())
    }
}

fn gone_is_fine(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(EngineError::Missing { .. }) => Ok(()),
        other => other,
    }
}

async fn timed<T>(
    call: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done.map_err(|error| meaning(call, error)),
        Err(_) => Err(EngineError::Away {
            call,
            detail: format!("no answer within {limit:?}"),
        }),
    }
}

fn meaning(call: &'static str, error: Error) -> EngineError {
    let (status, detail) = match error {
        Error::DockerResponseServerError { status_code, message } => (status_code, message),
        Error::DockerStreamError { error } => (0, error),
        other => {
            return EngineError::Away {
                call,
                detail: other.to_string(),
            };
        }
    };
    if detail.contains("no space left on device") {
        return EngineError::NoSpace { detail };
    }
    match status {
        404 => EngineError::Missing { call, detail },
        // Removing what is being removed ends the same way.
        409 if detail.contains("is already in progress") => EngineError::Away { call, detail },
        409 => EngineError::Conflict { call, detail },
        _ => EngineError::Refused { call, detail },
    }
}

fn seen(found: ContainerInspectResponse) -> Seen {
    let state = found.state.unwrap_or_default();
    let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
    let finished_at = micros(state.finished_at.as_deref());
    // The engine notes the start after it has happened, and a short job has ended by then.
    let started_at = micros(state.started_at.as_deref())
        .map(|start| finished_at.map_or(start, |end| start.min(end.max(0))));
    Seen {
        created: state.status == Some(ContainerStateStatusEnum::CREATED),
        running: state.running.unwrap_or(false),
        exit_code: state
            .exit_code
            .and_then(|code| i32::try_from(code).ok())
            .unwrap_or(-1),
        oom_killed: state.oom_killed.unwrap_or(false),
        error: state.error.filter(|error| !error.is_empty()),
        started_at,
        finished_at,
        attempt: labels
            .get(ATTEMPT_LABEL)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0),
    }
}
