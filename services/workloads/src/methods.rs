//! The bus methods: decode, ask, answer.

use nimbus_bus::{Bus, BusError, Incoming, Method, Serve, Serving};
use nimbus_errors::Fault;
use nimbus_proto::workloads as api;

use crate::error::WorkError;
use crate::works::Works;

/// Requests of one method that are worked on at a time: a burst of creates waits for its hosts and
/// the disk together, so that many may be under way.
const CONCURRENCY: usize = 4096;

/// A method whose handler is given the service.
fn on<M, F, R>(serve: Serve, works: &Works, handle: F) -> Serve
where
    M: Method,
    F: Fn(Works, Incoming<M>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<M::Reply, WorkError>> + Send + 'static,
{
    let works = works.clone();
    serve.method::<M, _, _>(move |call: Incoming<M>| {
        let answer = handle(works.clone(), call);
        async move { answer.await.map_err(Fault::from) }
    })
}

macro_rules! methods {
    ($serve:expr, $works:expr, { $($method:ident => |$w:ident, $call:ident| $body:expr;)* }) => {{
        let serve = $serve;
        $(let serve = on::<api::$method, _, _>(serve, $works, |$w: Works, $call: Incoming<api::$method>| async move { $body });)*
        serve
    }};
}

/// Whoever asked: there is one for methods of people, or the bus would have refused.
macro_rules! who {
    ($call:expr) => {
        $call.caller().map_err(WorkError::from)?
    };
}

pub(crate) async fn serve(bus: &Bus, works: &Works) -> Result<Serving, BusError> {
    let serve = bus
        .serve(
            "workloads",
            env!("CARGO_PKG_VERSION"),
            "Tenants, services, sandboxes and sessions",
        )
        .concurrency(CONCURRENCY);
    let serve = methods!(serve, works, {
        CreateTenant => |w, call| w.create_tenant(who!(call), call.key.as_ref(), call.request.clone()).await;
        GetTenant => |w, call| w.get_tenant(who!(call), &call.request).await;
        ListTenants => |w, call| w.list_tenants(who!(call)).await;
        DeleteTenant => |w, call| w.delete_tenant(who!(call), &call.request).await;
        ConfigureTenant => |w, call| w.configure_tenant(who!(call), call.request.clone()).await;

        CreateService => |w, call| w.create_service(who!(call), call.key.as_ref(), call.request.clone()).await;
        GetService => |w, call| w.get_service(who!(call), &call.request).await;
        ListServices => |w, call| w.list_services(who!(call), &call.request).await;
        UpdateService => |w, call| w.update_service(who!(call), call.key.as_ref(), call.request.clone()).await;
        DeleteService => |w, call| w.delete_service(who!(call), &call.request).await;
        StartService => |w, call| w.start_service(who!(call), &call.request).await;
        StopService => |w, call| w.stop_service(who!(call), &call.request).await;
        RestartService => |w, call| w.restart_service(who!(call), &call.request).await;

        CreateSandbox => |w, call| {
            let Incoming { request, caller, key, .. } = call;
            let caller = caller.ok_or(WorkError::BadToken { what: "caller" })?;
            w.create_sandbox(&caller, key.as_ref(), request).await
        };
        GetSandbox => |w, call| w.get_sandbox(who!(call), &call.request).await;
        ListSandboxes => |w, call| w.list_sandboxes(who!(call), &call.request).await;
        StopSandbox => |w, call| w.stop_sandbox(who!(call), &call.request).await;
        DeleteSandbox => |w, call| w.delete_sandbox(who!(call), &call.request).await;
        ExtendSandbox => |w, call| w.extend_sandbox(who!(call), &call.request).await;

        OpenSession => |w, call| w.open_session(who!(call), call.key.as_ref(), call.request.clone()).await;
        GetSession => |w, call| w.get_session(who!(call), &call.request).await;
        ListSessions => |w, call| w.list_sessions(who!(call), &call.request).await;
        CloseSession => |w, call| w.close_session(who!(call), &call.request).await;
        CreateTicket => |w, call| w.create_ticket(who!(call), &call.request).await;
        RedeemTicket => |w, call| w.redeem_ticket(&call.request).await;

        PutSecret => |w, call| w.put_secret(who!(call), call.request.clone()).await;
        ListSecrets => |w, call| w.list_secrets(who!(call), &call.request).await;
        DeleteSecret => |w, call| w.delete_secret(who!(call), &call.request).await;

        EnsureVolume => |w, call| w.ensure_volume(who!(call), &call.request).await;
        ListVolumes => |w, call| w.list_volumes(who!(call), &call.request).await;
        DeleteVolume => |w, call| w.delete_volume(who!(call), &call.request).await;

        Exec => |w, call| {
            let Incoming { request, caller, .. } = call;
            let caller = caller.ok_or(WorkError::BadToken { what: "caller" })?;
            w.exec(&caller, request).await
        };
        Control => |w, call| {
            let Incoming { request, caller, .. } = call;
            let caller = caller.ok_or(WorkError::BadToken { what: "caller" })?;
            w.control(&caller, request).await
        };
        Open => |w, call| {
            let Incoming { request, caller, .. } = call;
            let caller = caller.ok_or(WorkError::BadToken { what: "caller" })?;
            w.open(&caller, request).await
        };
        OpenPreview => |w, call| w.open_preview(call.request).await;
        CreatePreview => |w, call| w.create_preview(who!(call), &call.request).await;

        Beat => |w, call| w.beat(call.request).await;
        Report => |w, call| w.report(call.request).await;
        ListHosts => |w, call| { let _ = who!(call); w.list_hosts().await };
        ForgetHost => |w, call| { let _ = who!(call); w.forget_host(&call.request).await };
        Offers => |w, _call| w.offers().await;
        Count => |w, _call| w.figures().await;
    });
    serve.start().await
}
