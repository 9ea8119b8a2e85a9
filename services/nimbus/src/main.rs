//! The `nimbus` command: one binary that is the server, the simulator, and the client of both.

mod admin;
mod cli;
mod client;
mod machine;
mod node;
mod output;
mod problem;
mod server;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(std::env::args_os())
}
