//! The driver for Docker and Podman.

mod call;
mod create;
mod events;
mod facts;
mod pull;
mod read;
mod transport;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::errors::Error;
use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, KillContainerOptions, ListContainersOptions,
    ListImagesOptions, ListVolumesOptions, RemoveContainerOptions, RemoveVolumeOptions, StatsOptions,
    StopContainerOptions, WaitContainerOptions,
};
use bollard::{ClientVersion, Docker};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use nimbus_model::ImageRef;
use tokio_stream::wrappers::ReceiverStream;

use self::call::{Subject, gone_is_fine, timed};
use self::create::Ground;
use self::facts::Found;
use self::pull::{Platform, Pulls};
use crate::{
    ContainerEntry, ContainerId, ContainerSpec, ContainerState, Engine, EngineError, EngineEvent, Facts,
    Image, Labels, Limits, PresentImage, Pull, Remove, Signal, Stats, Volume, seccomp,
};

/// Newest API that the calls here are written for; the engine's own is used when it is older.
const API: ClientVersion = ClientVersion {
    major_version: 1,
    minor_version: 51,
};

/// Oldest API that has what is needed: one-shot statistics (Docker 20.10).
const OLDEST_API: ClientVersion = ClientVersion {
    major_version: 1,
    minor_version: 41,
};

/// Time to find out whether something that listens is an engine.
const GREETING: Duration = Duration::from_secs(5);

/// Where to look for an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineConfig {
    /// `unix:///path`; only this one is tried then.
    pub url: Option<String>,
    /// What `DOCKER_HOST` says; tried first.
    pub docker_host: Option<String>,
    /// What `XDG_RUNTIME_DIR` says: where a Podman without root listens.
    pub runtime_dir: Option<PathBuf>,
    /// Where files for the engine may be put; Podman takes its system-call filter from one.
    pub state_dir: Option<PathBuf>,
}

impl EngineConfig {
    /// Where engines listen, as the environment of this process says.
    #[must_use]
    pub fn from_env() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            url: None,
            docker_host: text("DOCKER_HOST"),
            runtime_dir: text("XDG_RUNTIME_DIR").map(PathBuf::from),
            state_dir: None,
        }
    }

    /// The addresses in the order in which they are tried.
    fn candidates(&self) -> Vec<String> {
        if let Some(url) = &self.url {
            return vec![url.clone()];
        }
        let mut urls: Vec<String> = self.docker_host.iter().cloned().collect();
        urls.push("unix:///var/run/docker.sock".to_owned());
        urls.push("unix:///run/podman/podman.sock".to_owned());
        urls.extend(
            self.runtime_dir
                .iter()
                .map(|dir| format!("unix://{}/podman/podman.sock", dir.display())),
        );
        urls
    }
}

/// Finds an engine that has what sandboxes need.
///
/// # Errors
/// [`EngineError::Unavailable`] names each address that was tried with what is wrong there, or what
/// the engine that was found lacks.
pub async fn discover(config: &EngineConfig) -> Result<DockerEngine, EngineError> {
    let mut missing = Vec::new();
    for url in config.candidates() {
        match DockerEngine::connect(&url, config.state_dir.as_deref()).await {
            Ok(engine) => {
                let facts = engine.facts().await?;
                if facts.missing.is_empty() {
                    return Ok(engine);
                }
                missing.push(format!(
                    "{url} ({} {}) lacks {}",
                    facts.name,
                    facts.version,
                    facts.missing.join(", ")
                ));
            }
            Err(reason) => missing.push(format!("{url}: {reason}")),
        }
    }
    Err(EngineError::Unavailable {
        missing,
        source: None,
    })
}

/// Docker or Podman behind a Unix socket. Clones share everything.
#[derive(Clone)]
pub struct DockerEngine {
    inner: Arc<Inner>,
}

struct Inner {
    docker: Docker,
    url: String,
    found: Found,
    ground: Ground,
    platform: Platform,
    pulls: Pulls,
}

impl std::fmt::Debug for DockerEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DockerEngine")
            .field("url", &self.inner.url)
            .field("found", &self.inner.found)
            .finish_non_exhaustive()
    }
}

impl DockerEngine {
    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// The engine at one address; the error is for people.
    async fn connect(url: &str, state_dir: Option<&Path>) -> Result<Self, String> {
        let path = url
            .strip_prefix("unix://")
            .filter(|path| path.starts_with('/'))
            .ok_or("only unix:///path is supported")?;
        let socket = Path::new(path);
        let version = match tokio::time::timeout(GREETING, transport::version(socket)).await {
            Ok(Ok(version)) => version,
            Ok(Err(error)) => return Err(nimbus_errors::chain(&error)),
            Err(_) => return Err(format!("no answer within {} s", GREETING.as_secs())),
        };
        let api = version.api_version.clone().unwrap_or_default();
        let spoken = parse_api(&api).ok_or_else(|| format!("it says API {api:?}, which is no version"))?;
        if spoken < OLDEST_API {
            return Err(format!("its API is {api}, older than {OLDEST_API}"));
        }
        let podman = version
            .components
            .iter()
            .flatten()
            .any(|part| part.name.contains("Podman"));
        let found = Found {
            name: if podman { "podman" } else { "docker" }.to_owned(),
            version: version.version.unwrap_or_default(),
            api,
        };
        let docker = transport::client(socket, if spoken < API { &spoken } else { &API })
            .map_err(|e| e.to_string())?;
        let info = match tokio::time::timeout(GREETING, docker.info()).await {
            Ok(Ok(info)) => info,
            Ok(Err(error)) => return Err(plain(&error)),
            Err(_) => return Err(format!("no answer within {} s", GREETING.as_secs())),
        };
        let facts = facts::facts(&found, info, &mountinfo().await);
        let limits = limits(socket).await;
        let ground = Ground {
            seccomp: filter(podman, state_dir).await?,
            cpus: facts.cpus,
            open_files: facts::limit(&limits, "Max open files"),
            // Podman asks for a million when nothing is said, which it may not be allowed to give.
            user_processes: facts::limit(&limits, "Max processes").filter(|_| podman),
            disk_quota: facts.disk_quota,
            // Docker has one mapping for the whole engine, and Podman without root is in one already.
            userns: None,
        };
        Ok(Self {
            inner: Arc::new(Inner {
                docker,
                url: url.to_owned(),
                platform: Platform {
                    os: "linux".to_owned(),
                    arch: facts.arch,
                },
                found,
                ground,
                pulls: Pulls::default(),
            }),
        })
    }

    fn docker(&self) -> &Docker {
        &self.inner.docker
    }

    /// Waits until the container does not run, up to `grace`; says whether it has ended.
    async fn ended(&self, id: &ContainerId, grace: Duration) -> Result<bool, EngineError> {
        let options = WaitContainerOptions {
            condition: "not-running".to_owned(),
        };
        let mut waiting = Box::pin(self.docker().wait_container(id.as_str(), Some(options)));
        match tokio::time::timeout(grace, waiting.next()).await {
            // bollard makes an exit code other than 0 an error.
            Ok(None | Some(Ok(_) | Err(Error::DockerContainerWaitError { .. }))) => Ok(true),
            Ok(Some(Err(error))) => Err(call::meaning("wait", Subject::Container(id.as_str()), error)),
            Err(_) => Ok(false),
        }
    }

    /// An error that says which engine has no such function.
    fn name_it(&self, error: EngineError) -> EngineError {
        match error {
            EngineError::Unsupported { call, .. } => EngineError::Unsupported {
                call,
                engine: format!("{} {}", self.inner.found.name, self.inner.found.version),
            },
            other => other,
        }
    }
}

/// What is wrong with a socket, in a few words: the outermost error only says "client error".
fn plain(error: &Error) -> String {
    let text = nimbus_errors::chain(error);
    match text.rsplit_once(": ") {
        Some((_, last)) => last.to_owned(),
        None => text,
    }
}

fn parse_api(text: &str) -> Option<ClientVersion> {
    let (major, minor) = text.split_once('.')?;
    Some(ClientVersion {
        major_version: major.parse().ok()?,
        minor_version: minor.parse().ok()?,
    })
}

/// Value of the `seccomp=` option: the profile itself for Docker, the path of a file for Podman.
async fn filter(podman: bool, state_dir: Option<&Path>) -> Result<String, String> {
    let profile = seccomp::profile().to_string();
    if !podman {
        return Ok(profile);
    }
    let dir = state_dir
        .ok_or("Podman takes its system call filter from a file, and no state directory is configured")?;
    let path = dir.join("seccomp.json");
    let written = async {
        tokio::fs::create_dir_all(dir).await?;
        tokio::fs::write(&path, profile).await
    };
    written
        .await
        .map_err(|error| format!("could not write {}: {error}", path.display()))?;
    Ok(path.display().to_string())
}

async fn mountinfo() -> String {
    // Without it no quota is assumed.
    tokio::fs::read_to_string("/proc/self/mountinfo")
        .await
        .unwrap_or_default()
}

/// The limits of the engine's process, as `/proc` has them; empty when they are not ours to see.
async fn limits(socket: &Path) -> String {
    match transport::peer_pid(socket).await {
        Some(pid) => tokio::fs::read_to_string(format!("/proc/{pid}/limits"))
            .await
            .unwrap_or_default(),
        None => String::new(),
    }
}

#[async_trait]
impl Engine for DockerEngine {
    async fn facts(&self) -> Result<Facts, EngineError> {
        let info = timed(
            "tell about itself",
            Subject::Engine,
            call::LOOK,
            self.docker().info(),
        )
        .await?;
        Ok(facts::facts(&self.inner.found, info, &mountinfo().await))
    }

    async fn ensure_image(&self, image: &ImageRef, pull: &Pull) -> Result<Image, EngineError> {
        let inner = &self.inner;
        inner
            .pulls
            .ensure(&inner.docker, &inner.platform, image, pull)
            .await
    }

    async fn images(&self) -> Result<Vec<PresentImage>, EngineError> {
        // Not with `digests`: Podman 4.3 answers that with an empty body. They are listed anyway.
        let options = ListImagesOptions::default();
        let found = timed(
            "list images",
            Subject::Engine,
            call::LOOK,
            self.docker().list_images(Some(options)),
        )
        .await?;
        Ok(found.into_iter().filter_map(read::present).collect())
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId, EngineError> {
        let options = CreateContainerOptions {
            name: Some(spec.name.clone()),
            ..CreateContainerOptions::default()
        };
        let body = create::body(spec, &self.inner.ground);
        let made = timed(
            "create a container",
            Subject::Image(spec.image.as_str()),
            call::CREATE,
            self.docker().create_container(Some(options), body),
        )
        .await?;
        for warning in made.warnings {
            tracing::warn!(container.name = %spec.name, "the engine warns about {}: {warning}", spec.name);
        }
        Ok(ContainerId::new(made.id))
    }

    async fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        let started = timed(
            "start a container",
            Subject::Container(id.as_str()),
            call::START,
            self.docker().start_container(id.as_str(), None),
        );
        match started.await {
            Err(EngineError::Refused { message, .. } | EngineError::Failed { message, .. }) => {
                Err(EngineError::Launch { message })
            }
            other => other,
        }
    }

    async fn stop(
        &self,
        id: &ContainerId,
        signal: Option<&Signal>,
        grace: Duration,
    ) -> Result<(), EngineError> {
        let Some(signal) = signal else {
            let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
            let options = StopContainerOptions {
                t: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
                signal: None,
            };
            let stopping = self.docker().stop_container(id.as_str(), Some(options));
            return timed(
                "stop a container",
                Subject::Container(id.as_str()),
                grace + call::END,
                stopping,
            )
            .await;
        };
        // The stop call takes a signal since API 1.42 only; this way all engines take one.
        match self.kill(id, signal).await {
            Ok(()) => {}
            Err(EngineError::Conflict { .. }) => return Ok(()),
            Err(other) => return Err(other),
        }
        if self.ended(id, grace).await? {
            return Ok(());
        }
        match self.kill(id, &Signal::kill()).await {
            Ok(()) => {}
            Err(EngineError::Conflict { .. }) => return Ok(()),
            Err(other) => return Err(other),
        }
        if self.ended(id, call::END).await? {
            Ok(())
        } else {
            Err(EngineError::Timeout {
                call: "stop a container",
                limit: grace + call::END,
            })
        }
    }

    async fn kill(&self, id: &ContainerId, signal: &Signal) -> Result<(), EngineError> {
        let options = KillContainerOptions {
            signal: signal.as_str().to_owned(),
        };
        let killed = self.docker().kill_container(id.as_str(), Some(options));
        timed(
            "signal a container",
            Subject::Container(id.as_str()),
            call::LOOK,
            killed,
        )
        .await
    }

    async fn remove(&self, id: &ContainerId, how: Remove) -> Result<(), EngineError> {
        let options = RemoveContainerOptions {
            v: how.volumes,
            force: how.force,
            link: false,
        };
        let removed = timed(
            "remove a container",
            Subject::Container(id.as_str()),
            call::REMOVE,
            self.docker().remove_container(id.as_str(), Some(options)),
        )
        .await;
        match gone_is_fine(removed) {
            // Somebody else removes it at this moment.
            Err(EngineError::Conflict { message, .. }) if message.contains("already in progress") => Ok(()),
            other => other,
        }
    }

    async fn update_limits(&self, id: &ContainerId, limits: &Limits) -> Result<(), EngineError> {
        let changed = timed(
            "change a container's limits",
            Subject::Container(id.as_str()),
            call::LOOK,
            self.docker()
                .update_container(id.as_str(), create::update(limits, self.inner.ground.cpus)),
        );
        match changed.await {
            // The kernel says "busy" when a container uses more memory than the new limit.
            Err(EngineError::Failed { call, message }) => Err(EngineError::Refused { call, message }),
            Err(other) => Err(self.name_it(other)),
            Ok(()) => Ok(()),
        }
    }

    async fn inspect(&self, id: &ContainerId) -> Result<ContainerState, EngineError> {
        let found = timed(
            "inspect a container",
            Subject::Container(id.as_str()),
            call::LOOK,
            self.docker().inspect_container(id.as_str(), None),
        )
        .await?;
        Ok(read::state(id, found))
    }

    async fn list(&self, labels: &Labels) -> Result<Vec<ContainerEntry>, EngineError> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(read::label_filter(labels)),
            ..ListContainersOptions::default()
        };
        let found = timed(
            "list containers",
            Subject::Engine,
            call::LOOK,
            self.docker().list_containers(Some(options)),
        )
        .await?;
        Ok(found.into_iter().filter_map(read::entry).collect())
    }

    fn events(&self, labels: &Labels) -> BoxStream<'static, EngineEvent> {
        ReceiverStream::new(events::follow(self.docker().clone(), labels)).boxed()
    }

    async fn ensure_volume(&self, name: &str, labels: &Labels) -> Result<Volume, EngineError> {
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            driver: Some("local".to_owned()),
            labels: Some(labels.clone().into_iter().collect()),
            ..VolumeCreateRequest::default()
        };
        let made = timed(
            "make a volume",
            Subject::Volume(name),
            call::LOOK,
            self.docker().create_volume(request),
        )
        .await?;
        Ok(volume(made))
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        let removed = self.docker().remove_volume(name, None::<RemoveVolumeOptions>);
        gone_is_fine(timed("remove a volume", Subject::Volume(name), call::REMOVE, removed).await)
    }

    async fn list_volumes(&self, labels: &Labels) -> Result<Vec<Volume>, EngineError> {
        let options = ListVolumesOptions {
            filters: Some(read::label_filter(labels)),
        };
        let found = timed(
            "list volumes",
            Subject::Engine,
            call::LOOK,
            self.docker().list_volumes(Some(options)),
        )
        .await?;
        Ok(found
            .volumes
            .unwrap_or_default()
            .into_iter()
            .map(volume)
            .collect())
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats, EngineError> {
        let options = StatsOptions {
            stream: false,
            // Without it the engine waits a second or two to give a second sample.
            one_shot: true,
        };
        let mut samples = Box::pin(self.docker().stats(id.as_str(), Some(options)));
        let sample = timed(
            "read a container's use",
            Subject::Container(id.as_str()),
            call::LOOK,
            samples.try_next(),
        )
        .await?;
        sample.and_then(read::stats).ok_or_else(|| EngineError::Conflict {
            call: "read a container's use",
            message: format!("{id} does not run"),
        })
    }

    async fn size(&self, id: &ContainerId) -> Result<u64, EngineError> {
        let options = InspectContainerOptions { size: true };
        let found = timed(
            "measure a container",
            Subject::Container(id.as_str()),
            call::REMOVE,
            self.docker().inspect_container(id.as_str(), Some(options)),
        )
        .await?;
        Ok(read::unsigned(found.size_rw))
    }
}

fn volume(found: bollard::models::Volume) -> Volume {
    Volume {
        name: found.name,
        mountpoint: found.mountpoint,
        labels: found.labels.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_address_is_the_only_one() {
        let config = EngineConfig {
            url: Some("unix:///x.sock".into()),
            docker_host: Some("unix:///y.sock".into()),
            ..EngineConfig::default()
        };
        assert_eq!(config.candidates(), ["unix:///x.sock"]);
        let config = EngineConfig {
            docker_host: Some("unix:///y.sock".into()),
            runtime_dir: Some("/run/user/1000".into()),
            ..EngineConfig::default()
        };
        assert_eq!(
            config.candidates(),
            [
                "unix:///y.sock",
                "unix:///var/run/docker.sock",
                "unix:///run/podman/podman.sock",
                "unix:///run/user/1000/podman/podman.sock"
            ]
        );
    }

    #[tokio::test]
    async fn what_was_looked_for_is_told_with_its_reason() {
        let missing = |url: &str| {
            let config = EngineConfig {
                url: Some(url.to_owned()),
                ..EngineConfig::default()
            };
            async move {
                discover(&config)
                    .await
                    .expect_err("there is no engine")
                    .to_string()
            }
        };
        let error = missing("unix:///no/such/engine.sock").await;
        assert!(
            error.contains("unix:///no/such/engine.sock") && error.contains("No such file"),
            "{error}"
        );
        let error = missing("tcp://127.0.0.1:2375").await;
        assert!(error.contains("only unix:///path is supported"), "{error}");
    }
}
