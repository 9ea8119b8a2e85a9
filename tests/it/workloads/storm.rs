//! Everything between a command and its reader dies, over and over: not a byte is lost, none comes twice.

use std::time::{Duration, Instant};

use futures::StreamExt;
use http::Method;
use nimbus_tests::{Spread, Tenant};
use serde_json::{Value, json};

/// How many times something is killed; `NIMBUS_TEST_STORM` changes it.
const KILLS: usize = 200;
/// The reader must get somewhere between two kills.
const PROGRESS: u64 = 64 << 10;
/// How long a reader may make no progress at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// A reader that counts what it gets, and begins again where it was.
struct Reader<'a> {
    tenant: &'a Tenant,
    sandbox: String,
    offset: u64,
    /// The line that is being read, and the number it must have.
    line: Vec<u8>,
    next: u64,
    exit: Option<Value>,
}

impl Reader<'_> {
    /// Reads until the offset, the end, or a break; whether it broke.
    async fn read(&mut self, until: u64) -> bool {
        let path = self.tenant.path(&format!(
            "/sandboxes/{}/commands/storm?from={}",
            self.sandbox, self.offset
        ));
        let request = self
            .tenant
            .api
            .request(Method::GET, &path)
            .header("Accept", "application/x-ndjson")
            .timeout(Duration::from_secs(20));
        let Ok(answer) = request.send().await else {
            return true;
        };
        if answer.status() != 200 {
            let (status, text) = (answer.status(), answer.text().await.unwrap_or_default());
            assert!(status.is_server_error() || status == 429, "{status}: {text}");
            return true;
        }
        let mut body = answer.bytes_stream();
        let mut buffer = Vec::new();
        while let Some(Ok(bytes)) = body.next().await {
            buffer.extend_from_slice(&bytes);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let frame: Value = serde_json::from_slice(&buffer[..end]).unwrap();
                buffer.drain(..=end);
                match frame["kind"].as_str().unwrap() {
                    "stdout" => self.take(&frame),
                    "exit" => {
                        self.exit = Some(frame);
                        return false;
                    }
                    "closed" => return true,
                    _ => {}
                }
                if self.offset >= until {
                    return false;
                }
            }
        }
        true
    }

    fn take(&mut self, frame: &Value) {
        assert_eq!(
            frame["offset"].as_u64().unwrap(),
            self.offset,
            "a gap or a repeat"
        );
        let data = frame["data"].as_str().unwrap().as_bytes();
        self.offset += u64::try_from(data.len()).unwrap();
        for byte in data {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let text = String::from_utf8(std::mem::take(&mut self.line)).unwrap();
            let number: u64 = text
                .split(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap_or_else(|_| panic!("{text:?}"));
            assert_eq!(number, self.next);
            self.next += 1;
        }
    }

    /// Reads on through breaks until it got `bytes` further, or to the end.
    async fn advance(&mut self, bytes: u64) {
        let (goal, begun) = (self.offset + bytes, Instant::now());
        while self.offset < goal && self.exit.is_none() {
            assert!(
                begun.elapsed() < PATIENCE,
                "stuck at {} for {PATIENCE:?}",
                self.offset
            );
            if self.read(goal).await {
                // Whoever died comes back by itself; asking too often would only slow that down.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

#[tokio::test]
async fn two_hundred_deaths_lose_no_byte() {
    let kills: usize = std::env::var("NIMBUS_TEST_STORM")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(KILLS);
    let Some(mut spread) = Spread::start("workloads", "storm", 1, |settings| settings).await else {
        return;
    };
    let tenant = Tenant::create(&spread.operator, "demo").await;
    let sandbox = tenant.idle().await;
    // Lines of 1 KiB, a thousand a second, until the file says that it is enough.
    let script = "i=0; pad=$(head -c 1000 /dev/zero | tr '\\0' x); echo run >> /tmp/runs; \
                  while [ ! -e /tmp/enough ]; do n=0; while [ $n -lt 100 ]; do echo $i $pad; i=$((i+1)); n=$((n+1)); done; usleep 100000; done; echo $i end";
    let start = json!({"argv": ["sh", "-c", script], "commandId": "storm", "timeoutMs": 3_600_000});
    let path = tenant.path(&format!("/sandboxes/{sandbox}/exec"));
    // The answer streams; what it says is read by attaching.
    let first = tenant
        .api
        .request(Method::POST, &path)
        .header("Accept", "application/x-ndjson")
        .json(&start)
        .send()
        .await
        .unwrap();
    assert_eq!(first.status(), 200);
    drop(first);
    let mut reader = Reader {
        tenant: &tenant,
        sandbox: sandbox.clone(),
        offset: 0,
        line: vec![],
        next: 0,
        exit: None,
    };
    reader.advance(PROGRESS).await;
    let begun = Instant::now();
    let mut dice: u64 = 0x9e37_79b9_7f4a_7c15;
    for round in 0..kills {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        match dice % 8 {
            0 => {
                spread.gateway.kill().await;
                spread.gateway.restart().await;
            }
            1 | 2 => {
                spread.agents[0].kill().await;
                spread.agents[0].restart().await;
            }
            3 => spread.nats.crash().await,
            // The client dies: its connection is dropped in the middle of a read.
            _ => {
                let goal = reader.offset + PROGRESS;
                let _ = tokio::time::timeout(Duration::from_millis(20 + dice % 80), reader.read(goal)).await;
            }
        }
        reader.advance(PROGRESS).await;
        if round % 50 == 49 {
            println!(
                "storm: {} kills, {} bytes, {:.0} s",
                round + 1,
                reader.offset,
                begun.elapsed().as_secs_f64()
            );
        }
    }
    let _ = tenant.prints(&sandbox, &["touch", "/tmp/enough"]).await;
    reader.advance(u64::MAX / 2).await;
    assert_eq!(reader.exit.as_ref().unwrap()["code"], 0, "{:?}", reader.exit);
    assert_eq!(
        tenant.prints(&sandbox, &["cat", "/tmp/runs"]).await,
        "run\n",
        "the command ran once"
    );
    spread.end(&["demo"]).await;
}
