//! The proxy with real sockets: a client on one side, a server on the other.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpListener;

use super::*;

struct Names(HashMap<String, Vec<IpAddr>>, Mutex<Vec<String>>);

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.1.lock().expect("not poisoned").push(host.to_owned());
        self.0
            .get(host)
            .cloned()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such name"))
    }
}

struct World {
    proxy: Proxy,
    denied: Arc<Mutex<Vec<Denial>>>,
    names: Arc<Names>,
}

impl World {
    /// Both names lead to loopback; only rules that allow internal addresses may go there.
    fn new(rules: Vec<EgressRule>) -> Self {
        let home: Vec<IpAddr> = vec!["127.0.0.1".parse().expect("an address")];
        let names = Arc::new(Names(
            HashMap::from([
                ("allowed.test".to_owned(), home.clone()),
                ("inside.test".to_owned(), home),
            ]),
            Mutex::default(),
        ));
        let denied = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&denied);
        let proxy = Proxy::new(
            "box-1".to_owned(),
            rules,
            vec!["127.0.0.0/8".parse().expect("a network")],
            Arc::clone(&names) as Arc<dyn Resolve>,
            Arc::new(move |denial| sink.lock().expect("not poisoned").push(denial)),
            Clock::system(),
        );
        Self { proxy, denied, names }
    }

    fn connect(&self) -> DuplexStream {
        let (client, server) = duplex(64 << 10);
        let proxy = self.proxy.clone();
        tokio::task::spawn(async move { proxy.serve(server).await });
        client
    }

    async fn say(&self, text: &str) -> String {
        let mut client = self.connect();
        client.write_all(text.as_bytes()).await.expect("the proxy reads");
        let mut answer = String::new();
        client
            .read_to_string(&mut answer)
            .await
            .expect("the proxy answers");
        answer
    }

    fn denials(&self) -> Vec<Denial> {
        self.denied.lock().expect("not poisoned").clone()
    }
}

fn rule(protocol: Protocol, host: &str, port: u16, internal: bool) -> EgressRule {
    EgressRule {
        name: format!("to-{host}"),
        protocol,
        host: host.into(),
        port,
        methods: vec![],
        path_prefixes: vec![],
        allow_internal_ips: internal,
    }
}

/// Reads one request's head, answers with it, and closes.
async fn mirror() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::task::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::task::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nkeep-alive: x\r\nconnection: close\r\n\r\n",
                    head.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.write_all(&head).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn a_request_is_forwarded_without_what_is_meant_for_the_proxy() {
    let port = mirror().await;
    let world = World::new(vec![rule(Protocol::Http, "allowed.test", port, true)]);
    let answer = world
        .say(&format!(
            "GET http://allowed.test:{port}/a?b=c HTTP/1.1\r\nHost: other.test\r\nProxy-Authorization: Basic eA==\r\n\
             Connection: close, X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\n\r\n"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = answer.to_ascii_lowercase();
    assert!(seen.contains("get /a?b=c http/1.1"), "{answer}");
    assert!(seen.contains(&format!("host: allowed.test:{port}")), "{answer}");
    assert!(seen.contains("x-end: 2"), "{answer}");
    for gone in ["other.test", "proxy-authorization", "x-hop", "keep-alive"] {
        assert!(!seen.contains(gone), "{gone}: {answer}");
    }
    assert!(world.denials().is_empty());
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways() {
    let port = mirror().await;
    let world = World::new(vec![rule(Protocol::Https, "allowed.test", port, true)]);
    let mut client = world.connect();
    let hello = format!("CONNECT allowed.test:{port} HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n");
    client.write_all(hello.as_bytes()).await.expect("written");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("an answer"));
    }
    assert!(
        head.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&head)
    );
    client.write_all(b"ping inside\r\n\r\n").await.expect("written");
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.expect("read");
    assert!(rest.contains("ping inside"), "{rest}");
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_told_and_not_even_resolved() {
    let port = mirror().await;
    let world = World::new(vec![rule(Protocol::Https, "allowed.test", 443, false)]);
    let answer = world
        .say(&format!(
            "POST http://inside.test:{port}/secret?token=x HTTP/1.1\r\nHost: inside.test\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(answer.contains("auth.permission_denied"), "{answer}");
    let denials = world.denials();
    let [denial] = denials.as_slice() else {
        panic!("{denials:?}");
    };
    assert_eq!(denial.sandbox, "box-1");
    assert_eq!(
        (denial.protocol.as_str(), denial.host.as_str(), denial.port),
        ("http", "inside.test", port)
    );
    assert_eq!(denial.method.as_deref(), Some("POST"));
    assert_eq!(
        denial.path.as_deref(),
        Some("/secret"),
        "a query may hold secrets"
    );
    assert!(world.names.1.lock().expect("not poisoned").is_empty());
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused() {
    let port = mirror().await;
    let world = World::new(vec![rule(Protocol::Https, "inside.test", port, false)]);
    let answer = world
        .say(&format!(
            "CONNECT inside.test:{port} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let reasons: Vec<String> = world.denials().into_iter().map(|denial| denial.reason).collect();
    assert_eq!(
        reasons,
        ["rule to-inside.test does not allow the internal address 127.0.0.1"]
    );
}

#[tokio::test]
async fn nonsense_is_a_bad_request_and_a_dead_server_a_bad_gateway() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    let world = World::new(vec![
        rule(Protocol::Http, "allowed.test", port, true),
        rule(Protocol::Http, "nowhere.test", 80, true),
    ]);
    for (request, status) in [
        (
            "GET /path HTTP/1.1\r\nHost: allowed.test\r\nConnection: close\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "GET https://allowed.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "CONNECT allowed.test HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(),
            "400",
        ),
        (
            format!(
                "GET http://user:pass@allowed.test:{port}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            ),
            "400",
        ),
        (
            format!("GET http://allowed.test:{port}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
            "502",
        ),
        (
            "GET http://nowhere.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(),
            "502",
        ),
    ] {
        let answer = world.say(&request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}{answer}"
        );
    }
    assert!(world.denials().is_empty(), "none of these is a matter of policy");
}

#[tokio::test]
async fn a_raw_rule_leads_to_its_own_address_and_no_other() {
    let port = mirror().await;
    let world = World::new(vec![rule(Protocol::Tcp, "allowed.test", port, true)]);
    let (mut client, server) = duplex(1024);
    let proxy = world.proxy.clone();
    let carried = tokio::task::spawn(async move { proxy.tunnel(server, "to-allowed.test").await });
    client.write_all(b"raw bytes\r\n\r\n").await.expect("written");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("read");
    assert!(answer.contains("raw bytes"), "{answer}");
    drop(client);
    carried.await.expect("ended");

    let (mut client, server) = duplex(1024);
    world.proxy.tunnel(server, "no such rule").await;
    let mut nothing = String::new();
    client.read_to_string(&mut nothing).await.expect("closed");
    assert!(nothing.is_empty());
}
