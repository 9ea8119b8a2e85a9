//! All SQL of the service.

use nimbus_bus::Scope;
use nimbus_model::{SessionId, TenantId, Timestamp, TokenId, UserId};
use nimbus_proto::auth::{Session, Token, User};
use nimbus_store::{Store, StoreError, Tx, both, reading, sqlx};

use crate::signing::StoredKey;
use crate::throttle::Account;

macro_rules! user_columns {
    () => {
        "u.id, u.name, u.email, u.password_hash, u.is_admin, u.tenant, u.created_at"
    };
}

/// A user with the hash of their password.
#[derive(Clone, Debug, sqlx_macros::FromRow)]
pub(crate) struct StoredUser {
    pub(crate) id: UserId,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) password_hash: String,
    pub(crate) is_admin: bool,
    pub(crate) tenant: TenantId,
    pub(crate) created_at: Timestamp,
}

impl From<StoredUser> for User {
    fn from(stored: StoredUser) -> Self {
        let StoredUser {
            id,
            name,
            email,
            password_hash: _,
            is_admin,
            tenant,
            created_at,
        } = stored;
        Self {
            id,
            name,
            email,
            is_admin,
            tenant,
            created_at,
        }
    }
}

// ---- users

const LOCK_REGISTRATIONS: &str = "UPDATE auth_gate SET registrations = registrations + 1 WHERE id = 1";
const HAS_USERS: &str = "SELECT EXISTS (SELECT 1 FROM auth_user)";

/// Whether there is a user. Until the transaction ends no other one can learn the same.
pub(crate) async fn has_users_locked(tx: &mut Tx) -> Result<bool, StoreError> {
    both!(tx, |c| sqlx::query(LOCK_REGISTRATIONS)
        .execute(c)
        .await
        .map(|_| ()))?;
    both!(tx, |c| sqlx::query_scalar(HAS_USERS).fetch_one(c).await)
}

pub(crate) async fn has_users(store: &Store) -> Result<bool, StoreError> {
    reading!(store, |c| sqlx::query_scalar(HAS_USERS).fetch_one(c).await)
}

const INSERT_TENANT: &str = "INSERT INTO auth_tenant (id, name, created_at) VALUES ($1, $2, $3)";
const INSERT_USER: &str =
    "INSERT INTO auth_user (id, name, email, password_hash, is_admin, tenant, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)";

/// A user with their personal tenant.
pub(crate) async fn insert_user(tx: &mut Tx, user: &StoredUser) -> Result<(), StoreError> {
    both!(tx, |c| sqlx::query(INSERT_TENANT)
        .bind(user.tenant)
        .bind(user.name.as_str())
        .bind(user.created_at)
        .execute(c)
        .await
        .map(|_| ()))?;
    both!(tx, |c| sqlx::query(INSERT_USER)
        .bind(user.id)
        .bind(user.name.as_str())
        .bind(user.email.as_str())
        .bind(user.password_hash.as_str())
        .bind(user.is_admin)
        .bind(user.tenant)
        .bind(user.created_at)
        .execute(c)
        .await
        .map(|_| ()))
}

const USER_BY_EMAIL: &str = concat!("SELECT ", user_columns!(), " FROM auth_user u WHERE u.email = $1");

pub(crate) async fn user_by_email(store: &Store, email: &str) -> Result<Option<StoredUser>, StoreError> {
    reading!(store, |c| sqlx::query_as(USER_BY_EMAIL)
        .bind(email)
        .fetch_optional(c)
        .await)
}

const USER: &str = concat!("SELECT ", user_columns!(), " FROM auth_user u WHERE u.id = $1");

pub(crate) async fn user(store: &Store, id: UserId) -> Result<Option<StoredUser>, StoreError> {
    reading!(store, |c| sqlx::query_as(USER).bind(id).fetch_optional(c).await)
}

const SET_PASSWORD: &str = "UPDATE auth_user SET password_hash = $2 WHERE id = $1 AND password_hash = $3";

/// Sets a new hash if the old one is still in force.
pub(crate) async fn set_password(
    tx: &mut Tx,
    user: UserId,
    new: &str,
    old: &str,
) -> Result<bool, StoreError> {
    let changed = both!(tx, |c| sqlx::query(SET_PASSWORD)
        .bind(user)
        .bind(new)
        .bind(old)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

const PROMOTE_FIRST: &str = "UPDATE auth_user SET is_admin = TRUE
    WHERE id = (SELECT MIN(id) FROM auth_user) AND NOT EXISTS (SELECT 1 FROM auth_user WHERE is_admin) RETURNING id";

/// Makes the oldest user administrator when there is none; ids sort by time.
pub(crate) async fn promote_first(tx: &mut Tx) -> Result<Option<UserId>, StoreError> {
    both!(tx, |c| sqlx::query_scalar(PROMOTE_FIRST).fetch_optional(c).await)
}

// ---- sessions

const INSERT_SESSION: &str =
    "INSERT INTO auth_session (id, secret_hash, user_id, address, user_agent, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)";

pub(crate) struct NewSession<'a> {
    pub(crate) id: SessionId,
    pub(crate) secret_hash: &'a str,
    pub(crate) user: UserId,
    pub(crate) address: &'a str,
    pub(crate) user_agent: &'a str,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

pub(crate) async fn insert_session(tx: &mut Tx, session: &NewSession<'_>) -> Result<(), StoreError> {
    both!(tx, |c| sqlx::query(INSERT_SESSION)
        .bind(session.id)
        .bind(session.secret_hash)
        .bind(session.user)
        .bind(session.address)
        .bind(session.user_agent)
        .bind(session.created_at)
        .bind(session.expires_at)
        .execute(c)
        .await
        .map(|_| ()))
}

/// A session that is not over, and whose it is.
#[derive(Clone, Debug, sqlx_macros::FromRow)]
pub(crate) struct LiveSession {
    pub(crate) session: SessionId,
    pub(crate) expires_at: Timestamp,
    pub(crate) user: UserId,
    pub(crate) tenant: TenantId,
    pub(crate) is_admin: bool,
}

const LIVE_SESSION: &str = "SELECT s.id AS session, s.expires_at, u.id AS \"user\", u.tenant, u.is_admin
    FROM auth_session s JOIN auth_user u ON u.id = s.user_id WHERE s.secret_hash = $1 AND s.expires_at > $2";

pub(crate) async fn live_session(
    store: &Store,
    secret_hash: &str,
    now: Timestamp,
) -> Result<Option<LiveSession>, StoreError> {
    reading!(store, |c| sqlx::query_as(LIVE_SESSION)
        .bind(secret_hash)
        .bind(now)
        .fetch_optional(c)
        .await)
}

const SESSION_LIVES: &str = "SELECT EXISTS (SELECT 1 FROM auth_session WHERE id = $1 AND expires_at > $2)";

pub(crate) async fn session_lives(store: &Store, id: SessionId, now: Timestamp) -> Result<bool, StoreError> {
    reading!(store, |c| sqlx::query_scalar(SESSION_LIVES)
        .bind(id)
        .bind(now)
        .fetch_one(c)
        .await)
}

#[derive(sqlx_macros::FromRow)]
struct StoredSession {
    id: SessionId,
    created_at: Timestamp,
    expires_at: Timestamp,
    address: String,
    user_agent: String,
}

const SESSIONS: &str = "SELECT id, created_at, expires_at, address, user_agent FROM auth_session
    WHERE user_id = $1 AND expires_at > $2 ORDER BY created_at DESC, id DESC LIMIT 200";

pub(crate) async fn sessions(
    store: &Store,
    user: UserId,
    current: Option<SessionId>,
    now: Timestamp,
) -> Result<Vec<Session>, StoreError> {
    let rows: Vec<StoredSession> = reading!(store, |c| sqlx::query_as(SESSIONS)
        .bind(user)
        .bind(now)
        .fetch_all(c)
        .await)?;
    Ok(rows
        .into_iter()
        .map(|row| Session {
            id: row.id,
            created_at: row.created_at,
            expires_at: row.expires_at,
            address: row.address,
            user_agent: row.user_agent,
            current: current == Some(row.id),
        })
        .collect())
}

const DELETE_SESSION_BY_SECRET: &str =
    "DELETE FROM auth_session WHERE secret_hash = $1 RETURNING id, user_id";

pub(crate) async fn delete_session_by_secret(
    tx: &mut Tx,
    secret_hash: &str,
) -> Result<Option<(SessionId, UserId)>, StoreError> {
    both!(tx, |c| sqlx::query_as(DELETE_SESSION_BY_SECRET)
        .bind(secret_hash)
        .fetch_optional(c)
        .await)
}

const DELETE_SESSION: &str = "DELETE FROM auth_session WHERE id = $1 AND user_id = $2";

pub(crate) async fn delete_session(tx: &mut Tx, id: SessionId, user: UserId) -> Result<bool, StoreError> {
    let deleted = both!(tx, |c| sqlx::query(DELETE_SESSION)
        .bind(id)
        .bind(user)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(deleted == 1)
}

const DELETE_OTHER_SESSIONS: &str = "DELETE FROM auth_session WHERE user_id = $1 AND id <> $2 RETURNING id";

/// Deletes all sessions of `user` but `keep`.
pub(crate) async fn delete_other_sessions(
    tx: &mut Tx,
    user: UserId,
    keep: Option<SessionId>,
) -> Result<Vec<SessionId>, StoreError> {
    let keep = keep.map(|id| id.to_string()).unwrap_or_default();
    both!(tx, |c| sqlx::query_scalar(DELETE_OTHER_SESSIONS)
        .bind(user)
        .bind(keep)
        .fetch_all(c)
        .await)
}

// ---- personal access tokens

pub(crate) struct NewToken<'a> {
    pub(crate) token: &'a Token,
    pub(crate) secret_hash: &'a str,
    pub(crate) user: UserId,
}

const COUNT_TOKENS: &str = "SELECT COUNT(*) FROM auth_token WHERE user_id = $1";

pub(crate) async fn count_tokens(tx: &mut Tx, user: UserId) -> Result<i64, StoreError> {
    both!(tx, |c| sqlx::query_scalar(COUNT_TOKENS)
        .bind(user)
        .fetch_one(c)
        .await)
}

const INSERT_TOKEN: &str =
    "INSERT INTO auth_token (id, secret_hash, user_id, name, scopes, prefix, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

pub(crate) async fn insert_token(tx: &mut Tx, new: &NewToken<'_>) -> Result<(), StoreError> {
    let scopes = new
        .token
        .scopes
        .iter()
        .map(|scope| scope.as_str())
        .collect::<Vec<_>>()
        .join(" ");
    both!(tx, |c| sqlx::query(INSERT_TOKEN)
        .bind(new.token.id)
        .bind(new.secret_hash)
        .bind(new.user)
        .bind(new.token.name.as_str())
        .bind(scopes.as_str())
        .bind(new.token.prefix.as_str())
        .bind(new.token.created_at)
        .bind(new.token.expires_at)
        .execute(c)
        .await
        .map(|_| ()))
}

/// A scope that this version does not know allows nothing.
fn scopes(text: &str) -> Vec<Scope> {
    text.split(' ').filter_map(Scope::find).collect()
}

/// A token that is not over, and whose it is.
#[derive(Clone, Debug, sqlx_macros::FromRow)]
struct StoredLiveToken {
    token: TokenId,
    scopes: String,
    expires_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    user: UserId,
    tenant: TenantId,
    is_admin: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct LiveToken {
    pub(crate) token: TokenId,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) last_used_at: Option<Timestamp>,
    pub(crate) user: UserId,
    pub(crate) tenant: TenantId,
    pub(crate) is_admin: bool,
}

const LIVE_TOKEN: &str =
    "SELECT t.id AS token, t.scopes, t.expires_at, t.last_used_at, u.id AS \"user\", u.tenant, u.is_admin
    FROM auth_token t JOIN auth_user u ON u.id = t.user_id
    WHERE t.secret_hash = $1 AND (t.expires_at IS NULL OR t.expires_at > $2)";

pub(crate) async fn live_token(
    store: &Store,
    secret_hash: &str,
    now: Timestamp,
) -> Result<Option<LiveToken>, StoreError> {
    let row: Option<StoredLiveToken> = reading!(store, |c| sqlx::query_as(LIVE_TOKEN)
        .bind(secret_hash)
        .bind(now)
        .fetch_optional(c)
        .await)?;
    Ok(row.map(|row| LiveToken {
        token: row.token,
        scopes: scopes(&row.scopes),
        expires_at: row.expires_at,
        last_used_at: row.last_used_at,
        user: row.user,
        tenant: row.tenant,
        is_admin: row.is_admin,
    }))
}

const TOKEN_LIVES: &str =
    "SELECT EXISTS (SELECT 1 FROM auth_token WHERE id = $1 AND (expires_at IS NULL OR expires_at > $2))";

pub(crate) async fn token_lives(store: &Store, id: TokenId, now: Timestamp) -> Result<bool, StoreError> {
    reading!(store, |c| sqlx::query_scalar(TOKEN_LIVES)
        .bind(id)
        .bind(now)
        .fetch_one(c)
        .await)
}

const TOUCH_TOKEN: &str =
    "UPDATE auth_token SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)";

pub(crate) async fn touch_token(tx: &mut Tx, id: TokenId, now: Timestamp) -> Result<(), StoreError> {
    both!(tx, |c| sqlx::query(TOUCH_TOKEN)
        .bind(id)
        .bind(now)
        .execute(c)
        .await
        .map(|_| ()))
}

#[derive(sqlx_macros::FromRow)]
struct StoredToken {
    id: TokenId,
    name: String,
    scopes: String,
    prefix: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
}

const TOKENS: &str = "SELECT id, name, scopes, prefix, created_at, expires_at, last_used_at FROM auth_token
    WHERE user_id = $1 ORDER BY created_at DESC, id DESC";

pub(crate) async fn tokens(store: &Store, user: UserId) -> Result<Vec<Token>, StoreError> {
    let rows: Vec<StoredToken> = reading!(store, |c| sqlx::query_as(TOKENS).bind(user).fetch_all(c).await)?;
    Ok(rows
        .into_iter()
        .map(|row| Token {
            id: row.id,
            name: row.name,
            scopes: scopes(&row.scopes),
            prefix: row.prefix,
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
        })
        .collect())
}

const DELETE_TOKEN: &str = "DELETE FROM auth_token WHERE id = $1 AND user_id = $2";

pub(crate) async fn delete_token(tx: &mut Tx, id: TokenId, user: UserId) -> Result<bool, StoreError> {
    let deleted = both!(tx, |c| sqlx::query(DELETE_TOKEN)
        .bind(id)
        .bind(user)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(deleted == 1)
}

// ---- attempts

const KNOW_ACCOUNT: &str =
    "INSERT INTO auth_attempt (account, failures, last_at, blocked_until) VALUES ($1, 0, $2, 0)
    ON CONFLICT (account) DO NOTHING";
const COUNT_ATTEMPT: &str = "UPDATE auth_attempt
    SET failures = CASE WHEN last_at < $3 THEN 1 ELSE failures + 1 END, last_at = $2
    WHERE account = $1 AND blocked_until <= $2 RETURNING failures";

/// Counts one more failure, from one if the last is older than `forget`; `None` while the account is blocked.
pub(crate) async fn count_attempt(
    tx: &mut Tx,
    account: &Account,
    now: Timestamp,
    forget: Timestamp,
) -> Result<Option<i64>, StoreError> {
    both!(tx, |c| sqlx::query(KNOW_ACCOUNT)
        .bind(account.as_str())
        .bind(now)
        .execute(c)
        .await
        .map(|_| ()))?;
    both!(tx, |c| sqlx::query_scalar(COUNT_ATTEMPT)
        .bind(account.as_str())
        .bind(now)
        .bind(forget)
        .fetch_optional(c)
        .await)
}

const BLOCK: &str = "UPDATE auth_attempt SET blocked_until = $2 WHERE account = $1";

pub(crate) async fn block(tx: &mut Tx, account: &Account, until: Timestamp) -> Result<(), StoreError> {
    both!(tx, |c| sqlx::query(BLOCK)
        .bind(account.as_str())
        .bind(until)
        .execute(c)
        .await
        .map(|_| ()))
}

const BLOCKED_UNTIL: &str = "SELECT blocked_until FROM auth_attempt WHERE account = $1";

pub(crate) async fn blocked_until(tx: &mut Tx, account: &Account) -> Result<Timestamp, StoreError> {
    both!(tx, |c| sqlx::query_scalar(BLOCKED_UNTIL)
        .bind(account.as_str())
        .fetch_one(c)
        .await)
}

const FORGIVE: &str = "DELETE FROM auth_attempt WHERE account = $1";

pub(crate) async fn forgive(tx: &mut Tx, account: &Account) -> Result<(), StoreError> {
    both!(tx, |c| sqlx::query(FORGIVE)
        .bind(account.as_str())
        .execute(c)
        .await
        .map(|_| ()))
}

// ---- upkeep

const PURGE_SESSIONS: &str = "DELETE FROM auth_session WHERE expires_at <= $1";
const PURGE_ATTEMPTS: &str = "DELETE FROM auth_attempt WHERE last_at < $1 AND blocked_until < $1";

/// Deletes sessions that ended by `now` and attempts from before `forget`; how many of each.
pub(crate) async fn purge(tx: &mut Tx, now: Timestamp, forget: Timestamp) -> Result<(u64, u64), StoreError> {
    let sessions = both!(tx, |c| sqlx::query(PURGE_SESSIONS)
        .bind(now)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    let attempts = both!(tx, |c| sqlx::query(PURGE_ATTEMPTS)
        .bind(forget)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok((sessions, attempts))
}

// ---- the signing key

const SIGNING_KEY: &str = "SELECT id, public_key, sealed FROM auth_signing_key WHERE slot = 1";

pub(crate) async fn signing_key(store: &Store) -> Result<Option<StoredKey>, StoreError> {
    let row: Option<(String, String, String)> =
        reading!(store, |c| sqlx::query_as(SIGNING_KEY).fetch_optional(c).await)?;
    Ok(row.map(|(id, public_key, sealed)| StoredKey {
        id,
        public_key,
        sealed,
    }))
}

const INSERT_SIGNING_KEY: &str = "INSERT INTO auth_signing_key (slot, id, public_key, sealed, created_at)
    VALUES (1, $1, $2, $3, $4) ON CONFLICT (slot) DO NOTHING";

/// False: there is one already.
pub(crate) async fn insert_signing_key(
    tx: &mut Tx,
    key: &StoredKey,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let inserted = both!(tx, |c| sqlx::query(INSERT_SIGNING_KEY)
        .bind(key.id.as_str())
        .bind(key.public_key.as_str())
        .bind(key.sealed.as_str())
        .bind(now)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(inserted == 1)
}
