//! The worker as a process of its own, on a real container engine, with a scripted scheduler.
//!
//! `DOCKER_HOST` may name another engine's socket. Each test has a worker of its own name; what it leaves
//! on the engine is removed by that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail as tests do"
)]

mod engine;
mod faults;
mod jobs;
mod scheduler;
mod world;
