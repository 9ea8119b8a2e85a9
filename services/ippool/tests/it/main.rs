//! The service over a real bus, against a simulated cluster.

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod handing_out;
#[cfg(test)]
mod world;
