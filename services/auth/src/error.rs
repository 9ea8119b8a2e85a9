//! What can go wrong with an account.

use std::time::Duration;

use nimbus_bus::{BusError, Scope};
use nimbus_errors::{Code, Coded};
use nimbus_store::{SealError, StoreError};

/// A failure of the service.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    /// A field that cannot be taken.
    #[error("{reason}")]
    Invalid {
        /// Which, by its name at the edge.
        field: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// Somebody has this mail address.
    #[error("this email address is taken")]
    EmailTaken,
    /// The first-run set-up, when it is not the first run.
    #[error("this installation has users already")]
    NotFirst,
    /// Address or password are wrong; never says which.
    #[error("Invalid email or password")]
    BadCredentials,
    /// The password in force is another one.
    #[error("the current password is wrong")]
    WrongPassword,
    /// The session or token is not, or no longer, valid.
    #[error("the credential is not valid")]
    BadCredential,
    /// Too many attempts.
    #[error("too many attempts, try again in {} s", .retry_after.as_millis().div_ceil(1000))]
    Limited {
        /// When the next one may be made.
        retry_after: Duration,
    },
    /// More passwords are being checked than this machine can.
    #[error("too many sign-ins at once")]
    Overloaded,
    /// A token for more than its maker may do.
    #[error("a token cannot allow {} because your credential does not", .scope.as_str())]
    ScopeExceeded {
        /// The scope.
        scope: Scope,
    },
    /// The name is in use by another token of the same user.
    #[error("there is a token named {name:?} already")]
    TokenNameTaken {
        /// The name.
        name: String,
    },
    /// The name is in use by another API key of the same tenant.
    #[error("there is an API key named {name:?} already")]
    KeyNameTaken {
        /// The name.
        name: String,
    },
    /// More API keys than a tenant needs.
    #[error("no tenant may have more than {most} API keys")]
    TooManyKeys {
        /// The limit.
        most: i64,
    },
    /// The caller may not make or end API keys.
    #[error("an API key cannot manage API keys, and other credentials need workloads:write")]
    NotKeeper,
    /// Nobody on another host could use a credential for the bus.
    #[error("the bus of this installation cannot be reached from other hosts")]
    BusNotReachable,
    /// This installation has no admin token, so there is none to rotate.
    #[error("this server was started without an admin token")]
    NoAdminToken,
    /// The admin token's file failed.
    #[error("the admin token's file failed")]
    Admin {
        /// How.
        #[source]
        source: crate::admin::AdminError,
    },
    /// More tokens than a person needs.
    #[error("nobody may have more than {most} tokens")]
    TooManyTokens {
        /// The limit.
        most: i64,
    },
    /// It does not exist, or is somebody else's.
    #[error("there is no such {what}")]
    NotFound {
        /// What.
        what: &'static str,
    },
    /// A password hash that could not be made or read.
    #[error("could not hash a password")]
    Hash {
        /// How.
        #[source]
        source: argon2::password_hash::Error,
    },
    /// An access token that could not be signed.
    #[error("could not sign an access token")]
    Sign {
        /// How.
        #[source]
        source: jsonwebtoken::errors::Error,
    },
    /// The signing key is not a key.
    #[error("the signing key {id} is damaged")]
    DamagedKey {
        /// Which.
        id: String,
    },
    /// The signing key could not be sealed or opened.
    #[error("could not open the signing key")]
    Seal {
        /// How.
        #[source]
        source: SealError,
    },
    /// The bus failed.
    #[error("the bus failed")]
    Bus {
        /// How.
        #[source]
        source: BusError,
    },
    /// The database failed.
    #[error("the database failed")]
    Store {
        /// How.
        #[source]
        source: StoreError,
    },
}

impl From<StoreError> for AuthError {
    fn from(source: StoreError) -> Self {
        Self::Store { source }
    }
}

impl From<BusError> for AuthError {
    fn from(source: BusError) -> Self {
        Self::Bus { source }
    }
}

impl Coded for AuthError {
    fn code(&self) -> Code {
        match self {
            Self::Invalid { .. } => Code::OpInvalidInput,
            Self::EmailTaken | Self::TokenNameTaken { .. } | Self::KeyNameTaken { .. } => {
                Code::OpAlreadyExists
            }
            Self::NotFirst | Self::NoAdminToken | Self::BusNotReachable => Code::OpConflict,
            Self::BadCredentials | Self::WrongPassword | Self::BadCredential => Code::AuthUnauthorized,
            Self::Limited { .. } => Code::RateLimited,
            Self::Overloaded => Code::RateOverloaded,
            Self::ScopeExceeded { .. } | Self::NotKeeper => Code::AuthPermissionDenied,
            Self::TooManyTokens { .. } | Self::TooManyKeys { .. } => Code::RateResourceExhausted,
            Self::NotFound { .. } => Code::OpNotFound,
            Self::Hash { .. } | Self::Sign { .. } | Self::Seal { .. } | Self::Admin { .. } => {
                Code::ServiceInternal
            }
            Self::DamagedKey { .. } => Code::ServiceStorageCorruption,
            Self::Bus { source } => source.code(),
            Self::Store { source } => source.code(),
        }
    }

    fn detail(&self) -> Option<serde_json::Value> {
        match self {
            Self::Invalid { field, .. } => Some(serde_json::json!({ "field": field })),
            Self::EmailTaken => Some(serde_json::json!({ "field": "email" })),
            Self::WrongPassword => Some(serde_json::json!({ "field": "current_password" })),
            Self::TokenNameTaken { .. } | Self::KeyNameTaken { .. } => {
                Some(serde_json::json!({ "field": "name" }))
            }
            Self::ScopeExceeded { scope } => Some(serde_json::json!({ "scope": scope.as_str() })),
            Self::Limited { retry_after } => {
                // Rounded up: who waits exactly that long must not be refused again.
                let ms = u64::try_from(retry_after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
                Some(serde_json::json!({ "retryAfterMs": ms }))
            }
            _ => None,
        }
    }
}
