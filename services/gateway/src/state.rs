//! What every request can reach.

use std::collections::{BTreeMap, HashMap};
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nimbus_bus::{Bus, Call, Key, Method};
use nimbus_errors::Fault;
use nimbus_model::{Clock, UserId};
use nimbus_proto::auth::{Setup, SetupStatus};
use nimbus_proto::gpu::GetEndpoint;
use nimbus_proto::ippool::{PoolStatus, Status};
use nimbus_proto::node::{ClusterHealth, Health};
use nimbus_proto::workloads::Offers;
use nimbus_telemetry::{Metrics, Traces};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::config::GatewayConfig;
use crate::config::limits::{CLUSTER_PROBE, PROBE, READY_AGE};
use crate::fleet::Fleet;
use crate::hub::Hub;
use crate::inference::Inference;
use crate::principals::{Principal, Principals};
use crate::throttle::Throttle;

/// How long a service is waited for that was never asked before and may not be there.
const FIRST_PROBE: Duration = Duration::from_millis(300);

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
    pub(crate) fleet: Fleet,
    /// The OpenAPI document as it is served.
    pub(crate) document: Bytes,
    /// Query parameters of each route, from the document.
    pub(crate) parameters: HashMap<(http::Method, String), Vec<String>>,
    /// Fires when the server shall end.
    pub(crate) stop: CancellationToken,
    pub(crate) streams: StreamSlots,
    pub(crate) inference: Inference,
    state: Mutex<Option<(Instant, Arc<Deployment>)>>,
    optional: Optional,
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
    /// Services that an installation may do without; those that have never answered are left out.
    pub(crate) optional: [(&'static str, Option<bool>); 2],
}

impl Deployment {
    /// The bus and each service, and whether it answers.
    pub(crate) fn services(&self, bus: bool) -> BTreeMap<&'static str, bool> {
        let mut services = BTreeMap::from([
            ("bus", bus),
            ("auth", self.auth.is_ok()),
            ("ippool", self.pool.is_ok()),
            ("provisioner", self.cluster.is_ok()),
        ]);
        let there = self.optional.iter();
        services.extend(there.filter_map(|(name, answers)| Some((*name, (*answers)?))));
        services
    }
}

/// Services that an installation may do without. Nothing says whether it does: one that has answered
/// once is there from then on, and missed when it answers no more.
#[derive(Debug, Default)]
struct Optional(std::sync::Mutex<HashMap<&'static str, Standing>>);

/// What is known of such a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It was never asked.
    New,
    /// It was asked, and has never answered.
    Absent,
    /// It has answered.
    Known,
}

impl Optional {
    /// How a service stands that is asked now. Until it answers it is absent, for whoever asks next.
    fn ask(&self, name: &'static str) -> Standing {
        let mut all = self.lock();
        let before = all.get(name).copied().unwrap_or(Standing::New);
        all.entry(name).or_insert(Standing::Absent);
        before
    }

    fn answered(&self, name: &'static str) {
        self.lock().insert(name, Standing::Known);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<&'static str, Standing>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
            fleet: Fleet::new(&metrics),
            throttle: Throttle::new(&config),
            parameters: crate::openapi::query_parameters(&document),
            document: crate::openapi::text(&document).into(),
            streams: StreamSlots::new(config.streams_per_user),
            inference: Inference::default(),
            state: Mutex::default(),
            optional: Optional::default(),
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
        let (auth, pool, cluster, workloads, gpu) = tokio::join!(
            timed(&self.metrics, self.bus.call::<Setup>(&()).timeout(PROBE)),
            timed(&self.metrics, self.bus.call::<Status>(&()).timeout(PROBE)),
            timed(&self.metrics, self.bus.call::<Health>(&()).timeout(CLUSTER_PROBE)),
            self.optional::<Offers>(),
            self.optional::<GetEndpoint>(),
        );
        let optional = [(Offers::SERVICE, workloads), (GetEndpoint::SERVICE, gpu)];
        let deployment = Arc::new(Deployment {
            auth,
            pool,
            cluster,
            optional,
        });
        *state = Some((Instant::now(), Arc::clone(&deployment)));
        deployment
    }

    /// Whether a service answers that an installation may do without; `None` if it never has. Nobody waits
    /// long for one that may not be there.
    async fn optional<M: Method<Request = ()>>(&self) -> Option<bool> {
        let standing = self.optional.ask(M::SERVICE);
        let app = self.clone();
        let asking = tokio::spawn(async move {
            let call = app.bus.call::<M>(&()).timeout(PROBE);
            // Nobody shall be alarmed by what is not there on purpose.
            let answer = if standing == Standing::Known {
                timed(&app.metrics, call).await
            } else {
                call.into_future().await
            };
            if answer.is_ok() {
                app.optional.answered(M::SERVICE);
            }
            answer.is_ok()
        });
        match standing {
            Standing::Known => Some(asking.await.unwrap_or(false)),
            Standing::New => {
                let answers = tokio::time::timeout(FIRST_PROBE, asking).await;
                answers.is_ok_and(|asked| asked.unwrap_or(false)).then_some(true)
            }
            Standing::Absent => None,
        }
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
    fn a_service_that_never_answered_is_not_missed() {
        let fault = || Fault::new(nimbus_errors::Code::ServiceUnavailable, "away");
        let services = |workloads, gpu| {
            let deployment = Deployment {
                auth: Ok(SetupStatus { has_users: true }),
                pool: Err(fault()),
                cluster: Err(fault()),
                optional: [("workloads", workloads), ("gpu", gpu)],
            };
            deployment.services(true)
        };
        let without = services(None, None);
        assert!(!without.contains_key("workloads") && !without.contains_key("gpu"));
        let with = services(Some(true), Some(false));
        assert_eq!(
            (with["workloads"], with["gpu"], with["auth"]),
            (true, false, true)
        );
    }

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
