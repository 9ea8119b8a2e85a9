//! What a service is given to run, the same in every profile and in the tests.
//!
//! A service crate exposes one function, `run(ctx, config)`, which serves until [`Ctx::stop`] fires.
//! What differs between a single host, a split deployment and a test is in the [`Ctx`].

mod ctx;
mod outbox;
mod tasks;

pub use ctx::{Ctx, Ready, RunError};
pub use outbox::Outbox;
pub use tasks::{OnError, Tasks};
