//! The SQL of API keys.

use nimbus_bus::Grant;
use nimbus_model::{KeyId, TenantId, Timestamp, UserId};
use nimbus_proto::auth::ApiKey;
use nimbus_store::{Store, StoreError, Tx, both, reading, sqlx};

pub(crate) struct NewKey<'a> {
    pub(crate) key: &'a ApiKey,
    pub(crate) secret_hash: &'a str,
    pub(crate) user: UserId,
    pub(crate) user_tenant: TenantId,
}

const COUNT: &str = "SELECT COUNT(*) FROM auth_key WHERE tenant = $1";

pub(crate) async fn count(tx: &mut Tx, tenant: &str) -> Result<i64, StoreError> {
    both!(tx, |c| sqlx::query_scalar(COUNT).bind(tenant).fetch_one(c).await)
}

const INSERT: &str =
    "INSERT INTO auth_key (id, secret_hash, tenant, name, grants, prefix, user_id, user_tenant, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

pub(crate) async fn insert(tx: &mut Tx, new: &NewKey<'_>) -> Result<(), StoreError> {
    let grants = serde_json::to_string(&new.key.grants).unwrap_or_else(|_| "[]".to_owned());
    both!(tx, |c| sqlx::query(INSERT)
        .bind(new.key.id)
        .bind(new.secret_hash)
        .bind(new.key.tenant.as_str())
        .bind(new.key.name.as_str())
        .bind(grants.as_str())
        .bind(new.key.prefix.as_str())
        .bind(new.user)
        .bind(new.user_tenant)
        .bind(new.key.created_at)
        .bind(new.key.expires_at)
        .execute(c)
        .await
        .map(|_| ()))
}

/// Grants that this version cannot read allow nothing.
fn grants(text: &str) -> Vec<Grant> {
    serde_json::from_str(text).unwrap_or_default()
}

#[derive(sqlx_macros::FromRow)]
struct StoredKey {
    id: KeyId,
    tenant: String,
    name: String,
    grants: String,
    prefix: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
}

const LIST: &str =
    "SELECT id, tenant, name, grants, prefix, created_at, expires_at, last_used_at FROM auth_key
    WHERE tenant = $1 ORDER BY created_at DESC, id DESC";

pub(crate) async fn list(store: &Store, tenant: &str) -> Result<Vec<ApiKey>, StoreError> {
    let rows: Vec<StoredKey> = reading!(store, |c| sqlx::query_as(LIST).bind(tenant).fetch_all(c).await)?;
    Ok(rows
        .into_iter()
        .map(|row| ApiKey {
            id: row.id,
            tenant: row.tenant,
            name: row.name,
            grants: grants(&row.grants),
            prefix: row.prefix,
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
        })
        .collect())
}

#[derive(sqlx_macros::FromRow)]
struct StoredLiveKey {
    id: KeyId,
    grants: String,
    user_id: UserId,
    user_tenant: TenantId,
    expires_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
}

/// A key that is not over, and who made it.
pub(crate) struct LiveKey {
    pub(crate) id: KeyId,
    pub(crate) grants: Vec<Grant>,
    pub(crate) user: UserId,
    pub(crate) user_tenant: TenantId,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) last_used_at: Option<Timestamp>,
}

const LIVE: &str = "SELECT id, grants, user_id, user_tenant, expires_at, last_used_at FROM auth_key
    WHERE secret_hash = $1 AND (expires_at IS NULL OR expires_at > $2)";

pub(crate) async fn live(
    store: &Store,
    secret_hash: &str,
    now: Timestamp,
) -> Result<Option<LiveKey>, StoreError> {
    let row: Option<StoredLiveKey> = reading!(store, |c| sqlx::query_as(LIVE)
        .bind(secret_hash)
        .bind(now)
        .fetch_optional(c)
        .await)?;
    Ok(row.map(|row| LiveKey {
        id: row.id,
        grants: grants(&row.grants),
        user: row.user_id,
        user_tenant: row.user_tenant,
        expires_at: row.expires_at,
        last_used_at: row.last_used_at,
    }))
}

const TOUCH: &str =
    "UPDATE auth_key SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)";

pub(crate) async fn touch(tx: &mut Tx, id: KeyId, now: Timestamp) -> Result<(), StoreError> {
    both!(tx, |c| sqlx::query(TOUCH)
        .bind(id)
        .bind(now)
        .execute(c)
        .await
        .map(|_| ()))
}

const DELETE: &str = "DELETE FROM auth_key WHERE id = $1 AND tenant = $2 RETURNING user_id";

/// Who made the key that is gone now.
pub(crate) async fn delete(tx: &mut Tx, id: KeyId, tenant: &str) -> Result<Option<UserId>, StoreError> {
    both!(tx, |c| sqlx::query_scalar(DELETE)
        .bind(id)
        .bind(tenant)
        .fetch_optional(c)
        .await)
}

const DELETE_OF: &str = "DELETE FROM auth_key WHERE tenant = $1 RETURNING id, user_id";

pub(crate) async fn delete_of(tx: &mut Tx, tenant: &str) -> Result<Vec<(KeyId, UserId)>, StoreError> {
    both!(tx, |c| sqlx::query_as(DELETE_OF).bind(tenant).fetch_all(c).await)
}
