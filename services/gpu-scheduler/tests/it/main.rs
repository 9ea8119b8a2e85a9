//! The service over a real bus, with boxes that follow a script.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

#[cfg(test)]
mod bytes_kept;
#[cfg(test)]
mod endings;
#[cfg(test)]
mod gx;
#[cfg(test)]
mod inference;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod losses;
#[cfg(test)]
mod pairing;
#[cfg(test)]
mod race;
#[cfg(test)]
mod world;
