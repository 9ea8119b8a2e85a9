//! The event stream (Server-Sent Events, HTML Living Standard).

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};
use nimbus_bus::Scope;
use nimbus_errors::Code;
use nimbus_proto::workloads::ListTenants;
use nimbus_telemetry::OpenStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{Instant, Interval, interval_at};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refused;
use crate::config::limits::{HEARTBEAT, PROBE};
use crate::envelope::{Answer, ApiError};
use crate::extract::Signed;
use crate::hub::{Audience, Shown};
use crate::principals::ends;
use crate::state::{App, timed};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(events))
}

/// What happens, as it happens.
///
/// Events: `operation` (an operation's state), `machine` (`{kind, vm}`), `address` (a row of the pool, for administrators),
/// `node`, `sandbox`, `service`, `session` (the resource with its `tenant`, or `removed`), `gpu_job`, `gpu_worker` (for administrators), `gpu_settings`, and `reset` (something was missed: read everything again). A comment every 15 seconds shows that the stream lives.
/// With `Last-Event-ID` it begins after that event, if that is still known.
#[utoipa::path(get, path = "/api/events", operation_id = "events", tag = "Operations",
    params(("Last-Event-ID" = Option<String>, Header, description = "`id` of the last event that was seen.")),
    security(("session" = []), ("token" = [])),
    responses((status = 200, body = String, content_type = "text/event-stream"), Refused))]
async fn events(State(app): State<App>, signed: Signed, headers: HeaderMap) -> Answer<Response> {
    signed.require(Scope::MachinesRead)?;
    let slot = app.streams.take(signed.principal.identity.user).ok_or_else(|| {
        ApiError::new(
            Code::RateResourceExhausted,
            format!(
                "there are {} open event streams of this user",
                app.config.streams_per_user
            ),
        )
    })?;
    let last = headers
        .get("last-event-id")
        .map(|id| id.to_str().ok().and_then(|id| id.trim().parse().ok()));
    let mut feed = Feed::new(app, signed, slot);
    // Before the past is looked through: what the caller does not reach is left out of it.
    feed.find_tenants().await;
    feed.begin(last);
    let body = Body::from_stream(stream::unfold(feed, |mut feed| async move {
        let text = feed.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), feed))
    }));
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-cache, no-transform"),
        // nginx would hold events back.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, body).into_response())
}

struct Feed {
    app: App,
    signed: Signed,
    ready: VecDeque<String>,
    live: Receiver<Arc<Shown>>,
    /// The tenants that the caller reaches.
    tenants: HashSet<String>,
    /// Tenants that are known to be others'.
    strangers: HashSet<String>,
    heartbeat: Interval,
    _slot: OwnedSemaphorePermit,
    _open: OpenStream,
}

impl Feed {
    fn new(app: App, signed: Signed, slot: OwnedSemaphorePermit) -> Self {
        Self {
            heartbeat: interval_at(Instant::now() + HEARTBEAT, HEARTBEAT),
            ready: VecDeque::from([": open\nretry: 2000\n\n".to_owned()]),
            live: app.hub.subscribe(None).live,
            tenants: HashSet::new(),
            strangers: HashSet::new(),
            _open: app.metrics.stream(),
            app,
            signed,
            _slot: slot,
        }
    }

    /// `last` is none without a `Last-Event-ID`, and some none with one that cannot be read.
    fn begin(&mut self, last: Option<Option<u64>>) {
        // What cannot be read is an event that has never been.
        let subscription = self.app.hub.subscribe(last.map(|last| last.unwrap_or(u64::MAX)));
        self.live = subscription.live;
        match subscription.missed {
            None => self.ready.push_back(reset(subscription.newest)),
            Some(missed) => {
                let seen: Vec<_> = missed
                    .iter()
                    .filter(|event| self.is_for_us(event))
                    .map(|event| text(event))
                    .collect();
                self.ready.extend(seen);
            }
        }
    }

    /// Asks which tenants the caller reaches; without an answer it stays at what was known.
    async fn find_tenants(&mut self) {
        if !self.signed.principal.identity.may(Scope::WorkloadsRead) {
            return;
        }
        let call = self
            .app
            .bus
            .call::<ListTenants>(&())
            .with_token(&self.signed.principal.token)
            .timeout(PROBE);
        match timed(&self.app.metrics, call).await {
            Ok(tenants) => self.tenants = tenants.into_iter().map(|tenant| tenant.id).collect(),
            Err(fault) => tracing::debug!("the tenants of a stream are not known: {fault}"),
        }
    }

    fn is_for_us(&self, event: &Shown) -> bool {
        let identity = &self.signed.principal.identity;
        event.revoked.is_none()
            && match &event.audience {
                Audience::User(user) => *user == identity.user,
                Audience::Owner(user) => *user == identity.user || identity.may(Scope::Admin),
                Audience::Admins => identity.may(Scope::Admin),
                Audience::Tenant(tenant) => self.tenants.contains(tenant),
                Audience::Everybody => true,
                Audience::Tenants(_) => false,
            }
    }

    /// The next piece of the stream; none at its end.
    async fn next(&mut self) -> Option<String> {
        if let Some(ready) = self.ready.pop_front() {
            return Some(ready);
        }
        loop {
            tokio::select! {
                event = self.live.recv() => match event {
                    Ok(event) => {
                        if event.revoked.as_ref().is_some_and(|revoked| ends(revoked, &self.signed.principal.identity)) {
                            return None;
                        }
                        if let Audience::Tenants(tenant) = &event.audience
                            && !self.tenants.contains(tenant)
                            && !self.strangers.contains(tenant)
                        {
                            self.find_tenants().await;
                            if !self.tenants.contains(tenant) {
                                self.strangers.insert(tenant.clone());
                            }
                        }
                        if self.is_for_us(&event) {
                            return Some(text(&event));
                        }
                    }
                    // The client reads slower than things happen: what it has is not worth continuing.
                    Err(RecvError::Lagged(_)) => return Some(reset(None)),
                    Err(RecvError::Closed) => return None,
                },
                _ = self.heartbeat.tick() => {
                    // Asks auth when the access token is about to end: sessions expire without an event.
                    match self.app.principals.find(&self.signed.credential).await {
                        Ok(principal) => self.signed.principal = principal,
                        Err(fault) if fault.is(Code::AuthUnauthorized) => return None,
                        Err(_) => {}
                    }
                    return Some(": alive\n\n".to_owned());
                }
                () = self.app.stop.cancelled() => return None,
            }
        }
    }
}

fn text(event: &Shown) -> String {
    format!(
        "id: {}\nevent: {}\ndata: {}\n\n",
        event.sequence, event.name, event.data
    )
}

fn reset(newest: Option<u64>) -> String {
    let id = newest.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{id}event: reset\ndata: {{}}\n\n")
}
