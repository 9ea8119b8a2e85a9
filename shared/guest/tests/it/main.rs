//! The init as an ordinary process, spoken to over its socket.

mod commands;
mod files;
mod flow;
mod network;
mod terminal;
mod world;
