//! The SQL of machines' tokens.

use nimbus_model::{MachineId, TenantId, Timestamp, TokenId, UserId};
use nimbus_store::{Store, StoreError, Tx, both, reading, sqlx};

pub(crate) struct NewMachineToken<'a> {
    pub(crate) machine: MachineId,
    pub(crate) token: TokenId,
    pub(crate) secret_hash: &'a str,
    pub(crate) user: UserId,
    pub(crate) at: Timestamp,
}

const DELETE: &str = "DELETE FROM auth_machine_token WHERE machine = $1 RETURNING id, user_id";

/// The token that is gone now, and whose machine it was in.
pub(crate) async fn delete(tx: &mut Tx, machine: MachineId) -> Result<Option<(TokenId, UserId)>, StoreError> {
    both!(tx, |c| sqlx::query_as(DELETE)
        .bind(machine)
        .fetch_optional(c)
        .await)
}

const INSERT: &str = "INSERT INTO auth_machine_token (machine, id, secret_hash, user_id, created_at)
    VALUES ($1, $2, $3, $4, $5)";

pub(crate) async fn insert(tx: &mut Tx, new: &NewMachineToken<'_>) -> Result<(), StoreError> {
    both!(tx, |c| sqlx::query(INSERT)
        .bind(new.machine)
        .bind(new.token)
        .bind(new.secret_hash)
        .bind(new.user)
        .bind(new.at)
        .execute(c)
        .await
        .map(|_| ()))
}

/// A token that is good, and whose machine it is in.
#[derive(Clone, Copy, Debug, sqlx_macros::FromRow)]
pub(crate) struct LiveMachineToken {
    pub(crate) token: TokenId,
    pub(crate) machine: MachineId,
    pub(crate) user: UserId,
    /// None for the operator, and for somebody who is no more.
    pub(crate) tenant: Option<TenantId>,
    pub(crate) last_used_at: Option<Timestamp>,
}

const LIVE: &str = "SELECT m.id AS token, m.machine, m.user_id AS \"user\", u.tenant, m.last_used_at
    FROM auth_machine_token m LEFT JOIN auth_user u ON u.id = m.user_id WHERE m.secret_hash = $1";

pub(crate) async fn live(store: &Store, secret_hash: &str) -> Result<Option<LiveMachineToken>, StoreError> {
    reading!(store, |c| sqlx::query_as(LIVE)
        .bind(secret_hash)
        .fetch_optional(c)
        .await)
}

const TOUCH: &str = "UPDATE auth_machine_token SET last_used_at = $2
    WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)";

pub(crate) async fn touch(tx: &mut Tx, token: TokenId, now: Timestamp) -> Result<(), StoreError> {
    both!(tx, |c| sqlx::query(TOUCH)
        .bind(token)
        .bind(now)
        .execute(c)
        .await
        .map(|_| ()))
}
