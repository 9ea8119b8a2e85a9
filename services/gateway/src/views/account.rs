//! Accounts, sessions and tokens.

use nimbus_bus::Scope;
use nimbus_proto::auth::{Secret, Session, Token, User};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::At;

/// A person.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct UserView {
    /// Their id, `usr_…`.
    pub id: String,
    /// Display name.
    pub name: String,
    /// Mail address.
    pub email: String,
    /// Whether they administer this installation.
    pub is_admin: bool,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            id: user.id.to_string(),
            name: user.name,
            email: user.email,
            is_admin: user.is_admin,
        }
    }
}

/// The caller.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct MeView {
    /// Their id, `usr_…`.
    pub id: String,
    /// Display name.
    pub name: String,
    /// Mail address.
    pub email: String,
    /// Whether they administer this installation.
    pub is_admin: bool,
    /// Their personal tenant, `ten_…`.
    pub tenant_id: String,
    /// When they registered.
    pub created_at: At,
}

impl From<User> for MeView {
    fn from(user: User) -> Self {
        Self {
            id: user.id.to_string(),
            name: user.name,
            email: user.email,
            is_admin: user.is_admin,
            tenant_id: user.tenant.to_string(),
            created_at: user.created_at.into(),
        }
    }
}

/// The caller's account and how they can sign in.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct AccountView {
    /// Their id, `usr_…`.
    pub id: String,
    /// Display name.
    pub name: String,
    /// Mail address.
    pub email: String,
    /// Whether they administer this installation.
    pub is_admin: bool,
    /// Whether they have a password.
    pub has_password: bool,
    /// Whether a Google account is linked.
    pub google_connected: bool,
    /// Whether a GitHub account is linked.
    pub github_connected: bool,
}

impl From<User> for AccountView {
    fn from(user: User) -> Self {
        Self {
            id: user.id.to_string(),
            name: user.name,
            email: user.email,
            is_admin: user.is_admin,
            has_password: true,
            google_connected: false,
            github_connected: false,
        }
    }
}

/// Registers a person.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegisterBody {
    /// Display name.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// Mail address.
    #[schema(format = Email, max_length = 254)]
    pub email: String,
    /// At least 8 characters.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 256)]
    pub password: Secret,
}

/// Signs a person in.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginBody {
    /// Mail address.
    pub email: String,
    /// Password.
    #[schema(value_type = String, format = Password)]
    pub password: Secret,
}

/// Changes the caller's password.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordBody {
    /// The password in force.
    #[schema(value_type = String, format = Password)]
    pub current_password: Secret,
    /// The one that shall be.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 256)]
    pub new_password: Secret,
}

/// Says that it was done.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct OkView {
    /// Always true.
    pub ok: bool,
}

/// A personal access token, without its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TokenView {
    /// Its id, `tok_…`.
    pub id: String,
    /// The name its owner gave it.
    pub name: String,
    /// What it may be used for.
    pub scopes: Vec<String>,
    /// The first characters of the secret, to recognise it.
    #[schema(examples("nbp_1a2b"))]
    pub prefix: String,
    /// When it was made.
    pub created_at: At,
    /// When it ends; null for never.
    pub expires_at: Option<At>,
    /// When it was last used; at most a minute late.
    pub last_used_at: Option<At>,
}

impl From<Token> for TokenView {
    fn from(token: Token) -> Self {
        Self {
            id: token.id.to_string(),
            name: token.name,
            scopes: token
                .scopes
                .iter()
                .map(|scope| scope.as_str().to_owned())
                .collect(),
            prefix: token.prefix,
            created_at: token.created_at.into(),
            expires_at: token.expires_at.map(At),
            last_used_at: token.last_used_at.map(At),
        }
    }
}

/// A new token with its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct NewTokenView {
    /// The token.
    #[serde(flatten)]
    pub view: TokenView,
    /// The secret, shown this once.
    pub token: String,
}

/// Makes a personal access token.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateTokenBody {
    /// What to call it; unique among the caller's tokens.
    #[schema(min_length = 1, max_length = 64)]
    pub name: String,
    /// What it may be used for; `machines:read` and `machines:write` when absent.
    #[serde(default)]
    pub scopes: Option<Vec<ScopeName>>,
    /// Days until it ends; never when absent or null.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 366)]
    pub expires_in_days: Option<u32>,
}

/// What a token may be used for.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
pub(crate) enum ScopeName {
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
    /// See services, sandboxes and sessions.
    #[serde(rename = "workloads:read")]
    WorkloadsRead,
    /// Create, use, change and delete services, sandboxes and sessions.
    #[serde(rename = "workloads:write")]
    WorkloadsWrite,
    /// Submit GPU jobs, see and cancel one's own, and ask the inference endpoint.
    #[serde(rename = "gpu")]
    Gpu,
}

impl From<ScopeName> for Scope {
    fn from(name: ScopeName) -> Self {
        match name {
            ScopeName::MachinesRead => Self::MachinesRead,
            ScopeName::MachinesWrite => Self::MachinesWrite,
            ScopeName::Account => Self::Account,
            ScopeName::Admin => Self::Admin,
            ScopeName::WorkloadsRead => Self::WorkloadsRead,
            ScopeName::WorkloadsWrite => Self::WorkloadsWrite,
            ScopeName::Gpu => Self::Gpu,
        }
    }
}

impl CreateTokenBody {
    pub(crate) fn scopes(&self) -> Vec<Scope> {
        match &self.scopes {
            Some(names) => names.iter().copied().map(Scope::from).collect(),
            None => vec![Scope::MachinesRead, Scope::MachinesWrite],
        }
    }
}

/// A signed-in browser.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct SessionView {
    /// Its id, `ses_…`.
    pub id: String,
    /// When it began.
    pub created_at: At,
    /// When it ends.
    pub expires_at: At,
    /// Where it was opened from.
    pub address: String,
    /// With which browser.
    pub user_agent: String,
    /// Whether it is the one that asks.
    pub current: bool,
}

impl From<Session> for SessionView {
    fn from(session: Session) -> Self {
        Self {
            id: session.id.to_string(),
            created_at: session.created_at.into(),
            expires_at: session.expires_at.into(),
            address: session.address,
            user_agent: session.user_agent,
            current: session.current,
        }
    }
}
