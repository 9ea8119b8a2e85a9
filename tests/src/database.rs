//! A PostgreSQL database for one test.

use sqlx::{Connection, Executor, PgConnection};

/// A database that is dropped by [`Postgres::remove`].
#[derive(Debug)]
pub struct Postgres {
    server: String,
    name: String,
}

impl Postgres {
    /// Makes one on the server that `NIMBUS_TEST_POSTGRES` names; none when it is unset.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn create(name: &str) -> Option<Self> {
        let server = std::env::var("NIMBUS_TEST_POSTGRES")
            .ok()
            .filter(|url| !url.is_empty())?;
        let name = format!("nimbus_black_box_{name}_{}", std::process::id());
        let made = Self { server, name };
        made.execute(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", made.name))
            .await;
        made.execute(format!("CREATE DATABASE {}", made.name)).await;
        Some(made)
    }

    async fn execute(&self, sql: String) {
        let mut connection = PgConnection::connect(&self.server).await.unwrap();
        // The name is ours.
        connection.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        let (server, _) = self.server.rsplit_once('/').unwrap();
        format!("{server}/{}", self.name)
    }

    /// Drops it.
    pub async fn remove(self) {
        self.execute(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name))
            .await;
    }
}
