//! Secrets at rest: AES-256-GCM (NIST SP 800-38D) under a key that is not in the database.
//!
//! A sealed text names its key, so that a wrong key is recognised before decryption:
//! `v1.<key id>.<base64url of nonce, ciphertext, tag>`. The *associated* text is not stored; it is
//! the row's identity (`auth_user/usr_…/totp`), so a value that was copied to another row does not open.
//! Nonces are random: at 96 bits, 2^32 seals under one key keep the chance of a repeat below 2^-32.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use camino::{Utf8Path, Utf8PathBuf};
use nimbus_errors::{Code, Coded};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const NONCE: usize = 12;

/// Seals and opens with the master key. Cheap to clone.
#[derive(Clone)]
pub struct Sealer {
    cipher: Aes256Gcm,
    key_id: String,
}

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key's file.
    #[error("could not {action} the key file {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: Utf8PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Not a key.
    #[error("{place} does not hold a key: expected 32 bytes in base64")]
    BadKey {
        /// Where it stands.
        place: String,
    },
    /// The text was sealed under another key.
    #[error("this value was sealed under the key {sealed}, but the key in use is {ours}")]
    OtherKey {
        /// The id of the key it was sealed under.
        sealed: String,
        /// The id of the key in use.
        ours: String,
    },
    /// Not a sealed text.
    #[error("this is not a sealed value")]
    Malformed,
    /// Changed, or belongs to another row.
    #[error("this value was changed, or was sealed for something else")]
    Refused,
    /// The cipher takes at most 64 GiB.
    #[error("this value is too long to be sealed")]
    TooLong,
}

impl Coded for SealError {
    fn code(&self) -> Code {
        match self {
            Self::File { .. } => Code::ServiceStorageIo,
            Self::BadKey { .. } | Self::OtherKey { .. } => Code::ServiceNotConfigured,
            Self::Malformed | Self::Refused => Code::ServiceStorageCorruption,
            Self::TooLong => Code::OpPayloadTooLarge,
        }
    }
}

impl Sealer {
    /// Takes the key from `given` (base64; the environment's), else from the file, which is made
    /// with a fresh key and mode 0600 if there is none. Losing the key loses what was sealed.
    ///
    /// # Errors
    /// [`SealError::BadKey`] or [`SealError::File`].
    pub fn load(key_file: &Utf8Path, given: Option<&SecretString>) -> Result<Self, SealError> {
        if let Some(given) = given {
            return Self::from_base64(given.expose_secret(), "the encryption key given");
        }
        match read(key_file)? {
            Some(text) => Self::from_base64(&text, key_file.as_str()),
            None => {
                create(key_file)?;
                let text = read(key_file)?.unwrap_or_default();
                Self::from_base64(&text, key_file.as_str())
            }
        }
    }

    fn from_base64(text: &str, place: &str) -> Result<Self, SealError> {
        let bad = || SealError::BadKey {
            place: place.to_owned(),
        };
        let key = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| bad())?);
        let cipher = Aes256Gcm::new_from_slice(&key).map_err(|_| bad())?;
        // Tells keys apart, tells nothing of the key: a hash with a purpose of its own.
        let digest = Sha256::new()
            .chain_update(b"nimbus key id\0")
            .chain_update(&key)
            .finalize();
        let key_id = hex::encode(digest).chars().take(8).collect();
        Ok(Self { cipher, key_id })
    }

    /// The name of the key in sealed texts.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Seals `plaintext` for the row that `associated` names.
    ///
    /// # Errors
    /// [`SealError::TooLong`] beyond 64 GiB.
    pub fn seal(&self, plaintext: &[u8], associated: &str) -> Result<String, SealError> {
        let nonce: [u8; NONCE] = rand::random();
        let payload = Payload {
            msg: plaintext,
            aad: associated.as_bytes(),
        };
        let sealed = self
            .cipher
            .encrypt(&Nonce::from(nonce), payload)
            .map_err(|_| SealError::TooLong)?;
        Ok(format!(
            "v1.{}.{}",
            self.key_id,
            URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat())
        ))
    }

    /// Opens what [`Sealer::seal`] made for the same `associated`.
    ///
    /// # Errors
    /// [`SealError::OtherKey`], [`SealError::Malformed`] or [`SealError::Refused`].
    pub fn open(&self, sealed: &str, associated: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (key_id, body) = sealed
            .strip_prefix("v1.")
            .and_then(|rest| rest.split_once('.'))
            .ok_or(SealError::Malformed)?;
        if key_id != self.key_id {
            return Err(SealError::OtherKey {
                sealed: key_id.chars().take(8).collect(),
                ours: self.key_id.clone(),
            });
        }
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| SealError::Malformed)?;
        let (nonce, ciphertext) = bytes.split_first_chunk::<NONCE>().ok_or(SealError::Malformed)?;
        let payload = Payload {
            msg: ciphertext,
            aad: associated.as_bytes(),
        };
        self.cipher
            .decrypt(&Nonce::from(*nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| SealError::Refused)
    }
}

/// Prints the key's id only.
impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

fn failed(action: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> SealError {
    let path = path.to_owned();
    move |source| SealError::File { action, path, source }
}

fn read(path: &Utf8Path) -> Result<Option<Zeroizing<String>>, SealError> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let mode = fs::metadata(path)
                .map_err(failed("read", path))?
                .permissions()
                .mode();
            if mode & 0o077 != 0 {
                tracing::warn!(%path, mode = format!("{mode:o}"), "others on this machine can read the key file {path}");
            }
            Ok(Some(Zeroizing::new(text)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Writes a fresh key. Of several processes at once exactly one wins: a link, unlike a rename, does
/// not replace; and a file under its name is whole from the first moment.
fn create(path: &Utf8Path) -> Result<(), SealError> {
    let key = Zeroizing::new(rand::random::<[u8; 32]>());
    let part = Utf8PathBuf::from(format!(
        "{path}.part-{}-{:08x}",
        std::process::id(),
        rand::random::<u32>()
    ));
    let result = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)?;
        let text = Zeroizing::new(STANDARD.encode(*key));
        writeln!(file, "{}", *text)?;
        file.sync_all()?;
        match fs::hard_link(&part, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    })();
    let _ = fs::remove_file(&part);
    result.map_err(failed("create", path))?;
    // The key must not be lost when what it sealed is not.
    let directory = path
        .parent()
        .filter(|p| !p.as_str().is_empty())
        .unwrap_or(Utf8Path::new("."));
    fs::File::open(directory)
        .and_then(|d| d.sync_all())
        .map_err(failed("flush", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SecretString {
        STANDARD.encode([byte; 32]).into()
    }

    fn sealer(byte: u8) -> Sealer {
        Sealer::load("/does/not/exist".into(), Some(&key(byte))).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_for_the_same_row_only() {
        let sealer = sealer(1);
        let text = sealer.seal(b"geheim", "row/1").unwrap();
        assert_eq!(sealer.open(&text, "row/1").unwrap().as_slice(), b"geheim");
        assert!(matches!(sealer.open(&text, "row/2"), Err(SealError::Refused)));
        assert_ne!(
            text,
            sealer.seal(b"geheim", "row/1").unwrap(),
            "two seals show that two values are equal"
        );
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let sealer = sealer(1);
        let text = sealer.seal(b"geheim", "").unwrap();
        for index in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last character carries bits that base64 does not use; those make it malformed.
            assert!(sealer.open(&changed, "").is_err(), "{index}");
        }
    }

    #[test]
    fn another_key_is_recognised_and_named() {
        let text = sealer(1).seal(b"x", "").unwrap();
        match sealer(2).open(&text, "") {
            Err(SealError::OtherKey { sealed, ours }) => {
                assert_eq!((sealed, ours), (sealer(1).key_id, sealer(2).key_id))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_key_of_the_wrong_length_is_refused_without_being_shown() {
        for bad in ["", "geheim", "Z2VoZWlt"] {
            let error = Sealer::load("/x".into(), Some(&bad.into())).unwrap_err();
            assert!(matches!(error, SealError::BadKey { .. }));
            assert!(bad.is_empty() || !error.to_string().contains(bad));
        }
        assert!(!format!("{:?}", sealer(7)).contains(&*STANDARD.encode([7; 32])));
    }
}
