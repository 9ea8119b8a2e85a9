//! Bearer secrets: random bytes, of which only the SHA-256 is stored. A fast hash is enough for what
//! nobody can guess.

use nimbus_proto::auth::Secret;
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};

use crate::error::GpuError;

/// Longest text that is taken for a secret.
const LONGEST: usize = 128;

/// A new secret of `N` random bytes, in hexadecimal.
pub(crate) fn fresh<const N: usize>() -> Result<Secret, GpuError> {
    let mut bytes = [0_u8; N];
    SysRng.try_fill_bytes(&mut bytes).map_err(|_| GpuError::Random)?;
    Ok(Secret::new(hex::encode(bytes)))
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
    fn secrets_are_long_different_and_hashed_whole() {
        let (one, other) = (fresh::<24>().unwrap(), fresh::<24>().unwrap());
        assert_eq!(one.reveal().len(), 48);
        assert_ne!(one.reveal(), other.reveal());
        assert_ne!(hash(&one), hash(&other));
        assert_eq!(hash(&Secret::new("")), None);
        assert_eq!(hash(&Secret::new("x".repeat(129))), None);
    }
}
