//! Nodes on a host with a real systemd, which is a container of its own for each test.
//!
//! - `system`: the host's service manager, from nothing to nothing
//! - `user`: an account's
//! - `upgrade`: another program, good and bad
//! - `activation`: ports that systemd holds
//! - `container`: what Podman's generator makes of a node
//! - `network`: nodes that other computers reach
//! - `quickinstall`: releases that are what they claim to be, and others
//! - `walk`: the page about nodes, every command of it, and a second host that joins

mod activation;
mod container;
mod host;
mod network;
mod quickinstall;
mod system;
mod upgrade;
mod user;
mod walk;
