//! A nats-server of its own, with the keys and credentials that `nimbus bus init` writes.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use crate::process::{Process, binary, command, free_port, root};
use crate::wait::eventually;

/// A running nats-server.
#[derive(Debug)]
pub struct Nats {
    /// Where services connect.
    pub url: String,
    /// The folder with a credentials file for each service.
    pub credentials: Utf8PathBuf,
    port: u16,
    config: Utf8PathBuf,
    log: Utf8PathBuf,
    process: Process,
}

fn server() -> Utf8PathBuf {
    let named = ["NIMBUS_TEST_NATS_SERVER", "NIMBUS_NATS_SERVER"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|path| !path.is_empty()));
    named.map_or_else(|| root().join("target/nats/nats-server"), Utf8PathBuf::from)
}

impl Nats {
    /// Writes keys and configuration into `dir` and starts a server with them.
    ///
    /// # Panics
    /// When either fails.
    pub async fn start(output: &Utf8Path, dir: &Utf8Path) -> Self {
        let port = free_port();
        let mut init = command(binary());
        init.args([
            "bus",
            "init",
            dir.as_str(),
            "--listen",
            &format!("127.0.0.1:{port}"),
        ]);
        let done = init.output().await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let (config, log) = (dir.join("nats-server.conf"), output.join("nats-server.log"));
        let process = run(&config, &log);
        let nats = Self {
            url: format!("nats://127.0.0.1:{port}"),
            credentials: dir.join("creds"),
            port,
            config,
            log,
            process,
        };
        nats.answers().await;
        nats
    }

    async fn answers(&self) {
        let _ = eventually(
            "the nats-server answers",
            Duration::from_secs(20),
            async || {
                tokio::net::TcpStream::connect(("127.0.0.1", self.port))
                    .await
                    .map(|_| ())
                    .map_err(|e| e.to_string())
            },
            Result::is_ok,
        )
        .await;
    }

    /// Kills it without a warning and starts it again.
    pub async fn crash(&mut self) {
        self.process.kill().await;
        self.process = run(&self.config, &self.log);
        self.answers().await;
    }
}

fn run(config: &Utf8Path, log: &Utf8Path) -> Process {
    Process::start(
        "nats-server",
        command(server()).args(["-c", config.as_str()]),
        log,
    )
}
