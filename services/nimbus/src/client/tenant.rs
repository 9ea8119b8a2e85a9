//! `nimbus tenant`: isolation boundaries.

use reqwest::Method;
use serde_json::{Value, json};

use super::ClientArgs;
use super::workloads::text;
use crate::output::{self, Format};
use crate::problem::Outcome;

/// Make, list and remove tenants.
#[derive(Debug, clap::Args)]
pub(crate) struct TenantArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(subcommand)]
    command: TenantCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TenantCommand {
    /// Make a tenant.
    Create {
        /// Letters, digits, `-` and `_`.
        id: String,
    },
    /// List the tenants that the credential reaches.
    #[command(visible_alias = "list")]
    Ls {
        /// Print only the ids.
        #[arg(long, short)]
        quiet: bool,
    },
    /// Remove a tenant with everything in it.
    #[command(visible_alias = "delete")]
    Rm {
        /// Its id.
        id: String,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}

pub(crate) async fn run(args: TenantArgs) -> Outcome {
    let api = args.client.api()?;
    match args.command {
        TenantCommand::Create { id } => {
            let request = api.request(Method::POST, &["tenants"]).json(&json!({ "id": id }));
            let made = api
                .resource(request, &format!("could not make the tenant {id}"))
                .await?;
            if args.client.output == Format::Json {
                return output::json(&made);
            }
            output::line(&text(&made, "/id").unwrap_or(id))
        }
        TenantCommand::Ls { quiet } => {
            let what = "could not list the tenants";
            let answer = api.resource(api.request(Method::GET, &["tenants"]), what).await?;
            if args.client.output == Format::Json {
                return output::json(&answer);
            }
            let ids = answer
                .get("tenants")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            if quiet {
                return ids.into_iter().try_for_each(output::line);
            }
            output::table(
                ["TENANT"],
                ids.map(|id| [id.to_owned()]).collect(),
                "There are no tenants. Make one with `nimbus tenant create ID`.",
            )
        }
        TenantCommand::Rm { id, yes } => {
            output::confirm(
                &format!("Remove the tenant {id} with its services, sandboxes and volumes"),
                yes,
            )?;
            api.resource(
                api.request(Method::DELETE, &["tenants", &id]),
                &format!("could not remove the tenant {id}"),
            )
            .await?;
            output::say(format_args!("Removed {id}."));
            Ok(())
        }
    }
}
