//! The bus methods: decode, ask, answer.

use std::sync::Arc;

use nimbus_bus::{BusError, Incoming, Serving};
use nimbus_errors::Fault;
use nimbus_proto::agent::{Control, End, Exec, Extend, Launch, Open, Prepare, Remove, RemoveVolume, Stop};
use tokio::sync::oneshot;

use crate::exec;
use crate::host::Host;
use crate::sandbox::Message;
use crate::streams;
use crate::volumes;

/// A burst of launches is answered, not refused.
const LAUNCHES: usize = 1024;

pub(crate) async fn serve(host: &Arc<Host>) -> Result<Serving, BusError> {
    let (launching, stopping, removing, extending, running) = (
        host.clone(),
        host.clone(),
        host.clone(),
        host.clone(),
        host.clone(),
    );
    let (asking, opening, ending, preparing, dropping) = (
        host.clone(),
        host.clone(),
        host.clone(),
        host.clone(),
        host.clone(),
    );
    host.parts
        .bus
        .serve_host(
            &host.parts.host,
            env!("CARGO_PKG_VERSION"),
            "Sandboxes of one host",
        )
        .concurrency(LAUNCHES)
        .method::<Launch, _, _>(move |call: Incoming<Launch>| {
            let host = launching.clone();
            async move {
                let sandbox = host.agent()?.launch(call.request).await?;
                Ok(sandbox.observation())
            }
        })
        .method::<Stop, _, _>(move |call: Incoming<Stop>| {
            let host = stopping.clone();
            async move {
                let sandbox = host.agent()?.registry.get(&call.request.sandbox)?;
                let reason = call.request.reason;
                sandbox.tell(Message::Stop { reason }).await;
                Ok(sandbox
                    .until(|view| {
                        let now = view.observation.lifecycle;
                        now.is_final() || now == nimbus_proto::workloads::Lifecycle::Stopping
                    })
                    .await)
            }
        })
        .method::<Remove, _, _>(move |call: Incoming<Remove>| {
            let host = removing.clone();
            async move {
                remove(&host, &call.request).await?;
                Ok(())
            }
        })
        .method::<Extend, _, _>(move |call: Incoming<Extend>| {
            let host = extending.clone();
            async move {
                let request = call.request;
                let sandbox = host.agent()?.registry.get(&request.sandbox)?;
                sandbox
                    .tell(Message::Extend {
                        expires_at: request.expires_at,
                        idle_timeout_ms: request.idle_timeout_ms,
                    })
                    .await;
                Ok(())
            }
        })
        .method::<Exec, _, _>(move |call: Incoming<Exec>| {
            let host = running.clone();
            async move { Ok(exec::exec(host.agent()?.as_ref(), call.request).await?) }
        })
        .method::<Control, _, _>(move |call: Incoming<Control>| {
            let host = asking.clone();
            async move { Ok(exec::control(host.agent()?.as_ref(), call.request).await?) }
        })
        .method::<Open, _, _>(move |call: Incoming<Open>| {
            let host = opening.clone();
            async move { Ok(streams::open(&host.agent()?, call.request).await?) }
        })
        .method::<End, _, _>(move |call: Incoming<End>| {
            let host = ending.clone();
            async move {
                streams::end_session(host.agent()?.as_ref(), &call.request);
                Ok(())
            }
        })
        .method::<Prepare, _, _>(move |call: Incoming<Prepare>| {
            let host = preparing.clone();
            async move { Ok(host.agent()?.prepare(&call.request).await?) }
        })
        .method::<RemoveVolume, _, _>(move |call: Incoming<RemoveVolume>| {
            let host = dropping.clone();
            async move {
                let volume = call.request;
                Ok(volumes::remove(host.agent()?.as_ref(), &volume.tenant, &volume.name).await?)
            }
        })
        .start()
        .await
}

/// Removes everything of a sandbox; what is unknown is gone.
pub(crate) async fn remove(host: &Host, sandbox: &str) -> Result<(), Fault> {
    let agent = host.agent()?;
    let Some(sandbox) = agent.registry.find(sandbox) else {
        return Ok(());
    };
    let (done, removed) = oneshot::channel();
    sandbox.tell(Message::Remove { done }).await;
    // A task that ended without a word has forgotten the sandbox before.
    let _ = removed.await;
    Ok(())
}
