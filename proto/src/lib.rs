//! Everything that crosses a process boundary inside Nimbus: one module per service with its bus
//! methods and messages, the domain events, the work queues, and who may use which of them.
//!
//! Messages are postcard (positional): no optional fields by omission, no untagged enums; append
//! enum variants only. `proto/bus.json` is a snapshot of every method and pins the bytes of its samples; a
//! difference there is a change of the contract.

pub mod agent;
pub mod auth;
pub mod event;
pub mod gpu;
pub mod grants;
pub mod ippool;
pub mod machine;
pub mod node;
pub mod registry;
pub mod verify;
pub mod work;
pub mod workloads;

pub use auth::Secret;

// Methods of the service `agent` are answered by one host each.
macro_rules! method {
    (@place agent) => { nimbus_bus::Place::Host };
    (@place $service:ident) => { nimbus_bus::Place::Service };
    ($(#[$doc:meta])* $name:ident = $service:ident . $wire:ident, $timeout_ms:literal ms, $retry:ident, $access:ident,
     $request:ty => $reply:ty, samples $sample_request:expr => $sample_reply:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        impl nimbus_bus::Method for $name {
            const SERVICE: &'static str = stringify!($service);
            const NAME: &'static str = stringify!($wire);
            const TIMEOUT: std::time::Duration = std::time::Duration::from_millis($timeout_ms);
            const RETRY: nimbus_bus::Retry = nimbus_bus::Retry::$retry;
            const ACCESS: nimbus_bus::Access = nimbus_bus::Access::$access;
            const PLACE: nimbus_bus::Place = crate::method!(@place $service);
            type Request = $request;
            type Reply = $reply;
            fn sample_request() -> $request { $sample_request }
            fn sample_reply() -> $reply { $sample_reply }
        }
    };
}
pub(crate) use method;

/// Ids and times for samples: fixed, so that their bytes are.
pub(crate) mod sample {
    use nimbus_model::{
        JobId, KeyId, MachineId, OperationId, SessionId, TenantId, Timestamp, TokenId, UserId,
    };

    const BYTES: [u8; 16] = [
        0x01, 0x93, 0x4f, 0x2a, 0x5b, 0x1c, 0x7d, 0x3e, 0x8f, 0x40, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66,
    ];

    pub(crate) fn user() -> UserId {
        UserId::from_uuid(uuid::Uuid::from_bytes(BYTES))
    }
    pub(crate) fn tenant() -> TenantId {
        TenantId::from_uuid(uuid::Uuid::from_bytes(BYTES))
    }
    pub(crate) fn session() -> SessionId {
        SessionId::from_uuid(uuid::Uuid::from_bytes(BYTES))
    }
    pub(crate) fn token() -> TokenId {
        TokenId::from_uuid(uuid::Uuid::from_bytes(BYTES))
    }
    pub(crate) fn key() -> KeyId {
        KeyId::from_uuid(uuid::Uuid::from_bytes(BYTES))
    }
    pub(crate) fn machine() -> MachineId {
        MachineId::from_uuid(uuid::Uuid::from_bytes(BYTES))
    }
    pub(crate) fn job() -> JobId {
        JobId::from_uuid(uuid::Uuid::from_bytes(BYTES))
    }
    pub(crate) fn operation() -> OperationId {
        OperationId::from_uuid(uuid::Uuid::from_bytes(BYTES))
    }
    pub(crate) const fn stream() -> nimbus_bus::StreamId {
        nimbus_bus::StreamId::from_bytes(BYTES)
    }
    pub(crate) const fn at() -> Timestamp {
        Timestamp::from_micros(1_781_110_801_000_000)
    }
}
