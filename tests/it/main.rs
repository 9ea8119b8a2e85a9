//! Black-box suites on the real binary.
//!
//! - `system`: one process, as people use it
//! - `crash`: killed after and inside of every step
//! - `faults`: every call of the cluster going wrong in every way
//! - `split`: each service its own process, on an external nats-server and PostgreSQL
//! - `gpu`: jobs on GPU boxes, with the real worker
//! - `input`: what nobody should send
//! - `node`: units of a host with a real systemd
//! - `workloads`: sandboxes, services and sessions on a real container engine

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod crash;
mod faults;
mod gpu;
mod input;
mod node;
mod split;
mod system;
mod workloads;
