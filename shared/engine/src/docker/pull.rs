//! Pulls: one at a time for each reference and credential, each in a task of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptions;
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, StreamExt};
use nimbus_model::ImageRef;
use secrecy::ExposeSecret;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::call::{self, Subject, timed};
use super::read;
use crate::{EngineError, Image, Progress, Pull, PullPolicy, PullProgress, RegistryAuth};

/// `os/architecture` that images have to be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Platform {
    pub(super) os: String,
    pub(super) arch: String,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.arch)
    }
}

/// The pulls that are under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulls {
    flights: Arc<Mutex<HashMap<String, Flight>>>,
}

#[derive(Clone, Debug)]
struct Flight {
    done: Shared<BoxFuture<'static, Result<Image, EngineError>>>,
    progress: watch::Receiver<PullProgress>,
}

impl Pulls {
    /// Makes the image present as the policy says.
    pub(super) async fn ensure(
        &self,
        docker: &Docker,
        platform: &Platform,
        reference: &ImageRef,
        pull: &Pull,
    ) -> Result<Image, EngineError> {
        if pull.policy != PullPolicy::Always {
            match look(docker, platform, reference).await {
                Err(EngineError::ImageNotFound { .. }) if pull.policy == PullPolicy::IfMissing => {}
                other => return other,
            }
        }
        let limit = pull.time_limit();
        let flight = self.join(docker, platform, reference, pull.auth.as_ref(), limit);
        let waited = tokio::time::timeout(limit, watched(flight, pull.progress.as_ref())).await;
        waited.unwrap_or_else(|_| {
            Err(EngineError::PullTimeout {
                image: reference.to_string(),
                limit,
            })
        })
    }

    /// The pull of this reference with these credentials: the one under way, or a new one.
    fn join(
        &self,
        docker: &Docker,
        platform: &Platform,
        reference: &ImageRef,
        auth: Option<&RegistryAuth>,
        limit: Duration,
    ) -> Flight {
        let key = format!("{reference} {}", fingerprint(auth));
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key) {
            return flight.clone();
        }
        let (report, progress) = watch::channel(PullProgress::default());
        let (docker, platform, reference) = (docker.clone(), platform.clone(), reference.clone());
        let (auth, all, own) = (auth.cloned(), Arc::clone(&self.flights), key.clone());
        let task = tokio::spawn(async move {
            let result = tokio::time::timeout(
                limit,
                fetch(&docker, &platform, &reference, auth.as_ref(), &report),
            )
            .await;
            // The entry was made before the lock was released that this takes.
            all.lock().unwrap_or_else(PoisonError::into_inner).remove(&own);
            result.unwrap_or_else(|_| {
                Err(EngineError::PullTimeout {
                    image: reference.to_string(),
                    limit,
                })
            })
        });
        let done = task
            .map(|joined| {
                joined.unwrap_or_else(|error| {
                    Err(EngineError::Failed {
                        call: "pull",
                        message: error.to_string(),
                    })
                })
            })
            .boxed()
            .shared();
        let flight = Flight { done, progress };
        flights.insert(key, flight.clone());
        flight
    }
}

/// Waits for a pull and tells how far it is meanwhile.
async fn watched(mut flight: Flight, progress: Option<&Progress>) -> Result<Image, EngineError> {
    let Some(tell) = progress else {
        return flight.done.await;
    };
    loop {
        tokio::select! {
            biased;
            changed = flight.progress.changed() => {
                if changed.is_err() {
                    return flight.done.await;
                }
                let now = *flight.progress.borrow_and_update();
                tell(now);
            }
            result = flight.done.clone() => return result,
        }
    }
}

/// Tells credentials apart without keeping them.
fn fingerprint(auth: Option<&RegistryAuth>) -> String {
    match auth {
        None => "anonymous".to_owned(),
        Some(auth) => {
            let mut hash = Sha256::new();
            hash.update(auth.username.as_bytes());
            hash.update([0]);
            hash.update(auth.password.expose_secret().as_bytes());
            format!("{:x}", hash.finalize())
        }
    }
}

/// The image, if it is present and for this platform.
async fn look(docker: &Docker, platform: &Platform, reference: &ImageRef) -> Result<Image, EngineError> {
    // An engine takes one of tag and digest; the digest says more.
    let name = match reference.digest() {
        Some(digest) => format!("{}@{digest}", reference.name()),
        None => reference.to_string(),
    };
    let full = reference.to_string();
    let found = timed(
        "look for an image",
        Subject::Image(&full),
        call::LOOK,
        docker.inspect_image(&name),
    )
    .await?;
    let theirs = Platform {
        os: found.os.clone().unwrap_or_default(),
        arch: found.architecture.clone().unwrap_or_default(),
    };
    // An image that was imported may say nothing.
    let says_other = |theirs: &str, ours: &str| !theirs.is_empty() && theirs != ours;
    if says_other(&theirs.os, &platform.os) || says_other(&theirs.arch, &platform.arch) {
        return Err(EngineError::WrongPlatform {
            image: full,
            found: theirs.to_string(),
            wanted: platform.to_string(),
        });
    }
    read::image(reference, found).ok_or(EngineError::Failed {
        call: "look for an image",
        message: "the image has no id".to_owned(),
    })
}

async fn fetch(
    docker: &Docker,
    platform: &Platform,
    reference: &ImageRef,
    auth: Option<&RegistryAuth>,
    report: &watch::Sender<PullProgress>,
) -> Result<Image, EngineError> {
    let options = CreateImageOptions {
        from_image: Some(reference.name()),
        tag: Some(reference.version().to_owned()),
        platform: platform.to_string(),
        ..CreateImageOptions::default()
    };
    let credentials = auth.map(|auth| DockerCredentials {
        username: Some(auth.username.clone()),
        password: Some(auth.password.expose_secret().to_owned()),
        serveraddress: Some(reference.registry().to_owned()),
        ..DockerCredentials::default()
    });
    let mut messages = Box::pin(docker.create_image(Some(options), None, credentials));
    let mut layers = Layers::default();
    while let Some(message) = messages.next().await {
        match message {
            Ok(message) => {
                if layers.note(message) {
                    report.send_replace(layers.sum());
                }
            }
            Err(error) => return Err(pull_error(reference, error)),
        }
    }
    look(docker, platform, reference).await
}

/// What the engine passes on of the registry's answer is text.
fn pull_error(reference: &ImageRef, error: Error) -> EngineError {
    let message = match &error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        Error::DockerStreamError { error } => error.clone(),
        _ => return call::meaning("pull", Subject::Image(&reference.to_string()), error),
    };
    let image = reference.to_string();
    let text = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["no space left on device"]) {
        EngineError::NoSpace {
            call: "pull",
            message,
        }
    } else if says(&[
        "unauthorized",
        "no basic auth",
        "authentication required",
        "access denied",
        "denied:",
        "forbidden",
    ]) {
        EngineError::PullRefused { image, message }
    } else if says(&[
        "manifest unknown",
        "not found",
        "name unknown",
        "name invalid",
        "no such image",
    ]) {
        EngineError::ImageNotFound { image }
    } else if says(&["no matching manifest", "does not match the specified platform"]) {
        EngineError::WrongPlatform {
            image,
            found: "other platforms only".to_owned(),
            wanted: "another".to_owned(),
        }
    } else {
        EngineError::PullFailed { image, message }
    }
}

/// Layers by their id, as the engine reports them.
#[derive(Debug, Default)]
struct Layers(HashMap<String, Layer>);

#[derive(Clone, Copy, Debug, Default)]
struct Layer {
    bytes_done: u64,
    bytes: u64,
    done: bool,
}

impl Layers {
    /// Whether the message says how far a layer is.
    fn note(&mut self, message: CreateImageInfo) -> bool {
        let (Some(id), Some(status)) = (message.id, message.status) else {
            return false;
        };
        // "Pulling from library/x" carries the tag where layers have their id.
        if status.starts_with("Pulling from") {
            return false;
        }
        let layer = self.0.entry(id).or_default();
        if let ("Downloading", Some(detail)) = (status.as_str(), message.progress_detail) {
            layer.bytes_done = read::unsigned(detail.current);
            layer.bytes = layer.bytes.max(read::unsigned(detail.total));
        }
        if status.starts_with("Download complete") || status.starts_with("Pull complete") {
            layer.bytes_done = layer.bytes;
        }
        layer.done |= status.starts_with("Pull complete") || status.starts_with("Already exists");
        true
    }

    fn sum(&self) -> PullProgress {
        self.0
            .values()
            .fold(PullProgress::default(), |sum, layer| PullProgress {
                layers: sum.layers + 1,
                layers_done: sum.layers_done + u32::from(layer.done),
                bytes: sum.bytes + layer.bytes,
                bytes_done: sum.bytes_done + layer.bytes_done,
            })
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    #[test]
    fn the_registrys_words_become_what_a_caller_can_do() {
        let reference: ImageRef = "x.io/y:1".parse().expect("a reference");
        let said = |message: &str| {
            pull_error(
                &reference,
                Error::DockerStreamError {
                    error: message.to_owned(),
                },
            )
        };
        assert!(matches!(
            said("unauthorized: authentication required"),
            EngineError::PullRefused { .. }
        ));
        assert!(matches!(
            said("pull access denied for y, repository does not exist or may require 'docker login'"),
            EngineError::PullRefused { .. }
        ));
        assert!(matches!(
            said("manifest for x.io/y:1 not found: manifest unknown"),
            EngineError::ImageNotFound { .. }
        ));
        assert!(matches!(
            said("Get \"https://x.io/v2/\": dial tcp: connection refused"),
            EngineError::PullFailed { .. }
        ));
        assert!(matches!(
            said("failed to register layer: write /x: no space left on device"),
            EngineError::NoSpace { .. }
        ));
        assert!(matches!(
            said("no matching manifest for linux/amd64 in the manifest list entries"),
            EngineError::WrongPlatform { .. }
        ));
    }

    #[test]
    fn progress_adds_up() {
        let mut layers = Layers::default();
        let mut say = |id: &str, status: &str, detail: Option<(i64, i64)>| {
            layers.note(CreateImageInfo {
                id: Some(id.to_owned()),
                status: Some(status.to_owned()),
                progress_detail: detail.map(|(current, total)| ProgressDetail {
                    current: Some(current),
                    total: Some(total),
                }),
                ..CreateImageInfo::default()
            })
        };
        assert!(!say("latest", "Pulling from library/x", None));
        assert!(say("a", "Already exists", None));
        assert!(say("b", "Pulling fs layer", None));
        assert!(say("b", "Downloading", Some((10, 100))));
        assert!(say("b", "Extracting", Some((5, 100))));
        assert_eq!(
            layers.sum(),
            PullProgress {
                layers: 2,
                layers_done: 1,
                bytes: 100,
                bytes_done: 10
            }
        );
    }

    #[test]
    fn credentials_are_told_apart_and_not_shown() {
        let auth = |password: &str| RegistryAuth {
            username: "u".to_owned(),
            password: password.into(),
        };
        assert_eq!(fingerprint(Some(&auth("a"))), fingerprint(Some(&auth("a"))));
        assert_ne!(fingerprint(Some(&auth("a"))), fingerprint(Some(&auth("b"))));
        assert_ne!(fingerprint(Some(&auth("a"))), fingerprint(None));
        assert!(!format!("{:?}", auth("hunter2")).contains("hunter2"));
    }
}
