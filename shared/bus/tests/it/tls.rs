//! An external server: TLS, credentials from files.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use camino::Utf8Path;
use nimbus_bus::{
    Authority, Bus, BusError, ConnectOptions, Credential, EmbeddedNats, EmbeddedOptions, Exposure, Grants,
    ServerConfigOptions, ServerTls, service_user,
};
use nimbus_model::Clock;

use crate::world::*;

struct External {
    process: Child,
    port: u16,
}

impl Drop for External {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a server as an operator would, from a file and with a configuration file.
fn external(dir: &Utf8Path, program: &Utf8Path, config: &str) -> External {
    let path = dir.join("external.conf");
    std::fs::write(&path, config).unwrap();
    let mut process = Command::new(program)
        .arg("-c")
        .arg(path)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let port = lines
        .find_map(|line| {
            line.split_once("Listening for client connections on ")?
                .1
                .rsplit_once(':')?
                .1
                .parse()
                .ok()
        })
        .expect("the server should say where it listens");
    // Its log must be read on, or it blocks.
    std::thread::spawn(move || lines.for_each(drop));
    External { process, port }
}

/// The embedded program, as a file.
fn program(world: &World) -> camino::Utf8PathBuf {
    let path = world.dir.path().join("nats-server");
    std::fs::copy(format!("/proc/{}/exe", world.nats.pid().unwrap()), &path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    path
}

#[tokio::test]
async fn an_external_server_is_used_over_tls_with_credentials_from_files() {
    let world = World::start().await;
    let dir = world.dir.path();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert_file, key_file) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert_file, certified.cert.pem()).unwrap();
    std::fs::write(&key_file, certified.signing_key.serialize_pem()).unwrap();
    let options = ServerConfigOptions {
        tls: Some(ServerTls {
            cert_file: cert_file.clone(),
            key_file,
        }),
        sync_always: true,
        ..ServerConfigOptions::new("127.0.0.1:-1", dir.join("external"))
    };
    let external = external(dir, &program(&world), &world.authority.server_config(&options));

    let grants = Grants::default().serving("sums").calling::<Double>();
    let creds = dir.join("sums.creds");
    world
        .authority
        .mint(&service_user("sums", &grants))
        .to_creds_file(&creds)
        .unwrap();
    assert_eq!(
        std::fs::metadata(&creds).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let connect = |ca_file| ConnectOptions {
        url: format!("tls://localhost:{}", external.port),
        name: "sums".into(),
        credential: Some(Credential::from_creds_file(&creds).unwrap()),
        ca_file,
        clock: Clock::system(),
    };
    let bus = Bus::connect(connect(Some(cert_file))).await.unwrap();
    let _serving = bus
        .serve("sums", "1.0.0", "Sums")
        .method::<Double, _, _>(|call| async move { Ok(call.request * 2) })
        .start()
        .await
        .unwrap();
    assert_eq!(bus.call::<Double>(&4).await.unwrap(), 8);
    assert!(bus.client().server_info().tls_required);

    let error = Bus::connect(connect(None)).await.unwrap_err();
    assert!(
        matches!(error, BusError::Connect { .. }),
        "a certificate of nobody was believed: {error}"
    );
}

#[tokio::test]
async fn the_embedded_server_is_reached_from_outside_over_tls_only() {
    let dir = camino_tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path().join("bus")).unwrap();
    let start = |name: &'static str| {
        let options = EmbeddedOptions {
            data_dir: dir.path().to_owned(),
            authority: Some(&authority),
            binary: None,
        };
        let exposure = Exposure {
            names: vec![name.to_owned()],
            ..Exposure::new("0.0.0.0:0".parse().unwrap())
        };
        EmbeddedNats::start_exposed(options, exposure)
    };
    let nats = start("bus.example.org").await.unwrap();
    let url = nats.url();
    assert!(url.starts_with("tls://127.0.0.1:"), "{url}");
    let ca_file = nats.ca_file().unwrap().to_owned();
    let port: u16 = url.rsplit_once(':').unwrap().1.parse().unwrap();
    let table = ["tcp", "tcp6"].map(|name| std::fs::read_to_string(format!("/proc/net/{name}")).unwrap());
    let wanted = format!(":{port:04X}");
    let outside = table.concat().lines().any(|line| {
        let local = line.split_whitespace().nth(1).unwrap_or_default();
        local.ends_with(&wanted) && !local.starts_with("0100007F")
    });
    assert!(outside, "it does not listen beyond the loopback");

    let credential = authority.mint(&service_user("sums", &Grants::default().serving("sums")));
    let connect = |url: String, ca_file: Option<camino::Utf8PathBuf>| {
        Bus::connect(ConnectOptions {
            url,
            name: "sums".into(),
            credential: Some(credential.clone()),
            ca_file,
            clock: Clock::system(),
        })
    };
    let bus = connect(url, Some(ca_file.clone())).await.unwrap();
    assert!(bus.client().server_info().tls_required);
    // Its certificate is not for a name that nobody gave it.
    let error = connect(format!("tls://[::ffff:127.0.0.1]:{port}"), Some(ca_file.clone())).await;
    assert!(matches!(error, Err(BusError::Connect { .. })), "{error:?}");
    bus.close().await;

    // Whoever was told of the authority believes the server after a restart, under other names too.
    nats.stop().await;
    let before = std::fs::read_to_string(&ca_file).unwrap();
    let nats = start("localhost").await.unwrap();
    assert_eq!(std::fs::read_to_string(nats.ca_file().unwrap()).unwrap(), before);
    connect(nats.url(), Some(ca_file)).await.unwrap();
}

#[tokio::test]
async fn an_address_of_somebody_else_says_so() {
    let dir = camino_tempfile::tempdir().unwrap();
    let options = EmbeddedOptions {
        data_dir: dir.path().to_owned(),
        authority: None,
        binary: None,
    };
    // RFC 5737: nobody has it.
    let exposure = Exposure::new("192.0.2.1:0".parse().unwrap());
    let error = EmbeddedNats::start_exposed(options, exposure)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("192.0.2.1"), "{error}");
}
