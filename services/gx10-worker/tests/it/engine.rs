//! The engine as the tests see it, and a way to it that can be cut.

use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// The engine's socket.
pub(crate) fn socket() -> PathBuf {
    let named = std::env::var("DOCKER_HOST").unwrap_or_default();
    named
        .strip_prefix("unix://")
        .unwrap_or("/var/run/docker.sock")
        .into()
}

/// What `docker` prints; its failure is no error.
pub(crate) fn docker(args: &[&str]) -> String {
    let output = Command::new("docker")
        .args(args)
        .output()
        .expect("the docker command is installed");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

pub(crate) fn exists(container: &str) -> bool {
    !docker(&["ps", "-aq", "--filter", &format!("name=^{container}$")]).is_empty()
}

/// Removes what a worker of this name made.
pub(crate) fn clean(worker: &str) {
    let label = format!("label=io.nimbus.gpu.worker={worker}");
    let left = docker(&["ps", "-aq", "--filter", &label]);
    for id in left.lines() {
        docker(&["rm", "-f", "-v", id]);
    }
}

/// A socket before the engine's, whose connections can be cut, as they are when the engine restarts.
pub(crate) struct Proxy {
    open: watch::Sender<bool>,
}

impl Proxy {
    pub(crate) fn start(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let (open, watched) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut watched = watched.clone();
                tokio::spawn(async move {
                    if !*watched.borrow() {
                        return;
                    }
                    let mut far = UnixStream::connect(socket()).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = watched.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { open }
    }

    /// Ends all connections, and each new one at once.
    pub(crate) fn cut(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn mend(&self) {
        self.open.send_replace(true);
    }
}
