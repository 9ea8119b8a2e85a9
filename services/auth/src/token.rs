//! Personal access tokens, for the command line and for scripts.

use std::time::Duration;

use nimbus_bus::{Identity, Scope};
use nimbus_model::TokenId;
use nimbus_proto::auth::{CreateTokenRequest, CreatedToken, Exchanged, Secret, Token};
use nimbus_proto::event::CredentialRevoked;

use crate::auth::Auth;
use crate::error::AuthError;
use crate::store::NewToken;
use crate::{check, secret, store};

/// What a token may be used for when nothing is said.
const DEFAULT_SCOPES: [Scope; 2] = [Scope::MachinesRead, Scope::MachinesWrite];
/// Longest life of a token that ends: a leap year.
const DAYS_MOST: u32 = 366;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Most tokens of one person.
const MOST: i64 = 100;
/// How exact the time of the last use is: a write per use would cost more than it tells.
const USE_GRAIN: Duration = Duration::from_secs(60);

impl Auth {
    /// Makes a token for the caller, which allows no more than the credential that asks.
    pub(crate) async fn create_token(
        &self,
        caller: &Identity,
        request: CreateTokenRequest,
    ) -> Result<CreatedToken, AuthError> {
        let name = check::token_name(&request.name)?;
        if request
            .expires_in_days
            .is_some_and(|days| !(1..=DAYS_MOST).contains(&days))
        {
            return Err(AuthError::Invalid {
                field: "expires_in_days",
                reason: "a token lives 1 to 366 days, or until it is revoked",
            });
        }
        let scopes = wanted(&request.scopes);
        if let Some(scope) = scopes.iter().find(|scope| !caller.may(**scope)) {
            return Err(AuthError::ScopeExceeded { scope: *scope });
        }
        self.require_living(caller).await?;

        let (secret, prefix) = secret::token()?;
        let secret_hash = secret::hash(&secret).ok_or(AuthError::BadCredential)?;
        let now = self.clock.now();
        let token = Token {
            id: TokenId::fresh(),
            name,
            scopes,
            prefix,
            created_at: now,
            expires_at: request.expires_in_days.map(|days| now.after(DAY * days)),
            last_used_at: None,
        };
        let mut tx = self.store.begin().await?;
        if store::count_tokens(&mut tx, caller.user).await? >= MOST {
            return Err(AuthError::TooManyTokens { most: MOST });
        }
        let new = NewToken {
            token: &token,
            secret_hash: &secret_hash,
            user: caller.user,
        };
        store::insert_token(&mut tx, &new).await.map_err(|error| {
            if error.is_unique_violation() {
                AuthError::TokenNameTaken {
                    name: token.name.clone(),
                }
            } else {
                AuthError::from(error)
            }
        })?;
        tx.commit().await?;
        tracing::info!(user.id = %caller.user, token.id = %token.id, "{} made the token {}", caller.user, token.id);
        Ok(CreatedToken { token, secret })
    }

    /// The caller's tokens, newest first.
    pub(crate) async fn tokens(&self, caller: &Identity) -> Result<Vec<Token>, AuthError> {
        Ok(store::tokens(&self.store, caller.user).await?)
    }

    /// Revokes one of the caller's tokens.
    pub(crate) async fn revoke_token(&self, caller: &Identity, token: TokenId) -> Result<(), AuthError> {
        let mut tx = self.store.begin().await?;
        if !store::delete_token(&mut tx, token, caller.user).await? {
            return Err(AuthError::NotFound { what: "token" });
        }
        self.tell(
            &mut tx,
            &CredentialRevoked {
                user: caller.user,
                session: None,
                token: Some(token),
                key: None,
                machine: None,
            },
        )
        .await?;
        self.commit(tx).await?;
        self.refuse_token(token);
        tracing::info!(user.id = %caller.user, token.id = %token, "{} revoked the token {token}", caller.user);
        Ok(())
    }

    /// An access token for the personal access token with this secret. It makes its user an
    /// administrator only if it was made for that.
    ///
    /// The token inside a machine is shown in the same places and comes here too.
    pub(crate) async fn exchange_token(&self, secret: &Secret) -> Result<Exchanged, AuthError> {
        if secret::is_machine(secret) {
            return self.exchange_machine_token(secret).await;
        }
        let hash = secret::hash(secret).ok_or(AuthError::BadCredential)?;
        let now = self.clock.now();
        let live = store::live_token(&self.store, &hash, now)
            .await?
            .ok_or(AuthError::BadCredential)?;
        if live.last_used_at.is_none_or(|at| now.since(at) >= USE_GRAIN) {
            let mut tx = self.store.begin().await?;
            store::touch_token(&mut tx, live.token, now).await?;
            tx.commit().await?;
        }
        let identity = Identity {
            user: live.user,
            tenant: live.tenant,
            admin: live.is_admin && live.scopes.contains(&Scope::Admin),
            scopes: live.scopes,
            session: None,
            token: Some(live.token),
            key: None,
            machine: None,
        };
        self.signer.sign(identity, live.expires_at)
    }
}

/// The scopes asked for, each once, in their usual order.
fn wanted(scopes: &[Scope]) -> Vec<Scope> {
    let scopes = if scopes.is_empty() {
        &DEFAULT_SCOPES
    } else {
        scopes
    };
    Scope::all()
        .iter()
        .copied()
        .filter(|scope| scopes.contains(scope))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_put_in_order_and_never_none() {
        assert_eq!(wanted(&[]), [Scope::MachinesRead, Scope::MachinesWrite]);
        assert_eq!(
            wanted(&[Scope::Admin, Scope::MachinesRead, Scope::Admin]),
            [Scope::MachinesRead, Scope::Admin]
        );
    }
}
