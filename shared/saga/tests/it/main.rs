//! Sagas on real tables.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like the tests themselves"
)]

mod driving;
mod kitchen;
mod rounds;
