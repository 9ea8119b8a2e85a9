//! The bus against a real nats-server: the embedded one, started per test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail as tests do"
)]

mod calls;
mod events;
mod hosts;
mod leases;
mod peers;
mod replicas;
mod rights;
mod server;
mod streams;
mod survey;
mod tls;
mod tracing;
mod work;
mod world;
