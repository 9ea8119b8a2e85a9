//! The commands that talk to a running server over its HTTP API.

pub(crate) mod api;
pub(crate) mod credentials;
pub(crate) mod health;
pub(crate) mod login;
pub(crate) mod progress;
pub(crate) mod token;
pub(crate) mod types;
pub(crate) mod vm;

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
    /// The server to talk to.
    pub(crate) fn server(&self, store: &Store) -> Outcome<Url> {
        if let Some(url) = &self.url {
            return Ok(url.clone());
        }
        store.current().map_or_else(
            || {
                DEFAULT_URL.parse().map_err(|error: url::ParseError| {
                    crate::problem::Problem::failed("the default address is broken").because(&error)
                })
            },
            Ok,
        )
    }

    /// A client that shows the stored credential, or that of the environment.
    pub(crate) fn api(&self) -> Outcome<Api> {
        let store = Store::open()?;
        let url = self.server(&store)?;
        let credential = match token_of_the_environment() {
            Some(token) => Credential::Token(token),
            None => store.token(&url).map_or(Credential::None, Credential::Token),
        };
        Api::new(url, credential)
    }
}

/// The token in the environment; an empty variable is none.
pub(crate) fn token_of_the_environment() -> Option<SecretString> {
    std::env::var(TOKEN_VARIABLE)
        .ok()
        .filter(|token| !token.trim().is_empty())
        .map(|token| token.trim().into())
}
