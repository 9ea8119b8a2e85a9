//! The init as an ordinary process, spoken to over its socket; and in `container` as what it is.
//!
//! The latter needs Docker with the image `nimbus.test/busybox:1` (`ops/dev/engine.sh start` and
//! `ops/dev/engine.sh images`) and the static init (`ops/dev/guest.sh`).

mod commands;
mod container;
mod files;
mod flow;
mod network;
mod terminal;
mod world;
