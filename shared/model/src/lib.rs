//! Words that several services share: ids, time, and the domain's checked types.
//!
//! Everything here is small, pure and used on both sides of the bus.

pub mod catalogue;
pub mod clock;
pub mod hostname;
pub mod id;
pub mod image;
pub mod time;

pub use catalogue::{Os, Tier};
pub use clock::{Clock, Jump};
pub use hostname::{Hostname, HostnameError};
pub use id::{
    AddressId, EventId, JobId, KeyId, MachineId, OperationId, RequestId, SessionId, TenantId, TokenId, UserId,
};
pub use image::{Digest, ImageRef, ImageRefError};
pub use time::Timestamp;
