//! Access tokens: what they say, and how every service checks them by itself.
//!
//! ```text
//!  gateway ── session cookie or token ──▶ auth     once per credential and five minutes
//!          ◀─ access token (Ed25519 JWT) ─┘
//!  gateway ── request + access token ───▶ any service ── JwtVerifier: signature, expiry, revocation
//!                                             └─ auth.verifying_keys, when it meets a new key
//! ```
//!
//! A revoked credential is refused as soon as its event arrives ([`JwtVerifier::follow_revocations`]),
//! and at the latest when the access tokens made from it end.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use nimbus_bus::{Bus, BusError, Event as _, EventFilter, EventStart, Identity, KeyIdentity, Scope, Verify};
use nimbus_errors::{Code, Fault};
use nimbus_model::{Clock, KeyId, MachineId, SessionId, TenantId, Timestamp, TokenId, UserId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::auth::{VerifyingKey, VerifyingKeys};
use crate::event::CredentialRevoked;

/// Who signs access tokens.
pub const ISSUER: &str = "nimbus";
/// How long an access token is good: long enough that a busy client rarely asks for another, short
/// enough that a revocation whose event was lost does not last.
pub const LIFETIME: Duration = Duration::from_secs(5 * 60);

/// Tokens that were found good and are kept.
const KEPT: usize = 8192;
/// Shortest time between two questions for keys.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Longest text that is looked at.
const LONGEST: usize = 16 * 1024;

/// What an access token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// [`ISSUER`].
    pub iss: String,
    /// The user.
    pub sub: UserId,
    /// On whose behalf.
    pub tenant: TenantId,
    /// Whether the credential makes its user an administrator.
    pub admin: bool,
    /// What the credential allows.
    pub scopes: Vec<Scope>,
    /// The browser session behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<SessionId>,
    /// The personal access token behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tid: Option<TokenId>,
    /// The API key behind it, with its grants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyIdentity>,
    /// The machine it is the token of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mid: Option<MachineId>,
    /// When it was signed, in seconds since 1970.
    pub iat: i64,
    /// When it ends, in seconds since 1970.
    pub exp: i64,
}

impl Claims {
    /// The claims of a token for `identity` that ends with the second in which `until` lies.
    #[must_use]
    pub fn new(identity: &Identity, now: Timestamp, until: Timestamp) -> Self {
        Self {
            iss: ISSUER.to_owned(),
            sub: identity.user,
            tenant: identity.tenant,
            admin: identity.admin,
            scopes: identity.scopes.clone(),
            sid: identity.session,
            tid: identity.token,
            key: identity.key.clone(),
            mid: identity.machine,
            iat: now.micros().div_euclid(1_000_000),
            exp: until.micros().div_euclid(1_000_000),
        }
    }

    /// When it ends.
    #[must_use]
    pub fn ends(&self) -> Timestamp {
        Timestamp::from_micros(self.exp.saturating_mul(1_000_000))
    }

    fn identity(self) -> Identity {
        let Self {
            sub,
            tenant,
            admin,
            scopes,
            sid,
            tid,
            key,
            mid,
            ..
        } = self;
        Identity {
            user: sub,
            tenant,
            admin,
            scopes,
            session: sid,
            token: tid,
            key,
            machine: mid,
        }
    }
}

/// Checks access tokens with the keys that `auth` hands out.
///
/// Keys are kept and asked for again when a token names an unknown one, at most once a second. Tokens
/// that were found good are kept until they end, so a signature is checked once per token.
pub struct JwtVerifier {
    bus: Option<Bus>,
    clock: Clock,
    rules: Validation,
    keys: RwLock<HashMap<String, DecodingKey>>,
    asked: tokio::sync::Mutex<Option<Instant>>,
    good: Mutex<HashMap<[u8; 32], Good>>,
    revoked: Mutex<HashMap<uuid::Uuid, Timestamp>>,
}

struct Good {
    identity: Identity,
    ends: Timestamp,
}

impl std::fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwtVerifier").finish_non_exhaustive()
    }
}

impl JwtVerifier {
    /// A verifier that asks `auth` for keys over `bus`.
    #[must_use]
    pub fn new(bus: Bus, clock: Clock) -> Self {
        Self::build(Some(bus), clock, &[])
    }

    /// A verifier with exactly these keys, as `auth` itself has them.
    #[must_use]
    pub fn with_keys(keys: &[VerifyingKey], clock: Clock) -> Self {
        Self::build(None, clock, keys)
    }

    fn build(bus: Option<Bus>, clock: Clock, keys: &[VerifyingKey]) -> Self {
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.set_issuer(&[ISSUER]);
        rules.set_required_spec_claims(&["exp", "iss", "sub"]);
        // Checked below against our own clock, which tests move.
        rules.validate_exp = false;
        Self {
            bus,
            clock,
            rules,
            keys: RwLock::new(decoding_keys(keys)),
            asked: tokio::sync::Mutex::default(),
            good: Mutex::default(),
            revoked: Mutex::default(),
        }
    }

    /// Refuses access tokens of this session from now on.
    pub fn revoke_session(&self, session: SessionId) {
        self.revoke_uuid(session.uuid(), self.clock.now());
    }

    /// Refuses access tokens of this personal access token from now on.
    pub fn revoke_token(&self, token: TokenId) {
        self.revoke_uuid(token.uuid(), self.clock.now());
    }

    /// Refuses access tokens of this API key from now on.
    pub fn revoke_key(&self, key: KeyId) {
        self.revoke_uuid(key.uuid(), self.clock.now());
    }

    /// Refuses access tokens of the credential that an event at `at` says has ended.
    pub fn revoke(&self, event: &CredentialRevoked, at: Timestamp) {
        let ended = [
            event.session.map(SessionId::uuid),
            event.token.map(TokenId::uuid),
            event.key.map(KeyId::uuid),
            event.machine.map(MachineId::uuid),
        ];
        for uuid in ended.into_iter().flatten() {
            self.revoke_uuid(uuid, at);
        }
    }

    fn revoke_uuid(&self, uuid: uuid::Uuid, at: Timestamp) {
        let now = self.clock.now();
        // Afterwards no token made from it is good anyway. Twice the lifetime, for clocks that differ.
        let forget = at.after(LIFETIME * 2);
        let mut revoked = lock(&self.revoked);
        revoked.retain(|_, until| *until > now);
        if forget > now {
            revoked.insert(uuid, forget);
        }
    }

    /// Follows the revocations of all credentials, those of the last minutes first, until the bus ends.
    /// The service's credential has to allow listening to `nimbus.v1.event.credential.revoked.>`.
    ///
    /// # Errors
    /// When the events cannot be followed any more; start again then.
    pub async fn follow_revocations(&self) -> Result<(), BusError> {
        let Some(bus) = &self.bus else { return Ok(()) };
        self.follow_revocations_on(bus).await
    }

    /// As [`Self::follow_revocations`], for a verifier that asks nobody for keys.
    ///
    /// # Errors
    /// As there.
    pub async fn follow_revocations_on(&self, bus: &Bus) -> Result<(), BusError> {
        let subject = format!(
            "nimbus.v1.event.{}.{}.>",
            CredentialRevoked::DOMAIN,
            CredentialRevoked::KIND
        );
        let mut events = Box::pin(bus.events(EventFilter {
            subjects: vec![subject],
            start: EventStart::All,
        }));
        while let Some(delivered) = events.next().await {
            let event = delivered?.event;
            match serde_json::from_value::<CredentialRevoked>(event.data) {
                Ok(revoked) => self.revoke(&revoked, event.time),
                Err(error) => {
                    tracing::error!(event.id = %event.id, cause = %error, "a revocation could not be read")
                }
            }
        }
        Ok(())
    }

    async fn check(&self, token: &str) -> Result<Identity, Fault> {
        if token.len() > LONGEST {
            return Err(invalid());
        }
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let known = lock(&self.good)
            .get(&digest)
            .map(|good| (good.identity.clone(), good.ends));
        let (identity, ends) = match known {
            Some(known) => known,
            None => {
                let found = self.check_signature(token).await?;
                self.keep(digest, &found);
                found
            }
        };
        if ends <= self.clock.now() {
            return Err(Fault::new(Code::AuthUnauthorized, "the access token has expired"));
        }
        let revoked = lock(&self.revoked);
        let gone = [
            identity.session.map(SessionId::uuid),
            identity.token.map(TokenId::uuid),
            identity.key.as_ref().map(|key| key.id.uuid()),
            identity.machine.map(MachineId::uuid),
        ];
        if gone.iter().flatten().any(|uuid| revoked.contains_key(uuid)) {
            return Err(Fault::new(Code::AuthUnauthorized, "the credential was revoked"));
        }
        Ok(identity)
    }

    async fn check_signature(&self, token: &str) -> Result<(Identity, Timestamp), Fault> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid())?;
        let key_id = header.kid.ok_or_else(invalid)?;
        let key = self.key(&key_id).await?.ok_or_else(invalid)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &self.rules)
            .map_err(|_| invalid())?
            .claims;
        let ends = claims.ends();
        Ok((claims.identity(), ends))
    }

    fn keep(&self, digest: [u8; 32], (identity, ends): &(Identity, Timestamp)) {
        let mut good = lock(&self.good);
        if good.len() >= KEPT {
            let now = self.clock.now();
            good.retain(|_, kept| kept.ends > now);
            if good.len() >= KEPT {
                good.clear();
            }
        }
        good.insert(
            digest,
            Good {
                identity: identity.clone(),
                ends: *ends,
            },
        );
    }

    fn known_key(&self, id: &str) -> Option<DecodingKey> {
        self.keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    async fn key(&self, id: &str) -> Result<Option<DecodingKey>, Fault> {
        if let Some(key) = self.known_key(id) {
            return Ok(Some(key));
        }
        let Some(bus) = &self.bus else { return Ok(None) };
        // One question at a time; whoever waited finds the key or learns that there is none.
        let mut asked = self.asked.lock().await;
        if let Some(key) = self.known_key(id) {
            return Ok(Some(key));
        }
        if asked.is_some_and(|at| at.elapsed() < ASK_AGAIN) {
            return Ok(None);
        }
        let answer = bus.call::<VerifyingKeys>(&()).await?;
        *asked = Some(Instant::now());
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = decoding_keys(&answer);
        Ok(self.known_key(id))
    }
}

impl Verify for JwtVerifier {
    fn verify<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, Fault>> {
        Box::pin(self.check(token))
    }
}

fn decoding_keys(keys: &[VerifyingKey]) -> HashMap<String, DecodingKey> {
    // What jsonwebtoken calls DER is the bare 32 bytes for this kind of key.
    keys.iter()
        .map(|key| (key.id.clone(), DecodingKey::from_ed_der(&key.key)))
        .collect()
}

fn invalid() -> Fault {
    Fault::new(Code::AuthUnauthorized, "the access token is not valid")
}

/// What is under these locks is changed by single calls, so a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};

    use super::*;
    use crate::sample;

    // RFC 8032, section 7.1, test 1, as PKCS#8 (RFC 8410).
    const PRIVATE: &str =
        "302e020100300506032b6570042204209d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    fn identity() -> Identity {
        Identity {
            user: sample::user(),
            tenant: sample::tenant(),
            admin: true,
            scopes: vec![Scope::MachinesRead],
            session: Some(sample::session()),
            token: None,
            key: None,
            machine: None,
        }
    }

    fn sign(claims: &Claims, key_id: &str, algorithm: Algorithm) -> String {
        let header = Header {
            kid: Some(key_id.to_owned()),
            ..Header::new(algorithm)
        };
        let key = match algorithm {
            Algorithm::EdDSA => EncodingKey::from_ed_der(&hex::decode(PRIVATE).unwrap()),
            _ => EncodingKey::from_secret(&hex::decode(PUBLIC).unwrap()),
        };
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }

    fn verifier() -> (JwtVerifier, nimbus_model::Jump, Clock) {
        let (clock, jump) = Clock::movable();
        let key = VerifyingKey {
            id: "k1".into(),
            key: hex::decode(PUBLIC).unwrap(),
        };
        (JwtVerifier::with_keys(&[key], clock.clone()), jump, clock)
    }

    fn claims(clock: &Clock) -> Claims {
        Claims::new(&identity(), clock.now(), clock.now().after(LIFETIME))
    }

    #[tokio::test]
    async fn a_token_is_good_until_it_ends() {
        let (verifier, jump, clock) = verifier();
        let token = sign(&claims(&clock), "k1", Algorithm::EdDSA);
        for _ in 0..2 {
            assert_eq!(verifier.verify(&token).await, Ok(identity()));
        }
        jump.forward(LIFETIME);
        assert!(
            verifier
                .verify(&token)
                .await
                .unwrap_err()
                .is(Code::AuthUnauthorized)
        );
    }

    #[tokio::test]
    async fn forged_tokens_are_refused() {
        let (verifier, _, clock) = verifier();
        let good = sign(&claims(&clock), "k1", Algorithm::EdDSA);
        let (head, signature) = good.rsplit_once('.').unwrap();
        let other_issuer = Claims {
            iss: "somebody".into(),
            ..claims(&clock)
        };
        for bad in [
            String::new(),
            "a.b.c".to_owned(),
            format!("{head}."),
            format!(
                "{head}.{}",
                signature.replace(|c: char| c.is_ascii_lowercase(), "a")
            ),
            sign(&claims(&clock), "k2", Algorithm::EdDSA),
            // The public key as a shared secret.
            sign(&claims(&clock), "k1", Algorithm::HS256),
            sign(&other_issuer, "k1", Algorithm::EdDSA),
            "x".repeat(LONGEST + 1),
        ] {
            let fault = verifier.verify(&bad).await.unwrap_err();
            assert!(fault.is(Code::AuthUnauthorized), "{bad}: {fault}");
        }
    }

    #[tokio::test]
    async fn a_revoked_session_is_refused_though_its_token_was_good() {
        let (verifier, _, clock) = verifier();
        let token = sign(&claims(&clock), "k1", Algorithm::EdDSA);
        assert!(verifier.verify(&token).await.is_ok());
        verifier.revoke(
            &CredentialRevoked {
                user: sample::user(),
                session: Some(sample::session()),
                token: None,
                key: None,
                machine: None,
            },
            clock.now(),
        );
        assert!(
            verifier
                .verify(&token)
                .await
                .unwrap_err()
                .is(Code::AuthUnauthorized)
        );
        assert_eq!(verifier.revoked.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn old_revocations_are_not_kept() {
        let (verifier, _, clock) = verifier();
        let long_ago = clock.now().before(LIFETIME * 3);
        verifier.revoke(
            &CredentialRevoked {
                user: sample::user(),
                session: Some(sample::session()),
                token: None,
                key: None,
                machine: None,
            },
            long_ago,
        );
        assert!(verifier.revoked.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn kept_tokens_are_bounded() {
        let (verifier, _, clock) = verifier();
        let ends = clock.now().after(LIFETIME);
        for number in 0..=KEPT {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_le_bytes());
            verifier.keep(digest, &(identity(), ends));
        }
        assert!(verifier.good.lock().unwrap().len() <= KEPT);
    }
}
