//! From what a service does to the subjects it may use.
//!
//! The rights are the least with which the calls of this crate work against nats-server 2.15; a test
//! takes them away one at a time and sees something fail:
//!
//! | To | publish | subscribe |
//! |---|---|---|
//! | be connected | `_INBOX_<name>.>` (proof that a subscription is live) | `_INBOX_<name>.>` |
//! | serve | answers only, each once, by the server's `resp` rule | `nimbus.v1.rpc.<service>.*`, `$SRV.*`, `$SRV.*.<service>`, `$SRV.*.<service>.*` |
//! | serve as the agent of a host | answers only | `nimbus.v1.agent.<host>.*`, `$SRV.*`, `$SRV.*.agent`, `$SRV.*.agent.*` |
//! | call | the method's subject | |
//! | open streams | `nimbus.v1.session.*.*.in` | `nimbus.v1.session.*.*.out` |
//! | take streams | `nimbus.v1.session.*.*.out` | `nimbus.v1.session.*.*.in` |
//! | publish events | the events' subjects, `$JS.API.STREAM.CREATE.EVENTS` | |
//! | follow events | `$JS.API.STREAM.{CREATE,INFO}.EVENTS`, `$JS.API.CONSUMER.CREATE.EVENTS.*.<pattern>`, `$JS.API.CONSUMER.MSG.NEXT.EVENTS.*` | |
//! | push work | the queue's subject, `$JS.API.STREAM.CREATE.WORK_<queue>` | |
//! | pull work | `$JS.API.STREAM.CREATE.WORK_<queue>`, `$JS.API.CONSUMER.CREATE.WORK_<queue>.workers`, `$JS.API.CONSUMER.MSG.NEXT.WORK_<queue>.workers`, `$JS.ACK.WORK_<queue>.workers.>` | |
//! | manage a work-queue stream for peers | its subjects, `$JS.API.STREAM.CREATE.<stream>`, `$JS.API.STREAM.MSG.DELETE.<stream>`, `$JS.API.CONSUMER.CREATE.<stream>.*.<subject>`, `$JS.API.CONSUMER.DELETE.<stream>.*` | |
//! | pull as a peer | `$JS.API.CONSUMER.MSG.NEXT.<stream>.<consumer>`, `$JS.ACK.<stream>.<consumer>.>` | |
//! | hold leases | `$KV.leases.<name>.>`, `$JS.API.STREAM.CREATE.KV_leases`, `$JS.API.DIRECT.GET.KV_leases.$KV.leases.<name>.>` | `$KV.leases.<name>.>` |
//! | survey | `$SRV.STATS`, `$SRV.INFO`, `$JS.API.STREAM.LIST`, `$JS.API.CONSUMER.LIST.*`, `$JS.API.STREAM.{CREATE,INFO}.KV_leases`, `$JS.API.DIRECT.GET.KV_leases.$KV.leases.>` | |
//!
//! Without the right to acknowledge, the first acknowledgement of an item would still pass as an
//! answer; it is there for those that say "still at it" before. Only one right makes things faster
//! rather than possible: hearing the own leases lets a replica that waits take over at once when one
//! is given back.
//!
//! Creating a stream that exists changes nothing, so that right lets nobody alter one. Following
//! several patterns with one consumer needs `$JS.API.CONSUMER.CREATE.EVENTS.*`, whose subject does
//! not name them: a service with more than one pattern can therefore follow every event.

use nimbus_model::Hostname;

use crate::authority::User;
use crate::bus::inbox_prefix;
use crate::jetstream::{EVENTS, LEASES, LEASES_STREAM, WORKERS, work_stream};
use crate::method::{Method, Work};
use crate::serve::AGENT;

/// Which ends of byte streams a service holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    /// None.
    #[default]
    None,
    /// Those that open streams.
    Client,
    /// Those that streams are opened to.
    Server,
}

/// A work-queue stream for peers, see [`Bus::ensure_work_stream`](crate::Bus::ensure_work_stream).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkStream {
    /// Its name.
    pub stream: String,
    /// What it takes, as one pattern.
    pub subjects: String,
}

/// What a service does on the bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Services whose methods it answers.
    pub serves: Vec<String>,
    /// Hosts for which it answers the methods of agents.
    pub hosts: Vec<Hostname>,
    /// Subjects of the methods it calls; of agents' methods those of every host.
    pub calls: Vec<String>,
    /// Subjects of the events it publishes, with wildcards: `nimbus.v1.event.machine.>`.
    pub events_publish: Vec<String>,
    /// Subjects of the events it follows, with wildcards.
    pub events_subscribe: Vec<String>,
    /// Queues it puts work into.
    pub work_push: Vec<String>,
    /// Queues it takes work from.
    pub work_pull: Vec<String>,
    /// Whether it holds leases; their names begin with its own and a dot.
    pub leases: bool,
    /// Which ends of byte streams it holds.
    pub streams: Streams,
    /// Subjects without a type here that it sends to, with wildcards: requests and core messages.
    pub says: Vec<String>,
    /// Subjects without a type here that it listens to or answers, with wildcards.
    pub hears: Vec<String>,
    /// Work-queue streams that it makes, fills and gives consumers.
    pub work_streams: Vec<WorkStream>,
    /// Stream and consumer of what it pulls as a peer.
    pub pulls: Vec<(String, String)>,
    /// Whether it may ask who is there and how streams and leases stand: [`Bus::survey`](crate::Bus::survey).
    pub surveys: bool,
}

impl Grants {
    /// Adds answering the methods of `service`.
    #[must_use]
    pub fn serving(mut self, service: &str) -> Self {
        self.serves.push(service.to_owned());
        self
    }

    /// Adds answering the methods of agents for `host`.
    #[must_use]
    pub fn serving_host(mut self, host: &Hostname) -> Self {
        self.hosts.push(host.clone());
        self
    }

    /// Adds calling one method; a method of agents on every host.
    #[must_use]
    pub fn calling<M: Method>(mut self) -> Self {
        self.calls.push(M::subject());
        self
    }

    /// Adds publishing every event of a domain.
    #[must_use]
    pub fn publishing(mut self, domain: &str) -> Self {
        self.events_publish.push(format!("nimbus.v1.event.{domain}.>"));
        self
    }

    /// Adds following the events of a pattern.
    #[must_use]
    pub fn following(mut self, pattern: &str) -> Self {
        self.events_subscribe.push(pattern.to_owned());
        self
    }

    /// Adds putting work into a queue.
    #[must_use]
    pub fn pushing<W: Work>(mut self) -> Self {
        self.work_push.push(W::QUEUE.to_owned());
        self
    }

    /// Adds taking work from a queue.
    #[must_use]
    pub fn pulling<W: Work>(mut self) -> Self {
        self.work_pull.push(W::QUEUE.to_owned());
        self
    }

    /// Adds holding leases.
    #[must_use]
    pub fn leasing(mut self) -> Self {
        self.leases = true;
        self
    }

    /// Adds sending to a pattern of subjects without a type here.
    #[must_use]
    pub fn saying(mut self, pattern: &str) -> Self {
        self.says.push(pattern.to_owned());
        self
    }

    /// Adds listening to, or answering, a pattern of subjects without a type here.
    #[must_use]
    pub fn hearing(mut self, pattern: &str) -> Self {
        self.hears.push(pattern.to_owned());
        self
    }

    /// Adds managing a work-queue stream of one pattern of subjects.
    #[must_use]
    pub fn managing(mut self, stream: &str, subjects: &str) -> Self {
        self.work_streams.push(WorkStream {
            stream: stream.to_owned(),
            subjects: subjects.to_owned(),
        });
        self
    }

    /// Adds pulling from a consumer of a work-queue stream.
    #[must_use]
    pub fn pulling_from(mut self, stream: &str, consumer: &str) -> Self {
        self.pulls.push((stream.to_owned(), consumer.to_owned()));
        self
    }

    /// Adds one end of byte streams.
    #[must_use]
    pub fn streaming(mut self, streams: Streams) -> Self {
        self.streams = streams;
        self
    }
}

/// The user of a service that does exactly this.
#[must_use]
pub fn service_user(name: &str, grants: &Grants) -> User {
    let inbox = format!("{}.>", inbox_prefix(name));
    let mut publish = vec![inbox.clone()];
    let mut subscribe = vec![inbox];
    let rpc = grants
        .serves
        .iter()
        .map(|service| (service.as_str(), format!("nimbus.v1.rpc.{service}.*")));
    let agents = grants
        .hosts
        .iter()
        .map(|host| (AGENT, format!("nimbus.v1.agent.{host}.*")));
    for (service, methods) in rpc.chain(agents) {
        subscribe.push(methods);
        subscribe.push("$SRV.*".to_owned());
        subscribe.push(format!("$SRV.*.{service}"));
        subscribe.push(format!("$SRV.*.{service}.*"));
    }
    publish.extend(grants.calls.iter().cloned());
    publish.extend(grants.events_publish.iter().cloned());
    if !grants.events_publish.is_empty() || !grants.events_subscribe.is_empty() {
        publish.push(format!("$JS.API.STREAM.CREATE.{EVENTS}"));
    }
    if !grants.events_subscribe.is_empty() {
        publish.push(format!("$JS.API.STREAM.INFO.{EVENTS}"));
        publish.push(format!("$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.*"));
        publish.extend(
            grants
                .events_subscribe
                .iter()
                .map(|pattern| format!("$JS.API.CONSUMER.CREATE.{EVENTS}.*.{pattern}")),
        );
    }
    if grants.events_subscribe.len() > 1 {
        publish.push(format!("$JS.API.CONSUMER.CREATE.{EVENTS}.*"));
    }
    for queue in grants.work_push.iter().chain(&grants.work_pull) {
        publish.push(format!("$JS.API.STREAM.CREATE.{}", work_stream(queue)));
    }
    publish.extend(
        grants
            .work_push
            .iter()
            .map(|queue| format!("nimbus.v1.work.{queue}")),
    );
    for stream in grants.work_pull.iter().map(|queue| work_stream(queue)) {
        publish.push(format!("$JS.API.CONSUMER.CREATE.{stream}.{WORKERS}"));
        publish.push(format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{WORKERS}"));
        publish.push(format!("$JS.ACK.{stream}.{WORKERS}.>"));
    }
    if grants.leases {
        let own = format!("$KV.{LEASES}.{name}.>");
        publish.push(format!("$JS.API.STREAM.CREATE.{LEASES_STREAM}"));
        publish.push(format!("$JS.API.DIRECT.GET.{LEASES_STREAM}.{own}"));
        publish.push(own.clone());
        subscribe.push(own);
    }
    let (inward, outward) = (
        "nimbus.v1.session.*.*.in".to_owned(),
        "nimbus.v1.session.*.*.out".to_owned(),
    );
    match grants.streams {
        Streams::None => {}
        Streams::Client => {
            publish.push(inward);
            subscribe.push(outward);
        }
        Streams::Server => {
            publish.push(outward);
            subscribe.push(inward);
        }
    }
    publish.extend(grants.says.iter().cloned());
    subscribe.extend(grants.hears.iter().cloned());
    for WorkStream { stream, subjects } in &grants.work_streams {
        publish.push(subjects.clone());
        publish.push(format!("$JS.API.STREAM.CREATE.{stream}"));
        publish.push(format!("$JS.API.STREAM.MSG.DELETE.{stream}"));
        publish.push(format!("$JS.API.CONSUMER.CREATE.{stream}.*.{subjects}"));
        publish.push(format!("$JS.API.CONSUMER.DELETE.{stream}.*"));
    }
    for (stream, consumer) in &grants.pulls {
        publish.push(format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"));
        publish.push(format!("$JS.ACK.{stream}.{consumer}.>"));
    }
    if grants.surveys {
        publish.extend(
            [
                "$SRV.STATS",
                "$SRV.INFO",
                "$JS.API.STREAM.LIST",
                "$JS.API.CONSUMER.LIST.*",
            ]
            .map(str::to_owned),
        );
        publish.push(format!("$JS.API.STREAM.CREATE.{LEASES_STREAM}"));
        publish.push(format!("$JS.API.STREAM.INFO.{LEASES_STREAM}"));
        publish.push(format!("$JS.API.DIRECT.GET.{LEASES_STREAM}.$KV.{LEASES}.>"));
    }
    for list in [&mut publish, &mut subscribe] {
        list.sort();
        list.dedup();
    }
    User {
        name: name.to_owned(),
        publish,
        subscribe,
        expires: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_gets_its_own_subjects_and_no_wildcard_over_others() {
        let grants = Grants::default()
            .serving("ippool")
            .publishing("address")
            .leasing();
        let user = service_user("ippool", &grants);
        assert!(user.subscribe.contains(&"nimbus.v1.rpc.ippool.*".to_owned()));
        assert!(user.publish.contains(&"nimbus.v1.event.address.>".to_owned()));
        for subject in user.publish.iter().chain(&user.subscribe) {
            assert!(
                !subject.contains("auth") && subject != ">" && !subject.starts_with("nimbus.v1.rpc.*"),
                "{subject}"
            );
        }
    }
}
