//! What the capabilities share.

use std::sync::Arc;

use nimbus_bus::{CloudEvent, Event, Identity, Scope};
use nimbus_errors::Fault;
use nimbus_model::{Clock, KeyId, SessionId, TokenId, UserId};
use nimbus_proto::event::CredentialRevoked;
use nimbus_proto::verify::JwtVerifier;
use nimbus_service::Outbox;
use nimbus_store::{Store, StoreError, Tx};

use crate::admin::Holder;
use crate::bus_mint::BusMint;
use crate::config::AuthConfig;
use crate::error::AuthError;
use crate::password::Passwords;
use crate::signing::Signer;
use crate::store;
use crate::throttle::Throttle;

/// The service's state. Clones share. What it can do stands in `account.rs`, `session.rs`, `token.rs`,
/// `key.rs` and `machine_token.rs`.
#[derive(Clone)]
pub(crate) struct Auth {
    pub(crate) store: Store,
    pub(crate) outbox: Outbox,
    pub(crate) clock: Clock,
    pub(crate) passwords: Passwords,
    pub(crate) throttle: Throttle,
    pub(crate) signer: Signer,
    /// Checks the tokens of our own callers, and is told of revocations at once.
    pub(crate) verifier: Arc<JwtVerifier>,
    pub(crate) session_lifetime: std::time::Duration,
    /// The installation's admin token, where there is one.
    pub(crate) admin: Holder,
    /// Makes credentials for the bus.
    pub(crate) mint: BusMint,
}

impl Auth {
    pub(crate) fn new(
        store: Store,
        outbox: Outbox,
        clock: Clock,
        signer: Signer,
        config: &AuthConfig,
    ) -> Self {
        Self {
            throttle: Throttle::new(store.clone(), clock.clone(), config),
            verifier: Arc::new(JwtVerifier::with_keys(&signer.verifying_keys(), clock.clone())),
            passwords: Passwords::new(),
            session_lifetime: config.session_lifetime,
            admin: Holder::none(),
            mint: BusMint::default(),
            store,
            outbox,
            clock,
            signer,
        }
    }

    /// Writes an event beside its change.
    pub(crate) async fn tell(&self, tx: &mut Tx, event: &impl Event) -> Result<(), StoreError> {
        self.outbox
            .push(tx, &CloudEvent::of(event, "auth", &self.clock))
            .await
    }

    pub(crate) async fn commit(&self, tx: Tx) -> Result<(), AuthError> {
        tx.commit().await?;
        self.outbox.nudge();
        Ok(())
    }

    /// Writes the events of ended sessions beside their removal.
    pub(crate) async fn tell_sessions_ended(
        &self,
        tx: &mut Tx,
        user: UserId,
        sessions: &[SessionId],
    ) -> Result<(), StoreError> {
        for session in sessions {
            self.tell(
                tx,
                &CredentialRevoked {
                    user,
                    session: Some(*session),
                    token: None,
                    key: None,
                    machine: None,
                },
            )
            .await?;
        }
        Ok(())
    }

    /// Refuses what was made from these sessions here and now, without waiting for the event.
    pub(crate) fn refuse_sessions(&self, sessions: &[SessionId]) {
        for session in sessions {
            self.verifier.revoke_session(*session);
        }
    }

    pub(crate) fn refuse_token(&self, token: TokenId) {
        self.verifier.revoke_token(token);
    }

    pub(crate) fn refuse_key(&self, key: KeyId) {
        self.verifier.revoke_key(key);
    }

    /// Whether the caller's session or token still lives: an access token outlives it by minutes, too
    /// long for what makes new credentials.
    pub(crate) async fn require_living(&self, caller: &Identity) -> Result<(), AuthError> {
        let now = self.clock.now();
        let lives = match (caller.session, caller.token) {
            (Some(session), _) => store::session_lives(&self.store, session, now).await?,
            (None, Some(token)) => store::token_lives(&self.store, token, now).await?,
            // The admin token's holder: what was exchanged for an older one ends within minutes.
            (None, None) => caller.is_operator(),
        };
        if lives {
            Ok(())
        } else {
            Err(AuthError::BadCredential)
        }
    }
}

/// Refuses callers who are no person: a key is not its maker, a machine not its owner, and the operator
/// never registered.
pub(crate) fn require_person(caller: &Identity) -> Result<(), Fault> {
    if caller.key.is_none() && caller.machine.is_none() && !caller.is_operator() {
        return Ok(());
    }
    let code = nimbus_errors::Code::AuthPermissionDenied;
    Err(Fault::new(code, "there is no account behind the credential"))
}

/// Refuses callers whose credential does not allow managing the account.
pub(crate) fn require_account(caller: &Identity) -> Result<(), Fault> {
    if caller.may(Scope::Account) {
        return Ok(());
    }
    let code = nimbus_errors::Code::AuthPermissionDenied;
    Err(Fault::new(code, "the credential does not allow account")
        .with_detail(&serde_json::json!({ "scope": Scope::Account.as_str() })))
}
