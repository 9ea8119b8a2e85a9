//! Nodes in an account's own folders, on a host whose commands follow a script.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod host;
mod install;
mod upgrade;
