//! The gateway over a real socket, in front of a real bus with small services behind it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod account;
mod commands;
mod edge;
mod events;
mod gpu_boxes;
mod gpu_jobs;
mod machines;
mod model;
mod models;
mod peers;
mod plane;
mod routes;
mod server;
mod sockets;
mod workloads;
mod works;
mod world;
