//! Credentials in exchange for access tokens.
//!
//! `auth` is asked once per credential and access token; then the answer is kept until half a minute
//! before the token ends, or until an event says that the credential was revoked. Requests that come
//! with one credential while it is being asked for wait for the same answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use nimbus_bus::{AccessToken, Bus, Identity};
use nimbus_errors::{Code, Fault};
use nimbus_model::{Clock, Timestamp};
use nimbus_proto::auth::{ExchangeAdmin, ExchangeKey, ExchangeRequest, ExchangeSession, ExchangeToken};
use nimbus_proto::event::CredentialRevoked;
use nimbus_telemetry::Metrics;
use tracing::Instrument;

use crate::access::{Credential, Kind};
use crate::config::limits::TOKEN_MARGIN;
use crate::state::timed;

/// Credentials that are kept; about a kilobyte each.
const MOST: usize = 10_000;

/// A checked sender.
#[derive(Debug)]
pub(crate) struct Principal {
    /// Who.
    pub(crate) identity: Identity,
    /// What says so on the bus.
    pub(crate) token: AccessToken,
    until: Timestamp,
}

type Asking = Shared<BoxFuture<'static, Result<Arc<Principal>, Fault>>>;

/// The cache; clones share it.
#[derive(Clone)]
pub(crate) struct Principals {
    inner: Arc<Inner>,
}

struct Inner {
    bus: Bus,
    clock: Clock,
    metrics: Metrics,
    known: Mutex<HashMap<[u8; 32], Arc<Principal>>>,
    asking: Mutex<HashMap<[u8; 32], Asking>>,
    /// Grows with every revocation; an answer that was asked for before one is not kept.
    revocations: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Principals {
    pub(crate) fn new(bus: Bus, clock: Clock, metrics: Metrics) -> Self {
        Self {
            inner: Arc::new(Inner {
                bus,
                clock,
                metrics,
                known: Mutex::default(),
                asking: Mutex::default(),
                revocations: AtomicU64::new(0),
            }),
        }
    }

    /// Whom the credential stands for, if that is known already.
    pub(crate) fn known(&self, credential: &Credential) -> Option<Arc<Principal>> {
        let principal = lock(&self.inner.known).get(&credential.digest).cloned()?;
        (principal.until > self.inner.clock.now()).then_some(principal)
    }

    /// Whom the credential stands for.
    pub(crate) async fn find(&self, credential: &Credential) -> Result<Arc<Principal>, Fault> {
        if let Some(principal) = self.known(credential) {
            return Ok(principal);
        }
        let asking = {
            let mut asking = lock(&self.inner.asking);
            asking
                .entry(credential.digest)
                .or_insert_with(|| Arc::clone(&self.inner).begin(credential.clone()))
                .clone()
        };
        asking.await
    }

    /// Forgets what the credential that has ended stood for.
    pub(crate) fn revoke(&self, revoked: &CredentialRevoked) {
        self.inner.revocations.fetch_add(1, Ordering::SeqCst);
        lock(&self.inner.known).retain(|_, principal| !ends(revoked, &principal.identity));
    }

    /// Forgets one credential.
    pub(crate) fn forget(&self, credential: &Credential) {
        self.inner.revocations.fetch_add(1, Ordering::SeqCst);
        lock(&self.inner.known).remove(&credential.digest);
    }

    /// Forgets everything: revocations may have been missed.
    pub(crate) fn clear(&self) {
        self.inner.revocations.fetch_add(1, Ordering::SeqCst);
        lock(&self.inner.known).clear();
    }
}

/// Whether this revocation ends what `identity` was made from.
pub(crate) fn ends(revoked: &CredentialRevoked, identity: &Identity) -> bool {
    if revoked.user != identity.user {
        return false;
    }
    match (revoked.session, revoked.token, revoked.key, revoked.machine) {
        (None, None, None, None) => true,
        (session, token, key, machine) => {
            (session.is_some() && session == identity.session)
                || (token.is_some() && token == identity.token)
                || (key.is_some() && key == identity.key.as_ref().map(|key| key.id))
                || (machine.is_some() && machine == identity.machine)
        }
    }
}

impl Inner {
    /// Asks in a task of its own, so that the answer is kept, and the question forgotten, also when
    /// everybody who waits for it has left.
    fn begin(self: Arc<Self>, credential: Credential) -> Asking {
        let digest = credential.digest;
        let work = async move {
            let answer = self.ask(credential).await;
            lock(&self.asking).remove(&digest);
            answer
        };
        let task = tokio::spawn(work.in_current_span());
        async move {
            task.await
                .unwrap_or_else(|_| Err(Fault::new(Code::ServiceInternal, "the question was lost")))
        }
        .boxed()
        .shared()
    }

    async fn ask(&self, credential: Credential) -> Result<Arc<Principal>, Fault> {
        let before = self.revocations.load(Ordering::SeqCst);
        let request = ExchangeRequest {
            secret: credential.secret,
        };
        let exchanged = match credential.kind {
            Kind::Session => timed(&self.metrics, self.bus.call::<ExchangeSession>(&request)).await?,
            Kind::Token | Kind::Machine => {
                timed(&self.metrics, self.bus.call::<ExchangeToken>(&request)).await?
            }
            Kind::Key => timed(&self.metrics, self.bus.call::<ExchangeKey>(&request)).await?,
            Kind::Admin => timed(&self.metrics, self.bus.call::<ExchangeAdmin>(&request)).await?,
        };
        let principal = Arc::new(Principal {
            identity: exchanged.identity,
            token: AccessToken::new(exchanged.access_token.reveal().to_owned()),
            until: exchanged.expires_at.before(TOKEN_MARGIN),
        });
        let mut known = lock(&self.known);
        if self.revocations.load(Ordering::SeqCst) == before {
            if known.len() >= MOST {
                let now = self.clock.now();
                known.retain(|_, principal| principal.until > now);
            }
            if known.len() >= MOST
                && let Some(first) = known
                    .iter()
                    .min_by_key(|(_, p)| p.until)
                    .map(|(digest, _)| *digest)
            {
                known.remove(&first);
            }
            known.insert(credential.digest, Arc::clone(&principal));
        }
        Ok(principal)
    }
}

#[cfg(test)]
mod tests {
    use nimbus_model::{SessionId, TenantId, TokenId, UserId};

    use super::*;

    #[test]
    fn a_revocation_ends_exactly_what_it_names() {
        let (user, session, token) = (UserId::fresh(), SessionId::fresh(), TokenId::fresh());
        let browser = Identity {
            user,
            tenant: TenantId::fresh(),
            admin: false,
            scopes: vec![],
            session: Some(session),
            token: None,
            key: None,
            machine: None,
        };
        let script = Identity {
            session: None,
            token: Some(token),
            ..browser.clone()
        };
        let program = Identity {
            session: None,
            key: Some(nimbus_bus::KeyIdentity {
                id: nimbus_model::KeyId::fresh(),
                grants: vec![],
            }),
            ..browser.clone()
        };
        let revoked = |session, token| CredentialRevoked {
            user,
            session,
            token,
            key: None,
            machine: None,
        };
        let guest = Identity {
            session: None,
            machine: Some(nimbus_model::MachineId::fresh()),
            ..browser.clone()
        };
        let revoked_machine = |machine| CredentialRevoked {
            machine,
            ..revoked(None, None)
        };
        assert!(
            ends(&revoked_machine(guest.machine), &guest) && !ends(&revoked_machine(guest.machine), &browser)
        );
        assert!(!ends(
            &revoked_machine(Some(nimbus_model::MachineId::fresh())),
            &guest
        ));
        let revoked_key = |key| CredentialRevoked {
            key: Some(key),
            ..revoked(None, None)
        };
        let id = program.key.as_ref().map(|key| key.id).unwrap();
        assert!(ends(&revoked_key(id), &program) && !ends(&revoked_key(id), &script));
        assert!(!ends(&revoked_key(nimbus_model::KeyId::fresh()), &program));
        assert!(!ends(&revoked(Some(session), None), &program));
        assert!(ends(&revoked(Some(session), None), &browser));
        assert!(!ends(&revoked(Some(session), None), &script));
        assert!(ends(&revoked(None, Some(token)), &script));
        assert!(!ends(&revoked(Some(SessionId::fresh()), None), &browser));
        assert!(ends(&revoked(None, None), &browser) && ends(&revoked(None, None), &script));
        let other = CredentialRevoked {
            user: UserId::fresh(),
            session: None,
            token: None,
            key: None,
            machine: None,
        };
        assert!(!ends(&other, &browser));
    }
}
