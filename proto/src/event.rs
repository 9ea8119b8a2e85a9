//! What has happened, for everybody who listens: the portal, tools, other services.

use nimbus_bus::Event;
use nimbus_model::{SessionId, TokenId, UserId};
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
        token: Option<TokenId> } "credential"."revoked", |e| e.user.to_string());
