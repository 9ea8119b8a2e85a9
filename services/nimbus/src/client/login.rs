//! `nimbus login` and `logout`: a personal access token for this computer.

use std::io::Read;

use nimbus_bus::Scope;
use nimbus_errors::Code;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::api::{Api, Credential, read};
use super::credentials::Store;
use super::types::{Me, NewToken};
use super::{ClientArgs, token_of_the_environment};
use crate::output::{self, Format};
use crate::problem::{Outcome, Problem};

/// Sign in and keep a personal access token for this computer.
///
/// Asks for email and password, makes a token named after this computer, and forgets the password. A
/// token that exists already is taken from NIMBUS_TOKEN, or from stdin with --token-stdin.
#[derive(Debug, clap::Args)]
pub(crate) struct LoginArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,

    /// Email of the account; asked for when it is not given.
    #[arg(long, env = "NIMBUS_EMAIL", conflicts_with = "token_stdin")]
    email: Option<String>,

    /// Read the password from stdin.
    #[arg(long, requires = "email")]
    password_stdin: bool,

    /// Read a personal access token from stdin instead of making one.
    #[arg(long)]
    token_stdin: bool,

    /// Days until the token expires.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=366))]
    expires_in_days: u16,
}

/// Revoke the stored token and forget it.
#[derive(Debug, clap::Args)]
pub(crate) struct LogoutArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

pub(crate) async fn login(args: LoginArgs) -> Outcome {
    let mut store = Store::open()?;
    let url = args.client.server(&store)?;
    let api = Api::new(url.clone(), Credential::None)?;
    let given = if args.token_stdin {
        Some(from_stdin("token")?)
    } else if args.email.is_none() {
        token_of_the_environment()
    } else {
        None
    };
    let (token, id) = match given {
        Some(token) => (token, None),
        None => {
            let made = make_token(&api, &args).await?;
            (made.token, Some(made.id))
        }
    };
    let me = api
        .with(Credential::Token(token.clone()))
        .get(&["me"], "could not use the token")
        .await?;
    let who: Me = read(&me, "could not use the token")?;
    store.put(&url, token.expose_secret(), id, Some(who.email.clone()))?;
    output::say(format_args!(
        "Signed in to {url} as {} <{}>. The token is in {}.",
        who.name,
        who.email,
        store.path()
    ));
    if args.client.output == Format::Json {
        output::json(&me)
    } else {
        Ok(())
    }
}

async fn make_token(api: &Api, args: &LoginArgs) -> Outcome<NewToken> {
    let cannot_ask = |what: &str| {
        Problem::usage(format!("no {what} was given"))
            .why("there is no terminal to ask on")
            .next("nimbus login --email YOU --password-stdin, or set NIMBUS_TOKEN")
    };
    let asked = |error: dialoguer::Error| Problem::failed("could not ask").because(&error);
    let email = match &args.email {
        Some(email) => email.clone(),
        None if !output::can_ask() => return Err(cannot_ask("email")),
        None => dialoguer::Input::new()
            .with_prompt("Email")
            .interact_text()
            .map_err(asked)?,
    };
    let password: SecretString = if args.password_stdin {
        from_stdin("password")?
    } else if output::can_ask() {
        dialoguer::Password::new()
            .with_prompt("Password")
            .interact()
            .map_err(asked)?
            .into()
    } else {
        return Err(cannot_ask("password"));
    };
    let session = api.with(api.sign_in(&email, &password).await?);
    let made = named_token(&session, args.expires_in_days).await;
    // The session was only the way to the token; a failure to close it is not the caller's concern.
    let _ = session
        .send(Method::POST, &["auth", "logout"], None, "could not sign out")
        .await;
    made
}

/// What somebody may do who signs in: everything they are.
fn scopes(is_admin: bool) -> Vec<&'static str> {
    let may = |scope: &&Scope| is_admin || **scope != Scope::Admin;
    Scope::all()
        .iter()
        .filter(may)
        .map(|scope| scope.as_str())
        .collect()
}

/// A token named after this computer; the second one of a computer gets a number.
async fn named_token(session: &Api, days: u16) -> Outcome<NewToken> {
    let what = "could not make a token";
    let computer = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let computer = Some(computer.trim())
        .filter(|name| !name.is_empty())
        .unwrap_or("this computer");
    let me = session.get(&["me"], what).await?;
    let is_admin = me.get("is_admin").and_then(serde_json::Value::as_bool) == Some(true);
    let scopes = scopes(is_admin);
    let mut number = 1;
    loop {
        let name = if number == 1 {
            format!("nimbus on {computer}")
        } else {
            format!("nimbus on {computer} ({number})")
        };
        let body = json!({ "name": name, "scopes": scopes, "expires_in_days": days });
        match session.send(Method::POST, &["tokens"], Some(&body), what).await {
            Ok(made) => return read(&made, what),
            Err(problem)
                if number < 100 && (problem.is(Code::OpAlreadyExists) || problem.is(Code::OpConflict)) =>
            {
                number += 1
            }
            Err(problem) => return Err(problem),
        }
    }
}

fn from_stdin(what: &str) -> Outcome<SecretString> {
    let mut text = String::new();
    std::io::stdin()
        .take(4096)
        .read_to_string(&mut text)
        .map_err(|error| Problem::failed(format!("could not read the {what} from stdin")).because(&error))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Problem::usage(format!("stdin has no {what}")));
    }
    Ok(text.into())
}

pub(crate) async fn logout(args: LogoutArgs) -> Outcome {
    let mut store = Store::open()?;
    let url = args.client.server(&store)?;
    let token = store.token(&url);
    let id = store.token_id(&url);
    if let (Some(token), Some(id)) = (token, id) {
        let api = Api::new(url.clone(), Credential::Token(token))?;
        let revoked = api
            .send(
                Method::DELETE,
                &["tokens", &id],
                None,
                "could not revoke the token",
            )
            .await;
        match revoked {
            Err(problem) if !problem.is(Code::OpNotFound) && !problem.is(Code::AuthUnauthorized) => {
                output::say(format_args!(
                    "Warning: the token is forgotten here, but the server still knows it.\n{problem}"
                ));
            }
            _ => {}
        }
    }
    if store.remove(&url)? {
        output::say(format_args!("Signed out of {url}."));
    } else {
        output::say(format_args!("There was no token for {url}."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_signs_in_may_do_all_that_they_are() {
        let member = scopes(false);
        assert!(
            member.contains(&"gpu") && member.contains(&"account") && !member.contains(&"admin"),
            "{member:?}"
        );
        assert_eq!(scopes(true).len(), Scope::all().len());
    }
}
