//! The service over a real bus.

#[cfg(test)]
mod accounts;
#[cfg(test)]
mod joining;
#[cfg(test)]
mod keys;
mod machines;
mod replicas;
#[cfg(test)]
mod throttling;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod world;
