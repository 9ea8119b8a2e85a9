//! A server whose host runs sandboxes on the real container engine of this machine, and what must be
//! left of it: nothing.

use std::process::Stdio;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use camino_tempfile::Utf8TempDir;
use http::Method;
use serde_json::{Value, json};

use crate::api::{Answer, Api};
use crate::compose::reachable;
use crate::process::output;
use crate::server::{Server, Settings};
use crate::wait::eventually;

/// The image of sandboxes: busybox, made by `ops/dev/engine.sh images`.
pub const IMAGE: &str = "nimbus.test/busybox:1";
/// How long a sandbox may take to start on a machine that is busy with other tests.
pub const STARTS: Duration = Duration::from_secs(60);
/// The label that names the host whose agent made a container or volume.
pub(crate) const HOST_LABEL: &str = "io.nimbus.sandbox.host";

/// Settings of a server that runs sandboxes under the name of `host`, with a token in `token`.
#[must_use]
pub fn settings(host: &str, token: &Utf8Path) -> Settings {
    Settings::bare()
        .without("NIMBUS_SANDBOX_ENGINE")
        .with("NIMBUS_SANDBOX_HOST", host)
        .with("NIMBUS_SANDBOX_WARM", 1)
        .with(
            "NIMBUS_SANDBOX_EGRESS_INTERNAL",
            format!("127.0.0.0/8,{}/32", reachable()),
        )
        .with("NIMBUS_ADMIN_TOKEN_FILE", token)
}

/// The operator of the server at `url`, whose token is in a file.
///
/// # Panics
/// When there is no such file.
#[must_use]
pub fn operator(url: &str, token: &Utf8Path) -> Api {
    let text = std::fs::read(token).unwrap_or_else(|error| panic!("{token}: {error}"));
    let file: Value = serde_json::from_slice(&text).unwrap();
    Api::anonymous(url).with_token(file["token"].as_str().unwrap())
}

/// One server, one host.
#[derive(Debug)]
pub struct Lab {
    /// The server.
    pub server: Server,
    /// Its operator.
    pub operator: Api,
    /// The name of its host.
    pub host: String,
    /// Where logs are.
    pub output: Utf8PathBuf,
    _dir: Utf8TempDir,
}

impl Lab {
    /// Starts it.
    pub async fn start(suite: &str, test: &str) -> Self {
        Self::with(suite, test, |settings| settings).await
    }

    /// Starts it with other settings.
    pub async fn with(suite: &str, test: &str, change: impl FnOnce(Settings) -> Settings) -> Self {
        let output = output(suite, test);
        let dir = camino_tempfile::tempdir().unwrap();
        let host = format!("t-{}-{}", std::process::id(), test.replace('_', "-"));
        let host: String = host.chars().take(60).collect();
        let token = dir.path().join("admin-token");
        let settings = change(settings(&host, &token));
        let server = Server::start(&output, "nimbus", &dir.path().join("data"), &settings).await;
        let operator = match server.operator_token().await {
            Some(known) => Api::anonymous(&server.url()).with_token(&known),
            None => operator(&server.url(), &token),
        };
        Self {
            server,
            operator,
            host,
            output,
            _dir: dir,
        }
    }

    /// A tenant that may use everything.
    pub async fn tenant(&self, id: &str) -> Tenant {
        Tenant::create(&self.operator, id).await
    }

    /// Stops every sandbox, then the server, and checks that the engine has nothing of it any more.
    pub async fn end(mut self) {
        let tenants = self.operator.get("/api/tenants").await.is(200).body["tenants"].clone();
        for tenant in tenants.as_array().unwrap() {
            let path = format!("/api/tenants/{}", tenant.as_str().unwrap());
            let _ = self.operator.delete(&path).await.is(204);
        }
        nobodys(&self.host).await;
        let status = self.server.terminate().await;
        assert!(status.success(), "{status}");
        assert_eq!(left(&self.host).await, Vec::<String>::new(), "left on the engine");
    }
}

/// Waits until no container of `host` belongs to a tenant: deleting answers when the record is gone.
pub async fn nobodys(host: &str) {
    let host = format!("label={HOST_LABEL}={host}");
    let _ = eventually(
        "no container belongs to a tenant, and none is being made",
        STARTS,
        async || {
            let tenants = [
                "ps",
                "-aq",
                "--filter",
                &host,
                "--filter",
                "label=io.nimbus.sandbox.tenant",
            ];
            let made = ["ps", "-aq", "--filter", &host, "--filter", "status=created"];
            docker(&tenants).await + &docker(&made).await
        },
        String::is_empty,
    )
    .await;
}

/// Containers, volumes and networks that carry the label of `host`.
///
/// # Panics
/// When the engine cannot be asked.
pub async fn left(host: &str) -> Vec<String> {
    let mut left = vec![];
    for kind in [
        &["ps", "-aq"][..],
        &["volume", "ls", "-q"],
        &["network", "ls", "-q"],
    ] {
        let listed = docker(
            &kind
                .iter()
                .copied()
                .chain(["--filter", &format!("label={HOST_LABEL}={host}")])
                .collect::<Vec<_>>(),
        )
        .await;
        left.extend(listed.lines().map(|line| format!("{} {line}", kind[0])));
    }
    left
}

/// What the engine's own command says.
///
/// # Panics
/// When it fails.
pub async fn docker(args: &[&str]) -> String {
    let done = tokio::process::Command::new("docker")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap_or_else(|error| panic!("docker: {error}; run ops/dev/engine.sh start"));
    assert!(
        done.status.success(),
        "docker {args:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8(done.stdout).unwrap()
}

/// A tenant and who acts in it.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Who.
    pub api: Api,
    /// Its id.
    pub id: String,
}

impl Tenant {
    /// Makes one that may use everything.
    pub async fn create(api: &Api, id: &str) -> Self {
        let _ = api.post("/api/tenants", &json!({ "id": id })).await.is(201);
        let open = json!({ "sandboxes": 200, "limit": { "vcpus": 400, "memoryBytes": 1_u64 << 40, "diskBytes": 1_u64 << 42,
            "logBytes": 1_u64 << 40, "pids": 400_000 },
            "policy": { "resources": true, "ports": true, "egress": true, "mounts": true } });
        let request = api
            .request(Method::PATCH, &format!("/api/tenants/{id}"))
            .json(&open);
        let _ = Api::send(request).await.is(200);
        Self {
            api: api.clone(),
            id: id.to_owned(),
        }
    }

    /// The path of something of it.
    #[must_use]
    pub fn path(&self, rest: &str) -> String {
        format!("/api/tenants/{}{rest}", self.id)
    }

    /// What a create says for these arguments, to be changed.
    #[must_use]
    pub fn body(argv: &[&str]) -> Value {
        json!({ "profile": "worker", "spec": {
            "owner": { "kind": "standalone", "displayName": "test" }, "backend": "container",
            "root": { "kind": "oci_image", "source": { "kind": "reference", "reference": IMAGE } },
            "process": { "argv": argv } } })
    }

    /// Creates a sandbox; the answer.
    pub async fn create_sandbox(&self, body: &Value) -> Answer {
        self.api.post(&self.path("/sandboxes"), body).await
    }

    /// Creates a sandbox and waits until it is ready; its id.
    pub async fn ready(&self, body: &Value) -> String {
        let made = self.create_sandbox(body).await.is(201).body;
        let id = made["metadata"]["id"].as_str().unwrap().to_owned();
        self.reaches(&id, "ready").await;
        id
    }

    /// One that idles.
    pub async fn idle(&self) -> String {
        self.ready(&Self::body(&["sleep", "3600"])).await
    }

    /// The sandbox as it is.
    pub async fn sandbox(&self, id: &str) -> Value {
        self.api
            .get(&self.path(&format!("/sandboxes/{id}")))
            .await
            .is(200)
            .body
    }

    /// Waits until a sandbox is in a state; the sandbox.
    pub async fn reaches(&self, id: &str, state: &str) -> Value {
        eventually(
            &format!("{id} is {state}"),
            STARTS,
            async || self.sandbox(id).await,
            |sandbox| sandbox["status"]["lifecycleState"] == state,
        )
        .await
    }

    /// Runs a command to its end.
    pub async fn exec(&self, id: &str, argv: &[&str]) -> Value {
        self.exec_with(id, &json!({ "argv": argv })).await.is(200).body
    }

    /// Runs a command as the body says.
    pub async fn exec_with(&self, id: &str, body: &Value) -> Answer {
        self.api
            .post(&self.path(&format!("/sandboxes/{id}/exec")), body)
            .await
    }

    /// What a command prints; it must end with 0.
    pub async fn prints(&self, id: &str, argv: &[&str]) -> String {
        let ran = self.exec(id, argv).await;
        assert_eq!(ran["exitCode"], 0, "{ran}");
        ran["stdout"].as_str().unwrap().to_owned()
    }
}
