//! The driver against a real engine.
//!
//! Needs Docker or Podman (`ops/dev/engine.sh start`) and the image `nimbus.test/busybox:1`
//! (`ops/dev/engine.sh images`); without them these tests fail. `NIMBUS_TEST_ENGINE` names the
//! engine's address when it is not the first one that is found.
#![allow(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod events;
mod isolation;
mod lifecycle;
mod pulls;
mod registry;
mod relay;
mod runtimes;
mod silence;
mod volumes;
mod world;
