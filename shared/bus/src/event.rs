//! Domain events as CloudEvents 1.0 in JSON, so that `nats sub 'nimbus.v1.event.>'` is readable.

use async_nats::HeaderMap;
use bytes::Bytes;
use nimbus_model::{Clock, EventId, Timestamp};
use serde::{Deserialize, Serialize};
use tracing::Span;

use crate::bus::Bus;
use crate::error::BusError;
use crate::jetstream::{STORAGE_LIMIT, Stored};
use crate::method::Event;
use crate::{header, trace};

/// What all event types and subjects begin with.
const PREFIX: &str = "nimbus.v1.event";

/// An event in its envelope (CloudEvents 1.0, JSON format).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CloudEvent {
    /// Always `1.0`.
    specversion: SpecVersion,
    /// Tells repeats apart from new events.
    pub id: EventId,
    /// The service it comes from: `/nimbus/ippool`.
    pub source: String,
    /// `nimbus.v1.event.<domain>.<kind>`.
    #[serde(rename = "type")]
    pub type_: String,
    /// What it happened to.
    pub subject: String,
    /// When.
    pub time: Timestamp,
    /// The media type of `data`.
    datacontenttype: ContentType,
    /// What happened, as its [`Event`] type writes it.
    pub data: serde_json::Value,
    /// The trace in which it happened (CloudEvents extension for distributed tracing).
    #[serde(rename = "traceparent", default, skip_serializing_if = "Option::is_none")]
    pub trace_parent: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum SpecVersion {
    #[serde(rename = "1.0")]
    One,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum ContentType {
    #[serde(rename = "application/json")]
    Json,
}

impl CloudEvent {
    /// The event that has just happened in the service `source`, within the current span.
    #[must_use]
    pub fn of<E: Event>(event: &E, source: &str, clock: &Clock) -> Self {
        Self {
            specversion: SpecVersion::One,
            id: EventId::fresh(),
            source: format!("/nimbus/{source}"),
            type_: Self::type_of::<E>(),
            subject: event.entity(),
            time: clock.now(),
            datacontenttype: ContentType::Json,
            data: serde_json::to_value(event).unwrap_or_else(|error| {
                // Only a map with keys that are no text can fail; the event still says what happened to what.
                tracing::error!(event.kind = %Self::type_of::<E>(), "an event could not be written as JSON: {error}");
                serde_json::Value::Null
            }),
            trace_parent: trace::parent_of(&Span::current()),
        }
    }

    /// The `type` of events of this kind.
    #[must_use]
    pub fn type_of<E: Event>() -> String {
        format!("{PREFIX}.{}.{}", E::DOMAIN, E::KIND)
    }

    /// The event, if it is of this kind.
    ///
    /// # Errors
    /// Data that the kind cannot have.
    pub fn read<E: Event>(&self) -> Result<Option<E>, BusError> {
        if self.type_ != Self::type_of::<E>() {
            return Ok(None);
        }
        E::deserialize(&self.data)
            .map(Some)
            .map_err(|source| BusError::Decode {
                subject: self.bus_subject(),
                source: Box::new(source),
            })
    }

    /// Where it is published: `nimbus.v1.event.<domain>.<kind>.<id>`. Characters of the entity that
    /// would split or match subjects (an address has dots) become `_`.
    #[must_use]
    pub fn bus_subject(&self) -> String {
        let entity: String = self
            .subject
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        format!("{}.{}", self.type_, if entity.is_empty() { "_" } else { &entity })
    }
}

impl Bus {
    /// Publishes an event and waits until it is stored. Publishing it again is harmless.
    ///
    /// # Errors
    /// A bus that stays away, or a credential without the right. Whether it was stored is then not
    /// known: publish it again.
    pub async fn publish(&self, event: &CloudEvent) -> Result<(), BusError> {
        self.ensure_events().await?;
        let subject = event.bus_subject();
        let body = serde_json::to_vec(event).map_err(|source| BusError::Encode {
            subject: subject.clone(),
            source: Box::new(source),
        })?;
        let mut headers = HeaderMap::new();
        headers.insert(header::MSG_ID, event.id.to_string());
        if let Some(parent) = &event.trace_parent {
            header::put(&mut headers, header::TRACEPARENT, parent)?;
        }
        self.stored::<Stored>(&subject, headers, Bytes::from(body), STORAGE_LIMIT)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct AddressFreed {
        pool: String,
    }
    impl Event for AddressFreed {
        const DOMAIN: &'static str = "address";
        const KIND: &'static str = "freed";
        fn entity(&self) -> String {
            "10.0.0.7".to_owned()
        }
    }

    #[test]
    fn the_envelope_is_what_the_specification_asks_for() {
        let event = CloudEvent::of(&AddressFreed { pool: "lan".into() }, "ippool", &Clock::system());
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["specversion"], "1.0");
        assert_eq!(json["type"], "nimbus.v1.event.address.freed");
        assert_eq!(json["source"], "/nimbus/ippool");
        assert_eq!(json["subject"], "10.0.0.7");
        assert_eq!(json["data"]["pool"], "lan");
        assert_eq!(event.bus_subject(), "nimbus.v1.event.address.freed.10_0_0_7");
        let back: CloudEvent = serde_json::from_value(json).unwrap();
        assert_eq!(back, event);
        assert_eq!(back.read::<AddressFreed>().unwrap().unwrap().pool, "lan");
    }

    #[test]
    fn another_version_of_the_envelope_is_refused() {
        let event = CloudEvent::of(&AddressFreed { pool: "lan".into() }, "ippool", &Clock::system());
        let mut json = serde_json::to_value(&event).unwrap();
        json["specversion"] = "2.0".into();
        assert!(serde_json::from_value::<CloudEvent>(json).is_err());
    }
}
