//! The client of Nimbus against the simulator, over real connections.

mod errors;
mod faults;
mod flow;
mod schema;
mod support;
mod wire;
