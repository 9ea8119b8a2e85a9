//! People: registration, their own view, their password, the first administrator.

use nimbus_bus::Identity;
use nimbus_model::{TenantId, UserId};
use nimbus_proto::auth::{ChangePasswordRequest, RegisterRequest, SetupStatus, User};
use nimbus_proto::event::UserRegistered;

use crate::auth::Auth;
use crate::check;
use crate::error::AuthError;
use crate::store::{self, StoredUser};
use crate::throttle::{Account, Throttle};

impl Auth {
    /// Registers a person with a tenant of their own. Nobody is signed in by it.
    ///
    /// The first one becomes administrator; that nobody was there before is found out and made use of
    /// in one transaction, so that two first ones cannot be.
    pub(crate) async fn register(&self, request: RegisterRequest) -> Result<User, AuthError> {
        let name = check::name(&request.name)?;
        let email = check::email(&request.email)?;
        check::password(request.password.reveal(), "password")?;
        self.throttle.address(&request.address)?;
        // Hashing is slow: not for a request that cannot succeed.
        if request.only_first && store::has_users(&self.store).await? {
            return Err(AuthError::NotFirst);
        }
        let password_hash = self.passwords.hash(request.password.reveal()).await?;

        let mut tx = self.store.begin().await?;
        let has_users = store::has_users_locked(&mut tx).await?;
        if has_users && request.only_first {
            return Err(AuthError::NotFirst);
        }
        let user = StoredUser {
            id: UserId::fresh(),
            name,
            email,
            password_hash,
            is_admin: !has_users,
            tenant: TenantId::fresh(),
            created_at: self.clock.now(),
        };
        store::insert_user(&mut tx, &user).await.map_err(|error| {
            if error.is_unique_violation() {
                AuthError::EmailTaken
            } else {
                AuthError::from(error)
            }
        })?;
        self.tell(&mut tx, &UserRegistered { user: user.id }).await?;
        self.commit(tx).await?;
        tracing::info!(user.id = %user.id, user.admin = user.is_admin, "registered {}", user.id);
        Ok(user.into())
    }

    /// Whether anybody has registered.
    pub(crate) async fn setup(&self) -> Result<SetupStatus, AuthError> {
        Ok(SetupStatus {
            has_users: store::has_users(&self.store).await?,
        })
    }

    /// The caller's own account.
    pub(crate) async fn me(&self, caller: &Identity) -> Result<User, AuthError> {
        let user = store::user(&self.store, caller.user)
            .await?
            .ok_or(AuthError::BadCredential)?;
        Ok(user.into())
    }

    /// Changes the caller's password and ends all their sessions but the one that asks.
    pub(crate) async fn change_password(
        &self,
        caller: &Identity,
        request: ChangePasswordRequest,
    ) -> Result<(), AuthError> {
        check::password(request.new.reveal(), "new_password")?;
        self.require_living(caller).await?;
        let user = store::user(&self.store, caller.user)
            .await?
            .ok_or(AuthError::BadCredential)?;
        // A stolen session must not become the place to guess the password at leisure.
        let account = Account::user(caller.user);
        self.throttle.attempt(&account).await?;
        if !self
            .passwords
            .verify(request.current.reveal(), Some(user.password_hash.clone()))
            .await?
        {
            return Err(AuthError::WrongPassword);
        }
        if request.current == request.new {
            return Err(AuthError::Invalid {
                field: "new_password",
                reason: "the new password is the current one",
            });
        }
        let new_hash = self.passwords.hash(request.new.reveal()).await?;

        let mut tx = self.store.begin().await?;
        if !store::set_password(&mut tx, caller.user, &new_hash, &user.password_hash).await? {
            // Changed by somebody else meanwhile: what was proved is no longer the password.
            return Err(AuthError::WrongPassword);
        }
        Throttle::forgive(&mut tx, &account).await?;
        let ended = store::delete_other_sessions(&mut tx, caller.user, caller.session).await?;
        self.tell_sessions_ended(&mut tx, caller.user, &ended).await?;
        self.commit(tx).await?;
        self.refuse_sessions(&ended);
        tracing::info!(user.id = %caller.user, sessions.ended = ended.len(), "{} changed the password", caller.user);
        Ok(())
    }

    /// Makes the oldest user administrator when there is none, as after the last one was removed.
    pub(crate) async fn ensure_admin(&self) -> Result<(), AuthError> {
        let mut tx = self.store.begin().await?;
        let promoted = store::promote_first(&mut tx).await?;
        tx.commit().await?;
        if let Some(user) = promoted {
            tracing::warn!(user.id = %user, "there was no administrator, so {user} is one now");
        }
        Ok(())
    }
}
