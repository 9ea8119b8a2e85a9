//! The one database of a process.

use std::sync::Arc;

use camino::Utf8Path;
use sqlx::SqlitePool;

use crate::batch::Batch;
use crate::migrate::{self, Migration};
use crate::postgres::Server;
use crate::sqlite::{self, Lock};
use crate::store::{Backend, Engine};
use crate::{DatabaseUrl, Store, StoreError, backup};

/// The database of a process; clones share it.
#[derive(Clone, Debug)]
pub struct Database {
    inner: Inner,
}

#[derive(Clone, Debug)]
enum Inner {
    Sqlite(Arc<SqliteFile>),
    Postgres(Arc<Server>),
}

/// Everything that belongs to one open SQLite file.
#[derive(Debug)]
pub(crate) struct SqliteFile {
    pub(crate) path: camino::Utf8PathBuf,
    pub(crate) writer: SqlitePool,
    pub(crate) readers: SqlitePool,
    pub(crate) batch: Batch,
    /// Held as long as anybody can write.
    _lock: Lock,
}

impl Database {
    /// Opens the database, and makes the SQLite file (mode 0600) if there is none.
    ///
    /// A SQLite file belongs to one process, so that one writer and its group commit see every
    /// write. PostgreSQL is not contacted before the first [`Database::store`].
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process has the file; [`StoreError::Foreign`] if it is not
    /// Nimbus'; otherwise what the disk or the driver says.
    pub async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        Ok(Self {
            inner: match url {
                DatabaseUrl::Sqlite(path) => {
                    let lock = Lock::take(path)?;
                    let (writer, readers) = sqlite::open(path).await?;
                    let batch = Batch::start(writer.clone());
                    Inner::Sqlite(Arc::new(SqliteFile {
                        path: path.clone(),
                        writer,
                        readers,
                        batch,
                        _lock: lock,
                    }))
                }
                DatabaseUrl::Postgres(secret) => Inner::Postgres(Arc::new(Server::new(secret)?)),
            },
        })
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> Engine {
        match self.inner {
            Inner::Sqlite(_) => Engine::Sqlite,
            Inner::Postgres(_) => Engine::Postgres,
        }
    }

    /// The tables of one service, brought up to date.
    ///
    /// On SQLite the tables of all services are in one file, so their names start with the
    /// service's (`ippool_address`); on PostgreSQL they are in a schema with its name.
    /// Several replicas may do this at once.
    ///
    /// # Errors
    /// `StoreError::Migration*` if the tables cannot be brought up to date, in which case they are
    /// as before; otherwise what the driver says.
    pub async fn store(&self, service: &str, migrations: &[Migration]) -> Result<Store, StoreError> {
        check_name(service)?;
        let backend = match &self.inner {
            Inner::Sqlite(file) => Backend::Sqlite(Arc::clone(file)),
            Inner::Postgres(server) => Backend::Postgres(server.pool(service)),
        };
        let store = Store::new(service, backend);
        migrate::run(&store, migrations).await?;
        Ok(store)
    }

    /// Writes a copy of the SQLite file, as of one moment, to `target` (mode 0600) while everything
    /// goes on. An older copy at `target` is replaced once the new one is safely on disk.
    ///
    /// # Errors
    /// [`StoreError::SqliteOnly`] on PostgreSQL; [`StoreError::Foreign`] or [`StoreError::Exists`]
    /// if something that is no copy stands at `target`.
    pub async fn backup(&self, target: &Utf8Path) -> Result<(), StoreError> {
        match &self.inner {
            Inner::Sqlite(file) => backup::backup(&file.path, target).await,
            Inner::Postgres(_) => Err(StoreError::SqliteOnly { what: "backup" }),
        }
    }

    /// Waits for the connections to finish what they do, then closes them.
    pub async fn close(&self) {
        match &self.inner {
            Inner::Sqlite(file) => {
                file.readers.close().await;
                file.writer.close().await;
            }
            Inner::Postgres(server) => server.close().await,
        }
    }
}

/// Names end up unquoted in SQL and with suffixes: PostgreSQL cuts names at 63 bytes.
fn check_name(name: &str) -> Result<(), StoreError> {
    let good = name.len() <= 31
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if good {
        Ok(())
    } else {
        Err(StoreError::Name {
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_change_the_sql_are_refused() {
        for good in ["auth", "ippool2", "gpu_scheduler"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "Auth",
            "2auth",
            "a-b",
            "a b",
            "a\"b",
            "a;b",
            "ä",
            "a23456789012345678901234567890123",
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
