//! Names of the headers that every message may carry, and reading them.

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use nimbus_model::Timestamp;

use crate::error::BusError;

/// W3C trace context.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Until when an answer is of use, in microseconds since 1970.
pub(crate) const DEADLINE: HeaderName = HeaderName::from_static("Nimbus-Deadline");
/// The caller's access token.
pub(crate) const IDENTITY: HeaderName = HeaderName::from_static("Nimbus-Identity");
/// What makes a repeat harmless.
pub(crate) const KEY: HeaderName = HeaderName::from_static("Nimbus-Key");
/// JetStream's deduplication.
pub(crate) const MSG_ID: HeaderName = HeaderName::from_static("Nats-Msg-Id");
/// JetStream's optimistic lock on a subject.
pub(crate) const EXPECTED_SUBJECT_SEQUENCE: HeaderName =
    HeaderName::from_static("Nats-Expected-Last-Subject-Sequence");
/// How long JetStream keeps a message.
pub(crate) const TTL: HeaderName = HeaderName::from_static("Nats-TTL");
/// What a key-value entry's message does.
pub(crate) const KV_OPERATION: HeaderName = HeaderName::from_static("KV-Operation");
/// Set by JetStream on markers that replace an expired entry.
pub(crate) const MARKER_REASON: HeaderName = HeaderName::from_static("Nats-Marker-Reason");
/// When a directly fetched message was stored.
pub(crate) const TIME_STAMP: HeaderName = HeaderName::from_static("Nats-Time-Stamp");
/// The sequence of a directly fetched message.
pub(crate) const SEQUENCE: HeaderName = HeaderName::from_static("Nats-Sequence");

/// Text of a failed request, in the NATS services API.
pub const SERVICE_ERROR: HeaderName = HeaderName::from_static("Nats-Service-Error");
/// Number of a failed request, in the NATS services API: the HTTP status of the fault's code.
pub const SERVICE_ERROR_CODE: HeaderName = HeaderName::from_static("Nats-Service-Error-Code");

/// Adds a header whose text comes from outside; line breaks would end it.
pub(crate) fn put(headers: &mut HeaderMap, name: HeaderName, text: &str) -> Result<(), BusError> {
    let value: HeaderValue = text.parse().map_err(|_| BusError::Invalid {
        text: text.chars().take(64).collect(),
        wanted: "a header value: it has a line break",
    })?;
    headers.insert(name, value);
    Ok(())
}

/// The text of a header.
pub(crate) fn text(headers: Option<&HeaderMap>, name: HeaderName) -> Option<&str> {
    headers?.get(name).map(HeaderValue::as_str)
}

/// The deadline of a message, if it names one.
pub(crate) fn deadline(headers: Option<&HeaderMap>) -> Option<Timestamp> {
    text(headers, DEADLINE)?.parse().ok().map(Timestamp::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_cannot_smuggle_a_header() {
        let mut headers = HeaderMap::new();
        assert!(put(&mut headers, KEY, "a\r\nNimbus-Identity: forged").is_err());
        assert!(headers.is_empty());
        put(&mut headers, KEY, "vm_1").unwrap();
        assert_eq!(text(Some(&headers), KEY), Some("vm_1"));
    }
}
