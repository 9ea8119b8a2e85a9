//! The bus: the only way one Nimbus service talks to another, also inside one process.
//!
//! | Traffic | Subject | Here |
//! |---|---|---|
//! | request and reply | `nimbus.v1.rpc.<service>.<method>` | [`Bus::call`], [`Bus::serve`] |
//! | request and reply of a host's agent | `nimbus.v1.agent.<host>.<method>` | [`Call::at`], [`Bus::serve_host`] |
//! | byte streams | `nimbus.v1.session.<id>.<channel>.{in,out}` | [`Bus::stream`], [`stream`] |
//! | domain events | `nimbus.v1.event.<domain>.<kind>.<id>` | [`Bus::publish`], [`Bus::events`] |
//! | durable work | `nimbus.v1.work.<queue>` | [`Bus::enqueue`], [`Bus::work`] |
//! | peers of another make: JSON and bytes | `nimbus.v1.gpu.…` | [`Bus::peers`], [`Bus::store_once`], [`Bus::say`] |
//! | leases | key-value bucket `leases` | [`Bus::lease`], [`Bus::singleton`] |
//!
//! Underneath is NATS: an external server named by `NATS_URL`, or the [`EmbeddedNats`] that this
//! crate carries and supervises. Who may use which subject is decided by the server, from the
//! credential that an [`Authority`] mints out of a service's [`Grants`].
//!
//! What is sent is defined in `nimbus-proto`, one type per [`Method`], [`Event`] and [`Work`]; this
//! crate is the machinery and knows none of them.

mod authority;
mod bus;
mod call;
mod caller;
mod credential;
mod embedded;
mod error;
mod event;
mod exchange;
mod exposure;
mod follow;
mod grants;
mod header;
mod identity;
mod intake;
mod jetstream;
mod jwt;
mod lease;
mod link;
mod method;
mod micro;
mod peer;
mod process;
mod replicas;
mod serve;
mod server_config;
mod singleton;
mod space;
pub mod stream;
mod survey;
pub mod trace;
mod wire;
mod work;

pub use authority::{Authority, User};
pub use bus::{Bus, ConnectOptions};
pub use call::Call;
pub use caller::{AccessToken, Caller, Incoming, Key, Verify};
pub use credential::Credential;
pub use embedded::{EmbeddedNats, EmbeddedOptions};
pub use error::BusError;
pub use event::CloudEvent;
pub use exposure::Exposure;
pub use follow::{Delivered, EventFilter, EventStart, Events};
pub use grants::{Grants, Streams, WorkStream, service_user};
pub use identity::{Action, Grant, Identity, KeyIdentity, On, Sandboxes, Scope, Tenancy};
pub use jetstream::StreamSettings;
pub use lease::Lease;
pub use method::{Access, Event, Method, Place, Retry, Work};
pub use peer::{PeerRequest, PeerServing, Peers, StoredOnce};
pub use serve::{Serve, Serving};
pub use server_config::{ServerConfigOptions, ServerTls};
pub use stream::{BusStream, EndReason, Side, StreamHandle, StreamId};
pub use survey::{ConsumerReport, Instance, LeaseReport, StreamReport, Survey};
pub use wire::{decode, encode};
pub use work::{Done, Progress};

/// The header that carries a fault's code beside its body, as the NATS services API asks for.
pub use header::{SERVICE_ERROR, SERVICE_ERROR_CODE};
