//! Hosts that join: a token for an administrator to carry over, and the credential in exchange for it.

use std::time::Duration;

use nimbus_bus::{Identity, Scope};
use nimbus_model::{Timestamp, UserId};
use nimbus_proto::auth::{BusUser, JoinHostRequest, JoinToken, JoinTokenRequest, MintedCredential};
use nimbus_store::{StoreError, Tx, both, sqlx};

use crate::auth::Auth;
use crate::error::AuthError;
use crate::secret;

/// How long a token is good: long enough to log in to the other host, short enough to be forgotten.
const GOOD_FOR: Duration = Duration::from_secs(900);

impl Auth {
    /// Makes a token with which a host can join.
    pub(crate) async fn create_join_token(
        &self,
        caller: &Identity,
        request: JoinTokenRequest,
    ) -> Result<JoinToken, AuthError> {
        if !caller.may(Scope::Admin) {
            return Err(AuthError::ScopeExceeded { scope: Scope::Admin });
        }
        if !self.mint.can() {
            return Err(AuthError::BusNotReachable);
        }
        let token = secret::join()?;
        let hash = secret::hash(&token).ok_or(AuthError::BadCredential)?;
        let now = self.clock.now();
        let host = request.host.map(|host| host.to_string());
        let mut tx = self.store.begin().await?;
        sweep(&mut tx, now).await?;
        insert(&mut tx, &hash, host.as_deref(), caller.user, now).await?;
        tx.commit().await?;
        tracing::info!(user.id = %caller.user, "{} made a token with which a host can join", caller.user);
        Ok(JoinToken {
            token,
            expires_in_s: u32::try_from(GOOD_FOR.as_secs()).unwrap_or(u32::MAX),
        })
    }

    /// Lets a host join. The token is used up with that, also when the answer is lost.
    pub(crate) async fn join_host(&self, request: &JoinHostRequest) -> Result<MintedCredential, AuthError> {
        let hash = secret::hash(&request.token).ok_or(AuthError::BadCredential)?;
        if !self.mint.can() {
            return Err(AuthError::BusNotReachable);
        }
        let mut tx = self.store.begin().await?;
        let found = take(&mut tx, &hash, request.host.as_str(), self.clock.now()).await?;
        tx.commit().await?;
        if !found {
            return Err(AuthError::BadCredential);
        }
        tracing::info!(host.name = %request.host, "the host {} has joined", request.host);
        self.mint
            .mint(&BusUser::SandboxAgent(request.host.clone()))
            .ok_or(AuthError::BusNotReachable)
    }
}

const INSERT: &str = "INSERT INTO auth_join_token (secret_hash, host, user_id, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5)";

async fn insert(
    tx: &mut Tx,
    hash: &str,
    host: Option<&str>,
    user: UserId,
    now: Timestamp,
) -> Result<(), StoreError> {
    both!(tx, |c| sqlx::query(INSERT)
        .bind(hash)
        .bind(host)
        .bind(user)
        .bind(now)
        .bind(now.after(GOOD_FOR))
        .execute(c)
        .await
        .map(|_| ()))
}

const SWEEP: &str = "DELETE FROM auth_join_token WHERE expires_at <= $1";

async fn sweep(tx: &mut Tx, now: Timestamp) -> Result<(), StoreError> {
    both!(tx, |c| sqlx::query(SWEEP).bind(now).execute(c).await.map(|_| ()))
}

// A token of another host stays: who mistyped the name may try again.
const TAKE: &str = "DELETE FROM auth_join_token
    WHERE secret_hash = $1 AND expires_at > $2 AND (host IS NULL OR host = $3) RETURNING secret_hash";

async fn take(tx: &mut Tx, hash: &str, host: &str, now: Timestamp) -> Result<bool, StoreError> {
    let taken: Option<String> = both!(tx, |c| sqlx::query_scalar(TAKE)
        .bind(hash)
        .bind(now)
        .bind(host)
        .fetch_optional(c)
        .await)?;
    Ok(taken.is_some())
}
