//! The trait.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use nimbus_model::ImageRef;

use crate::{
    ContainerEntry, ContainerId, ContainerSpec, ContainerState, EngineError, EngineEvent, Facts, Image,
    Labels, Limits, PresentImage, Pull, Remove, Signal, Stats, Volume,
};

/// Something that runs containers on this host.
///
/// Every call has a time limit of its own, so an engine that hangs costs its caller an error and
/// not a task. Dropping a call's future stops the waiting; what the engine was asked to do may still
/// happen. Calls that take something away succeed when it is gone already.
#[async_trait]
pub trait Engine: Send + Sync + std::fmt::Debug + 'static {
    /// What this engine is and can do.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] when it does not answer.
    async fn facts(&self) -> Result<Facts, EngineError>;

    /// Makes the image present and says what it is; pulls as [`Pull::policy`] says.
    ///
    /// Concurrent pulls of one reference with the same credentials are one pull. A pull goes on when
    /// its callers stop waiting, so that the next one finds its layers.
    ///
    /// # Errors
    /// [`EngineError::ImageNotFound`], [`EngineError::PullRefused`], [`EngineError::PullTimeout`],
    /// [`EngineError::PullFailed`], [`EngineError::WrongPlatform`], [`EngineError::NoSpace`].
    async fn ensure_image(&self, image: &ImageRef, pull: &Pull) -> Result<Image, EngineError>;

    /// The images that are present, for placement.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] when the engine does not answer.
    async fn images(&self) -> Result<Vec<PresentImage>, EngineError>;

    /// Makes a container; it does not run yet.
    ///
    /// # Errors
    /// [`EngineError::ImageNotFound`] when the image is not present, [`EngineError::Conflict`] when
    /// the name is taken, [`EngineError::Refused`] when the engine does not accept the spec.
    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId, EngineError>;

    /// Starts a container; one that runs already is left alone.
    ///
    /// # Errors
    /// [`EngineError::Launch`] when its first process could not be run.
    async fn start(&self, id: &ContainerId) -> Result<(), EngineError>;

    /// Sends `signal` (the container's own stop signal when `None`), waits up to `grace`, then kills.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] when there is no such container.
    async fn stop(
        &self,
        id: &ContainerId,
        signal: Option<&Signal>,
        grace: Duration,
    ) -> Result<(), EngineError>;

    /// Sends a signal to the container's first process.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when it does not run.
    async fn kill(&self, id: &ContainerId, signal: &Signal) -> Result<(), EngineError>;

    /// Removes a container; succeeds when there is none.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when it runs and [`Remove::force`] is not set.
    async fn remove(&self, id: &ContainerId, how: Remove) -> Result<(), EngineError>;

    /// Changes the limits of a container, running or not. `disk_bytes` cannot change and is ignored.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] when this engine cannot; [`EngineError::Refused`] when the
    /// container uses more than the new limit.
    async fn update_limits(&self, id: &ContainerId, limits: &Limits) -> Result<(), EngineError>;

    /// What a container is doing.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] when there is no such container.
    async fn inspect(&self, id: &ContainerId) -> Result<ContainerState, EngineError>;

    /// The containers, running or not, that carry all of `labels` (with an empty value: any value).
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] when the engine does not answer.
    async fn list(&self, labels: &Labels) -> Result<Vec<ContainerEntry>, EngineError>;

    /// What happens to containers that carry all of `labels`, from now on, without end.
    ///
    /// The first item says whether the engine answers. It reconnects by itself: after
    /// [`EngineEvent::Gone`] comes [`EngineEvent::Back`], and since the engine may have lost events
    /// in between, whoever sees `Back` lists once.
    fn events(&self, labels: &Labels) -> BoxStream<'static, EngineEvent>;

    /// Makes a volume unless it is there, and says where it is on the host.
    ///
    /// # Errors
    /// [`EngineError::Refused`] when the engine does not accept the name.
    async fn ensure_volume(&self, name: &str, labels: &Labels) -> Result<Volume, EngineError>;

    /// Removes a volume; succeeds when there is none.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when a container uses it.
    async fn remove_volume(&self, name: &str) -> Result<(), EngineError>;

    /// The volumes that carry all of `labels`.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] when the engine does not answer.
    async fn list_volumes(&self, labels: &Labels) -> Result<Vec<Volume>, EngineError>;

    /// What a running container uses now.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] when there is no such container; [`EngineError::Conflict`] when it does not run.
    async fn stats(&self, id: &ContainerId) -> Result<Stats, EngineError>;

    /// Bytes in the container's writable layer. Walks the layer: seconds for a large one.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] when there is no such container.
    async fn size(&self, id: &ContainerId) -> Result<u64, EngineError>;
}
