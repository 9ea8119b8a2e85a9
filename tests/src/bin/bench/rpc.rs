//! A call through the bus beside a raw NATS request with the same bytes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_nats::Client;
use futures::StreamExt;
use nimbus_bus::{
    Access, Authority, Bus, ConnectOptions, Credential, EmbeddedNats, EmbeddedOptions, Incoming, Method,
    Retry, User,
};
use nimbus_model::Clock;

use crate::report::{Report, ms, percentile};

struct Echo;

impl Method for Echo {
    const SERVICE: &'static str = "bench";
    const NAME: &'static str = "echo";
    const TIMEOUT: Duration = Duration::from_secs(5);
    const RETRY: Retry = Retry::Read;
    const ACCESS: Access = Access::Service;
    type Request = Vec<u8>;
    type Reply = Vec<u8>;
    fn sample_request() -> Vec<u8> {
        vec![1]
    }
    fn sample_reply() -> Vec<u8> {
        vec![1]
    }
}

const WARM_UP: usize = 500;
const SAMPLES: usize = 5_000;
const CONCURRENT: usize = 128;
const BURST: usize = 40_000;
const RAW: &str = "bench.raw";

async fn connect(nats: &EmbeddedNats, credential: Credential, name: &str) -> Result<Bus> {
    Ok(Bus::connect(ConnectOptions {
        url: nats.url(),
        name: name.to_owned(),
        credential: Some(credential),
        ca_file: None,
        clock: Clock::system(),
    })
    .await?)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the raw request is what ours is measured against"
)]
async fn raw(client: &Client, body: Vec<u8>) -> Result<()> {
    client.request(RAW, body.into()).await?;
    Ok(())
}

async fn one_by_one<F, Fut>(count: usize, call: F) -> Result<Vec<Duration>>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        call().await?;
        samples.push(began.elapsed());
    }
    Ok(samples)
}

async fn together<F, Fut>(call: F) -> Result<f64>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let began = Instant::now();
    let calls = futures::stream::iter(0..BURST)
        .map(|_| call())
        .buffer_unordered(CONCURRENT);
    let done: Vec<Result<()>> = calls.collect().await;
    done.into_iter().collect::<Result<Vec<()>>>()?;
    #[expect(clippy::cast_precision_loss, reason = "a count of thousands")]
    Ok(BURST as f64 / began.elapsed().as_secs_f64())
}

pub(crate) async fn measure(report: &mut Report) -> Result<()> {
    eprintln!("bus RPC");
    let folder = camino_tempfile::tempdir()?;
    let authority = Authority::open(folder.path())?;
    let options = EmbeddedOptions {
        data_dir: folder.path().to_owned(),
        authority: Some(&authority),
        binary: None,
    };
    let nats = EmbeddedNats::start(options)
        .await
        .context("starting the embedded nats-server")?;
    let mint = |name: &str| authority.mint(&User::unrestricted(name));
    let server = connect(&nats, mint("server"), "server").await?;
    let client = connect(&nats, mint("client"), "client").await?;
    let serving = server
        .serve("bench", "0.0.0", "Answers what it is asked")
        .method::<Echo, _, _>(|call: Incoming<Echo>| async move { Ok(call.request) })
        .start()
        .await?;
    let answering = server.client().clone();
    let mut requests = answering.subscribe(RAW).await?;
    answering.flush().await?;
    let raw_server = tokio::spawn(async move {
        while let Some(message) = requests.next().await {
            let Some(reply) = message.reply else { continue };
            #[expect(
                clippy::disallowed_methods,
                reason = "the raw answer is what ours is measured against"
            )]
            let _ = answering.publish(reply, message.payload).await;
        }
    });

    let body = vec![7u8; 64];
    let plain = client.client().clone();
    let ours = || {
        let (client, body) = (client.clone(), body.clone());
        async move {
            client
                .call::<Echo>(&body)
                .await
                .map(|_| ())
                .map_err(anyhow::Error::from)
        }
    };
    let peer = || {
        let (plain, body) = (plain.clone(), body.clone());
        async move { raw(&plain, body).await }
    };
    one_by_one(WARM_UP, ours).await?;
    one_by_one(WARM_UP, peer).await?;
    // In turns, so that a busy moment of the machine hits both.
    let (mut our_times, mut peer_times) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        our_times.extend(one_by_one(SAMPLES / 5, ours).await?);
        peer_times.extend(one_by_one(SAMPLES / 5, peer).await?);
    }
    let (ours_p50, peer_p50) = (percentile(&mut our_times, 50), percentile(&mut peer_times, 50));
    let ratio = ours_p50.as_secs_f64() / peer_p50.as_secs_f64();
    report.add(
        "bus RPC, one by one, p50",
        format!("{} ({ratio:.2} ×)", ms(ours_p50)),
        format!("raw NATS {}", ms(peer_p50)),
        "≤ 1.3 × raw",
        ratio <= 1.3,
    );
    let (ours_rate, peer_rate) = (together(ours).await?, together(peer).await?);
    report.add(
        &format!("bus RPC, {CONCURRENT} at once"),
        format!("{ours_rate:.0}/s ({:.2} × the time)", peer_rate / ours_rate),
        format!("raw NATS {peer_rate:.0}/s"),
        "≤ 1.3 × raw",
        peer_rate / ours_rate <= 1.3,
    );
    raw_server.abort();
    serving.stop().await;
    nats.stop().await;
    Ok(())
}
