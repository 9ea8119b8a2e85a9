//! What black-box suites are made of: processes of the real binary, a simulated cluster that outlives
//! them, a client of the API, and comparisons of what all of them say.
//!
//! Nothing here knows the inside of a service. A failure of the harness itself is a panic with
//! everything known about it; logs of every process are in `tests/output/<suite>/<test>/`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a harness fails by panicking, which is how tests fail"
)]

pub mod api;
pub mod bus;
pub mod compose;
pub mod database;
pub mod events;
pub mod gpu;
pub mod lab;
pub mod process;
pub mod server;
pub mod sim;
pub mod spread;
pub mod wait;
pub mod world;

pub use api::{Answer, Api};
pub use lab::{Lab, Tenant};
pub use process::Process;
pub use server::{Server, Settings};
pub use sim::{Fault, PveSim};
pub use spread::Spread;
pub use wait::eventually;
pub use world::{Opening, World};
