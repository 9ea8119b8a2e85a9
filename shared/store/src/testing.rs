//! Databases for tests, each of its own, on both engines.
//!
//! SQLite always, in a temporary directory. PostgreSQL when `NIMBUS_TEST_POSTGRES` holds the URL of a
//! server on which databases may be created; each test gets a fresh one.

use std::panic::AssertUnwindSafe;
use std::str::FromStr;
use std::sync::Once;

use camino::Utf8Path;
use camino_tempfile::Utf8TempDir;
use futures::FutureExt;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::{Database, DatabaseUrl, Engine};

/// A database that nobody else uses.
#[derive(Clone, Debug)]
pub struct World {
    /// Where it is; a second "process" opens it again (on SQLite only after the first closed it).
    pub url: DatabaseUrl,
    /// Open.
    pub db: Database,
    directory: std::sync::Arc<Utf8TempDir>,
}

impl World {
    /// The engine.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.db.engine()
    }

    /// A directory that goes with the test.
    #[must_use]
    pub fn directory(&self) -> &Utf8Path {
        self.directory.path()
    }
}

/// Runs `test` on SQLite, then on PostgreSQL if there is one.
///
/// # Panics
/// When `test` does, or when a database cannot be made.
pub async fn on_both<F, Fut>(test: F)
where
    F: Fn(World) -> Fut,
    Fut: Future<Output = ()>,
{
    on_sqlite(&test).await;
    on_postgres(&test).await;
}

/// Runs `test` on SQLite.
///
/// # Panics
/// When `test` does, or when the file cannot be made.
pub async fn on_sqlite<F, Fut>(test: F)
where
    F: Fn(World) -> Fut,
    Fut: Future<Output = ()>,
{
    let world = sqlite().await;
    // An async block takes only the fields of the world that it names; the directory must outlast it.
    let _directory = std::sync::Arc::clone(&world.directory);
    test(world).await;
}

/// A SQLite database in a temporary directory.
///
/// # Panics
/// When it cannot be made.
pub async fn sqlite() -> World {
    let directory = std::sync::Arc::new(
        Utf8TempDir::with_prefix("nimbus-test-").expect("a temporary directory can be made"),
    );
    let url = DatabaseUrl::Sqlite(directory.path().join("nimbus.db"));
    let db = Database::open(&url)
        .await
        .expect("a database can be made in a temporary directory");
    World { url, db, directory }
}

/// Runs `test` on PostgreSQL if there is one; otherwise says once that it did not.
///
/// # Panics
/// When `test` does, or when the server does not do what is needed.
pub async fn on_postgres<F, Fut>(test: F)
where
    F: Fn(World) -> Fut,
    Fut: Future<Output = ()>,
{
    static SAID: Once = Once::new();
    let Ok(base) = std::env::var("NIMBUS_TEST_POSTGRES") else {
        SAID.call_once(|| eprintln!("NIMBUS_TEST_POSTGRES is unset: PostgreSQL not tested"));
        return;
    };
    let server = PgConnectOptions::from_str(&base).expect("NIMBUS_TEST_POSTGRES is a postgres URL");
    let name = format!("nimbus_test_{:032x}", rand::random::<u128>());
    let mut admin = server
        .connect()
        .await
        .expect("the server of NIMBUS_TEST_POSTGRES answers");
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut admin)
        .await
        .expect("the user of NIMBUS_TEST_POSTGRES may create databases");
    admin.close().await.expect("the connection closes");

    let mut url = url::Url::parse(&base).expect("NIMBUS_TEST_POSTGRES is a URL");
    url.set_path(&name);
    let url = DatabaseUrl::Postgres(String::from(url).into());
    let directory = std::sync::Arc::new(
        Utf8TempDir::with_prefix("nimbus-test-").expect("a temporary directory can be made"),
    );
    let db = Database::open(&url).await.expect("the URL is valid");
    let world = World {
        url,
        db: db.clone(),
        directory: std::sync::Arc::clone(&directory),
    };
    let result = AssertUnwindSafe(test(world)).catch_unwind().await;

    // Also after a failed test: a server full of left-overs slows every later one.
    db.close().await;
    if let Ok(mut admin) = server.connect().await {
        let _ = sqlx::query(sqlx::AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)")))
            .execute(&mut admin)
            .await;
    }
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}
