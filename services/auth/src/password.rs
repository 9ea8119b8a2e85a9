//! Password hashes: Argon2id with 19 MiB, two passes and one lane, as the OWASP Password Storage
//! Cheat Sheet recommends.
//!
//! Hashing takes tens of milliseconds of a core and its memory, so it runs on blocking threads and
//! only as many at a time as there are cores.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

use crate::check::PASSWORD_MOST;
use crate::error::AuthError;

const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// What unknown accounts are checked against, so that they take as long as known ones. No password
/// has this hash but by chance.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bmltYnVzLW5vYm9keS1zYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Most passwords that wait for a core; the rest is told to come again.
const WAITING: usize = 64;

/// Makes and checks hashes. Clones share the limit.
#[derive(Clone, Debug)]
pub(crate) struct Passwords {
    cores: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Passwords {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8));
        Self {
            cores: Arc::new(Semaphore::new(cores)),
            waiting: Arc::new(Semaphore::new(WAITING)),
        }
    }

    /// The hash of a new password, as a PHC string.
    pub(crate) async fn hash(&self, password: &str) -> Result<String, AuthError> {
        let password = Zeroizing::new(password.to_owned());
        self.work(move || {
            let hash: PasswordHash = hasher()?.hash_password(password.as_bytes())?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether `password` has this hash; always false, after the same time, when there is none.
    pub(crate) async fn verify(&self, password: &str, hash: Option<String>) -> Result<bool, AuthError> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| NOBODY.to_owned());
        // Nobody has a longer one, and the time must not tell whose address was right.
        let password = Zeroizing::new(password.chars().take(PASSWORD_MOST + 1).collect::<String>());
        self.work(move || {
            let hash = PasswordHash::new(&hash).map_err(argon2::password_hash::Error::from)?;
            match hasher()?.verify_password(password.as_bytes(), &hash) {
                Ok(()) => Ok(known),
                Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, argon2::password_hash::Error> + Send + 'static,
    ) -> Result<T, AuthError> {
        let _waiting = self.waiting.try_acquire().map_err(|_| AuthError::Overloaded)?;
        let core: OwnedSemaphorePermit = Arc::clone(&self.cores)
            .acquire_owned()
            .await
            .map_err(|_| AuthError::Overloaded)?;
        let done = tokio::task::spawn_blocking(move || {
            // Held by the thread: a caller that goes away does not free a core that is still at work.
            let _core = core;
            work()
        });
        match done.await {
            Ok(result) => result.map_err(|source| AuthError::Hash { source }),
            Err(_) => Err(AuthError::Hash {
                source: argon2::password_hash::Error::Internal,
            }),
        }
    }
}

fn hasher() -> Result<Argon2<'static>, argon2::password_hash::Error> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_knows_its_password_and_nothing_else() {
        let passwords = Passwords::new();
        let hash = passwords.hash("correct horse").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(
            passwords
                .verify("correct horse", Some(hash.clone()))
                .await
                .unwrap()
        );
        assert!(
            !passwords
                .verify("correct horsf", Some(hash.clone()))
                .await
                .unwrap()
        );
        assert!(!passwords.verify("", Some(hash)).await.unwrap());
        assert!(!passwords.verify("correct horse", None).await.unwrap());
        assert!(
            passwords
                .verify("correct horse", Some("nonsense".into()))
                .await
                .is_err()
        );
    }

    #[test]
    fn nobodys_hash_costs_what_others_cost() {
        let hash = PasswordHash::new(NOBODY).unwrap();
        let params = Params::try_from(&hash).unwrap();
        assert_eq!(
            (params.m_cost(), params.t_cost(), params.p_cost()),
            (MEMORY_KIB, PASSES, LANES)
        );
        assert_eq!(hash.hash.unwrap().as_bytes().len(), 32);
    }
}
