//! The store on both engines.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail like the tests themselves"
)]

mod files;
mod transactions;

use nimbus_store::{Migration, migrations};

/// A table as services have them.
pub(crate) const BOOK: &[Migration] = migrations![
    "0001_init" => "CREATE TABLE shop_book (id TEXT NOT NULL PRIMARY KEY, pages BIGINT NOT NULL CHECK (pages > 0));
                    CREATE TABLE shop_loan (book TEXT NOT NULL REFERENCES shop_book (id), reader TEXT NOT NULL);",
];

pub(crate) const INSERT: &str = "INSERT INTO shop_book (id, pages) VALUES ($1, $2)";
pub(crate) const COUNT: &str = "SELECT count(*) FROM shop_book";
