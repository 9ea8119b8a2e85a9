//! API keys: what programs show, each for the actions of its grants in one tenant.

use std::time::Duration;

use nimbus_bus::{Identity, KeyIdentity, Scope};
use nimbus_model::KeyId;
use nimbus_proto::auth::{ApiKey, CreateKeyRequest, CreatedKey, Exchanged, RevokeKeyRequest, Secret};
use nimbus_proto::event::CredentialRevoked;

use crate::auth::Auth;
use crate::error::AuthError;
use crate::store_key::{self, NewKey};
use crate::{check, secret};

/// Most keys of one tenant.
const MOST: i64 = 100;
/// How exact the time of the last use is: a write per use would cost more than it tells.
const USE_GRAIN: Duration = Duration::from_secs(60);

/// Refuses who may not manage keys. Whether the caller reaches the tenant, the gateway has asked.
fn require_keeper(caller: &Identity) -> Result<(), AuthError> {
    if caller.key.is_none() && caller.may(Scope::WorkloadsWrite) {
        Ok(())
    } else {
        Err(AuthError::NotKeeper)
    }
}

impl Auth {
    /// Makes an API key.
    pub(crate) async fn create_key(
        &self,
        caller: &Identity,
        request: CreateKeyRequest,
    ) -> Result<CreatedKey, AuthError> {
        require_keeper(caller)?;
        let name = check::token_name(&request.name)?;
        check::grants(&request.tenant, &request.grants)?;
        let now = self.clock.now();
        if request.expires_at.is_some_and(|at| at <= now) {
            return Err(AuthError::Invalid {
                field: "expiresAt",
                reason: "a key cannot end before it begins",
            });
        }
        self.require_living(caller).await?;

        let (secret, prefix) = secret::key()?;
        let secret_hash = secret::hash(&secret).ok_or(AuthError::BadCredential)?;
        let key = ApiKey {
            id: KeyId::fresh(),
            tenant: request.tenant,
            name,
            grants: request.grants,
            prefix,
            created_at: now,
            expires_at: request.expires_at,
            last_used_at: None,
        };
        let mut tx = self.store.begin().await?;
        if store_key::count(&mut tx, &key.tenant).await? >= MOST {
            return Err(AuthError::TooManyKeys { most: MOST });
        }
        let new = NewKey {
            key: &key,
            secret_hash: &secret_hash,
            user: caller.user,
            user_tenant: caller.tenant,
        };
        store_key::insert(&mut tx, &new).await.map_err(|error| {
            if error.is_unique_violation() {
                AuthError::KeyNameTaken {
                    name: key.name.clone(),
                }
            } else {
                AuthError::from(error)
            }
        })?;
        tx.commit().await?;
        tracing::info!(user.id = %caller.user, key.id = %key.id, tenant.id = %key.tenant, "{} made the key {}", caller.user, key.id);
        Ok(CreatedKey { key, secret })
    }

    /// The keys of a tenant, newest first.
    pub(crate) async fn keys(&self, caller: &Identity, tenant: &str) -> Result<Vec<ApiKey>, AuthError> {
        require_keeper(caller)?;
        Ok(store_key::list(&self.store, tenant).await?)
    }

    /// Revokes a key.
    pub(crate) async fn revoke_key(
        &self,
        caller: &Identity,
        request: &RevokeKeyRequest,
    ) -> Result<(), AuthError> {
        require_keeper(caller)?;
        let mut tx = self.store.begin().await?;
        let Some(maker) = store_key::delete(&mut tx, request.key, &request.tenant).await? else {
            return Err(AuthError::NotFound { what: "API key" });
        };
        let revoked = CredentialRevoked {
            user: maker,
            session: None,
            token: None,
            key: Some(request.key),
            machine: None,
        };
        self.tell(&mut tx, &revoked).await?;
        self.commit(tx).await?;
        self.refuse_key(request.key);
        tracing::info!(user.id = %caller.user, key.id = %request.key, "{} revoked the key {}", caller.user, request.key);
        Ok(())
    }

    /// Revokes every key of a tenant, so that a later one of the same name is not theirs.
    pub(crate) async fn forget_tenant(&self, caller: &Identity, tenant: &str) -> Result<(), AuthError> {
        require_keeper(caller)?;
        let mut tx = self.store.begin().await?;
        let gone = store_key::delete_of(&mut tx, tenant).await?;
        for (key, user) in &gone {
            let revoked = CredentialRevoked {
                user: *user,
                session: None,
                token: None,
                key: Some(*key),
                machine: None,
            };
            self.tell(&mut tx, &revoked).await?;
        }
        self.commit(tx).await?;
        for (key, _) in gone {
            self.refuse_key(key);
        }
        Ok(())
    }

    /// An access token for the key with this secret.
    pub(crate) async fn exchange_key(&self, secret: &Secret) -> Result<Exchanged, AuthError> {
        let hash = secret::hash(secret).ok_or(AuthError::BadCredential)?;
        let now = self.clock.now();
        let live = store_key::live(&self.store, &hash, now)
            .await?
            .ok_or(AuthError::BadCredential)?;
        if live.last_used_at.is_none_or(|at| now.since(at) >= USE_GRAIN) {
            let mut tx = self.store.begin().await?;
            store_key::touch(&mut tx, live.id, now).await?;
            tx.commit().await?;
        }
        let identity = Identity {
            user: live.user,
            tenant: live.user_tenant,
            admin: false,
            scopes: vec![Scope::WorkloadsRead, Scope::WorkloadsWrite],
            session: None,
            token: None,
            key: Some(KeyIdentity {
                id: live.id,
                grants: live.grants,
            }),
            machine: None,
        };
        self.signer.sign(identity, live.expires_at)
    }
}
