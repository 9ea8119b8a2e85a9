//! A real registry on loopback, a child of its test.

use std::process::Stdio;

use base64::Engine as _;
use bytes::Bytes;
use nimbus_engine::RegistryAuth;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::world::{PATIENCE, World};

/// Its base64 has a '/' in one alphabet and a '_' in the other, which engines tell apart.
const PASSWORD: &str = "kn+ock/?>~~~?/kn?ock";

/// bcrypt of [`PASSWORD`], of the least cost there is: the registry takes no other kind.
const HASH: &str = "$2b$05$abcdefghijklmnopqrstuukFtQ9v9C6MZxvc0HiQlpN3MVe9Nnrf2";

pub(crate) struct Registry {
    /// `127.0.0.1:port`.
    pub(crate) address: String,
    auth: bool,
    _child: Child,
    _dir: camino_tempfile::Utf8TempDir,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    pub(crate) auth: bool,
    pub(crate) tls: bool,
}

impl Registry {
    pub(crate) async fn start(options: Options) -> Self {
        let dir = camino_tempfile::tempdir().expect("a temporary directory");
        let mut http = json!({"addr": "127.0.0.1:0", "secret": "of this test"});
        if options.tls {
            let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
            let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
            std::fs::write(&cert, made.cert.pem()).expect("our directory");
            std::fs::write(&key, made.signing_key.serialize_pem()).expect("our directory");
            http["tls"] = json!({"certificate": cert.as_str(), "key": key.as_str()});
        }
        let mut config = json!({
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": dir.path().join("data").as_str()}},
            "http": http,
        });
        if options.auth {
            let users = dir.path().join("htpasswd");
            std::fs::write(&users, format!("pull:{HASH}\n")).expect("our directory");
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": users.as_str()}});
        }
        let path = dir.path().join("config.yml");
        // JSON is YAML.
        std::fs::write(&path, config.to_string()).expect("our directory");
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| panic!("these tests need docker-registry (ops/dev/install.sh test): {e}"));
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let listening = async {
            let mut seen = String::new();
            while let Some(line) = lines.next_line().await.expect("text") {
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let end = rest.find([',', '"']).expect("the message ends");
                    return rest[..end].to_owned();
                }
                seen += &line;
            }
            panic!("the registry did not start: {seen}");
        };
        let address = tokio::time::timeout(PATIENCE, listening)
            .await
            .expect("the registry listens");
        // It must not block on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            address,
            auth: options.auth,
            _child: child,
            _dir: dir,
        }
    }

    /// The credentials it takes.
    pub(crate) fn auth(&self) -> RegistryAuth {
        RegistryAuth {
            username: "pull".to_owned(),
            password: PASSWORD.into(),
        }
    }

    /// Puts an image of one file there and removes it from the engine; gives its digest.
    pub(crate) async fn publish(&self, world: &World, repository: &str, tag: &str) -> String {
        let name = format!("{}/{repository}", self.address);
        world.owns(&format!("{name}:{tag}"));
        import(world, &name, tag).await;
        let credentials = if self.auth {
            json!({"username": "pull", "password": PASSWORD, "serveraddress": self.address})
        } else {
            json!({})
        };
        let header = base64::engine::general_purpose::URL_SAFE.encode(credentials.to_string());
        let (status, said) = world
            .send(
                "POST",
                &format!("/images/{name}/push?tag={tag}"),
                &[("x-registry-auth", &header)],
                Bytes::new(),
            )
            .await;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(status, 200, "{said}");
        let digest = said
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|line| line["aux"]["Digest"].as_str().map(str::to_owned))
            .unwrap_or_else(|| panic!("the push did not say a digest: {said}"));
        let (status, said) = world
            .send("DELETE", &format!("/images/{name}:{tag}"), &[], Bytes::new())
            .await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&said));
        digest
    }
}

/// Bytes of a layer with one file that no other layer has.
fn layer() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let content = uuid::Uuid::new_v4().to_string().repeat(2000);
    append(&mut archive, "hello", content.as_bytes());
    archive.into_inner().expect("memory")
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len().try_into().expect("small"));
    header.set_mode(0o755);
    archive.append_data(&mut header, path, content).expect("memory");
}

/// Makes an image for a processor, with a configuration as the OCI image specification has it.
pub(crate) async fn load(world: &World, reference: &str, architecture: &str, config: Value) {
    let layer = layer();
    let diff = format!("sha256:{}", hex(&layer));
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [diff]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "layer.tar", &layer);
    append(&mut archive, "config.json", config.to_string().as_bytes());
    append(&mut archive, "manifest.json", manifest.to_string().as_bytes());
    let body = archive.into_inner().expect("memory");
    let (status, said) = world
        .send(
            "POST",
            "/images/load",
            &[("content-type", "application/x-tar")],
            body.into(),
        )
        .await;
    let said = String::from_utf8_lossy(&said);
    assert!(status == 200 && !said.contains("error"), "{status} {said}");
}

fn hex(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    format!("{:x}", sha2::Sha256::digest(bytes))
}

/// Makes an image of one file that no other image has.
async fn import(world: &World, name: &str, tag: &str) {
    let body = layer();
    // The tag stands in the name because Podman looks for it nowhere else.
    let path = format!("/images/create?fromSrc=-&repo={name}:{tag}&changes=CMD%20%5B%22%2Fhello%22%5D");
    let (status, said) = world
        .send(
            "POST",
            &path,
            &[("content-type", "application/x-tar")],
            body.into(),
        )
        .await;
    let said = String::from_utf8_lossy(&said);
    assert!(status == 200 && !said.contains("error"), "{status} {said}");
}
