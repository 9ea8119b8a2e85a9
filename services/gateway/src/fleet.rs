//! Figures of the whole deployment, counted when somebody reads them: instances, streams, hosts, boxes, jobs.
//!
//! Every gateway shows the same, so rules take the greatest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nimbus_bus::{Method, Survey};
use nimbus_proto::{gpu, workloads};
use nimbus_telemetry::{Gauges, Metrics};
use tokio::sync::Mutex;

use crate::config::limits::PROBE;
use crate::state::{App, timed};

/// How old the figures may be: the whole bus is asked for them.
const AGE: Duration = Duration::from_secs(5);
/// How long instances may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) struct Fleet {
    instances: Gauges,
    behind: Gauges,
    messages: Gauges,
    hosts: Gauges,
    memory: Gauges,
    sandboxes: Gauges,
    boxes: Gauges,
    jobs: Gauges,
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    at: Option<Instant>,
    /// Services that have answered: one that is gone has no instances, rather than no figure.
    services: BTreeSet<String>,
}

impl Fleet {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let gauges = |name, help, label| metrics.gauges(name, help, label);
        Self {
            instances: gauges("instances", "Instances that answer, by service", "service"),
            behind: gauges(
                "stream_copies_behind",
                "Copies of a stream that are behind or away",
                "stream",
            ),
            messages: gauges("stream_messages", "Messages in a stream", "stream"),
            hosts: gauges("hosts", "Hosts of sandboxes by state", "state"),
            memory: gauges(
                "sandbox_memory_bytes",
                "Memory of all hosts that are there: given out, and what may be given out",
                "of",
            ),
            sandboxes: gauges("sandboxes", "Sandboxes by state", "state"),
            boxes: gauges("gpu_boxes", "GPU boxes by state", "state"),
            jobs: gauges("gpu_jobs", "GPU jobs that have not ended, by state", "state"),
            counted: Mutex::default(),
        }
    }

    /// The page of metrics, with figures that are at most five seconds old. One counts at a time.
    pub(crate) async fn page(&self, app: &App) -> String {
        let mut counted = self.counted.lock().await;
        if counted.at.is_none_or(|at| at.elapsed() >= AGE) {
            self.count(app, &mut counted.services).await;
            counted.at = Some(Instant::now());
        }
        // Still locked: a page that is made while values are replaced would lack some.
        app.metrics.render()
    }

    async fn count(&self, app: &App, services: &mut BTreeSet<String>) {
        let deployment = app.deployment().await;
        if let Ok(pool) = &deployment.pool {
            app.metrics.addresses("free", pool.free);
            app.metrics.addresses("reserved", pool.reserved);
            app.metrics.addresses("allocated", pool.allocated);
        }
        let (survey, sandboxes, boxes) = tokio::join!(
            app.bus.survey(PATIENCE),
            figures::<workloads::Count>(app, &deployment.optional),
            figures::<gpu::Count>(app, &deployment.optional),
        );
        let survey = survey.unwrap_or_default();
        self.instances.set(by_service(&survey, services));
        let streams = || survey.streams.iter();
        self.behind.set(streams().map(|one| {
            let count = u64::try_from(one.behind.len()).unwrap_or(u64::MAX);
            (one.name.as_str(), count)
        }));
        self.messages
            .set(streams().map(|one| (one.name.as_str(), one.messages)));
        let sandboxes = sandboxes.as_ref();
        self.hosts.set(sandboxes.into_iter().flat_map(|all| {
            [
                ("there", u64::from(all.hosts)),
                ("lost", u64::from(all.hosts_lost)),
            ]
        }));
        self.memory.set(
            sandboxes
                .into_iter()
                .flat_map(|all| [("given", all.memory_given), ("total", all.memory_total)]),
        );
        self.sandboxes
            .set(sandboxes.into_iter().map(|all| ("active", all.sandboxes)));
        let boxes = boxes.as_ref();
        self.boxes.set(boxes.into_iter().flat_map(|all| {
            let counts = all.boxes.iter();
            counts.map(|(state, count)| (state.to_string(), u64::from(*count)))
        }));
        self.jobs.set(
            boxes
                .into_iter()
                .flat_map(|all| [("queued", all.queued), ("running", all.running)]),
        );
    }
}

/// What a service counts that an installation may do without; nothing where it does.
async fn figures<M: Method<Request = ()>>(
    app: &App,
    optional: &[(&'static str, Option<bool>)],
) -> Option<M::Reply> {
    let there = optional
        .iter()
        .any(|(name, answers)| *name == M::SERVICE && *answers == Some(true));
    if !there {
        return None;
    }
    let call = app.bus.call::<M>(&()).timeout(PROBE);
    timed(&app.metrics, call).await.ok()
}

/// How many instances each service has; none of those that have answered before and do not now.
fn by_service(survey: &Survey, known: &mut BTreeSet<String>) -> BTreeMap<String, u64> {
    known.extend(survey.instances.iter().map(|one| one.service.clone()));
    let mut counts: BTreeMap<String, u64> = known.iter().map(|name| (name.clone(), 0)).collect();
    for one in &survey.instances {
        *counts.entry(one.service.clone()).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use nimbus_bus::Instance;

    use super::*;

    #[test]
    fn a_service_that_is_gone_has_no_instances_rather_than_no_figure() {
        let instance = |service: &str| Instance {
            service: service.to_owned(),
            id: "i".to_owned(),
            version: "1".to_owned(),
            host: None,
            pid: None,
            started: "2026-01-01T00:00:00Z".to_owned(),
            requests: 0,
            errors: 0,
        };
        let mut known = BTreeSet::new();
        let both = Survey {
            instances: vec![instance("auth"), instance("auth"), instance("gpu")],
            ..Survey::default()
        };
        assert_eq!(
            by_service(&both, &mut known),
            BTreeMap::from([("auth".to_owned(), 2), ("gpu".to_owned(), 1)])
        );
        let one = Survey {
            instances: vec![instance("auth")],
            ..Survey::default()
        };
        assert_eq!(
            by_service(&one, &mut known),
            BTreeMap::from([("auth".to_owned(), 1), ("gpu".to_owned(), 0)])
        );
    }
}
