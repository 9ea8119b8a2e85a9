//! The service over a real bus, with hosts that follow a script.

#[cfg(test)]
mod agent;
#[cfg(test)]
mod creating;
#[cfg(test)]
mod data;
#[cfg(test)]
mod hosts;
#[cfg(test)]
mod isolation;
#[cfg(test)]
mod lists;
#[cfg(test)]
mod services;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod tenants;
#[cfg(test)]
mod world;
