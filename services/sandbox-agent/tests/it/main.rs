//! The agent on the real engine, with a scripted `workloads` on the real bus.
//!
//! Needs a container engine with the image `nimbus.test/busybox:1` (`ops/dev/engine.sh start` and
//! `ops/dev/engine.sh images`) and the init (`ops/dev/guest.sh`).

#[cfg(test)]
mod isolation;
#[cfg(test)]
mod launching;
#[cfg(test)]
mod reaching;
#[cfg(test)]
mod restarts;
#[cfg(test)]
mod world;
