//! Sandboxes, services and sessions on the real container engine of this machine.

mod cli;
mod compose;
mod isolation;
mod life;
mod services;
mod sessions;
mod storm;
mod two_hosts;
