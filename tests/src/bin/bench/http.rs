//! `GET /api/vms` with a token and a hundred machines, beside a bare axum server that sends the same
//! bytes from memory.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::report::{Report, ms, percentile};
use crate::server::World;

const MACHINES: usize = 100;
const SEQUENTIAL: usize = 2_000;
const CONNECTIONS: usize = 32;
const LOAD: Duration = Duration::from_secs(5);

/// One keep-alive connection that sends one request over and over. No HTTP library: its cost would
/// be measured too, on the same two cores.
struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(base: &str, path: &str, token: &str) -> Result<Self> {
        let host = base.strip_prefix("http://").context("plain HTTP")?;
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nAccept: application/json\r\n\r\n"
        );
        Ok(Self {
            stream,
            request: request.into_bytes(),
            buffer: Vec::with_capacity(128 * 1024),
        })
    }

    /// Sends the request and reads the whole answer; its body's length.
    async fn ask(&mut self) -> Result<usize> {
        self.stream.write_all(&self.request).await?;
        self.buffer.clear();
        let (mut head, mut length) = (None, 0);
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the server closed the connection");
            }
            if head.is_none()
                && let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")
            {
                let text =
                    String::from_utf8_lossy(self.buffer.get(..end).unwrap_or_default()).to_ascii_lowercase();
                if !text.starts_with("http/1.1 200") {
                    bail!("answered {}", text.lines().next().unwrap_or_default());
                }
                length = text
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length:"))
                    .and_then(|value| value.trim().parse().ok())
                    .context("a content length")?;
                head = Some(end + 4);
            }
            if let Some(head) = head
                && self.buffer.len() >= head + length
            {
                return Ok(length);
            }
        }
    }
}

async fn p50(base: &str, path: &str, token: &str) -> Result<Duration> {
    let mut connection = Connection::open(base, path, token).await?;
    let mut samples = Vec::with_capacity(SEQUENTIAL);
    for _ in 0..SEQUENTIAL {
        let began = Instant::now();
        connection.ask().await?;
        samples.push(began.elapsed());
    }
    Ok(percentile(&mut samples, 50))
}

async fn rate(base: &str, path: &str, token: &str) -> Result<f64> {
    let until = Instant::now() + LOAD;
    let mut tasks = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(base, path, token).await?;
        tasks.push(tokio::spawn(async move {
            let mut count = 0u32;
            while Instant::now() < until {
                connection.ask().await?;
                count += 1;
            }
            Ok::<_, anyhow::Error>(count)
        }));
    }
    let mut total = 0;
    for task in tasks {
        total += task.await??;
    }
    Ok(f64::from(total) / LOAD.as_secs_f64())
}

pub(crate) async fn measure(report: &mut Report) -> Result<()> {
    eprintln!("GET /api/vms with {MACHINES} machines");
    let world = World::new("0").await?;
    for chunk in (0..MACHINES).collect::<Vec<_>>().chunks(10) {
        futures::future::try_join_all(chunk.iter().map(|n| {
            let world = &world;
            async move { world.provision(&format!("vm-{n}")).await }
        }))
        .await?;
    }
    let body = world
        .client
        .get(format!("{}/api/vms", world.base))
        .bearer_auth(&world.token)
        .send()
        .await?
        .bytes()
        .await?;
    let count = serde_json::from_slice::<serde_json::Value>(&body)?
        .pointer("/data")
        .and_then(|d| d.as_array())
        .map_or(0, Vec::len);
    anyhow::ensure!(count == MACHINES, "the list has {count} machines");

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let peer = format!("http://{}", listener.local_addr()?);
    let bytes = body.clone();
    let route = get(move || {
        let bytes = bytes.clone();
        async move { ([(CONTENT_TYPE, "application/json")], bytes) }
    });
    let bare =
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/api/vms", route)).await });

    let ours_p50 = p50(&world.base, "/api/vms", &world.token).await?;
    let peer_p50 = p50(&peer, "/api/vms", "x").await?;
    report.add(
        "GET /api/vms, 100 machines, p50",
        format!(
            "{} ({:.1} ×)",
            ms(ours_p50),
            ours_p50.as_secs_f64() / peer_p50.as_secs_f64()
        ),
        format!("bare axum {}", ms(peer_p50)),
        "≤ 1 ms",
        ours_p50 <= Duration::from_millis(1),
    );
    let ours_rate = rate(&world.base, "/api/vms", &world.token).await?;
    let peer_rate = rate(&peer, "/api/vms", "x").await?;
    report.add(
        &format!("GET /api/vms, {CONNECTIONS} connections"),
        format!("{ours_rate:.0}/s ({:.2} of bare)", ours_rate / peer_rate),
        format!("bare axum {peer_rate:.0}/s, the load on the same cores"),
        "≥ 5000/s",
        ours_rate >= 5000.0,
    );
    bare.abort();
    world.end().await
}
