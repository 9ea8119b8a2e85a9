//! The GPU plane: the real server, the real worker, the real container engine.
//!
//! - `jobs`: what people do with it
//! - `disk`: the server's disk is full
//! - `engine`: the box' engine restarted, with and without its containers
//! - `faults`: what goes wrong, and that no job runs twice and no byte is lost or doubled
//! - `machine`: the same from inside a VM
//! - `pairing`: a box with a real systemd, from one pasted line to nothing left

mod disk;
mod engine;
mod faults;
mod jobs;
mod machine;
mod pairing;
