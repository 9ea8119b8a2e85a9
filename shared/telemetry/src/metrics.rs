//! The Prometheus registry. Labels have few values: routes, methods and outcomes, never ids.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Seconds; from a bus hop to a slow request.
const REQUEST_BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0,
];
/// Seconds; a step of an operation waits for Proxmox.
const STEP_BUCKETS: [f64; 11] = [0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HttpLabels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RpcLabels {
    method: String,
    outcome: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepLabels {
    operation: String,
    step: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    state: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EventLabels {
    kind: String,
}

/// A gauge with one label, of which everything is told at once: what is not told any more is not there.
#[derive(Clone, Debug)]
pub struct Gauges {
    label: &'static str,
    family: Family<[(&'static str, String); 1], Gauge>,
}

impl Gauges {
    /// Replaces all values.
    pub fn set<S: Into<String>>(&self, values: impl IntoIterator<Item = (S, u64)>) {
        self.family.clear();
        for (value, count) in values {
            self.family
                .get_or_create(&[(self.label, value.into())])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

/// The metrics of this process; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    http: Family<HttpLabels, Histogram, fn() -> Histogram>,
    rpc: Family<RpcLabels, Histogram, fn() -> Histogram>,
    steps: Family<StepLabels, Histogram, fn() -> Histogram>,
    provisions: Family<OutcomeLabels, Counter>,
    addresses: Family<StateLabels, Gauge>,
    events: Family<EventLabels, Counter>,
    streams: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let request: fn() -> Histogram = || Histogram::new(REQUEST_BUCKETS);
        let step: fn() -> Histogram = || Histogram::new(STEP_BUCKETS);
        let metrics = Self {
            registry: Arc::new(Mutex::new(Registry::with_prefix("nimbus"))),
            http: Family::new_with_constructor(request),
            rpc: Family::new_with_constructor(request),
            steps: Family::new_with_constructor(step),
            provisions: Family::default(),
            addresses: Family::default(),
            events: Family::default(),
            streams: Gauge::default(),
        };
        let seconds = || Unit::Seconds;
        metrics.register(|r| {
            r.register_with_unit(
                "http_request_duration",
                "HTTP requests by route and status",
                seconds(),
                metrics.http.clone(),
            );
            r.register_with_unit(
                "rpc_call_duration",
                "Calls on the bus by method and outcome",
                seconds(),
                metrics.rpc.clone(),
            );
            r.register_with_unit(
                "operation_step_duration",
                "Steps of operations",
                seconds(),
                metrics.steps.clone(),
            );
            r.register(
                "provisions",
                "Machines ordered, by how it ended",
                metrics.provisions.clone(),
            );
            r.register(
                "pool_addresses",
                "Addresses of the pool by state",
                metrics.addresses.clone(),
            );
            r.register("events", "Domain events seen on the bus", metrics.events.clone());
            r.register("event_streams", "Open event streams", metrics.streams.clone());
        });
        metrics
    }
}

impl Metrics {
    /// Adds metrics of one's own to the registry; names get the prefix `nimbus_`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A gauge of one's own with one label; its name gets the prefix `nimbus_`.
    #[must_use]
    pub fn gauges(&self, name: &str, help: &str, label: &'static str) -> Gauges {
        let family = Family::default();
        self.register(|registry| registry.register(name, help, family.clone()));
        Gauges { label, family }
    }

    /// One HTTP request was answered. `route` is the template, not the path.
    pub fn http(&self, method: &str, route: &str, status: u16, took: Duration) {
        let labels = HttpLabels {
            method: method.to_owned(),
            route: route.to_owned(),
            status,
        };
        self.http.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// One call on the bus ended; `outcome` is `ok` or the fault's code.
    pub fn rpc(&self, method: &str, outcome: &str, took: Duration) {
        let labels = RpcLabels {
            method: method.to_owned(),
            outcome: outcome.to_owned(),
        };
        self.rpc.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A machine was made, or was not; `outcome` is `ok` or the fault's code.
    pub fn provision(&self, outcome: &str) {
        self.provisions
            .get_or_create(&OutcomeLabels {
                outcome: outcome.to_owned(),
            })
            .inc();
    }

    /// One step of an operation was done.
    pub fn step(&self, operation: &str, step: &str, took: Duration) {
        let labels = StepLabels {
            operation: operation.to_owned(),
            step: step.to_owned(),
        };
        self.steps.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// How many addresses are in this state.
    pub fn addresses(&self, state: &str, count: u32) {
        self.addresses
            .get_or_create(&StateLabels {
                state: state.to_owned(),
            })
            .set(i64::from(count));
    }

    /// A domain event was seen.
    pub fn event(&self, kind: &str) {
        self.events
            .get_or_create(&EventLabels {
                kind: kind.to_owned(),
            })
            .inc();
    }

    /// An event stream was opened; it counts until the value is dropped.
    #[must_use]
    pub fn stream(&self) -> OpenStream {
        self.streams.inc();
        OpenStream(self.streams.clone())
    }

    /// The registry in the OpenMetrics text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut page = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a String cannot fail.
        let _ = encode(&mut page, &registry);
        page
    }
}

/// One open event stream.
#[derive(Debug)]
pub struct OpenStream(Gauge);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_what_was_counted() {
        let metrics = Metrics::default();
        metrics.http("GET", "/api/vms/{id}", 200, Duration::from_millis(1));
        metrics.provision("ok");
        metrics.addresses("free", 7);
        let open = metrics.stream();
        let page = metrics.render();
        for line in [
            "nimbus_http_request_duration_seconds_count{method=\"GET\",route=\"/api/vms/{id}\",status=\"200\"} 1",
            "nimbus_provisions_total{outcome=\"ok\"} 1",
            "nimbus_pool_addresses{state=\"free\"} 7",
            "nimbus_event_streams 1",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
        let hosts = metrics.gauges("hosts", "Hosts", "state");
        hosts.set([("there", 2), ("lost", 1)]);
        assert!(metrics.render().contains("nimbus_hosts{state=\"lost\"} 1"));
        hosts.set([("there", 3)]);
        let page = metrics.render();
        assert!(
            page.contains("nimbus_hosts{state=\"there\"} 3") && !page.contains("lost"),
            "{page}"
        );
        drop(open);
        assert!(metrics.render().contains("nimbus_event_streams 0"));
    }
}
