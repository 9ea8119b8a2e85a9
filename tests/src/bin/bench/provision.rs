//! What Nimbus adds to the time that the hypervisor's own work takes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use serde_json::Value;

use crate::report::{Report, ms, percentile};
use crate::server::World;

/// A clone takes 2.5 s, a start 0.3 s, a boot 1.6 s.
const SCALE: &str = "0.1";
const ONES: usize = 5;
const AT_ONCE: usize = 50;

pub(crate) async fn measure(report: &mut Report) -> Result<()> {
    eprintln!("provisioning (simulated times × {SCALE})");
    let world = World::new(SCALE).await?;
    // The first of its kind: the client learns how long tasks take.
    world.provision("warm-up").await?;
    let mut overheads = Vec::new();
    let mut singles = Vec::new();
    for n in 0..ONES {
        let name = format!("one-{n}");
        let began = Instant::now();
        let made = world.provision(&name).await?;
        let took = began.elapsed();
        let vmid = made.get("vmid").and_then(Value::as_u64).context("a number")?;
        let own = own_time(&world.sim_state().await?, vmid);
        singles.push(took);
        overheads.push(took.saturating_sub(own));
    }
    let (one, overhead) = (percentile(&mut singles, 50), percentile(&mut overheads, 50));
    report.add(
        "provisioning, one: time over the hypervisor's own, p50",
        ms(overhead),
        format!("tasks and boot {}", ms(one.saturating_sub(overhead))),
        "≤ 150 ms",
        overhead <= Duration::from_millis(150),
    );
    let began = Instant::now();
    try_join_all((0..AT_ONCE).map(|n| {
        let world = &world;
        async move { world.provision(&format!("burst-{n}")).await }
    }))
    .await?;
    let burst = began.elapsed();
    let ratio = burst.as_secs_f64() / one.as_secs_f64();
    report.add(
        &format!("provisioning, {AT_ONCE} at once"),
        format!("{} ({ratio:.2} ×)", ms(burst)),
        format!("one {}", ms(one)),
        "≤ 1.5 × one",
        ratio <= 1.5,
    );
    world.end().await
}

/// The tasks of this VM and its boot, which follow each other.
fn own_time(state: &Value, vmid: u64) -> Duration {
    let list = |key: &str| {
        state
            .get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let about = |row: &Value| row.get("vmid").and_then(Value::as_u64) == Some(vmid);
    let tasks: u64 = list("tasks")
        .iter()
        .filter(|task| about(task))
        .filter_map(|task| task.get("task_ms")?.as_u64())
        .sum();
    let boot: u64 = list("vms")
        .iter()
        .filter(|vm| about(vm))
        .filter_map(|vm| vm.get("boot_ms")?.as_u64())
        .sum();
    Duration::from_millis(tasks + boot)
}
