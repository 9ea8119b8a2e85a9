//! Who calls, and what a handler is given.

use nimbus_errors::{Code, Fault};
use nimbus_model::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use futures::future::BoxFuture;

use crate::identity::{Identity, Scope};
use crate::method::Method;

/// What makes a repeated request the same request: the server answers repeats of a key from what it
/// did the first time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(String);

impl Key {
    /// A key that is the name of the thing acted upon.
    #[must_use]
    pub fn of(thing: impl std::fmt::Display) -> Self {
        Self(thing.to_string())
    }

    /// A key with exactly this text, as a client has sent it.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A short-lived token that says who a request is made for. Debug shows nothing.
#[derive(Clone, Debug)]
pub struct AccessToken(SecretString);

impl AccessToken {
    /// Wraps a token's text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text.into())
    }

    /// The token's text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

/// A verified person, with the token to act for them further on.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub identity: Identity,
    /// What proves it to the next service.
    pub token: AccessToken,
}

/// Checks access tokens: signature, expiry, revocation.
pub trait Verify: Send + Sync + 'static {
    /// Who the token stands for.
    ///
    /// # Errors
    /// `auth.unauthorized` when the token is not, or no longer, valid.
    fn verify<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, Fault>>;
}

/// One request, as its handler gets it.
#[derive(Debug)]
pub struct Incoming<M: Method> {
    /// What is asked.
    pub request: M::Request,
    /// On whose behalf; always there for methods with [`Access::User`](crate::Access::User) and
    /// [`Access::Admin`](crate::Access::Admin), never for the others.
    pub caller: Option<Caller>,
    /// What makes a repeat harmless.
    pub key: Option<Key>,
    /// When the caller stops waiting. The handler is dropped then.
    pub deadline: Timestamp,
}

impl<M: Method> Incoming<M> {
    /// The person on whose behalf the request is made.
    ///
    /// # Errors
    /// `auth.unauthorized` when there is none.
    pub fn user(&self) -> Result<&Identity, Fault> {
        self.caller().map(|caller| &caller.identity)
    }

    /// The person with their token, to call further services for them.
    ///
    /// # Errors
    /// `auth.unauthorized` when there is none.
    pub fn caller(&self) -> Result<&Caller, Fault> {
        self.caller
            .as_ref()
            .ok_or_else(|| Fault::new(Code::AuthUnauthorized, "the request names no caller"))
    }

    /// The person, if their credential allows `scope`.
    ///
    /// # Errors
    /// `auth.unauthorized` when there is no person, `auth.permission_denied` when the scope is not theirs.
    pub fn require(&self, scope: Scope) -> Result<&Identity, Fault> {
        let identity = self.user()?;
        if identity.may(scope) {
            Ok(identity)
        } else {
            Err(lacks(scope))
        }
    }
}

/// The fault of a credential without `scope`.
pub(crate) fn lacks(scope: Scope) -> Fault {
    Fault::new(
        Code::AuthPermissionDenied,
        format!("the credential does not allow {}", scope.as_str()),
    )
    .with_detail(&serde_json::json!({ "scope": scope.as_str() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_a_token() {
        let shown = format!("{:?}", AccessToken::new("eyJ-secret".to_owned()));
        assert!(!shown.contains("eyJ"), "{shown}");
    }
}
