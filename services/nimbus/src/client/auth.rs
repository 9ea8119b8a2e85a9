//! `nimbus auth`: the admin token of this computer's server.

use camino::Utf8PathBuf;
use nimbus_model::Clock;
use nimbus_node::{Layout, Manifest, Scope, Target};
use serde_json::json;

use super::environment;
use crate::output::{self, Format};
use crate::problem::{Outcome, Problem};

/// Print or change the admin token of the server on this computer.
///
/// Whoever holds it reaches every tenant. It lies in a file that only the server's account can read.
#[derive(Debug, clap::Args)]
pub(crate) struct AuthArgs {
    /// The file, if it is not in its usual place: that of the node for root on a host where one is installed,
    /// else the account's own.
    #[arg(long, env = "NIMBUS_ADMIN_TOKEN_FILE", value_name = "FILE", global = true)]
    admin_token_file: Option<Utf8PathBuf>,

    /// How results are printed.
    #[arg(
        long,
        short,
        value_enum,
        default_value_t,
        env = "NIMBUS_OUTPUT",
        global = true
    )]
    pub(crate) output: Format,

    #[command(subcommand)]
    command: AuthCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AuthCommand {
    /// Print the admin token.
    Token,
    /// Put a new admin token in the file, which is made if there is none; works without a server.
    RotateAdmin,
}

pub(crate) fn run(args: AuthArgs) -> Outcome {
    let path = args
        .admin_token_file
        .or_else(node_token)
        .or_else(|| nimbus_auth::admin::default_path(environment))
        .ok_or_else(|| {
            Problem::failed("there is no place for the admin token")
                .why("neither XDG_DATA_HOME nor HOME is set")
                .next("add --admin-token-file")
        })?;
    match args.command {
        AuthCommand::Token => {
            let token = nimbus_auth::admin::read(&path)
                .map_err(|error| Problem::failed("could not read the admin token").because(&error))?
                .ok_or_else(|| {
                    Problem::failed("there is no admin token yet")
                        .why(format!("{path} does not exist"))
                        .next("nimbus start")
                })?;
            if args.output == Format::Json {
                return output::json(&token);
            }
            output::line(token.token.reveal())
        }
        AuthCommand::RotateAdmin => {
            let token = nimbus_auth::admin::rotate(&path, Clock::system().now())
                .map_err(|error| Problem::failed("could not rotate the admin token").because(&error))?;
            output::say("A running server lets the old token in for five more minutes at most.");
            if args.output == Format::Json {
                return output::json(&json!({ "path": path, "generation": token.generation }));
            }
            output::facts(&[
                ("File", path.to_string()),
                ("Generation", token.generation.to_string()),
            ])
        }
    }
}

/// The token of the node that this host runs: it is in the home of the service, and root means that one.
fn node_token() -> Option<Utf8PathBuf> {
    if !nimbus_node::is_root() {
        return None;
    }
    let layout = Layout::new(Scope::System, environment).ok()?;
    let installed = Manifest::read(&layout).ok()??;
    (installed.request.target == Target::Systemd).then(|| layout.token())
}
