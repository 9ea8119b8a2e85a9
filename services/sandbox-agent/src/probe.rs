//! Looks at a running sandbox from outside: whether it is ready, whether it is healthy.

use std::time::Duration;

use nimbus_guest::protocol::{CommandSpec, Since};
use nimbus_guest::{Guest, GuestError};
use nimbus_proto::workloads::{Health, HealthCheck, Probe};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::plan::{OWN_COMMANDS, Readiness};
use crate::sandbox::Message;

/// While it starts: quickly at first, as most servers listen within a fraction of a second.
const STARTING_FIRST: Duration = Duration::from_millis(25);
const STARTING_MOST: Duration = Duration::from_secs(1);
/// Once it was ready.
const READY_INTERVAL: Duration = Duration::from_secs(5);
/// The longest status line that is read.
const STATUS_LINE: u64 = 4096;
/// A check is not repeated faster than this, whatever is asked for.
const FASTEST: Duration = Duration::from_millis(100);

/// Tries until the sandbox ends whether it is ready; says each outcome that differs from the last,
/// the first one in any case.
pub(crate) async fn watch_readiness(
    guest: Guest,
    readiness: Readiness,
    limit: Duration,
    run: u32,
    tell: mpsc::Sender<Message>,
) {
    let mut said = None;
    let mut pause = STARTING_FIRST;
    loop {
        let passed = if readiness.http {
            timeout(
                limit,
                http_status(&guest, readiness.port, "GET / HTTP/1.0\r\n\r\n".into()),
            )
            .await
            .is_ok_and(|status| status.is_ok())
        } else {
            timeout(limit, guest.connect_port(readiness.port))
                .await
                .is_ok_and(|connected| connected.is_ok())
        };
        if said != Some(passed) {
            said = Some(passed);
            if tell.send(Message::Probed { run, passed }).await.is_err() {
                return;
            }
        }
        if passed {
            pause = READY_INTERVAL;
        } else if pause == READY_INTERVAL {
            pause = STARTING_MOST;
        } else {
            pause = (pause * 2).min(STARTING_MOST);
        }
        sleep(pause).await;
    }
}

/// Tries as the check says; says each change.
pub(crate) async fn watch_health(
    guest: Guest,
    check: HealthCheck,
    first_port: Option<u16>,
    run: u32,
    tell: mpsc::Sender<Message>,
) {
    let started = Instant::now();
    let grace = Duration::from_millis(check.start_period_ms.into());
    let interval = Duration::from_millis(check.interval_ms.into()).max(FASTEST);
    let mut verdict = Verdict::default();
    for number in 0_u64.. {
        let passed = once(&guest, &check, first_port, run, number).await;
        let counts = passed || started.elapsed() >= grace;
        if let Some(health) = verdict.see(passed, counts, check.retries)
            && tell.send(Message::Health { run, health }).await.is_err()
        {
            return;
        }
        sleep(interval).await;
    }
}

/// Counts failures in a row.
#[derive(Debug, Default)]
struct Verdict {
    failures: u32,
    said: Option<Health>,
}

impl Verdict {
    /// The new health, if it has changed.
    fn see(&mut self, passed: bool, counts: bool, retries: u32) -> Option<Health> {
        let now = if passed {
            self.failures = 0;
            Health::Healthy
        } else if counts {
            self.failures = self.failures.saturating_add(1);
            if self.failures < retries.max(1) {
                return None;
            }
            Health::Unhealthy
        } else {
            return None;
        };
        (self.said != Some(now)).then(|| {
            self.said = Some(now);
            now
        })
    }
}

async fn once(guest: &Guest, check: &HealthCheck, first_port: Option<u16>, run: u32, number: u64) -> bool {
    let limit = Duration::from_millis(check.timeout_ms.into()).max(FASTEST);
    match &check.probe {
        Probe::Http { path, port, expect } => {
            let Some(port) = port.or(first_port) else {
                return false;
            };
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: nimbus\r\nConnection: close\r\n\r\n"
            );
            match timeout(limit, http_status(guest, port, request)).await {
                Ok(Ok(status)) => (expect.0..=expect.1).contains(&status),
                _ => false,
            }
        }
        Probe::Tcp { port } => timeout(limit, guest.connect_port(*port))
            .await
            .is_ok_and(|connected| connected.is_ok()),
        Probe::Exec { argv } => {
            let mut command = CommandSpec::new(format!("{OWN_COMMANDS}health.{run}.{number}"), argv);
            command.timeout_ms = u64::try_from(limit.as_millis()).ok();
            command.log_bytes = Some(64 << 10);
            // A little more than the guest's own limit, so that the guest is who ends it.
            let passed = timeout(limit + STARTING_MOST, run_once(guest, command.clone()))
                .await
                .is_ok_and(|code| code.is_ok_and(|code| code == Some(0)));
            if let Ok(mut control) = guest.control().await {
                let _ = control.forget(&command.id).await;
            }
            passed
        }
    }
}

async fn run_once(guest: &Guest, command: CommandSpec) -> Result<Option<i32>, GuestError> {
    let attached = guest.run(command, Since::Tail(0), false).await?;
    Ok(attached.collect(None, 0).await?.exit.code)
}

/// Asks in HTTP and gives the answer's status.
async fn http_status(guest: &Guest, port: u16, request: String) -> std::io::Result<u16> {
    let broken = |text: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, text.to_owned());
    let mut stream = guest
        .connect_port(port)
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::ConnectionRefused))?;
    stream.write_all(request.as_bytes()).await?;
    let mut line = Vec::new();
    BufReader::new(stream.take(STATUS_LINE))
        .read_until(b'\n', &mut line)
        .await?;
    let line = String::from_utf8_lossy(&line);
    if !line.starts_with("HTTP/") {
        return Err(broken("the answer is not HTTP"));
    }
    line.split_ascii_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| broken("the answer has no status"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_in_a_row_and_after_the_grace() {
        let mut verdict = Verdict::default();
        assert_eq!(verdict.see(false, false, 1), None);
        assert_eq!(verdict.see(true, true, 2), Some(Health::Healthy));
        assert_eq!(verdict.see(true, true, 2), None);
        assert_eq!(verdict.see(false, true, 2), None);
        assert_eq!(verdict.see(true, true, 2), None);
        assert_eq!(verdict.see(false, true, 2), None);
        assert_eq!(verdict.see(false, true, 2), Some(Health::Unhealthy));
        assert_eq!(verdict.see(false, true, 2), None);
        assert_eq!(verdict.see(true, true, 2), Some(Health::Healthy));
    }
}
