//! What a service holds: its tables, transactions on them, and the two macros.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlx::{PgConnection, PgPool, Postgres, Sqlite, SqliteConnection, SqlitePool, Transaction};

use crate::StoreError;
use crate::database::SqliteFile;

/// Which engine a store is on, for the few statements that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// One file, one writer.
    Sqlite,
    /// Many writers; rows are locked where a statement says so.
    Postgres,
}

/// The tables of one service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    service: Arc<str>,
    backend: Backend,
}

#[derive(Clone, Debug)]
pub(crate) enum Backend {
    Sqlite(Arc<SqliteFile>),
    Postgres(PgPool),
}

impl Store {
    pub(crate) fn new(service: &str, backend: Backend) -> Self {
        Self {
            service: service.into(),
            backend,
        }
    }

    /// The service whose tables these are.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> Engine {
        match self.backend {
            Backend::Sqlite(_) => Engine::Sqlite,
            Backend::Postgres(_) => Engine::Postgres,
        }
    }

    /// What an inner `SELECT` that picks the row to take ends with: ` FOR UPDATE SKIP LOCKED` on
    /// PostgreSQL, so that two writers pick two rows; nothing on SQLite, which has one writer.
    #[must_use]
    pub fn skip_locked(&self) -> &'static str {
        match self.engine() {
            Engine::Sqlite => "",
            Engine::Postgres => " FOR UPDATE SKIP LOCKED",
        }
    }

    /// What a `SELECT` of rows that this transaction goes on to change ends with.
    #[must_use]
    pub fn select_for_update_suffix(&self) -> &'static str {
        match self.engine() {
            Engine::Sqlite => "",
            Engine::Postgres => " FOR UPDATE",
        }
    }

    /// Opens a transaction: the only one on SQLite (`BEGIN IMMEDIATE`; a plain `BEGIN` fails half way
    /// when a read turns into a write), `READ COMMITTED` on PostgreSQL.
    ///
    /// Keep it short: no bus, HTTP or hypervisor call inside. Dropping it rolls back.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when no connection became free in time.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(match &self.backend {
            Backend::Sqlite(file) => Tx::Sqlite(file.writer.begin_with("BEGIN IMMEDIATE").await?),
            Backend::Postgres(pool) => Tx::Postgres(pool.begin().await?),
        })
    }

    /// Runs `work` in a transaction and commits it, together with other writes that wait: on SQLite,
    /// where each commit costs a disk flush, concurrent calls share one.
    ///
    /// `work` is undone alone when it fails. It must not wait for anything but the database, and not
    /// for another write: all writes wait for it. When the caller is dropped `work` may still run.
    ///
    /// ```ignore
    /// store.write(move |tx| Box::pin(async move {
    ///     execute!(tx, sqlx::query(INSERT).bind(id))?;
    ///     Ok::<_, StoreError>(())
    /// })).await?;
    /// ```
    ///
    /// # Errors
    /// Those of `work`, and those of the transaction.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    {
        match &self.backend {
            Backend::Sqlite(file) => file.batch.submit(work).await,
            Backend::Postgres(_) => {
                let mut tx = self.begin().await?;
                let value = work(&mut tx).await?;
                tx.commit().await?;
                Ok(value)
            }
        }
    }

    /// For [`reading!`](crate::reading).
    #[doc(hidden)]
    #[must_use]
    pub fn readers(&self) -> Readers<'_> {
        match &self.backend {
            Backend::Sqlite(file) => Readers::Sqlite(&file.readers),
            Backend::Postgres(pool) => Readers::Postgres(pool),
        }
    }
}

/// An open transaction. Dropping it rolls back.
#[derive(Debug)]
pub enum Tx {
    /// On SQLite.
    Sqlite(Transaction<'static, Sqlite>),
    /// On PostgreSQL.
    Postgres(Transaction<'static, Postgres>),
}

impl Tx {
    /// The engine.
    #[must_use]
    pub fn engine(&self) -> Engine {
        match self {
            Self::Sqlite(_) => Engine::Sqlite,
            Self::Postgres(_) => Engine::Postgres,
        }
    }

    /// Makes it last. When this returns, the change survives a power cut.
    ///
    /// # Errors
    /// When the database fails; [`StoreError::Unavailable`] leaves open whether it was done.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }

    /// Takes it back now rather than some time after the drop.
    ///
    /// # Errors
    /// When the database fails; the change is taken back all the same.
    pub async fn rollback(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.rollback().await?,
            Self::Postgres(tx) => tx.rollback().await?,
        }
        Ok(())
    }

    /// For [`both!`](crate::both).
    #[doc(hidden)]
    pub fn connection(&mut self) -> Connection<'_> {
        match self {
            Self::Sqlite(tx) => Connection::Sqlite(tx),
            Self::Postgres(tx) => Connection::Postgres(tx),
        }
    }
}

/// The connection of a transaction, typed by driver.
#[doc(hidden)]
#[derive(Debug)]
pub enum Connection<'t> {
    /// SQLite's.
    Sqlite(&'t mut SqliteConnection),
    /// PostgreSQL's.
    Postgres(&'t mut PgConnection),
}

/// Where reads go, typed by driver.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum Readers<'s> {
    /// SQLite's read-only connections.
    Sqlite(&'s SqlitePool),
    /// The service's pool.
    Postgres(&'s PgPool),
}

/// Runs one expression on the connection of a transaction, compiled once for each engine.
///
/// `both!(&mut tx, |c| sqlx::query_as::<_, Row>(SQL).bind(id).fetch_optional(c).await)` is a
/// `Result<Option<Row>, StoreError>`; for `execute` there is [`execute!`](crate::execute).
/// The name between the bars is a `&mut` connection; for a second statement reborrow it: `&mut *c`.
#[macro_export]
macro_rules! both {
    ($tx:expr, |$c:ident| $body:expr) => {
        match $crate::Tx::connection($tx) {
            $crate::Connection::Sqlite($c) => {
                ::core::result::Result::map_err($body, $crate::StoreError::from)
            }
            $crate::Connection::Postgres($c) => {
                ::core::result::Result::map_err($body, $crate::StoreError::from)
            }
        }
    };
}

/// Runs one statement in a transaction: how many rows it changed, as `Result<u64, StoreError>`.
///
/// `execute!(&mut tx, sqlx::query(SQL).bind(id))`. The drivers' own results of `execute` are of
/// different types, so they do not fit through [`both!`](crate::both).
#[macro_export]
macro_rules! execute {
    ($tx:expr, $query:expr) => {
        $crate::both!($tx, |connection| $query
            .execute(connection)
            .await
            .map(|done| done.rows_affected()))
    };
}

/// Runs one expression on the read pool of a store, compiled once for each engine.
///
/// `reading!(&store, |c| sqlx::query_as::<_, Row>(SQL).fetch_all(c).await)` is a
/// `Result<_, StoreError>`. A write fails on SQLite, whose readers are read-only; so do not write here.
#[macro_export]
macro_rules! reading {
    ($store:expr, |$c:ident| $body:expr) => {
        match $crate::Store::readers($store) {
            $crate::Readers::Sqlite($c) => ::core::result::Result::map_err($body, $crate::StoreError::from),
            $crate::Readers::Postgres($c) => ::core::result::Result::map_err($body, $crate::StoreError::from),
        }
    };
}
