//! The installation's admin token: one secret in a file that only the server's own account reads.
//!
//! Whoever can read the file holds every tenant; there is no account behind it. It is there so that an
//! installation can be used, and put right, before and without anybody having registered.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use camino::{Utf8Path, Utf8PathBuf};
use nimbus_bus::Identity;
use nimbus_model::{Clock, Timestamp};
use nimbus_proto::auth::{Exchanged, RotatedAdmin, Secret};
use nimbus_proto::event::CredentialRevoked;
use rand::TryRng;
use rand::rngs::SysRng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::auth::Auth;
use crate::error::AuthError;

/// What the admin token begins with.
pub const PREFIX: &str = "nimbus_at_";
/// How long after its rotation a token is fresh enough to open a server to other computers.
pub const FRESH: Duration = Duration::from_secs(30 * 24 * 3600);
const VERSION: u32 = 1;
const SCOPE: &str = "local-admin";

/// What is in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminToken {
    /// Of the format.
    pub version: u32,
    /// The secret.
    pub token: Secret,
    /// How many tokens there have been.
    pub generation: u64,
    /// When this one was made.
    #[serde(rename = "issuedAt")]
    pub issued_at: Timestamp,
    /// What it is good for.
    pub scope: String,
    /// When somebody asked for a new one; the first was not asked for.
    #[serde(rename = "rotatedAt")]
    pub rotated_at: Option<Timestamp>,
}

impl AdminToken {
    /// Whether somebody rotated it within the last thirty days.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        self.rotated_at.is_some_and(|at| now.since(at) <= FRESH)
    }
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// It could not be read or written.
    #[error("could not use {path}")]
    Io {
        /// Which.
        path: Utf8PathBuf,
        /// How.
        #[source]
        source: std::io::Error,
    },
    /// It is not what a server wrote.
    #[error("{path} is damaged")]
    Damaged {
        /// Which.
        path: Utf8PathBuf,
        /// How.
        #[source]
        source: serde_json::Error,
    },
    /// It was written by a later version.
    #[error("{path} has version {version}, and this program knows {VERSION}")]
    Version {
        /// Which.
        path: Utf8PathBuf,
        /// Its version.
        version: u32,
    },
    /// The system has no random bytes.
    #[error("could not get random bytes")]
    Random,
}

/// Where the file is unless somebody says otherwise; `None` for an account without a home.
#[must_use]
pub fn default_path(environment: impl Fn(&str) -> Option<String>) -> Option<Utf8PathBuf> {
    let named = |name: &str| {
        environment(name)
            .filter(|path| path.starts_with('/'))
            .map(Utf8PathBuf::from)
    };
    let data = if cfg!(target_os = "macos") {
        named("HOME")?.join("Library/Application Support")
    } else {
        named("XDG_DATA_HOME").or_else(|| Some(named("HOME")?.join(".local/share")))?
    };
    Some(data.join("nimbus/auth/token"))
}

/// Reads the file; `None` if there is none.
///
/// # Errors
/// A file that cannot be read, or was not written by a server.
pub fn read(path: &Utf8Path) -> Result<Option<AdminToken>, AdminError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io(path, source)),
    };
    let token: AdminToken = serde_json::from_slice(&text).map_err(|source| AdminError::Damaged {
        path: path.to_owned(),
        source,
    })?;
    if token.version != VERSION {
        return Err(AdminError::Version {
            path: path.to_owned(),
            version: token.version,
        });
    }
    Ok(Some(token))
}

/// Reads the file, and makes it first if there is none. Processes that start together agree on one token.
///
/// # Errors
/// As [`read`], and a folder that cannot be written.
pub fn ensure(path: &Utf8Path, now: Timestamp) -> Result<AdminToken, AdminError> {
    let _lock = lock(path)?;
    if let Some(token) = read(path)? {
        return Ok(token);
    }
    let token = fresh(1, now, None)?;
    write(path, &token)?;
    Ok(token)
}

/// Puts a new token in the file, which is made if there is none.
///
/// # Errors
/// As [`ensure`].
pub fn rotate(path: &Utf8Path, now: Timestamp) -> Result<AdminToken, AdminError> {
    let _lock = lock(path)?;
    let generation = read(path)?.map_or(0, |token| token.generation);
    let token = fresh(generation.saturating_add(1), now, Some(now))?;
    write(path, &token)?;
    Ok(token)
}

fn io(path: &Utf8Path, source: std::io::Error) -> AdminError {
    AdminError::Io {
        path: path.to_owned(),
        source,
    }
}

fn fresh(generation: u64, now: Timestamp, rotated_at: Option<Timestamp>) -> Result<AdminToken, AdminError> {
    let mut bytes = [0_u8; 32];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|_| AdminError::Random)?;
    Ok(AdminToken {
        version: VERSION,
        token: Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))),
        generation,
        issued_at: now,
        scope: SCOPE.to_owned(),
        rotated_at,
    })
}

/// Held while the file is looked at and replaced; goes with the process that holds it.
fn lock(path: &Utf8Path) -> Result<std::fs::File, AdminError> {
    let folder = folder(path);
    make(folder)?;
    let beside = Utf8PathBuf::from(format!("{path}.lock"));
    // A new one is given away below, so it must not be a link to something else.
    let made = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside);
    let file = match made {
        Ok(file) => give(&file, folder).map(|()| file),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            std::fs::OpenOptions::new().write(true).open(&beside)
        }
        Err(error) => Err(error),
    };
    let file = file.map_err(|source| io(&beside, source))?;
    file.lock().map_err(|source| io(&beside, source))?;
    Ok(file)
}

/// The folder that a file is in.
fn folder(path: &Utf8Path) -> &Utf8Path {
    match path.parent() {
        Some(folder) if !folder.as_str().is_empty() => folder,
        _ => Utf8Path::new("."),
    }
}

/// Makes the folders that are missing. Each belongs to whom the one above belongs to.
fn make(folder: &Utf8Path) -> Result<(), AdminError> {
    let missing: Vec<&Utf8Path> = folder
        .ancestors()
        .take_while(|folder| !folder.as_str().is_empty() && !folder.exists())
        .collect();
    for missing in missing.into_iter().rev() {
        let made = match std::fs::DirBuilder::new().mode(0o700).create(missing) {
            // Another process that starts was faster.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
            made => made,
        };
        made.and_then(|()| give(&std::fs::File::open(missing)?, self::folder(missing)))
            .map_err(|source| io(missing, source))?;
    }
    Ok(())
}

/// Makes the owner of the folder that of a file which root has just made in it: root may rotate the token of
/// a server that runs under an account of its own, and the server has to read it afterwards.
fn give(file: &std::fs::File, folder: &Utf8Path) -> std::io::Result<()> {
    let (owner, made) = (std::fs::metadata(folder)?, file.metadata()?);
    if made.uid() == 0 && owner.uid() != 0 {
        std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

/// Replaces the file whole; its mode is right from the first byte on.
fn write(path: &Utf8Path, token: &AdminToken) -> Result<(), AdminError> {
    let text = serde_json::to_vec_pretty(token).map_err(|source| AdminError::Damaged {
        path: path.to_owned(),
        source,
    })?;
    let new = Utf8PathBuf::from(format!("{path}.new"));
    let written = (|| {
        // Left by a process that died; the lock is ours.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        give(&file, folder(path))?;
        file.write_all(&text)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    })();
    written.map_err(|source| io(path, source))
}

/// The token of a running server. Read again for every exchange, of which a busy client makes one in
/// minutes: replicas that share the file then agree, and a rotation without the server counts too.
#[derive(Clone)]
pub(crate) struct Holder {
    path: Option<Utf8PathBuf>,
    clock: Option<Clock>,
}

impl Holder {
    /// No admin token: nobody is the operator.
    pub(crate) const fn none() -> Self {
        Self {
            path: None,
            clock: None,
        }
    }

    /// The token in this file, made now if need be.
    pub(crate) fn open(path: Utf8PathBuf, clock: Clock) -> Result<Self, AdminError> {
        let token = ensure(&path, clock.now())?;
        let mode = std::fs::metadata(&path)
            .map_err(|source| io(&path, source))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            tracing::warn!(
                "others can read the admin token: {path} has mode {:o}",
                mode & 0o777
            );
        }
        tracing::info!("the admin token of generation {} is in {path}", token.generation);
        Ok(Self {
            path: Some(path),
            clock: Some(clock),
        })
    }

    fn is(&self, secret: &Secret) -> bool {
        let Some(path) = &self.path else { return false };
        match read(path) {
            Ok(Some(token)) => same(secret, &token.token),
            Ok(None) => false,
            Err(error) => {
                tracing::error!(cause = %nimbus_errors::chain(&error), "could not check an admin token");
                false
            }
        }
    }
}

/// Whether the secrets are the same; hashed, so that the time this takes tells nothing of either.
fn same(one: &Secret, other: &Secret) -> bool {
    let digest = |secret: &Secret| Sha256::digest(secret.reveal().as_bytes());
    verify_slices_are_equal(&digest(one), &digest(other)).is_ok()
}

impl Auth {
    /// An access token for the holder of the admin token.
    pub(crate) fn exchange_admin(&self, secret: &Secret) -> Result<Exchanged, AuthError> {
        if self.admin.is(secret) {
            self.signer.sign(Identity::operator(), None)
        } else {
            Err(AuthError::BadCredential)
        }
    }

    /// Puts a new admin token in its file and tells everybody that the old one is good no more.
    pub(crate) async fn rotate_admin(&self) -> Result<RotatedAdmin, AuthError> {
        let (Some(path), Some(clock)) = (&self.admin.path, &self.admin.clock) else {
            return Err(AuthError::NoAdminToken);
        };
        let token = rotate(path, clock.now()).map_err(|source| AuthError::Admin { source })?;
        let mut tx = self.store.begin().await?;
        let revoked = CredentialRevoked {
            user: Identity::operator().user,
            session: None,
            token: None,
            key: None,
            machine: None,
        };
        self.tell(&mut tx, &revoked).await?;
        self.commit(tx).await?;
        tracing::info!("rotated the admin token: generation {}", token.generation);
        Ok(RotatedAdmin {
            generation: token.generation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_made_once_and_rotated_on_request() {
        let dir = camino_tempfile::tempdir().unwrap();
        let path = dir.path().join("nimbus/auth/token");
        let (clock, jump) = Clock::movable();
        assert_eq!(read(&path).unwrap(), None);
        let first = ensure(&path, clock.now()).unwrap();
        assert_eq!(ensure(&path, clock.now()).unwrap(), first);
        let secret = first.token.reveal();
        assert!(
            secret.starts_with(PREFIX) && secret.len() == PREFIX.len() + 43,
            "43 characters"
        );
        assert!((first.generation, first.rotated_at) == (1, None) && !first.is_fresh(clock.now()));
        let modes = |path: &Utf8Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((modes(&path), modes(path.parent().unwrap())), (0o600, 0o700));

        let second = rotate(&path, clock.now()).unwrap();
        assert_eq!(second.generation, 2);
        assert_ne!(second.token, first.token);
        assert!(second.is_fresh(clock.now()));
        jump.forward(FRESH + Duration::from_secs(1));
        assert!(!second.is_fresh(clock.now()), "thirty days have passed");
        assert!(!format!("{second:?}").contains(second.token.reveal()));
        let names: Vec<_> = path.parent().unwrap().read_dir_utf8().unwrap().collect();
        assert_eq!(names.len(), 2, "the file and its lock: {names:?}");
    }

    #[test]
    fn what_root_makes_belongs_to_whom_the_folder_belongs_to() {
        let dir = camino_tempfile::tempdir().unwrap();
        let me = std::fs::metadata(dir.path()).unwrap().uid();
        // Only root can give files away; for everybody else all of it is theirs anyway.
        let owner = if me == 0 { 54_321 } else { me };
        std::os::unix::fs::chown(dir.path(), Some(owner), None).unwrap();
        let path = dir.path().join("share/nimbus/token");
        rotate(&path, Timestamp::from_micros(0)).unwrap();
        rotate(&path, Timestamp::from_micros(1)).unwrap();
        let lock = Utf8PathBuf::from(format!("{path}.lock"));
        for made in [path.as_path(), &lock, folder(&path), folder(folder(&path))] {
            assert_eq!(std::fs::metadata(made).unwrap().uid(), owner, "{made}");
        }
    }

    #[test]
    fn a_file_of_somebody_else_is_an_error_that_names_it() {
        let dir = camino_tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for (text, told) in [("nonsense", "damaged"), ("{\"version\":1}", "damaged")] {
            std::fs::write(&path, text).unwrap();
            let error = ensure(&path, Timestamp::from_micros(0)).unwrap_err().to_string();
            assert!(error.contains(told) && error.contains(path.as_str()), "{error}");
        }
        let newer = serde_json::to_string(&AdminToken {
            version: 2,
            ..fresh(1, Timestamp::from_micros(0), None).unwrap()
        });
        std::fs::write(&path, newer.unwrap()).unwrap();
        assert!(matches!(
            rotate(&path, Timestamp::from_micros(0)),
            Err(AdminError::Version { version: 2, .. })
        ));
    }

    #[test]
    fn the_path_follows_the_environment() {
        let path = |pairs: &'static [(&str, &str)]| {
            let found = default_path(|name| {
                pairs
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| (*value).to_owned())
            });
            found.map(Utf8PathBuf::into_string)
        };
        if cfg!(not(target_os = "macos")) {
            assert_eq!(
                path(&[("HOME", "/h")]).unwrap(),
                "/h/.local/share/nimbus/auth/token"
            );
            assert_eq!(
                path(&[("HOME", "/h"), ("XDG_DATA_HOME", "/d")]).unwrap(),
                "/d/nimbus/auth/token"
            );
            assert_eq!(
                path(&[("HOME", "/h"), ("XDG_DATA_HOME", "")]).unwrap(),
                "/h/.local/share/nimbus/auth/token"
            );
        }
        assert_eq!(path(&[]), None);
    }

    #[test]
    fn only_the_same_secret_is_the_same() {
        let secret = |text: &str| Secret::new(text);
        assert!(same(&secret("nimbus_at_x"), &secret("nimbus_at_x")));
        assert!(!same(&secret("nimbus_at_x"), &secret("nimbus_at_y")) && !same(&secret(""), &secret("a")));
    }
}
