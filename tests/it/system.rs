//! One process, as people use it.

mod accounts;
mod guests;
mod machines;
mod operation;
mod orders;
mod traces;

pub(crate) use machines::STEPS;
