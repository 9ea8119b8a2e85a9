//! The commands that talk to a running server over its HTTP API.

pub(crate) mod api;
pub(crate) mod auth;
pub(crate) mod cluster;
pub(crate) mod compose;
pub(crate) mod credentials;
pub(crate) mod discovery;
pub(crate) mod gpu;
pub(crate) mod health;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod mcp;
pub(crate) mod patience;
pub(crate) mod progress;
pub(crate) mod sandbox;
pub(crate) mod service;
pub(crate) mod session;
pub(crate) mod stdio;
pub(crate) mod tenant;
pub(crate) mod terminal;
pub(crate) mod token;
pub(crate) mod types;
pub(crate) mod vm;
pub(crate) mod workloads;

use secrecy::SecretString;
use url::Url;

use crate::output::Format;
use crate::problem::Outcome;
use api::{Api, Credential};
use credentials::Store;

/// What every command that talks to a server takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ClientArgs {
    /// Address of the server [default: the one of the last login, else http://127.0.0.1:8080].
    #[arg(
        long,
        env = "NIMBUS_URL",
        value_name = "URL",
        global = true,
        help_heading = "Server"
    )]
    pub(crate) url: Option<Url>,

    /// How results are printed.
    #[arg(
        long,
        short,
        value_enum,
        default_value_t,
        env = "NIMBUS_OUTPUT",
        global = true,
        help_heading = "Server"
    )]
    pub(crate) output: Format,
}

/// The variable that holds a personal access token; it wins over what `nimbus login` stored.
pub(crate) const TOKEN_VARIABLE: &str = "NIMBUS_TOKEN";

/// The server when nothing says otherwise.
pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:8080";

impl ClientArgs {
    /// The server to talk to: said here, by the environment, by the last login, by the credential file,
    /// or the one that runs on this computer.
    pub(crate) fn server(&self, store: &Store) -> Outcome<Url> {
        if let Some(url) = &self.url {
            return Ok(url.clone());
        }
        if let Some(url) = discovery::endpoint(environment)? {
            return Ok(url);
        }
        if let Some(url) = store.current() {
            return Ok(url);
        }
        if let Some(url) = discovery::File::open(environment)?.and_then(|file| file.endpoint) {
            return Ok(url);
        }
        discovery::running(environment).map_or_else(
            || {
                DEFAULT_URL.parse().map_err(|error: url::ParseError| {
                    crate::problem::Problem::failed("the default address is broken").because(&error)
                })
            },
            Ok,
        )
    }

    /// A client that shows the credential of the environment, the stored one, or that of the credential
    /// file; each only to its own server.
    pub(crate) fn api(&self) -> Outcome<Api> {
        let store = Store::open()?;
        let url = self.server(&store)?;
        let credential = match discovery::of_environment(environment) {
            Some(credential) => credential,
            None => match store.token(&url) {
                Some(token) => Credential::Token(token),
                None => discovery::of_files(environment, &url)?.unwrap_or(Credential::None),
            },
        };
        Api::new(url, credential)
    }
}

/// The token in the environment; an empty variable is none.
pub(crate) fn token_of_the_environment() -> Option<SecretString> {
    environment(TOKEN_VARIABLE).map(SecretString::from)
}

/// A variable of the environment, trimmed; an empty one is none.
pub(crate) fn environment(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?;
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}
