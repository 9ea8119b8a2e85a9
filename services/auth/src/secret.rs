//! Bearer secrets: 32 random bytes. Only their SHA-256 is stored; a fast hash is enough for what
//! nobody can guess.

use nimbus_proto::auth::Secret;
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};

use crate::error::AuthError;

/// What personal access tokens begin with, so that scanners find leaked ones.
pub(crate) const TOKEN_PREFIX: &str = "nbp_";
/// What API keys begin with.
pub(crate) const KEY_PREFIX: &str = "nimbus_ak_";
/// What tokens with which hosts join begin with.
const JOIN_PREFIX: &str = "nimbus_jt_";
/// What the tokens inside machines begin with.
pub(crate) const MACHINE_PREFIX: &str = "nbv_";
/// Longest text that is taken for a secret.
const LONGEST: usize = 128;

fn random() -> Result<String, AuthError> {
    let mut bytes = [0_u8; 32];
    SysRng.try_fill_bytes(&mut bytes).map_err(|_| AuthError::Hash {
        source: argon2::password_hash::Error::Crypto,
    })?;
    Ok(hex::encode(bytes))
}

/// A new secret of a session.
pub(crate) fn session() -> Result<Secret, AuthError> {
    Ok(Secret::new(random()?))
}

/// A new secret of a personal access token, and the part of it that may be shown.
pub(crate) fn token() -> Result<(Secret, String), AuthError> {
    prefixed(TOKEN_PREFIX)
}

/// A new API key, and the part of it that may be shown.
pub(crate) fn key() -> Result<(Secret, String), AuthError> {
    prefixed(KEY_PREFIX)
}

/// A new token of a machine.
pub(crate) fn machine() -> Result<Secret, AuthError> {
    Ok(prefixed(MACHINE_PREFIX)?.0)
}

/// A new token with which a host can join.
pub(crate) fn join() -> Result<Secret, AuthError> {
    Ok(prefixed(JOIN_PREFIX)?.0)
}

/// Whether a secret looks like the token of a machine.
pub(crate) fn is_machine(secret: &Secret) -> bool {
    secret.reveal().starts_with(MACHINE_PREFIX)
}

fn prefixed(prefix: &str) -> Result<(Secret, String), AuthError> {
    let text = format!("{prefix}{}", random()?);
    let shown = text.chars().take(prefix.len() + 4).collect();
    Ok((Secret::new(text), shown))
}

/// What is stored of a secret. `None` for a text that cannot be one.
pub(crate) fn hash(secret: &Secret) -> Option<String> {
    let text = secret.reveal();
    (!text.is_empty() && text.len() <= LONGEST).then(|| hex::encode(Sha256::digest(text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_and_different() {
        let (one, other) = (session().unwrap(), session().unwrap());
        assert_eq!(one.reveal().len(), 64);
        assert_ne!(one.reveal(), other.reveal());
        let (secret, shown) = token().unwrap();
        assert!(secret.reveal().starts_with(&shown) && shown.len() == 8 && shown.starts_with("nbp_"));
        assert_eq!(secret.reveal().len(), 68);
    }

    #[test]
    fn hashes_are_of_the_whole_text() {
        assert_eq!(
            hash(&Secret::new("abc")).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(hash(&Secret::new("")), None);
        assert_eq!(hash(&Secret::new("x".repeat(129))), None);
    }
}
