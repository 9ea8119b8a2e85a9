//! `nimbus token`: personal access tokens.

use nimbus_bus::Scope;
use reqwest::Method;
use serde_json::json;

use super::ClientArgs;
use super::api::{Api, read};
use super::types::Token;
use crate::output::{self, Format};
use crate::problem::{Outcome, Problem};

/// Make, list and revoke personal access tokens.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    #[command(subcommand)]
    command: TokenCommand,
}

/// Every scope there is.
fn scope_names() -> clap::builder::PossibleValuesParser {
    Scope::all().iter().map(|scope| scope.as_str()).into()
}

#[derive(Debug, clap::Subcommand)]
enum TokenCommand {
    /// Make a token and print it; this is the only time it is shown.
    Create {
        /// What it is for.
        name: String,
        /// What it may do; may be repeated [default: machines:read and machines:write].
        #[arg(long = "scope", value_parser = scope_names())]
        scopes: Vec<String>,
        /// Days until it expires; without this it does not.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=366))]
        expires_in_days: Option<u16>,
    },
    /// List the tokens of the account.
    List,
    /// Revoke a token: whoever uses it is refused at once.
    Revoke {
        /// Its id or its name.
        token: String,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}

pub(crate) async fn run(args: TokenArgs) -> Outcome {
    let api = args.client.api()?;
    let format = args.client.output;
    match args.command {
        TokenCommand::Create {
            name,
            scopes,
            expires_in_days,
        } => {
            let mut body = json!({ "name": name });
            if let Some(fields) = body.as_object_mut() {
                if !scopes.is_empty() {
                    fields.insert("scopes".to_owned(), json!(scopes));
                }
                if let Some(days) = expires_in_days {
                    fields.insert("expires_in_days".to_owned(), json!(days));
                }
            }
            let made = api
                .send(
                    Method::POST,
                    &["tokens"],
                    Some(&body),
                    &format!("could not make the token {name}"),
                )
                .await?;
            if format == Format::Json {
                return output::json(&made);
            }
            output::say("Keep it safe: it is not shown again.");
            output::line(
                made.get("token")
                    .and_then(serde_json::Value::as_str)
                    .unwrap_or_default(),
            )
        }
        TokenCommand::List => list(&api, format).await,
        TokenCommand::Revoke { token, yes } => {
            let rows = api.list(&["tokens"], "could not look the token up").await?;
            let tokens: Vec<Token> = read(&rows, "could not look the token up")?;
            let Some(found) = tokens
                .into_iter()
                .find(|row| row.id == token || row.name == token)
            else {
                return Err(Problem::failed(format!("there is no token {token}")).next("nimbus token list"));
            };
            output::confirm(
                &format!("Revoke the token {} ({}…)", found.name, found.prefix),
                yes,
            )?;
            api.send(
                Method::DELETE,
                &["tokens", &found.id],
                None,
                &format!("could not revoke {}", found.name),
            )
            .await?;
            output::say(format_args!("Revoked {}.", found.name));
            Ok(())
        }
    }
}

async fn list(api: &Api, format: Format) -> Outcome {
    let what = "could not list the tokens";
    let rows = api.list(&["tokens"], what).await?;
    if format == Format::Json {
        return output::json(&rows);
    }
    let tokens: Vec<Token> = read(&rows, what)?;
    let rows = tokens.into_iter().map(|token| {
        [
            token.id,
            token.name,
            format!("{}…", token.prefix),
            token.scopes.join(" "),
            output::moment(&token.created_at),
            token
                .expires_at
                .map_or_else(|| "never".to_owned(), |time| output::moment(&time)),
            token
                .last_used_at
                .map_or_else(|| "never".to_owned(), |time| output::moment(&time)),
        ]
    });
    output::table(
        [
            "ID",
            "NAME",
            "BEGINS",
            "SCOPES",
            "CREATED",
            "EXPIRES",
            "LAST USED",
        ],
        rows.collect(),
        "There are no tokens. Make one with `nimbus token create NAME`.",
    )
}
