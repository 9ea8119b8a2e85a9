//! The service's own key: what it signs nobody else can make.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nimbus_store::{Sealer, Store, StoreError, both, execute, sqlx};
use zeroize::Zeroizing;

use crate::error::WorkError;

const NAME: &str = "signing";

/// Signs, and recognises what it has signed, in constant time.
pub(crate) struct Signer {
    key: hmac::Key,
}

impl Signer {
    /// Takes the key from the store; the first replica makes it.
    pub(crate) async fn open(store: &Store, sealer: &Sealer) -> Result<Self, WorkError> {
        let fresh = Zeroizing::new(rand::random::<[u8; 32]>());
        let associated = format!("workloads_key/{NAME}");
        let sealed = sealer.seal(fresh.as_slice(), &associated)?;
        let kept: String = store
            .write(move |tx| {
                Box::pin(async move {
                    execute!(
                        tx,
                        sqlx::query("INSERT INTO workloads_key (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
                            .bind(NAME)
                            .bind(sealed)
                    )?;
                    let (value,): (String,) =
                        both!(tx, |c| sqlx::query_as("SELECT value FROM workloads_key WHERE name = $1")
                            .bind(NAME)
                            .fetch_one(c)
                            .await)?;
                    Ok::<_, StoreError>(value)
                })
            })
            .await?;
        let key = sealer.open(&kept, &associated)?;
        Ok(Self::of(&key))
    }

    fn of(key: &[u8]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
        }
    }

    /// `content` and its signature as one word.
    pub(crate) fn sign(&self, content: &[u8]) -> String {
        let tag = hmac::sign(&self.key, content);
        format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(content),
            URL_SAFE_NO_PAD.encode(tag.as_ref())
        )
    }

    /// The content of a word that this key has signed.
    pub(crate) fn open_signed(&self, word: &str) -> Option<Vec<u8>> {
        let (content, tag) = word.split_once('.')?;
        let content = URL_SAFE_NO_PAD.decode(content).ok()?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        hmac::verify(&self.key, &content, &tag).ok()?;
        Some(content)
    }

    /// A word for `content` that tells nothing of it to those without the key.
    pub(crate) fn digest(&self, content: &[u8]) -> String {
        hex::encode(hmac::sign(&self.key, content).as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_opens() {
        let (ours, theirs) = (Signer::of(&[1; 32]), Signer::of(&[2; 32]));
        let word = ours.sign(b"port 80");
        assert_eq!(ours.open_signed(&word).as_deref(), Some(b"port 80".as_slice()));
        assert_eq!(theirs.open_signed(&word), None);
        let (content, tag) = word.split_once('.').unwrap();
        let forged = format!("{}.{tag}", URL_SAFE_NO_PAD.encode(b"port 22"));
        for bad in [forged.as_str(), content, "", ".", &word[..word.len() - 2]] {
            assert_eq!(ours.open_signed(bad), None, "{bad}");
        }
    }
}
