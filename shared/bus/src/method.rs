//! What a request on the bus is: a type per method, defined once in `proto`.

use std::time::Duration;

use nimbus_model::Hostname;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Whether a caller may send a request again when it does not know what became of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// A repeat could do harm.
    Never,
    /// It only reads.
    Read,
    /// A repeat with the same key, or the same content, has no second effect.
    SameKey,
}

/// Who may call a method. Which *services* may is decided by the bus credentials; this is about people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Services only. At a [`Place::Service`] no person's identity is looked at; at a [`Place::Host`]
    /// the handler sees it where the caller sent one that is still good, for the record: what may be
    /// done was decided before.
    Service,
    /// A signed-in person; the handler sees who.
    User,
    /// A signed-in administrator.
    Admin,
}

/// Where a method is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// By any instance of its service: `nimbus.v1.rpc.<SERVICE>.<NAME>`.
    Service,
    /// By the agent of one host, which the caller names with [`Call::at`](crate::Call::at):
    /// `nimbus.v1.agent.<host>.<NAME>`.
    Host,
}

/// One request/reply pair on the bus.
///
/// The subject follows from [`Self::PLACE`] and is spelled nowhere else. Requests and replies
/// are postcard, which is positional: append enum variants only, and give an incompatible message a
/// method of its own.
pub trait Method: Send + Sync + 'static {
    /// The service that answers.
    const SERVICE: &'static str;
    /// The method's name within the service.
    const NAME: &'static str;
    /// The caller's limit; travels as a deadline.
    const TIMEOUT: Duration;
    /// Whether a lost answer may be asked for again.
    const RETRY: Retry;
    /// Who may call it.
    const ACCESS: Access;
    /// Where it is answered.
    const PLACE: Place = Place::Service;
    /// What is asked.
    type Request: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What is answered.
    type Reply: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// A request whose bytes a snapshot pins.
    fn sample_request() -> Self::Request;
    /// A reply whose bytes a snapshot pins.
    fn sample_reply() -> Self::Reply;

    /// The subject requests go to; with `*` for the host where hosts answer.
    #[must_use]
    fn subject() -> String {
        match Self::PLACE {
            Place::Service => format!("nimbus.v1.rpc.{}.{}", Self::SERVICE, Self::NAME),
            Place::Host => format!("nimbus.v1.agent.*.{}", Self::NAME),
        }
    }

    /// The subject of requests to one host.
    #[must_use]
    fn subject_at(host: &Hostname) -> String {
        format!("nimbus.v1.agent.{host}.{}", Self::NAME)
    }
}

/// A unit of durable work on `nimbus.v1.work.<QUEUE>`: delivered until acknowledged, to one worker at a time.
pub trait Work: Send + Sync + 'static {
    /// The queue's name.
    const QUEUE: &'static str;
    /// How long a worker may be silent before the item is given to another.
    const ACK_WAIT: Duration;
    /// What is queued, as postcard.
    type Item: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// The subject items go to.
    #[must_use]
    fn subject() -> String {
        format!("nimbus.v1.work.{}", Self::QUEUE)
    }
}

/// A thing that has happened, on `nimbus.v1.event.<DOMAIN>.<KIND>.<id>`, as JSON in a CloudEvents 1.0 envelope.
///
/// Events may grow: new fields are optional.
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The noun, such as `machine`.
    const DOMAIN: &'static str;
    /// The past participle, such as `created`.
    const KIND: &'static str;
    /// What it happened to; the last token of the subject.
    fn entity(&self) -> String;
}
