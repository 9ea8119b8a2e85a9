//! The guest: what runs as PID 1 inside of every sandbox, as its callers see it.
//!
//! A sandbox has no network; everything that goes in or out passes one Unix socket, on which the init
//! (the binary `nimbus-guest` of this crate) listens. The sandbox-agent meets it once in [`boot`] and
//! from then on makes one connection per stream with [`Guest`]. What is said on them is [`protocol`].
//! A connection may be carried further as plain bytes (over the bus, to the gateway); the far end then
//! continues with what was [`protocol::Opened`]: [`Attachment::new`], [`Download::new`], [`Upload::new`].

pub mod boot;
mod client;
#[cfg(feature = "embed")]
mod embed;
pub mod frame;
pub mod protocol;

pub use client::{
    Attachment, Collected, CommandEvents, CommandInput, Control, Download, Guest, GuestError, GuestStream,
    Upload, open,
};
#[cfg(feature = "embed")]
pub use embed::init_binary;
