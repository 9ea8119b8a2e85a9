//! Boxes on the bus: their requests, as JSON and bytes.
//!
//! Who asks is in the subject, and the bus lets each box use only subjects with the name that its pairing gave it.

use bytes::Bytes;
use nimbus_bus::{Bus, BusError, PeerRequest, PeerServing};
use nimbus_errors::Fault;
use nimbus_gpu_wire::{Beat, OFFSET_HEADER, Outcome, subject};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::beats::Link;
use crate::chunks::Kind;
use crate::error::GpuError;
use crate::plane::{Plane, SERVICE};
use crate::rows::find_by_bus_name;

/// Requests of one kind that are worked on at a time.
const CONCURRENCY: usize = 64;
/// Where the names stand: `nimbus.v1.gpu.<verb>.<worker>.<job>`.
const WORKER: usize = 4;
const JOB: usize = 5;

pub(crate) async fn serve(bus: &Bus, plane: &Plane) -> Result<PeerServing, BusError> {
    let (beats, logs, artifacts, ends) = (plane.clone(), plane.clone(), plane.clone(), plane.clone());
    let [beat, log, artifact, finish] = subject::REQUESTS;
    bus.peers(SERVICE)
        .answer(beat, CONCURRENCY, move |request| {
            let plane = beats.clone();
            async move {
                let beat: Beat = read(&request)?;
                said(
                    &plane
                        .beat(&asking(&plane, &request).await?, beat, Link::Nats)
                        .await?,
                )
            }
        })
        .answer(log, CONCURRENCY, move |request| {
            keep(logs.clone(), request, Kind::Log)
        })
        .answer(artifact, CONCURRENCY, move |request| {
            keep(artifacts.clone(), request, Kind::Artifact)
        })
        .answer(finish, CONCURRENCY, move |request| {
            let plane = ends.clone();
            async move {
                let outcome: Outcome = read(&request)?;
                let (worker, job) = (asking(&plane, &request).await?, part(&request, JOB)?);
                said(&plane.finish(&worker, job, outcome).await?)
            }
        })
        .start()
        .await
}

async fn keep(plane: Plane, request: PeerRequest, kind: Kind) -> Result<Bytes, Fault> {
    let offset = match request.header(OFFSET_HEADER) {
        Some(text) => Some(
            text.trim()
                .parse::<u64>()
                .map_err(|_| GpuError::invalid("offset", format!("a number, not {text:?}")))?,
        ),
        None => None,
    };
    let (worker, job) = (asking(&plane, &request).await?, part(&request, JOB)?);
    let bytes = request.payload.clone();
    said(&plane.store_chunk(&worker, job, kind, offset, bytes).await?)
}

/// The box that asks. The bus knows it by a name of its pairing, so one that was paired again, or is paired no more,
/// is refused with what it had before.
async fn asking(plane: &Plane, request: &PeerRequest) -> Result<String, GpuError> {
    let found = find_by_bus_name(&plane.store, part(request, WORKER)?).await?;
    found.ok_or(GpuError::UnknownWorker)
}

fn part(request: &PeerRequest, index: usize) -> Result<&str, GpuError> {
    request.token(index).ok_or(GpuError::UnknownWorker)
}

fn read<T: DeserializeOwned>(request: &PeerRequest) -> Result<T, GpuError> {
    serde_json::from_slice(&request.payload).map_err(|source| GpuError::Body { source })
}

fn said<T: Serialize>(answer: &T) -> Result<Bytes, Fault> {
    let body = serde_json::to_vec(answer).map_err(GpuError::damaged)?;
    Ok(Bytes::from(body))
}
