//! A host that follows a script, on the real bus.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use nimbus_bus::{Bus, Incoming, Method, Serving};
use nimbus_errors::{Code, Fault};
use nimbus_guest::protocol::Reply;
use nimbus_model::Hostname;
use nimbus_proto::agent;
use nimbus_proto::agent::LaunchRequest;
use nimbus_proto::workloads::{
    Beat, BeatReply, BeatRequest, Denial, ExecReply, Exit, Health, HostFacts, Lifecycle, Named, Observation,
    OpenReply, Readiness, Report, ReportRequest, Start,
};

/// What a launch does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Launching {
    /// It runs at once, warm.
    Ready,
    /// It has begun.
    Starting,
    /// It is refused.
    Refused(Code),
    /// Nobody answers.
    Silent,
}

pub(crate) struct Agent {
    pub(crate) host: Hostname,
    bus: Bus,
    pub(crate) launching: Mutex<Launching>,
    /// Whether a stop is heard and done.
    pub(crate) stops: Mutex<bool>,
    pub(crate) launches: Mutex<Vec<LaunchRequest>>,
    pub(crate) removed: Mutex<Vec<String>>,
    pub(crate) volumes_removed: Mutex<Vec<String>>,
    pub(crate) ended_sessions: Mutex<Vec<(String, String)>>,
    pub(crate) execs: Mutex<Vec<agent::AgentExec>>,
    pub(crate) opens: Mutex<Vec<agent::AgentOpen>>,
    states: Mutex<HashMap<String, Lifecycle>>,
    sequence: AtomicU64,
    facts: Mutex<HostFacts>,
    serving: Mutex<Option<Serving>>,
}

impl Agent {
    /// A host that serves and was heard of.
    pub(crate) async fn start(bus: Bus, host: &str) -> Arc<Self> {
        let agent = Arc::new(Self {
            host: host.parse().unwrap(),
            bus,
            launching: Mutex::new(Launching::Ready),
            stops: Mutex::new(true),
            launches: Mutex::default(),
            removed: Mutex::default(),
            volumes_removed: Mutex::default(),
            ended_sessions: Mutex::default(),
            execs: Mutex::default(),
            opens: Mutex::default(),
            states: Mutex::default(),
            sequence: AtomicU64::new(1),
            facts: Mutex::new(HostFacts {
                engine: "script 1".into(),
                arch: "x86_64".into(),
                cpu_milli: 64_000,
                memory_bytes: 256 << 30,
                disk_bytes: 1 << 40,
                backends: vec!["container".into()],
                missing: vec!["krun: /dev/kvm is missing".into()],
            }),
            serving: Mutex::default(),
        });
        agent.serve().await;
        agent.beat().await;
        agent
    }

    pub(crate) async fn serve(self: &Arc<Self>) {
        macro_rules! handler {
            ($agent:ident, $call:ident: $method:ty => $body:expr) => {{
                let shared = Arc::clone(self);
                move |$call: Incoming<$method>| {
                    let $agent = Arc::clone(&shared);
                    async move { $body }
                }
            }};
        }
        let serving = self
            .bus
            .serve_host(&self.host, "0.1.0", "A host that follows a script")
            .concurrency(4096)
            .method::<agent::Launch, _, _>(handler!(a, call: agent::Launch => {
                let launching = a.launching.lock().unwrap().clone();
                a.launches.lock().unwrap().push(call.request.clone());
                let id = call.request.sandbox;
                match launching {
                    Launching::Ready => Ok(a.set(&id, Lifecycle::Ready)),
                    Launching::Starting => Ok(a.set(&id, Lifecycle::Starting)),
                    Launching::Refused(code) => Err(Fault::new(code, "the script says no")),
                    Launching::Silent => std::future::pending().await,
                }
            }))
            .method::<agent::Stop, _, _>(handler!(a, call: agent::Stop => {
                let id = call.request.sandbox;
                if !a.states.lock().unwrap().contains_key(&id) {
                    return Err(Fault::new(Code::OpNotFound, "it is not here"));
                }
                let lifecycle = if *a.stops.lock().unwrap() { Lifecycle::Stopped } else { Lifecycle::Stopping };
                Ok(a.set(&id, lifecycle))
            }))
            .method::<agent::Remove, _, _>(handler!(a, call: agent::Remove => {
                a.states.lock().unwrap().remove(&call.request);
                a.removed.lock().unwrap().push(call.request);
                Ok(())
            }))
            .method::<agent::Extend, _, _>(handler!(a, call: agent::Extend => {
                if a.states.lock().unwrap().contains_key(&call.request.sandbox) {
                    Ok(())
                } else {
                    Err(Fault::new(Code::OpNotFound, "it is not here"))
                }
            }))
            .method::<agent::Exec, _, _>(handler!(a, call: agent::Exec => {
                let command = call.request.command.id.clone();
                a.execs.lock().unwrap().push(call.request);
                Ok(ExecReply { command, ..agent::Exec::sample_reply() })
            }))
            .method::<agent::Control, _, _>(handler!(_a, _call: agent::Control => Ok(Reply::Done)))
            .method::<agent::Open, _, _>(handler!(a, call: agent::Open => {
                let sandbox = call.request.sandbox.clone();
                a.opens.lock().unwrap().push(call.request);
                Ok(OpenReply { sandbox, target_generation: 0, hello: vec![], expires_at: None })
            }))
            .method::<agent::End, _, _>(handler!(a, call: agent::End => {
                a.ended_sessions.lock().unwrap().push((call.request.session, call.request.reason));
                Ok(())
            }))
            .method::<agent::RemoveVolume, _, _>(handler!(a, call: agent::RemoveVolume => {
                let Named { tenant, name } = call.request;
                a.volumes_removed.lock().unwrap().push(format!("{tenant}/{name}"));
                Ok(())
            }))
            .start()
            .await
            .unwrap();
        *self.serving.lock().unwrap() = Some(serving);
    }

    /// Answers nothing any more.
    pub(crate) async fn vanish(&self) {
        let serving = self.serving.lock().unwrap().take();
        if let Some(serving) = serving {
            serving.stop().await;
        }
    }

    pub(crate) fn set(&self, id: &str, lifecycle: Lifecycle) -> Observation {
        self.states.lock().unwrap().insert(id.to_owned(), lifecycle);
        self.seen(id, lifecycle)
    }

    pub(crate) fn forget(&self, id: &str) {
        self.states.lock().unwrap().remove(id);
    }

    /// An observation, newer than all before.
    pub(crate) fn seen(&self, id: &str, lifecycle: Lifecycle) -> Observation {
        let (readiness, health) = match lifecycle {
            Lifecycle::Ready => (Readiness::Ready, Health::Healthy),
            Lifecycle::Stopped => (Readiness::Stopped, Health::Unknown),
            Lifecycle::Failed => (Readiness::Failed, Health::Unhealthy),
            _ => (Readiness::NotReady, Health::Unknown),
        };
        let runs = lifecycle == Lifecycle::Ready;
        Observation {
            sandbox: id.to_owned(),
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
            at: self.bus.clock().now(),
            lifecycle,
            readiness,
            health,
            endpoints: vec![],
            exit: lifecycle.is_final().then_some(Exit {
                code: i32::from(lifecycle == Lifecycle::Failed),
                out_of_memory: false,
            }),
            image_digest: Some("sha256:00".into()),
            start: runs.then_some(Start::Warm),
            started_after_us: runs.then_some(900),
            restarts: 0,
            conditions: vec![],
        }
    }

    pub(crate) async fn report(&self, observations: Vec<Observation>, denials: Vec<Denial>) {
        let report = ReportRequest {
            host: self.host.to_string(),
            boot: "b1".into(),
            observations,
            denials,
        };
        self.bus.call::<Report>(&report).await.unwrap();
    }

    /// A sign of life with everything that it holds; what it is told to remove, it removes.
    pub(crate) async fn beat(&self) -> BeatReply {
        let sandboxes = {
            let states = self.states.lock().unwrap().clone();
            states.iter().map(|(id, state)| self.seen(id, *state)).collect()
        };
        let beat = BeatRequest {
            host: self.host.to_string(),
            boot: "b1".into(),
            facts: self.facts.lock().unwrap().clone(),
            images: vec![],
            warm: vec![],
            sandboxes,
        };
        let reply = self.bus.call::<Beat>(&beat).await.unwrap();
        for id in &reply.remove {
            self.forget(id);
        }
        reply
    }

    /// What it was asked to launch; the bus may have asked more than once.
    pub(crate) fn launched(&self) -> Vec<String> {
        let launches = self.launches.lock().unwrap();
        let mut ids: Vec<_> = launches.iter().map(|launch| launch.sandbox.clone()).collect();
        ids.sort();
        ids.dedup();
        ids
    }
}
