//! Who a request is made for.
//!
//! The `auth` service signs short-lived access tokens (Ed25519 JWTs, minutes); the bus carries them
//! in a header and every service verifies them by itself, with the public keys that `auth` hands out.

use nimbus_model::{SessionId, TenantId, TokenId, UserId};
use serde::{Deserialize, Serialize};

/// A person, as an access token describes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Who.
    pub user: UserId,
    /// On whose behalf; today always the user's personal tenant.
    pub tenant: TenantId,
    /// Whether they administer this installation.
    pub admin: bool,
    /// What the credential allows; a browser session has [`Scope::all`].
    pub scopes: Vec<Scope>,
    /// The browser session behind it, if it is one.
    pub session: Option<SessionId>,
    /// The personal access token behind it, if it is one.
    pub token: Option<TokenId>,
}

/// What a personal access token may be limited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// See machines and operations.
    #[serde(rename = "machines:read")]
    MachinesRead,
    /// Create, change and delete machines.
    #[serde(rename = "machines:write")]
    MachinesWrite,
    /// Manage the account: password, tokens, sessions.
    #[serde(rename = "account")]
    Account,
    /// Everything an administrator may do, if the user is one.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// Every scope.
    #[must_use]
    pub const fn all() -> &'static [Self] {
        &[
            Self::MachinesRead,
            Self::MachinesWrite,
            Self::Account,
            Self::Admin,
        ]
    }

    /// Its name in requests and tokens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MachinesRead => "machines:read",
            Self::MachinesWrite => "machines:write",
            Self::Account => "account",
            Self::Admin => "admin",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::all().iter().copied().find(|scope| scope.as_str() == name)
    }
}

impl Identity {
    /// Whether the credential allows `scope`. Writing machines includes reading them.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        let scopes = &self.scopes;
        match scope {
            Scope::MachinesRead => {
                scopes.contains(&Scope::MachinesRead) || scopes.contains(&Scope::MachinesWrite)
            }
            Scope::Admin => self.admin && scopes.contains(&Scope::Admin),
            other => scopes.contains(&other),
        }
    }
}
