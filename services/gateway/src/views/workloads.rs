//! Tenants, services, sandboxes and sessions in JSON: `metadata`, `spec`, `status`.
//!
//! Field names are camelCase and unknown ones are refused, in what is sent and in what is answered
//! alike. Launch input (arguments, environment) goes in and never comes out: only its count does.

pub(crate) mod command;
pub(crate) mod file;
pub(crate) mod host;
pub(crate) mod sandbox;
pub(crate) mod service;
pub(crate) mod session;
pub(crate) mod shown;
pub(crate) mod spec;
pub(crate) mod tenant;
pub(crate) mod words;

use nimbus_model::Timestamp;
use nimbus_proto::workloads::{Condition, Endpoint, Listing};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::At;
use words::{ConditionWord, ProtocolWord, TruthWord};

/// A time of a resource, to the millisecond.
pub(crate) fn at(time: Timestamp) -> At {
    let micros = time.micros();
    At(Timestamp::from_micros(micros - micros.rem_euclid(1000)))
}

/// One page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Collection<T> {
    /// About the page.
    pub metadata: CollectionMetadata,
    /// The items.
    pub items: Vec<T>,
}

/// About one page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CollectionMetadata {
    /// The tenant.
    pub tenant_id: String,
    /// Changes whenever one of the items may have; only equality means something.
    pub resource_version: String,
    /// The limit in force.
    pub limit: u32,
    /// What to give as `pageToken` for the next page; left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
    /// Matching items after this page.
    pub remaining_count: u64,
}

impl<T> Collection<T> {
    pub(crate) fn of<P>(tenant: String, listing: Listing<P>) -> Self
    where
        T: From<P>,
    {
        Self {
            metadata: CollectionMetadata {
                tenant_id: tenant,
                resource_version: listing.resource_version,
                limit: listing.limit,
                next_page_token: listing.next_page_token,
                remaining_count: listing.remaining,
            },
            items: listing.items.into_iter().map(T::from).collect(),
        }
    }
}

/// A short list, whole.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Items<T> {
    /// The items.
    pub items: Vec<T>,
}

impl<T> Items<T> {
    pub(crate) fn of<P>(items: Vec<P>) -> Self
    where
        T: From<P>,
    {
        Self {
            items: items.into_iter().map(T::from).collect(),
        }
    }
}

/// One statement about a resource; one per `type`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConditionView {
    /// What it speaks of.
    #[serde(rename = "type")]
    pub kind: ConditionWord,
    /// What it says.
    pub status: TruthWord,
    /// Why, one word, such as `ImagePulling`.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// The generation it speaks of.
    pub observed_generation: u64,
    /// When `status` changed last.
    pub last_transition_time: At,
}

impl From<Condition> for ConditionView {
    fn from(condition: Condition) -> Self {
        Self {
            kind: condition.kind.into(),
            status: condition.status.into(),
            reason: condition.reason,
            message: condition.message,
            observed_generation: condition.observed_generation,
            last_transition_time: at(condition.last_transition),
        }
    }
}

pub(crate) fn conditions(conditions: Vec<Condition>) -> Vec<ConditionView> {
    conditions.into_iter().map(ConditionView::from).collect()
}

/// Where a published port can be reached, on the host of the sandbox.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct EndpointView {
    /// The port's name.
    #[schema(examples("tcp-8080"))]
    pub name: String,
    /// What is spoken.
    pub protocol: ProtocolWord,
    /// A loopback address.
    #[schema(examples("127.0.0.1"))]
    pub host: String,
    /// The port there.
    pub port: u16,
}

impl From<Endpoint> for EndpointView {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            name: endpoint.name,
            protocol: endpoint.protocol.into(),
            host: endpoint.host,
            port: endpoint.port,
        }
    }
}

pub(crate) fn endpoints(endpoints: Vec<Endpoint>) -> Vec<EndpointView> {
    endpoints.into_iter().map(EndpointView::from).collect()
}

/// What is not shown: how much of it there is.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RedactedView {
    /// Always true.
    pub redacted: bool,
    /// How many values there are.
    pub value_count: u32,
}

impl From<u32> for RedactedView {
    fn from(value_count: u32) -> Self {
        Self {
            redacted: true,
            value_count,
        }
    }
}

/// Which lines of a log.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogsQuery {
    /// At most so many of the last lines; 200 when it is left out.
    pub tail: Option<u32>,
    /// Only lines from then on (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Whether to go on with lines to come.
    #[serde(default)]
    pub follow: bool,
}
