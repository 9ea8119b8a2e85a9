//! Copies of the SQLite file, and back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::StoreError;
use crate::sqlite::{APPLICATION_ID, Lock};

/// `VACUUM INTO` next to the target, flush, rename: the target is the old copy or the new one, never half.
pub(crate) async fn backup(database: &Utf8Path, target: &Utf8Path) -> Result<(), StoreError> {
    if target.exists() {
        if same_file(database, target) {
            return Err(StoreError::Exists {
                path: target.to_owned(),
            });
        }
        check_header(target)?;
    }
    let part = Part::new(target)?;
    let mut connection = SqliteConnectOptions::new()
        .filename(database)
        .read_only(true)
        .connect()
        .await?;
    sqlx::query("VACUUM INTO $1")
        .bind(part.path.as_str())
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    part.become_file(target)
}

/// Puts the copy `backup` in the place of `target`, which no process may have open.
///
/// The copy is checked first. With `overwrite` a database at `target` is kept beside it as
/// `target.replaced` (with its write-ahead log), in case the wrong copy was chosen.
///
/// # Errors
/// [`StoreError::Exists`] without `overwrite`; [`StoreError::InUse`] while a process has `target`;
/// [`StoreError::Foreign`] or [`StoreError::Damaged`] if `backup` is not a sound Nimbus database.
pub async fn restore(backup: &Utf8Path, target: &Utf8Path, overwrite: bool) -> Result<(), StoreError> {
    if !overwrite && target.exists() {
        return Err(StoreError::Exists {
            path: target.to_owned(),
        });
    }
    let _lock = Lock::take(target)?;
    check_header(backup)?;
    // A file with a log beside it is a database that was copied while it was open: without its log it
    // would lose the last commits without a word.
    let log = beside(backup, "-wal");
    if fs::metadata(&log).is_ok_and(|meta| meta.len() > 0) {
        return Err(StoreError::Damaged {
            path: backup.to_owned(),
            finding: format!("{log} belongs to it; make the copy with nimbus backup"),
        });
    }
    let part = Part::new(target)?;
    {
        let mut from = File::open(backup).map_err(failed("open", backup))?;
        let mut to = OpenOptions::new()
            .write(true)
            .open(&part.path)
            .map_err(failed("open", &part.path))?;
        io::copy(&mut from, &mut to).map_err(failed("write", &part.path))?;
    }
    // The copy is checked, not the original: it is what will be used.
    check_content(&part.path, backup).await?;
    if target.exists() {
        let old = beside(target, ".replaced");
        for suffix in ["-wal", "-shm"] {
            remove_if_there(&beside(&old, suffix))?;
            rename_if_there(&beside(target, suffix), &beside(&old, suffix))?;
        }
        fs::rename(target, &old).map_err(failed("rename", target))?;
    }
    // A log of another database must not meet the new file.
    for suffix in ["-wal", "-shm"] {
        remove_if_there(&beside(target, suffix))?;
    }
    part.become_file(target)
}

/// A file in the making next to its target (one file system, so that rename is atomic); gone when dropped.
struct Part {
    path: Utf8PathBuf,
}

impl Part {
    fn new(target: &Utf8Path) -> Result<Self, StoreError> {
        let path = beside(
            target,
            &format!(".part-{}-{:08x}", std::process::id(), rand::random::<u32>()),
        );
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("create", &path))?;
        Ok(Self { path })
    }

    fn become_file(self, target: &Utf8Path) -> Result<(), StoreError> {
        let file = File::open(&self.path).map_err(failed("open", &self.path))?;
        file.set_permissions(fs::Permissions::from_mode(0o600))
            .map_err(failed("protect", &self.path))?;
        file.sync_all().map_err(failed("flush", &self.path))?;
        fs::rename(&self.path, target).map_err(failed("rename", &self.path))?;
        // The rename itself is only lasting once the directory is on disk.
        let directory = target
            .parent()
            .filter(|p| !p.as_str().is_empty())
            .unwrap_or(Utf8Path::new("."));
        File::open(directory)
            .and_then(|d| d.sync_all())
            .map_err(failed("flush", directory))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        for path in [
            self.path.clone(),
            beside(&self.path, "-journal"),
            beside(&self.path, "-wal"),
            beside(&self.path, "-shm"),
        ] {
            let _ = fs::remove_file(path);
        }
    }
}

/// Magic and application id, at the offsets that sqlite.org/fileformat.html gives.
fn check_header(path: &Utf8Path) -> Result<(), StoreError> {
    let mut header = Vec::with_capacity(100);
    File::open(path)
        .and_then(|file| file.take(100).read_to_end(&mut header))
        .map_err(failed("read", path))?;
    let ours =
        header.starts_with(b"SQLite format 3\0") && header.get(68..72) == Some(&APPLICATION_ID.to_be_bytes());
    if ours {
        Ok(())
    } else {
        Err(StoreError::Foreign {
            path: path.to_owned(),
        })
    }
}

/// `name` is what the messages call it.
async fn check_content(path: &Utf8Path, name: &Utf8Path) -> Result<(), StoreError> {
    let damaged = |finding: String| StoreError::Damaged {
        path: name.to_owned(),
        finding,
    };
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .immutable(true)
        .connect()
        .await
        .map_err(|error| damaged(error.to_string()))?;
    let findings: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check(1)")
        .fetch_all(&mut connection)
        .await
        .map_err(|error| damaged(error.to_string()))?;
    if findings != ["ok"] {
        return Err(damaged(findings.concat()));
    }
    let broken = sqlx::query("PRAGMA foreign_key_check")
        .fetch_all(&mut connection)
        .await?;
    if !broken.is_empty() {
        return Err(damaged(format!(
            "{} rows refer to rows that are missing",
            broken.len()
        )));
    }
    connection.close().await?;
    Ok(())
}

fn same_file(a: &Utf8Path, b: &Utf8Path) -> bool {
    match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

fn beside(path: &Utf8Path, suffix: &str) -> Utf8PathBuf {
    format!("{path}{suffix}").into()
}

fn failed(action: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File { action, path, source }
}

fn remove_if_there(path: &Utf8Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn rename_if_there(from: &Utf8Path, to: &Utf8Path) -> Result<(), StoreError> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("rename", from)(error)),
        _ => Ok(()),
    }
}
