//! An engine that does not answer costs its caller an error.

use std::path::Path;
use std::time::Duration;

use nimbus_engine::{Engine, EngineConfig, EngineError, discover};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

/// Answers `/version` and `/info` and nothing else.
fn half_dead(path: &Path) {
    let listener = UnixListener::bind(path).expect("a socket of our own");
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let mut stream = listener.accept().await.expect("a connection").0;
            let mut asked = [0; 4096];
            let length = stream.read(&mut asked).await.unwrap_or(0);
            let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
            let body = if asked.contains("/version") {
                r#"{"Version":"1","ApiVersion":"1.41","Components":[]}"#
            } else if asked.contains("/info") {
                r#"{"SecurityOptions":["name=seccomp"],"OSType":"linux"}"#
            } else {
                kept.push(stream);
                continue;
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
}

fn at(path: &Path) -> EngineConfig {
    EngineConfig {
        url: Some(format!("unix://{}", path.display())),
        ..EngineConfig::default()
    }
}

#[tokio::test]
async fn a_socket_that_says_nothing_is_no_engine() {
    let dir = camino_tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("s.sock").into_std_path_buf();
    let _listener = UnixListener::bind(&path).expect("a socket of our own");
    // Time jumps to the next timer whenever everybody waits.
    tokio::time::pause();
    let error = discover(&at(&path)).await.expect_err("nobody answers");
    assert!(matches!(error, EngineError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("no answer within 5 s"), "{error}");
}

#[tokio::test]
async fn every_call_to_an_engine_that_hangs_ends() {
    let dir = camino_tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("s.sock").into_std_path_buf();
    half_dead(&path);
    let engine = discover(&at(&path)).await.expect("it answers so far");
    tokio::time::pause();
    let id = nimbus_engine::ContainerId::new("c");
    let none = nimbus_engine::Labels::new();
    let image = "x.io/y".parse().expect("a reference");
    let pull = nimbus_engine::Pull {
        policy: nimbus_engine::PullPolicy::Always,
        ..nimbus_engine::Pull::default()
    };
    let late = |error: EngineError| {
        assert!(
            matches!(
                error,
                EngineError::Timeout { .. } | EngineError::PullTimeout { .. }
            ),
            "{error}"
        );
    };
    late(engine.list(&none).await.expect_err("it hangs"));
    late(engine.inspect(&id).await.expect_err("it hangs"));
    late(engine.start(&id).await.expect_err("it hangs"));
    late(
        engine
            .stop(&id, None, Duration::from_secs(1))
            .await
            .expect_err("it hangs"),
    );
    late(
        engine
            .remove(&id, nimbus_engine::Remove::ALL)
            .await
            .expect_err("it hangs"),
    );
    late(engine.stats(&id).await.expect_err("it hangs"));
    late(engine.size(&id).await.expect_err("it hangs"));
    late(engine.ensure_volume("v", &none).await.expect_err("it hangs"));
    late(engine.ensure_image(&image, &pull).await.expect_err("it hangs"));
}
