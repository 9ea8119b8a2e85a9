//! What every request can reach.

use std::collections::{BTreeMap, HashMap};
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use nimbus_bus::{Bus, Call, Key, Method};
use nimbus_errors::Fault;
use nimbus_model::{Clock, UserId};
use nimbus_proto::auth::{Setup, SetupStatus};
use nimbus_proto::ippool::{PoolStatus, Status};
use nimbus_proto::node::{ClusterHealth, Health};
use nimbus_telemetry::{Metrics, Traces};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::config::GatewayConfig;
use crate::config::limits::{CLUSTER_PROBE, PROBE, READY_AGE};
use crate::hub::Hub;
use crate::inference::Inference;
use crate::principals::{Principal, Principals};
use crate::throttle::Throttle;

/// Shared by all requests; clones are cheap.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) bus: Bus,
    pub(crate) clock: Clock,
    pub(crate) config: GatewayConfig,
    pub(crate) principals: Principals,
    pub(crate) hub: Hub,
    pub(crate) throttle: Throttle,
    pub(crate) traces: Traces,
    pub(crate) metrics: Metrics,
    /// The OpenAPI document as it is served.
    pub(crate) document: Bytes,
    /// Query parameters of each route, from the document.
    pub(crate) parameters: HashMap<(http::Method, String), Vec<String>>,
    /// Fires when the server shall end.
    pub(crate) stop: CancellationToken,
    pub(crate) streams: StreamSlots,
    pub(crate) inference: Inference,
    state: Mutex<Option<(Instant, Arc<Deployment>)>>,
}

impl std::ops::Deref for App {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// What the services say about themselves.
#[derive(Debug)]
pub(crate) struct Deployment {
    pub(crate) auth: Result<SetupStatus, Fault>,
    pub(crate) pool: Result<PoolStatus, Fault>,
    pub(crate) cluster: Result<ClusterHealth, Fault>,
}

impl Deployment {
    /// The bus and each service, and whether it answers.
    pub(crate) fn services(&self, bus: bool) -> BTreeMap<&'static str, bool> {
        BTreeMap::from([
            ("bus", bus),
            ("auth", self.auth.is_ok()),
            ("ippool", self.pool.is_ok()),
            ("provisioner", self.cluster.is_ok()),
        ])
    }
}

/// Awaits a call and counts it.
pub(crate) async fn timed<M: Method>(metrics: &Metrics, call: Call<M>) -> Result<M::Reply, Fault> {
    let begin = Instant::now();
    let answer = call.into_future().await;
    let outcome = answer.as_ref().err().map_or("ok", |fault| fault.code.as_str());
    metrics.rpc(&format!("{}.{}", M::SERVICE, M::NAME), outcome, begin.elapsed());
    answer
}

impl App {
    pub(crate) fn new(
        bus: Bus,
        clock: Clock,
        config: GatewayConfig,
        traces: Traces,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> Self {
        let document = crate::openapi::document();
        Self(Arc::new(Inner {
            principals: Principals::new(bus.clone(), clock.clone(), metrics.clone()),
            hub: Hub::default(),
            throttle: Throttle::new(&config),
            parameters: crate::openapi::query_parameters(&document),
            document: crate::openapi::text(&document).into(),
            streams: StreamSlots::new(config.streams_per_user),
            inference: Inference::default(),
            state: Mutex::default(),
            bus,
            clock,
            config,
            traces,
            metrics,
            stop,
        }))
    }

    /// Calls a method that concerns nobody in particular.
    pub(crate) async fn ask<M: Method>(&self, request: &M::Request) -> Result<M::Reply, Fault> {
        timed(&self.metrics, self.bus.call::<M>(request)).await
    }

    /// Calls a method that concerns nobody in particular, so that a repeat with the same key has no second effect.
    pub(crate) async fn ask_keyed<M: Method>(
        &self,
        key: Key,
        request: &M::Request,
    ) -> Result<M::Reply, Fault> {
        timed(&self.metrics, self.bus.call::<M>(request).key(key)).await
    }

    /// Calls a method for a person.
    pub(crate) async fn ask_for<M: Method>(
        &self,
        principal: &Principal,
        request: &M::Request,
    ) -> Result<M::Reply, Fault> {
        timed(
            &self.metrics,
            self.bus.call::<M>(request).with_token(&principal.token),
        )
        .await
    }

    /// Calls a method for a person, so that a repeat with the same key has no second effect.
    pub(crate) async fn ask_once<M: Method>(
        &self,
        principal: &Principal,
        key: Key,
        request: &M::Request,
    ) -> Result<M::Reply, Fault> {
        timed(
            &self.metrics,
            self.bus.call::<M>(request).with_token(&principal.token).key(key),
        )
        .await
    }

    /// What the services say about themselves, at most a second old. One question at a time.
    pub(crate) async fn deployment(&self) -> Arc<Deployment> {
        let mut state = self.state.lock().await;
        if let Some((at, deployment)) = &*state
            && at.elapsed() < READY_AGE
        {
            return Arc::clone(deployment);
        }
        let (auth, pool, cluster) = tokio::join!(
            timed(&self.metrics, self.bus.call::<Setup>(&()).timeout(PROBE)),
            timed(&self.metrics, self.bus.call::<Status>(&()).timeout(PROBE)),
            timed(&self.metrics, self.bus.call::<Health>(&()).timeout(CLUSTER_PROBE)),
        );
        let deployment = Arc::new(Deployment { auth, pool, cluster });
        *state = Some((Instant::now(), Arc::clone(&deployment)));
        deployment
    }
}

/// How many event streams each user has open.
#[derive(Debug)]
pub(crate) struct StreamSlots {
    each: usize,
    users: std::sync::Mutex<HashMap<UserId, Arc<Semaphore>>>,
}

impl StreamSlots {
    fn new(each: u32) -> Self {
        Self {
            each: usize::try_from(each)
                .unwrap_or(usize::MAX)
                .min(Semaphore::MAX_PERMITS),
            users: std::sync::Mutex::default(),
        }
    }

    /// A slot of this user, free again when it is dropped; none when they have no more.
    pub(crate) fn take(&self, user: UserId) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let mut users = self
            .users
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // Users without a stream are forgotten here rather than when a stream ends: the table is small.
        users.retain(|_, slots| slots.available_permits() < self.each);
        let slots = users
            .entry(user)
            .or_insert_with(|| Arc::new(Semaphore::new(self.each)));
        Arc::clone(slots).try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_user_are_counted_and_given_back() {
        let slots = StreamSlots::new(2);
        let (ada, bob) = (UserId::fresh(), UserId::fresh());
        let first = slots.take(ada);
        let second = slots.take(ada);
        assert!(first.is_some() && second.is_some());
        assert!(slots.take(ada).is_none());
        assert!(slots.take(bob).is_some());
        drop(first);
        assert!(slots.take(ada).is_some());
    }
}
