//! A socket in front of the engine's, which can be cut and which counts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// Passes everything on to the engine until it is dropped.
pub(crate) struct Relay {
    path: PathBuf,
    stop: CancellationToken,
    pulls: Arc<AtomicUsize>,
}

impl Relay {
    pub(crate) fn start(path: &Path, engine: PathBuf) -> Self {
        let listener = UnixListener::bind(path).expect("a socket of our own");
        let stop = CancellationToken::new();
        let pulls = Arc::new(AtomicUsize::new(0));
        let (stopped, counted) = (stop.clone(), Arc::clone(&pulls));
        tokio::spawn(async move {
            loop {
                let client = tokio::select! {
                    () = stopped.cancelled() => return,
                    accepted = listener.accept() => accepted.expect("a connection").0,
                };
                let server = UnixStream::connect(&engine).await.expect("the engine listens");
                tokio::spawn(pass(client, server, stopped.clone(), Arc::clone(&counted)));
            }
        });
        Self {
            path: path.to_owned(),
            stop,
            pulls,
        }
    }

    /// How many pulls have passed.
    pub(crate) fn pulls(&self) -> usize {
        self.pulls.load(Ordering::SeqCst)
    }

    /// Ends every connection; nobody listens any more.
    pub(crate) fn cut(self) {
        drop(self);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.cancel();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn pass(client: UnixStream, server: UnixStream, stopped: CancellationToken, pulls: Arc<AtomicUsize>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = from_client.read(&mut buffer).await.unwrap_or(0);
            if length == 0 {
                return;
            }
            // The head of a request comes in one piece from a client on the same machine.
            if String::from_utf8_lossy(&buffer[..length]).contains("/images/create?") {
                pulls.fetch_add(1, Ordering::SeqCst);
            }
            if to_server.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = stopped.cancelled() => {}
        () = requests => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}
