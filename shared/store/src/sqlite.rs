//! Opening a SQLite file the way Nimbus uses it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection, SqlitePool};

use crate::StoreError;

/// "NIMB" in the file's header, where `file` and [`restore`](crate::restore) look for it.
pub(crate) const APPLICATION_ID: i32 = 0x4e49_4d42;

/// How long a transaction waits for the writer before it is `Busy`.
const WRITER_WAIT: Duration = Duration::from_secs(10);

/// Readers: enough to keep the cores busy; each costs a thread and up to 2 MiB of page cache.
const READERS: u32 = 4;

/// The right to open a file; a `flock` on a file next to it.
///
/// Not on the database itself: SQLite uses POSIX locks there, and closing any descriptor of a file
/// drops all of those that the process holds on it. The kernel gives the lock back when the process
/// ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn take(database: &Utf8Path) -> Result<Self, StoreError> {
        let path = Utf8PathBuf::from(format!("{database}.lock"));
        let failed = |action| {
            let path = path.clone();
            move |source| StoreError::File { action, path, source }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who it is only helps the reader of the message; without it the message still holds.
                let _ = file.read_to_string(&mut holder);
                return Err(StoreError::InUse {
                    path: database.to_owned(),
                    pid: holder.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed("write"))?;
        Ok(Self { _file: file })
    }
}

/// Opens the writer, which makes and marks the file, then the readers.
pub(crate) async fn open(path: &Utf8Path) -> Result<(SqlitePool, SqlitePool), StoreError> {
    // SQLite gives the -wal and -shm files the mode of the database, so the first file decides.
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| StoreError::File {
            action: "open",
            path: path.to_owned(),
            source,
        })?;
    mark(path).await?;

    let common = SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .statement_cache_capacity(256);
    let write = common
        .clone()
        .journal_mode(SqliteJournalMode::Wal)
        // With NORMAL the last commits can be lost in a power cut. A saga's note "clone started" must
        // outlive the machine, or the clone it started is found by nobody; group commit pays for it.
        .synchronous(SqliteSynchronous::Full)
        // Gives the disk back after a bulk write.
        .pragma("journal_size_limit", "67108864");
    let pool = || {
        SqlitePoolOptions::new()
            // Only this process closes these connections, so asking each one whether it still lives is waste.
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(WRITER_WAIT)
    };
    let writer = pool()
        .min_connections(1)
        .max_connections(1)
        .after_release(|connection, _| Box::pin(is_reusable(connection)))
        .connect_with(write)
        .await?;
    let readers = pool()
        .max_connections(READERS)
        .connect_lazy_with(common.read_only(true).pragma("query_only", "ON"));
    Ok((writer, readers))
}

/// Whether a connection that comes back can begin another transaction.
///
/// When the disk is full or fails, SQLite ends the transaction by itself (sqlite.org/lang_transaction.html, "Response
/// to errors within a transaction"). The driver's own `ROLLBACK` then fails, and it believes for ever that it is
/// within that transaction. Such a connection is closed; the next transaction opens another.
async fn is_reusable(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    if connection.is_in_transaction() {
        // A roll-back of a transaction that was dropped waits to be done: after this it is.
        connection.ping().await?;
    }
    Ok(!connection.is_in_transaction())
}

/// Refuses a file that is not ours, marks a new one.
async fn mark(path: &Utf8Path) -> Result<(), StoreError> {
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::from_secs(5))
        .connect()
        .await?;
    let id: i32 = sqlx::query("PRAGMA application_id")
        .fetch_one(&mut connection)
        .await?
        .try_get(0)?;
    if id != APPLICATION_ID {
        let objects: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema")
            .fetch_one(&mut connection)
            .await?;
        if id != 0 || objects > 0 {
            return Err(StoreError::Foreign {
                path: path.to_owned(),
            });
        }
        // A literal because pragmas take no parameters.
        sqlx::query("PRAGMA application_id = 0x4e494d42")
            .execute(&mut connection)
            .await?;
    }
    connection.close().await?;
    Ok(())
}
