//! The GPU plane: the real server, the real worker, the real container engine.
//!
//! - `jobs`: what people do with it
//! - `faults`: what goes wrong, and that no job runs twice and no byte is lost or doubled
//! - `pairing`: a box with a real systemd, from one pasted line to nothing left

mod faults;
mod jobs;
mod pairing;
