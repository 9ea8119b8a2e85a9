//! Bringing a service's tables up to date: forward only, in order, each text pinned by its checksum.
//!
//! All missing migrations of a service run in one transaction: after a crash or an error the tables
//! are as before. `sqlx`'s own migrator was looked at: it numbers by integer, runs one transaction
//! each, and has one text for both engines; the part of it that helps is smaller than this file.

use sha2::{Digest, Sha256};

use crate::{Engine, Store, StoreError, both, execute};

/// One change of a service's tables. Make them with [`migrations!`](crate::migrations).
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its name; names sort in the order of application (`0001_init`, `0002_version_column`).
    pub name: &'static str,
    /// The statements for SQLite.
    pub sqlite: &'static str,
    /// The statements for PostgreSQL.
    pub postgres: &'static str,
}

/// A list of [`Migration`]s: `migrations!["0001_init" => include_str!("0001_init.sql")]`.
///
/// Where the engines need different text: `"0002_blob" => { sqlite: "…", postgres: "…" }`.
/// A migration that was released is never changed: add one.
#[macro_export]
macro_rules! migrations {
    (@list [$($done:expr,)*]) => {
        &[$($done),*] as &[$crate::Migration]
    };
    (@list [$($done:expr,)*] $name:literal => { sqlite: $sqlite:expr, postgres: $postgres:expr $(,)? } $(, $($rest:tt)*)?) => {
        $crate::migrations!(@list [$($done,)* $crate::Migration { name: $name, sqlite: $sqlite, postgres: $postgres },] $($($rest)*)?)
    };
    (@list [$($done:expr,)*] $name:literal => $sql:expr $(, $($rest:tt)*)?) => {
        $crate::migrations!(@list [$($done,)* $crate::Migration { name: $name, sqlite: $sql, postgres: $sql },] $($($rest)*)?)
    };
    ($($all:tt)*) => {
        $crate::migrations!(@list [] $($all)*)
    };
}

impl Migration {
    fn sql(&self, engine: Engine) -> &'static str {
        match engine {
            Engine::Sqlite => self.sqlite,
            Engine::Postgres => self.postgres,
        }
    }
}

fn checksum(sql: &str) -> String {
    hex::encode(Sha256::digest(sql.as_bytes()))
}

/// Replicas that start together wait for each other here; the lock ends with the transaction.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('nimbus migrations ' || $1, 0))";
const HAS_SCHEMA: &str = "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)";

pub(crate) async fn run(store: &Store, migrations: &[Migration]) -> Result<(), StoreError> {
    let service = store.service();
    let engine = store.engine();
    check_order(service, migrations)?;

    let mut tx = store.begin().await?;
    if let crate::Connection::Postgres(c) = tx.connection() {
        sqlx::query(LOCK).bind(service).execute(&mut *c).await?;
        // Asked first because CREATE SCHEMA IF NOT EXISTS wants the right to create even if it exists.
        if !sqlx::query_scalar::<_, bool>(HAS_SCHEMA)
            .bind(service)
            .fetch_one(&mut *c)
            .await?
        {
            sqlx::query(sqlx::AssertSqlSafe(format!("CREATE SCHEMA \"{service}\"")))
                .execute(c)
                .await?;
        }
    }
    // The name of a service was checked: it has no character that means something in SQL.
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {service}_migration (
            name TEXT NOT NULL PRIMARY KEY, checksum TEXT NOT NULL, applied_at BIGINT NOT NULL)"
    );
    let applied = format!("SELECT name, checksum FROM {service}_migration ORDER BY name");
    let record = format!("INSERT INTO {service}_migration (name, checksum, applied_at) VALUES ($1, $2, $3)");
    execute!(&mut tx, sqlx::query(sqlx::AssertSqlSafe(create.as_str())))?;
    let applied: Vec<(String, String)> =
        both!(&mut tx, |c| sqlx::query_as(sqlx::AssertSqlSafe(applied.as_str()))
            .fetch_all(c)
            .await)?;

    for migration in missing(service, engine, migrations, &applied)? {
        let sql = migration.sql(engine);
        match tx.connection() {
            crate::Connection::Sqlite(c) => sqlx::raw_sql(sql).execute(c).await.map(|_| ()),
            crate::Connection::Postgres(c) => sqlx::raw_sql(sql).execute(c).await.map(|_| ()),
        }
        .map_err(|source| StoreError::Migration {
            service: service.to_owned(),
            name: migration.name.to_owned(),
            source,
        })?;
        let now = nimbus_model::Clock::system().now();
        let query = sqlx::AssertSqlSafe(record.as_str());
        execute!(
            &mut tx,
            sqlx::query(query)
                .bind(migration.name)
                .bind(checksum(sql))
                .bind(now)
        )?;
        tracing::info!(
            service,
            migration = migration.name,
            "applied migration {} of {service}",
            migration.name
        );
    }
    tx.commit().await
}

fn check_order(service: &str, migrations: &[Migration]) -> Result<(), StoreError> {
    match migrations
        .iter()
        .zip(migrations.iter().skip(1))
        .find(|(a, b)| a.name >= b.name)
    {
        None => Ok(()),
        Some((_, late)) => Err(StoreError::MigrationOrder {
            service: service.to_owned(),
            name: late.name.to_owned(),
        }),
    }
}

/// What was applied must be the start of the list, text for text; the rest is missing.
fn missing<'m>(
    service: &str,
    engine: Engine,
    migrations: &'m [Migration],
    applied: &[(String, String)],
) -> Result<&'m [Migration], StoreError> {
    for (index, (name, sum)) in applied.iter().enumerate() {
        let known = migrations.get(index).filter(|known| known.name == name);
        let Some(known) = known else {
            return Err(StoreError::MigrationUnknown {
                service: service.to_owned(),
                name: name.clone(),
            });
        };
        if checksum(known.sql(engine)) != *sum {
            return Err(StoreError::MigrationChanged {
                service: service.to_owned(),
                name: name.clone(),
            });
        }
    }
    Ok(migrations.get(applied.len()..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[Migration] = crate::migrations![
        "0001_init" => "CREATE TABLE a (b TEXT)",
        "0002_more" => { sqlite: "S", postgres: concat!("P", "G") },
        "0003_last" => concat!("A", "B"),
    ];

    fn applied(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(name, sql)| ((*name).to_owned(), checksum(sql)))
            .collect()
    }

    #[test]
    fn the_macro_takes_one_text_or_two() {
        assert_eq!(LIST.len(), 3);
        assert_eq!((LIST[1].sqlite, LIST[1].postgres), ("S", "PG"));
        assert_eq!((LIST[2].sqlite, LIST[2].postgres), ("AB", "AB"));
        assert!(crate::migrations![].is_empty());
    }

    #[test]
    fn only_the_rest_of_the_list_is_missing() {
        let names = |list: &[Migration]| list.iter().map(|m| m.name).collect::<Vec<_>>();
        let none = missing("s", Engine::Sqlite, LIST, &[]).unwrap();
        assert_eq!(names(none), ["0001_init", "0002_more", "0003_last"]);
        let two = applied(&[("0001_init", LIST[0].sqlite), ("0002_more", "S")]);
        assert_eq!(
            names(missing("s", Engine::Sqlite, LIST, &two).unwrap()),
            ["0003_last"]
        );
        assert!(
            matches!(missing("s", Engine::Postgres, LIST, &two), Err(StoreError::MigrationChanged { name, .. }) if name == "0002_more")
        );
    }

    #[test]
    fn tables_of_a_newer_version_and_lists_out_of_order_are_refused() {
        let newer = applied(&[("0001_init", LIST[0].sqlite), ("0009_future", "X")]);
        assert!(
            matches!(missing("s", Engine::Sqlite, LIST, &newer), Err(StoreError::MigrationUnknown { name, .. }) if name == "0009_future")
        );
        let doubled = crate::migrations!["0001_a" => "x", "0001_a" => "y"];
        assert!(matches!(
            check_order("s", doubled),
            Err(StoreError::MigrationOrder { .. })
        ));
    }
}
