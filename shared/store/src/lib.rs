//! One SQL text on SQLite and PostgreSQL.
//!
//! A process opens one [`Database`]; each service takes a [`Store`] from it, which brings the
//! service's tables up to date. Writes go through a [`Tx`] and the [`both!`] macro, reads through
//! [`reading!`]; both compile one statement for both engines.
//!
//! ```text
//!            SQLite: one file, one process                PostgreSQL: one database, many processes
//! Database ─┬ lock file: a second process is refused      Database ─┬ a pool per service,
//!           ├ writer: one connection, BEGIN IMMEDIATE               │ search_path = its schema
//!           ├ readers: read-only connections                        └ migrations under an advisory lock
//!           └ group commit: Store::write joins writes
//! ```
//!
//! What both engines understand alike and Nimbus therefore keeps to: ids as `TEXT`, times and
//! numbers as `BIGINT`, JSON as `TEXT`, `$1` placeholders, `ON CONFLICT`, `RETURNING`, partial indexes.

mod backup;
mod batch;
mod database;
mod error;
mod migrate;
mod postgres;
mod seal;
mod sqlite;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod url;

pub use backup::restore;
pub use database::Database;
pub use error::StoreError;
pub use migrate::Migration;
pub use seal::{SealError, Sealer};
pub use store::{Connection, Engine, Readers, Store, Tx};
pub use url::{DatabaseUrl, DatabaseUrlError};

/// The crate whose query functions go into [`both!`] and [`reading!`].
pub use sqlx;
