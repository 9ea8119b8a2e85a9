//! The key that access tokens are signed with: made once, sealed in the database, shared by replicas.

use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use nimbus_bus::Identity;
use nimbus_model::{Clock, Timestamp};
use nimbus_proto::auth::{Exchanged, Secret, VerifyingKey};
use nimbus_proto::verify::{Claims, LIFETIME};
use nimbus_store::{Sealer, Store};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::AuthError;
use crate::store;

/// Signs access tokens. Clones share the key.
#[derive(Clone)]
pub(crate) struct Signer {
    inner: Arc<Inner>,
}

struct Inner {
    header: Header,
    key: EncodingKey,
    verifying: Vec<VerifyingKey>,
    clock: Clock,
}

/// A key as it lies in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredKey {
    pub(crate) id: String,
    pub(crate) public_key: String,
    pub(crate) sealed: String,
}

impl Signer {
    /// The installation's key; the first replica to ask makes it.
    pub(crate) async fn open(store: &Store, sealer: &Sealer, clock: &Clock) -> Result<Self, AuthError> {
        let key = match store::signing_key(store).await? {
            Some(key) => key,
            None => {
                let key = generate(sealer)?;
                let mut tx = store.begin().await?;
                if store::insert_signing_key(&mut tx, &key, clock.now()).await? {
                    tracing::info!(key.id = %key.id, "made the key {} for access tokens", key.id);
                }
                tx.commit().await?;
                // Another replica may have been faster: what lies there counts.
                store::signing_key(store)
                    .await?
                    .ok_or_else(|| AuthError::DamagedKey { id: key.id })?
            }
        };
        let damaged = || AuthError::DamagedKey { id: key.id.clone() };
        let private = sealer
            .open(&key.sealed, &associated(&key.id))
            .map_err(|source| AuthError::Seal { source })?;
        let pair = Ed25519KeyPair::from_pkcs8(&private).map_err(|_| damaged())?;
        let public = hex::decode(&key.public_key).map_err(|_| damaged())?;
        if pair.public_key().as_ref() != public.as_slice() {
            return Err(damaged());
        }
        Ok(Self {
            inner: Arc::new(Inner {
                header: Header {
                    kid: Some(key.id.clone()),
                    ..Header::new(Algorithm::EdDSA)
                },
                key: EncodingKey::from_ed_der(&private),
                verifying: vec![VerifyingKey {
                    id: key.id,
                    key: public,
                }],
                clock: clock.clone(),
            }),
        })
    }

    /// The keys that verify what was signed, the newest first.
    pub(crate) fn verifying_keys(&self) -> Vec<VerifyingKey> {
        self.inner.verifying.clone()
    }

    /// An access token for `identity`, which ends no later than its credential.
    pub(crate) fn sign(&self, identity: Identity, ends: Option<Timestamp>) -> Result<Exchanged, AuthError> {
        let now = self.inner.clock.now();
        let until = now.after(LIFETIME);
        let claims = Claims::new(&identity, now, ends.map_or(until, |ends| ends.min(until)));
        let text = jsonwebtoken::encode(&self.inner.header, &claims, &self.inner.key)
            .map_err(|source| AuthError::Sign { source })?;
        Ok(Exchanged {
            access_token: Secret::new(text),
            expires_at: claims.ends(),
            identity,
        })
    }
}

fn associated(id: &str) -> String {
    format!("auth_signing_key/{id}")
}

fn generate(sealer: &Sealer) -> Result<StoredKey, AuthError> {
    let failed = || AuthError::Hash {
        source: argon2::password_hash::Error::Crypto,
    };
    let pair = Ed25519KeyPair::generate().map_err(|_| failed())?;
    let private = pair.to_pkcs8().map_err(|_| failed())?;
    let private = Zeroizing::new(private.as_ref().to_vec());
    let public = pair.public_key().as_ref();
    let id: String = hex::encode(Sha256::digest(public)).chars().take(16).collect();
    let sealed = sealer
        .seal(&private, &associated(&id))
        .map_err(|source| AuthError::Seal { source })?;
    Ok(StoredKey {
        id,
        public_key: hex::encode(public),
        sealed,
    })
}
