//! The service over a real bus, with a real address pool and a simulated cluster.

#[cfg(test)]
mod following;
#[cfg(test)]
mod gpu;
#[cfg(test)]
mod gx10;
#[cfg(test)]
mod orders;
#[cfg(test)]
mod world;
