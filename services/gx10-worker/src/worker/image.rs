//! Makes a job's image present, as `docker run` does: pulled if it is not there.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::CreateImageInfo;
use futures::StreamExt;
use nimbus_gpu_wire::Phase;
use tracing::{info, warn};

use crate::engine::EngineError;
use crate::link::Pause;
use crate::outcome::Fault;
use crate::worker::Worker;

/// Attempts where the registry may only be in trouble for the moment.
const ATTEMPTS: u32 = 3;
/// A pull that moves no byte for this long is over; the engine itself may wait forever.
const STILL: Duration = Duration::from_secs(600);
/// How often progress is told.
const TELL: Duration = Duration::from_secs(2);

/// Whom its programs run as, empty for root.
pub(crate) async fn ensure(worker: &Worker, job: &str, image: &str) -> Result<String, Fault> {
    let (mut pause, mut attempt) = (Pause::default(), 0);
    loop {
        let error = match worker.engine.image_user(image).await {
            Ok(Some(user)) => return Ok(user),
            Ok(None) => match pull(worker, job, image).await {
                Ok(()) => continue,
                Err(error) => error,
            },
            Err(error) => error,
        };
        match error {
            EngineError::Away { .. } => pause.wait().await,
            EngineError::NoSpace { .. } => {
                return Err(Fault::engine(format!("no space is left on the box for {image}")));
            }
            error if is_final(&error) || attempt + 1 >= ATTEMPTS => {
                return Err(Fault::image(format!(
                    "{image} cannot be pulled: {}",
                    error.detail()
                )));
            }
            error => {
                attempt += 1;
                warn!(
                    gpu.job = job,
                    "{image} could not be pulled, trying again: {}",
                    error.detail()
                );
                pause.wait().await;
            }
        }
    }
}

/// Whether another attempt would end the same way.
fn is_final(error: &EngineError) -> bool {
    let says = [
        "not found",
        "denied",
        "unauthorized",
        "unknown",
        "invalid reference",
        "no matching manifest",
    ];
    let text = error.detail().to_lowercase();
    matches!(error, EngineError::Missing { .. }) || says.iter().any(|word| text.contains(word))
}

async fn pull(worker: &Worker, job: &str, image: &str) -> Result<(), EngineError> {
    let (name, version) = parts(image);
    info!(gpu.job = job, "pulling {image}");
    worker.tell(job, Phase::Pulling, None, Some("pulling the image".to_owned()));
    let mut told = std::pin::pin!(worker.engine.pull(name, version).await?);
    let mut layers = HashMap::new();
    let mut last = tokio::time::Instant::now();
    loop {
        let next = tokio::time::timeout(STILL, told.next()).await;
        match next {
            Ok(None) => return Ok(()),
            Ok(Some(info)) => note(&mut layers, info?),
            Err(_) => {
                return Err(EngineError::Refused {
                    call: "pull",
                    detail: format!("nothing came for {STILL:?}"),
                });
            }
        }
        if last.elapsed() >= TELL {
            last = tokio::time::Instant::now();
            worker.tell(job, Phase::Pulling, None, Some(progress(&layers)));
        }
    }
}

fn note(layers: &mut HashMap<String, (i64, i64)>, info: CreateImageInfo) {
    let Some(id) = info.id else { return };
    // Unpacking counts the same bytes again.
    if info.status.as_deref() != Some("Downloading") {
        return;
    }
    if let Some(detail) = info.progress_detail
        && let (Some(current), Some(total)) = (detail.current, detail.total)
    {
        layers.insert(id, (current, total));
    }
}

fn progress(layers: &HashMap<String, (i64, i64)>) -> String {
    let sum = |side: fn(&(i64, i64)) -> i64| layers.values().map(side).sum::<i64>();
    let (current, total) = (sum(|layer| layer.0), sum(|layer| layer.1));
    format!("pulling the image: {} of {} MiB", current >> 20, total >> 20)
}

/// Name and tag or digest: without one the engine would fetch every tag there is.
fn parts(image: &str) -> (&str, &str) {
    if let Some((name, digest)) = image.split_once('@') {
        // An engine takes one of tag and digest; the digest says more.
        return (without_tag(name), digest);
    }
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((bare, tag)) if !tag.contains('/') => bare,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_cut_where_the_engine_wants_it() {
        assert_eq!(parts("busybox"), ("busybox", "latest"));
        assert_eq!(parts("10.0.0.1:5000/a/b"), ("10.0.0.1:5000/a/b", "latest"));
        assert_eq!(parts("10.0.0.1:5000/a/b:2"), ("10.0.0.1:5000/a/b", "2"));
        assert_eq!(parts("a/b:2@sha256:00"), ("a/b", "sha256:00"));
    }

    #[test]
    fn what_is_not_there_is_not_asked_for_again() {
        let error = |detail: &str| EngineError::Refused {
            call: "pull",
            detail: detail.to_owned(),
        };
        assert!(is_final(&error("manifest for x:1 not found: manifest unknown")));
        assert!(is_final(&error("pull access denied for x")));
        assert!(!is_final(&error("dial tcp: lookup registry: i/o timeout")));
    }
}
