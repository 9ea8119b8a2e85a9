//! The second half of the demonstration: sandboxes, when there is an engine to run them.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::api::{Api, strange};
use crate::output;
use crate::problem::{Outcome, Problem};

/// How long a cold start may take, an image to pull included.
const COLD_LIMIT: Duration = Duration::from_secs(300);
/// How long it may take until a warm container waits.
const WARM_LIMIT: Duration = Duration::from_secs(60);
/// How often the state is asked for.
const LOOK: Duration = Duration::from_millis(20);
const WHAT: &str = "could not show a sandbox";

/// Creates sandboxes of `image`, cold and warm, and shows what one prints; says why not when there is no engine.
pub(super) async fn show(session: &Api, image: &str) -> Outcome {
    let able = session
        .resource(session.request(Method::GET, &["capabilities"]), WHAT)
        .await?;
    let backends = able.pointer("/probes/backends").and_then(Value::as_array);
    if !backends.is_some_and(|backends| backends.iter().any(|backend| backend == "container")) {
        let missing: Vec<&str> = able
            .pointer("/probes/missing")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        output::say(format_args!(
            "\nSandboxes are skipped: there is no container engine that could run them.\n  {}",
            missing.join("\n  ")
        ));
        return Ok(());
    }
    let me = session.get(&["me"], WHAT).await?;
    let tenant = text(&me, "/tenant_id")?;
    let demo = Demo {
        session,
        tenant: &tenant,
        image,
    };
    let cold = demo.create("demo-cold").await?;
    output::say(format_args!(
        "\nA sandbox of {image} ran after {} ({}).",
        cold.took(),
        cold.start
    ));
    let command = [
        "sh",
        "-c",
        "echo hello from $(hostname), process $$ of user $(id -u); ls /sys/class/net",
    ];
    let ran = demo.run(&cold.id, &command).await?;
    output::line(ran.trim_end())?;
    let warm = demo.warm().await?;
    output::say(format_args!(
        "The next one ran after {} ({}).",
        warm.took(),
        warm.start
    ));
    for sandbox in [&cold, &warm] {
        demo.remove(&sandbox.id).await?;
    }
    output::say("Both are gone again, with everything that was theirs.");
    Ok(())
}

struct Demo<'a> {
    session: &'a Api,
    tenant: &'a str,
    image: &'a str,
}

struct Shown {
    id: String,
    start: String,
    /// Microseconds from the request to the running process, as its host has measured them.
    micros: Option<u64>,
}

impl Shown {
    fn took(&self) -> String {
        match self.micros {
            Some(micros) if micros < 10_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
            Some(micros) => output::span(micros / 1000),
            None => "an unknown time".to_owned(),
        }
    }
}

impl Demo<'_> {
    async fn create(&self, name: &str) -> Outcome<Shown> {
        let body = json!({
            "profile": "worker",
            "spec": {
                "owner": { "kind": "standalone", "displayName": name },
                "backend": "container",
                "root": { "kind": "oci_image", "source": { "kind": "reference", "reference": self.image } },
                "process": { "argv": ["sleep", "600"] },
                "ttlMs": 600_000
            }
        });
        let request = self
            .session
            .unlimited(Method::POST, &["tenants", self.tenant, "sandboxes"])
            .timeout(COLD_LIMIT)
            .json(&body);
        let mut sandbox = self.session.resource(request, WHAT).await?;
        let id = text(&sandbox, "/metadata/id")?;
        let end = Instant::now() + COLD_LIMIT;
        loop {
            match text(&sandbox, "/status/lifecycleState")?.as_str() {
                "ready" => break,
                "failed" => {
                    let why = sandbox
                        .pointer("/status/conditions/0/message")
                        .and_then(Value::as_str)
                        .unwrap_or("no reason was given");
                    return Err(Problem::failed("the sandbox failed").why(why));
                }
                _ if Instant::now() >= end => {
                    return Err(Problem::failed("the sandbox did not start in time"));
                }
                _ => tokio::time::sleep(LOOK).await,
            }
            let request = self
                .session
                .request(Method::GET, &["tenants", self.tenant, "sandboxes", &id]);
            sandbox = self.session.resource(request, WHAT).await?;
        }
        Ok(Shown {
            start: text(&sandbox, "/status/start")?,
            micros: micros(&sandbox),
            id,
        })
    }

    /// Creates until a waiting container was claimed; the pool is filled after the first use of an image.
    async fn warm(&self) -> Outcome<Shown> {
        let end = Instant::now() + WARM_LIMIT;
        loop {
            let sandbox = self.create("demo-warm").await?;
            if sandbox.start == "warm" || Instant::now() >= end {
                return Ok(sandbox);
            }
            self.remove(&sandbox.id).await?;
        }
    }

    async fn run(&self, id: &str, argv: &[&str]) -> Outcome<String> {
        let request = self
            .session
            .request(Method::POST, &["tenants", self.tenant, "sandboxes", id, "exec"])
            .json(&json!({ "argv": argv }));
        let ran = self.session.resource(request, WHAT).await?;
        if ran.get("exitCode").and_then(Value::as_i64) != Some(0) {
            let said = ran.get("stderr").and_then(Value::as_str).unwrap_or_default();
            return Err(Problem::failed("the command in the sandbox failed").why(said));
        }
        text(&ran, "/stdout")
    }

    async fn remove(&self, id: &str) -> Outcome {
        let request = self
            .session
            .request(Method::DELETE, &["tenants", self.tenant, "sandboxes", id])
            .query(&[("force", "true")]);
        self.session.resource(request, WHAT).await.map(|_| ())
    }
}

fn text(value: &Value, pointer: &str) -> Outcome<String> {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| strange(WHAT, &format!("{pointer} is missing")))
}

fn micros(sandbox: &Value) -> Option<u64> {
    let ms = sandbox.pointer("/status/startedAfterMs")?.as_f64()?;
    let micros = Duration::try_from_secs_f64(ms / 1000.0).ok()?.as_micros();
    u64::try_from(micros).ok()
}
