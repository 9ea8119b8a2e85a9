//! Compose files, read and exported as people do it: through the crate's public faces.

mod project;
