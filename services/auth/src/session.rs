//! Signed-in browsers: an opaque secret in a cookie, exchanged for access tokens inside.

use std::time::Duration;

use nimbus_bus::{Identity, Scope};
use nimbus_model::SessionId;
use nimbus_proto::auth::{Exchanged, LoginReply, LoginRequest, Secret, Session};
use nimbus_proto::event::UserSignedIn;
use nimbus_service::RunError;

use crate::auth::Auth;
use crate::error::AuthError;
use crate::throttle::{Account, FORGET, Throttle};
use crate::{check, secret, store};

/// How often ended sessions are deleted.
const PURGE_EVERY: Duration = Duration::from_secs(3600);
const PURGE_LEASE: &str = "auth.purge";
const PURGE_LEASE_TTL: Duration = Duration::from_secs(60);

impl Auth {
    /// Signs a person in. What is wrong, address or password, is not told, nor does the time it takes.
    pub(crate) async fn login(&self, request: LoginRequest) -> Result<LoginReply, AuthError> {
        self.throttle.address(&request.address)?;
        let email = check::normal_email(&request.email);
        let account = Account::email(&email);
        self.throttle.attempt(&account).await?;

        let user = store::user_by_email(&self.store, &email).await?;
        let hash = user.as_ref().map(|user| user.password_hash.clone());
        let right = self.passwords.verify(request.password.reveal(), hash).await?;
        let user = user.filter(|_| right).ok_or(AuthError::BadCredentials)?;

        let secret = secret::session()?;
        let secret_hash = secret::hash(&secret).ok_or(AuthError::BadCredential)?;
        let now = self.clock.now();
        let session = store::NewSession {
            id: SessionId::fresh(),
            secret_hash: &secret_hash,
            user: user.id,
            address: &check::shown(&request.address, 64),
            user_agent: &check::shown(&request.user_agent, 256),
            created_at: now,
            expires_at: now.after(self.session_lifetime),
        };
        let mut tx = self.store.begin().await?;
        store::insert_session(&mut tx, &session).await?;
        Throttle::forgive(&mut tx, &account).await?;
        self.tell(&mut tx, &UserSignedIn { user: user.id }).await?;
        self.commit(tx).await?;
        tracing::info!(user.id = %user.id, session.id = %session.id, "{} signed in", user.id);
        Ok(LoginReply {
            user: user.into(),
            secret,
            expires_at: session.expires_at,
        })
    }

    /// An access token for the session with this secret.
    pub(crate) async fn exchange_session(&self, secret: &Secret) -> Result<Exchanged, AuthError> {
        let hash = secret::hash(secret).ok_or(AuthError::BadCredential)?;
        let live = store::live_session(&self.store, &hash, self.clock.now())
            .await?
            .ok_or(AuthError::BadCredential)?;
        let identity = Identity {
            user: live.user,
            tenant: live.tenant,
            admin: live.is_admin,
            scopes: Scope::all().to_vec(),
            session: Some(live.session),
            token: None,
            key: None,
            machine: None,
        };
        self.signer.sign(identity, Some(live.expires_at))
    }

    /// Ends the session with this secret; one that is not there has ended already.
    pub(crate) async fn logout(&self, secret: &Secret) -> Result<(), AuthError> {
        let Some(hash) = secret::hash(secret) else {
            return Ok(());
        };
        let mut tx = self.store.begin().await?;
        let Some((session, user)) = store::delete_session_by_secret(&mut tx, &hash).await? else {
            return Ok(());
        };
        self.tell_sessions_ended(&mut tx, user, &[session]).await?;
        self.commit(tx).await?;
        self.refuse_sessions(&[session]);
        Ok(())
    }

    /// The caller's sessions, newest first.
    pub(crate) async fn sessions(&self, caller: &Identity) -> Result<Vec<Session>, AuthError> {
        Ok(store::sessions(&self.store, caller.user, caller.session, self.clock.now()).await?)
    }

    /// Ends one of the caller's sessions.
    pub(crate) async fn revoke_session(
        &self,
        caller: &Identity,
        session: SessionId,
    ) -> Result<(), AuthError> {
        let mut tx = self.store.begin().await?;
        if !store::delete_session(&mut tx, session, caller.user).await? {
            return Err(AuthError::NotFound { what: "session" });
        }
        self.tell_sessions_ended(&mut tx, caller.user, &[session]).await?;
        self.commit(tx).await?;
        self.refuse_sessions(&[session]);
        Ok(())
    }

    /// Deletes what is over, once an hour, in one replica at a time.
    pub(crate) async fn keep_clean(self, bus: nimbus_bus::Bus) -> Result<(), RunError> {
        let mut ticks = tokio::time::interval(PURGE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.throttle.forget_quiet_addresses();
            let Some(lease) = bus.lease(PURGE_LEASE, PURGE_LEASE_TTL).await? else {
                continue;
            };
            let purged = self.purge().await;
            lease.release().await;
            purged.map_err(|error| RunError::other("could not delete ended sessions", error))?;
        }
    }

    pub(crate) async fn purge(&self) -> Result<(), AuthError> {
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        let (sessions, attempts) = store::purge(&mut tx, now, now.before(FORGET)).await?;
        tx.commit().await?;
        tracing::debug!(sessions, attempts, "deleted {sessions} ended sessions");
        Ok(())
    }
}
