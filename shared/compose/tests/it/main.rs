//! Compose files, read and exported as people do it: through the crate's public faces.

mod corpus;
mod golden;
mod grammar;
mod mapping;
mod project;
