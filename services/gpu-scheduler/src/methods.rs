//! The bus methods: decode, ask, answer.

use bytes::Bytes;
use nimbus_bus::{Bus, BusError, Identity, Incoming, Scope, Serving};
use nimbus_errors::Fault;
use nimbus_proto::gpu::{
    CancelJob, CheckPairing, Count, CreatePairing, GetEndpoint, GetInference, GetInjection, GetJob,
    GetSettings, GetUsage, ListJobs, ListWorkers, Prioritize, PutSettings, ReadArtifact, ReadLog,
    RecordUsage, Register, SetWorker, Submit, Unpair, WorkerArtifact, WorkerBeat, WorkerClaim, WorkerFinish,
    WorkerLog,
};

use crate::beats::Link;
use crate::chunks::Kind;
use crate::plane::Plane;
use crate::queue::Viewer;

/// What `nats micro` shows.
const DESCRIPTION: &str = "GPU jobs, the boxes that run them, and the inference endpoint";
/// Reads and claims wait, so there may be many.
const WAITING: usize = 4096;

/// A handler with its own hold of the plane.
fn on<C, F, R>(plane: &Plane, handler: F) -> impl Fn(C) -> R + Send + Sync + 'static
where
    F: Fn(Plane, C) -> R + Send + Sync + 'static,
{
    let plane = plane.clone();
    move |call| handler(plane.clone(), call)
}

/// The caller, if their credential is for GPUs.
fn user<M: nimbus_bus::Method>(call: &Incoming<M>) -> Result<&Identity, Fault> {
    call.require(Scope::Gpu)
}

pub(crate) async fn serve(bus: &Bus, plane: &Plane) -> Result<Serving, BusError> {
    bus.serve("gpu", env!("CARGO_PKG_VERSION"), DESCRIPTION)
        .method::<Submit, _, _>(on(plane, |plane, call: Incoming<Submit>| async move {
            let key = call.key.as_ref().map(nimbus_bus::Key::as_str);
            Ok(plane.submit(user(&call)?, key, call.request.clone()).await?)
        }))
        .method::<ListJobs, _, _>(on(plane, |plane, call: Incoming<ListJobs>| async move {
            Ok(plane.list(Viewer::new(user(&call)?), &call.request).await?)
        }))
        .method::<GetJob, _, _>(on(plane, |plane, call: Incoming<GetJob>| async move {
            Ok(plane.get(Viewer::new(user(&call)?), call.request).await?)
        }))
        .method::<CancelJob, _, _>(on(plane, |plane, call: Incoming<CancelJob>| async move {
            Ok(plane.cancel(Viewer::new(user(&call)?), call.request).await?)
        }))
        .method::<Prioritize, _, _>(on(plane, |plane, call: Incoming<Prioritize>| async move {
            Ok(plane.prioritize(Viewer::new(user(&call)?), call.request).await?)
        }))
        .method::<ReadArtifact, _, _>(on(plane, |plane, call: Incoming<ReadArtifact>| async move {
            Ok(plane
                .read_artifact(Viewer::new(user(&call)?), call.request)
                .await?)
        }))
        .method::<ListWorkers, _, _>(on(plane, |plane, call: Incoming<ListWorkers>| async move {
            user(&call)?;
            Ok(plane.workers().await?)
        }))
        .method::<SetWorker, _, _>(on(plane, |plane, call: Incoming<SetWorker>| async move {
            Ok(plane.set_worker(call.request).await?)
        }))
        .method::<GetSettings, _, _>(on(plane, |plane, _: Incoming<GetSettings>| async move {
            Ok(plane.settings().await?)
        }))
        .method::<PutSettings, _, _>(on(plane, |plane, call: Incoming<PutSettings>| async move {
            Ok(plane.put_settings(call.request).await?)
        }))
        .method::<CreatePairing, _, _>(on(plane, |plane, call: Incoming<CreatePairing>| async move {
            Ok(plane.create_pairing(call.request).await?)
        }))
        .method::<Unpair, _, _>(on(plane, |plane, call: Incoming<Unpair>| async move {
            Ok(plane.unpair(call.request).await?)
        }))
        .method::<CheckPairing, _, _>(on(plane, |plane, call: Incoming<CheckPairing>| async move {
            Ok(plane.check_pairing(&call.request).await?)
        }))
        .method::<Register, _, _>(on(plane, |plane, call: Incoming<Register>| async move {
            Ok(plane.register(call.request).await?)
        }))
        .method::<WorkerBeat, _, _>(on(plane, |plane, call: Incoming<WorkerBeat>| async move {
            let worker = plane.authenticate(&call.request.credential).await?;
            Ok(plane.beat(&worker, call.request.beat, Link::Http).await?)
        }))
        .method::<WorkerLog, _, _>(on(plane, |plane, call: Incoming<WorkerLog>| async move {
            let request = call.request;
            let worker = plane.authenticate(&request.credential).await?;
            let bytes = Bytes::from(request.bytes);
            Ok(plane
                .store_chunk(&worker, &request.job, Kind::Log, request.offset, bytes)
                .await?)
        }))
        .method::<WorkerArtifact, _, _>(on(plane, |plane, call: Incoming<WorkerArtifact>| async move {
            let request = call.request;
            let worker = plane.authenticate(&request.credential).await?;
            let bytes = Bytes::from(request.bytes);
            Ok(plane
                .store_chunk(&worker, &request.job, Kind::Artifact, request.offset, bytes)
                .await?)
        }))
        .method::<WorkerFinish, _, _>(on(plane, |plane, call: Incoming<WorkerFinish>| async move {
            let request = call.request;
            let worker = plane.authenticate(&request.credential).await?;
            Ok(plane.finish(&worker, &request.job, request.outcome).await?)
        }))
        .method::<GetInference, _, _>(on(plane, |plane, call: Incoming<GetInference>| async move {
            user(&call)?;
            Ok(plane.inference().await?)
        }))
        .method::<Count, _, _>(on(plane, |plane, _: Incoming<Count>| async move {
            Ok(plane.figures().await?)
        }))
        .method::<GetEndpoint, _, _>(on(plane, |plane, _: Incoming<GetEndpoint>| async move {
            Ok(plane.endpoint().await?)
        }))
        .method::<RecordUsage, _, _>(on(plane, |plane, call: Incoming<RecordUsage>| async move {
            Ok(plane.record_usage(call.request).await?)
        }))
        .method::<GetUsage, _, _>(on(plane, |plane, call: Incoming<GetUsage>| async move {
            Ok(plane.usage(user(&call)?, call.request).await?)
        }))
        .method::<GetInjection, _, _>(on(plane, |plane, _: Incoming<GetInjection>| async move {
            Ok(plane.injection().await?)
        }))
        .concurrency(WAITING)
        .method::<ReadLog, _, _>(on(plane, |plane, call: Incoming<ReadLog>| async move {
            Ok(plane.read_log(Viewer::new(user(&call)?), call.request).await?)
        }))
        .method::<WorkerClaim, _, _>(on(plane, |plane, call: Incoming<WorkerClaim>| async move {
            let worker = plane.authenticate(&call.request.credential).await?;
            Ok(plane.claim(&worker, call.request.wait_ms).await?)
        }))
        .start()
        .await
}
