//! The worker of a GPU box, as those see it who hand it out: what installs it, in [`bundle`].
//!
//! The worker itself is the binary `gx10-worker` of this crate, in `src/worker`.

pub mod bundle;
