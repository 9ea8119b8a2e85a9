//! Transactions, errors, migrations, group commit.

use futures::future::join_all;
use nimbus_errors::{Code, Coded};
use nimbus_store::testing::{World, on_both, on_postgres, sqlite};
use nimbus_store::{
    Database, Engine, Migration, Store, StoreError, both, execute, migrations, reading, sqlx,
};

use crate::{BOOK, COUNT, INSERT};

async fn shop(world: &World) -> Store {
    world.db.store("shop", BOOK).await.unwrap()
}

async fn add(store: &Store, id: &str, pages: i64) -> Result<u64, StoreError> {
    let mut tx = store.begin().await?;
    let rows = execute!(&mut tx, sqlx::query(INSERT).bind(id).bind(pages))?;
    tx.commit().await?;
    Ok(rows)
}

async fn count(store: &Store) -> i64 {
    reading!(store, |c| sqlx::query_scalar(COUNT).fetch_one(c).await).unwrap()
}

#[tokio::test]
async fn a_commit_is_seen_by_readers_and_a_dropped_transaction_is_not() {
    on_both(|world| async move {
        let store = shop(&world).await;
        assert_eq!(add(&store, "a", 1).await.unwrap(), 1);
        let mut tx = store.begin().await.unwrap();
        execute!(&mut tx, sqlx::query(INSERT).bind("b").bind(2_i64)).unwrap();
        let inside: i64 = both!(&mut tx, |c| sqlx::query_scalar(COUNT).fetch_one(c).await).unwrap();
        assert_eq!((inside, count(&store).await), (2, 1));
        drop(tx);
        // The next transaction gets the connection after the roll-back, so nothing can be left over.
        add(&store, "c", 3).await.unwrap();
        assert_eq!(count(&store).await, 2);
    })
    .await;
}

#[tokio::test]
async fn violations_are_told_apart() {
    on_both(|world| async move {
        let store = shop(&world).await;
        add(&store, "a", 1).await.unwrap();
        let unique = add(&store, "a", 1).await.unwrap_err();
        assert!(
            unique.is_unique_violation() && unique.code() == Code::OpAlreadyExists,
            "{unique:?}"
        );
        assert!(matches!(
            add(&store, "b", 0).await.unwrap_err(),
            StoreError::Rule { .. }
        ));
        let mut tx = store.begin().await.unwrap();
        let loan = execute!(
            &mut tx,
            sqlx::query("INSERT INTO shop_loan (book, reader) VALUES ('no such book', 'me')")
        );
        assert!(matches!(loan.unwrap_err(), StoreError::Reference { .. }));
        drop(tx);
        let nonsense = reading!(&store, |c| sqlx::query("SELEC")
            .fetch_all(c)
            .await
            .map(|rows| rows.len()));
        assert!(matches!(nonsense.unwrap_err(), StoreError::Statement { .. }));
        let shape = reading!(&store, |c| sqlx::query_scalar::<_, String>(
            "SELECT pages FROM shop_book"
        )
        .fetch_all(c)
        .await);
        assert!(matches!(shape.unwrap_err(), StoreError::Corruption { .. }));
    })
    .await;
}

#[tokio::test]
async fn counters_do_not_lose_increments_under_concurrency() {
    on_both(|world| async move {
        let store = shop(&world).await;
        add(&store, "a", 1).await.unwrap();
        let select = format!(
            "SELECT pages FROM shop_book WHERE id = 'a'{}",
            store.select_for_update_suffix()
        );
        let one = || async {
            let mut tx = store.begin().await?;
            let query = sqlx::AssertSqlSafe(select.as_str());
            let pages: i64 = both!(&mut tx, |c| sqlx::query_scalar(query).fetch_one(c).await)?;
            execute!(
                &mut tx,
                sqlx::query("UPDATE shop_book SET pages = $1").bind(pages + 1)
            )?;
            tx.commit().await
        };
        for result in join_all((0..40).map(|_| one())).await {
            result.unwrap();
        }
        let pages: i64 = reading!(&store, |c| sqlx::query_scalar("SELECT pages FROM shop_book")
            .fetch_one(c)
            .await)
        .unwrap();
        assert_eq!(pages, 41);
    })
    .await;
}

fn book(
    id: String,
) -> impl for<'t> FnOnce(&'t mut nimbus_store::Tx) -> futures::future::BoxFuture<'t, Result<u64, StoreError>>
{
    move |tx| Box::pin(async move { execute!(tx, sqlx::query(INSERT).bind(id).bind(1_i64)) })
}

#[tokio::test]
async fn writes_that_share_a_commit_fail_alone() {
    on_both(|world| async move {
        let store = shop(&world).await;
        // Every third one repeats an id; its neighbours in the batch must not notice.
        let results =
            join_all((0..90).map(|n| store.write(book(format!("b{}", if n % 3 == 2 { n - 1 } else { n })))))
                .await;
        let failed = results
            .iter()
            .filter(|r| r.as_ref().is_err_and(StoreError::is_unique_violation))
            .count();
        assert_eq!((failed, count(&store).await), (30, 60), "{results:?}");
    })
    .await;
}

#[tokio::test]
async fn a_write_that_panics_takes_nobody_along() {
    on_both(|world| async move {
        if world.engine() == Engine::Postgres {
            return; // Writes are not shared there: the panic is the caller's own.
        }
        let store = shop(&world).await;
        let bad = store.write::<u64, StoreError, _>(|tx| {
            Box::pin(async move {
                execute!(tx, sqlx::query(INSERT).bind("lost").bind(1_i64))?;
                panic!("a bug")
            })
        });
        let (bad, good, good_too) =
            tokio::join!(bad, store.write(book("a".into())), store.write(book("b".into())));
        assert!(matches!(bad.unwrap_err(), StoreError::Interrupted));
        good.unwrap();
        good_too.unwrap();
        assert_eq!(count(&store).await, 2);
    })
    .await;
}

/// No file may grow from now on; for as long as the writer's connection lives.
async fn fill(store: &Store) {
    let mut tx = store.begin().await.unwrap();
    execute!(&mut tx, sqlx::query("PRAGMA max_page_count = 1")).unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_said_and_forgotten_once_there_is_space() {
    let world = sqlite().await;
    let store = shop(&world).await;
    let large = "x".repeat(1 << 20);
    let full = |error: &StoreError| error.code() == Code::ServiceStorageIo;
    let kept = |id: &'static str, store: &Store| {
        let store = store.clone();
        async move { add(&store, id, 1).await.unwrap() }
    };

    // A transaction that is dropped, one that is taken back, one that is committed all the same.
    fill(&store).await;
    assert!(full(&add(&store, &large, 1).await.unwrap_err()));
    kept("dropped", &store).await;
    for commit in [false, true] {
        fill(&store).await;
        let mut tx = store.begin().await.unwrap();
        let error = execute!(&mut tx, sqlx::query(INSERT).bind(&large).bind(1_i64)).unwrap_err();
        assert!(full(&error), "{error:?}");
        let _ = if commit {
            tx.commit().await
        } else {
            tx.rollback().await
        };
        kept(if commit { "committed" } else { "taken back" }, &store).await;
    }

    // One of several writes that share a commit: nothing is kept of any, and all say so.
    fill(&store).await;
    let tried = join_all((0..20).map(|n| {
        let id = if n == 10 { large.clone() } else { format!("id{n}") };
        store.write(move |tx| Box::pin(async move { execute!(tx, sqlx::query(INSERT).bind(id).bind(1_i64)) }))
    }))
    .await;
    assert!(full(tried[10].as_ref().unwrap_err()), "{:?}", tried[10]);
    for (n, one) in tried.iter().enumerate().filter(|(n, _)| *n != 10) {
        if let Err(error) = one {
            assert_eq!(error.code(), Code::ServiceUnavailable, "{n}: {error:?}");
        }
    }
    let succeeded = tried.iter().filter(|one| one.is_ok()).count();
    kept("last", &store).await;
    assert_eq!(count(&store).await, 4 + i64::try_from(succeeded).unwrap());
}

#[tokio::test]
async fn migrations_run_once_and_go_forward() {
    on_both(|world| async move {
        let store = shop(&world).await;
        add(&store, "a", 1).await.unwrap();
        shop(&world).await;
        let longer: Vec<Migration> = BOOK
            .iter()
            .copied()
            .chain(migrations!["0002_title" => "ALTER TABLE shop_book ADD COLUMN title TEXT NOT NULL DEFAULT ''"].iter().copied())
            .collect();
        world.db.store("shop", &longer).await.unwrap();
        assert_eq!(count(&store).await, 1);
        assert!(matches!(world.db.store("shop", BOOK).await, Err(StoreError::MigrationUnknown { name, .. }) if name == "0002_title"));
        let changed = migrations!["0001_init" => "CREATE TABLE shop_other (id TEXT)"];
        assert!(matches!(world.db.store("shop", changed).await, Err(StoreError::MigrationChanged { .. })));
    })
    .await;
}

#[tokio::test]
async fn a_migration_that_fails_leaves_the_tables_as_they_were() {
    on_both(|world| async move {
        let bad = migrations!["0001_a" => "CREATE TABLE shop_a (id TEXT)", "0002_b" => "CREATE TABLE shop_b (id TEXT); NONSENSE"];
        let failed = world.db.store("shop", bad).await;
        assert!(matches!(&failed, Err(StoreError::Migration { name, .. }) if name == "0002_b"), "{failed:?}");
        let good = migrations!["0001_a" => "CREATE TABLE shop_a (id TEXT)", "0002_b" => "CREATE TABLE shop_b (id TEXT)"];
        world.db.store("shop", good).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn replicas_that_start_together_migrate_once() {
    on_postgres(|world| async move {
        let replicas: Vec<Database> = join_all((0..6).map(|_| Database::open(&world.url)))
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let stores = join_all(replicas.iter().map(|db| db.store("shop", BOOK))).await;
        for store in &stores {
            assert_eq!(count(store.as_ref().unwrap()).await, 0);
        }
        join_all(replicas.iter().map(Database::close)).await;
    })
    .await;
}

#[tokio::test]
async fn services_on_postgres_do_not_see_each_others_tables() {
    on_postgres(|world| async move {
        shop(&world).await;
        let other = world.db.store("other", &[]).await.unwrap();
        let peek = reading!(&other, |c| sqlx::query(COUNT)
            .fetch_all(c)
            .await
            .map(|rows| rows.len()));
        assert!(matches!(peek, Err(StoreError::Statement { .. })), "{peek:?}");
    })
    .await;
}
