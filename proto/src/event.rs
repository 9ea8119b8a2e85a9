//! What has happened, for everybody who listens: the portal, tools, other services.

use nimbus_bus::Event;
use nimbus_model::{KeyId, SessionId, TokenId, UserId};
use serde::{Deserialize, Serialize};

use crate::ippool::Address;
use crate::machine::{Machine, Operation};

macro_rules! event {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident : $ty:ty),* $(,)? } $domain:literal . $kind:literal, |$this:ident| $entity:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub struct $name { $($(#[$field_doc])* pub $field: $ty,)* }
        impl Event for $name {
            const DOMAIN: &'static str = $domain;
            const KIND: &'static str = $kind;
            fn entity(&self) -> String { let $this = self; $entity }
        }
    };
}

event!(/// An operation began, made a step, or ended.
    OperationProgressed { /// Its whole state after that.
        operation: Operation } "operation"."progressed", |e| e.operation.id.to_string());
event!(/// A machine's row came to be.
    MachineCreated { /// The row.
        machine: Machine } "machine"."created", |e| e.machine.id.to_string());
event!(/// A machine's row changed.
    MachineChanged { /// The row.
        machine: Machine } "machine"."changed", |e| e.machine.id.to_string());
event!(/// A machine and its row are gone.
    MachineDeleted { /// The row as it was.
        machine: Machine } "machine"."deleted", |e| e.machine.id.to_string());
event!(/// An address changed hands.
    AddressChanged { /// Its row.
        address: Address } "address"."changed", |e| e.address.ip.to_string().replace('.', "-"));
event!(/// Somebody registered.
    UserRegistered { /// Who.
        user: UserId } "user"."registered", |e| e.user.to_string());
event!(/// Somebody signed in.
    UserSignedIn { /// Who.
        user: UserId } "user"."signed_in", |e| e.user.to_string());
event!(/// A credential ended before its time; access tokens made from it must not be honoured any more.
    CredentialRevoked { /// Whose.
        user: UserId,
        /// The browser session, if it was one.
        session: Option<SessionId>,
        /// The personal access token, if it was one.
        token: Option<TokenId>,
        /// The API key, if it was one.
        #[serde(default)]
        key: Option<KeyId> } "credential"."revoked", |e| e.user.to_string());

/// One kind of event, as `proto/events.json` lists it.
#[derive(Clone, Debug, Serialize)]
pub struct EventInfo {
    /// Subjects it is published on; the last token is what it happened to.
    pub subject: String,
    /// The `type` of its CloudEvents envelope.
    #[serde(rename = "type")]
    pub type_: String,
    /// The `data` of its envelope, by example.
    pub data: serde_json::Value,
}

fn info<E: Event>(sample: &E) -> EventInfo {
    let kind = format!("nimbus.v1.event.{}.{}", E::DOMAIN, E::KIND);
    EventInfo {
        subject: format!("{kind}.<id>"),
        type_: kind,
        data: serde_json::to_value(sample).unwrap_or_default(),
    }
}

/// Every kind of event, with samples that never change by themselves.
#[must_use]
pub fn events() -> Vec<EventInfo> {
    use nimbus_bus::Method;
    let operation = crate::machine::GetOperation::sample_reply();
    let machine = crate::machine::Get::sample_reply();
    let user = crate::sample::user();
    let mut list = vec![
        info(&OperationProgressed { operation }),
        info(&MachineCreated {
            machine: machine.clone(),
        }),
        info(&MachineChanged {
            machine: machine.clone(),
        }),
        info(&MachineDeleted { machine }),
        info(&UserRegistered { user }),
        info(&UserSignedIn { user }),
        info(&CredentialRevoked {
            user,
            session: Some(crate::sample::session()),
            token: None,
            key: None,
        }),
    ];
    list.extend(
        crate::ippool::List::sample_reply()
            .into_iter()
            .map(|address| info(&AddressChanged { address })),
    );
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_events_is_checked_in() {
        let now = serde_json::to_string_pretty(&events()).expect("plain data") + "\n";
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("events.json");
        if std::env::var_os("NIMBUS_GENERATE").is_some() {
            std::fs::write(&path, &now).expect("the source tree is writable");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == now,
            "proto/events.json is not what the code says: run `make generate`, and read the difference as a change of the contract"
        );
    }
}
