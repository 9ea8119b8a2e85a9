//! The service over a real bus, against a simulated cluster.

mod cluster;
mod handing_out;
mod world;
