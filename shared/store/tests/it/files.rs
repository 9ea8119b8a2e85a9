//! The SQLite file itself: who may open it, copies, restore; and the key file.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use camino::Utf8Path;
use nimbus_store::testing::sqlite;
use nimbus_store::{
    Database, DatabaseUrl, SealError, Sealer, Store, StoreError, execute, reading, restore, sqlx,
};

use crate::{BOOK, COUNT, INSERT};

fn mode(path: &Utf8Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn add(store: &Store, id: String) {
    store
        .write::<u64, StoreError, _>(|tx| {
            Box::pin(async move { execute!(tx, sqlx::query(INSERT).bind(id).bind(1_i64)) })
        })
        .await
        .unwrap();
}

async fn count(store: &Store) -> i64 {
    reading!(store, |c| sqlx::query_scalar(COUNT).fetch_one(c).await).unwrap()
}

#[tokio::test]
async fn a_second_opener_is_refused_at_once_and_told_who_has_the_file() {
    let world = sqlite().await;
    match Database::open(&world.url).await {
        Err(StoreError::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    let world = sqlite().await;
    let store = world.db.store("shop", BOOK).await.unwrap();
    add(&store, "a".into()).await;
    for entry in world.directory().read_dir_utf8().unwrap() {
        let path = entry.unwrap().path().to_owned();
        assert_eq!(mode(&path), 0o600, "{path}");
    }
}

#[tokio::test]
async fn readers_cannot_write() {
    let world = sqlite().await;
    let store = world.db.store("shop", BOOK).await.unwrap();
    let sneaky = reading!(&store, |c| sqlx::query(INSERT)
        .bind("a")
        .bind(1_i64)
        .fetch_optional(c)
        .await
        .map(|row| row.is_some()));
    assert!(matches!(sneaky, Err(StoreError::Io { .. })), "{sneaky:?}");
}

#[tokio::test]
async fn a_file_of_another_program_is_not_touched() {
    let world = sqlite().await;
    let path = world.directory().join("other.db");
    let other = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let mut connection = sqlx::ConnectOptions::connect(&other).await.unwrap();
    sqlx::query("CREATE TABLE theirs (id TEXT)")
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(
        Database::open(&DatabaseUrl::Sqlite(path.clone())).await,
        Err(StoreError::Foreign { .. })
    ));
    assert!(matches!(
        world.db.backup(&path).await,
        Err(StoreError::Foreign { .. })
    ));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_copy_made_under_writes_is_whole_and_comes_back() {
    let world = sqlite().await;
    let store = world.db.store("shop", BOOK).await.unwrap();
    for n in 0..50 {
        add(&store, format!("before{n}")).await;
    }
    let copy = world.directory().join("copy.db");
    let writing = async {
        for n in 0..50 {
            add(&store, format!("during{n}")).await;
        }
    };
    let (made, ()) = tokio::join!(world.db.backup(&copy), writing);
    made.unwrap();
    assert_eq!(mode(&copy), 0o600);
    world.db.backup(&copy).await.expect("an older copy is replaced");

    let target = world.directory().join("restored.db");
    restore(&copy, &target, false).await.unwrap();
    let restored = Database::open(&DatabaseUrl::Sqlite(target.clone()))
        .await
        .unwrap();
    let shop = restored.store("shop", BOOK).await.unwrap();
    assert_eq!(count(&shop).await, 100);
    assert!(matches!(
        restore(&copy, &target, true).await,
        Err(StoreError::InUse { .. })
    ));
    add(&shop, "after".into()).await;
    drop(shop);
    restored.close().await;
    drop(restored);

    assert!(matches!(
        restore(&copy, &target, false).await,
        Err(StoreError::Exists { .. })
    ));
    restore(&copy, &target, true).await.unwrap();
    let again = Database::open(&DatabaseUrl::Sqlite(target.clone()))
        .await
        .unwrap();
    assert_eq!(count(&again.store("shop", BOOK).await.unwrap()).await, 100);
    let replaced = Database::open(&DatabaseUrl::Sqlite(format!("{target}.replaced").into()))
        .await
        .unwrap();
    assert_eq!(count(&replaced.store("shop", BOOK).await.unwrap()).await, 101);
    let parts: Vec<_> = world
        .directory()
        .read_dir_utf8()
        .unwrap()
        .map(|e| e.unwrap().file_name().to_owned())
        .filter(|n| n.contains(".part-"))
        .collect();
    assert!(parts.is_empty(), "{parts:?}");
}

#[tokio::test]
async fn the_open_database_is_no_target_for_its_own_copy() {
    let world = sqlite().await;
    let DatabaseUrl::Sqlite(path) = &world.url else {
        panic!("sqlite() is SQLite")
    };
    assert!(matches!(
        world.db.backup(path).await,
        Err(StoreError::Exists { .. })
    ));
}

#[tokio::test]
async fn a_damaged_copy_is_refused_and_the_target_stays() {
    let world = sqlite().await;
    let store = world.db.store("shop", BOOK).await.unwrap();
    for n in 0..200 {
        add(
            &store,
            format!("a-rather-long-key-so-that-there-are-several-pages-{n}"),
        )
        .await;
    }
    let copy = world.directory().join("copy.db");
    world.db.backup(&copy).await.unwrap();
    let whole = fs::read(&copy).unwrap();
    let target = world.directory().join("target.db");
    restore(&copy, &target, false).await.unwrap();
    let before = fs::read(&target).unwrap();

    let mut scribbled = whole.clone();
    for byte in scribbled.iter_mut().skip(4096 + 8).take(8000) {
        *byte ^= 0x5a;
    }
    let half = whole[..whole.len() / 2].to_vec();
    for (name, bytes) in [("scribbled", scribbled), ("half", half)] {
        fs::write(&copy, bytes).unwrap();
        assert!(
            matches!(
                restore(&copy, &target, true).await,
                Err(StoreError::Damaged { .. })
            ),
            "{name}"
        );
    }
    for (name, bytes) in [("text", b"hello".to_vec()), ("empty", Vec::new())] {
        fs::write(&copy, bytes).unwrap();
        assert!(
            matches!(
                restore(&copy, &target, true).await,
                Err(StoreError::Foreign { .. })
            ),
            "{name}"
        );
    }
    assert_eq!(fs::read(&target).unwrap(), before);
}

#[tokio::test]
async fn the_key_file_is_made_once_and_used_again() {
    let world = sqlite().await;
    let path = world.directory().join("key");
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || Sealer::load(&path, None).unwrap().key_id().to_owned())
        })
        .collect();
    let ids: std::collections::BTreeSet<String> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    assert_eq!(ids.len(), 1, "starting together made several keys: {ids:?}");
    assert_eq!(mode(&path), 0o600);
    let text = Sealer::load(&path, None).unwrap().seal(b"geheim", "row").unwrap();
    assert_eq!(
        Sealer::load(&path, None)
            .unwrap()
            .open(&text, "row")
            .unwrap()
            .as_slice(),
        b"geheim"
    );
    fs::write(&path, "nonsense").unwrap();
    assert!(matches!(Sealer::load(&path, None), Err(SealError::BadKey { .. })));
}
