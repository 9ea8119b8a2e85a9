//! From nothing to ready, and what it holds in memory when nobody asks for anything.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::report::{Report, ms, percentile};
use crate::server::Process;

const ROUNDS: usize = 7;

pub(crate) async fn measure(report: &mut Report) -> Result<()> {
    eprintln!("start and memory");
    let mut times = Vec::new();
    let mut memory = 0;
    for _ in 0..ROUNDS {
        let folder = camino_tempfile::tempdir()?;
        let data = folder.path().join("data");
        let began = Instant::now();
        let nimbus = Process::start(
            folder.path(),
            "nimbus",
            &["start", "--port", "0", "--data-dir", data.as_str()],
            &[],
        )
        .await?;
        times.push(began.elapsed());
        // A moment of idleness, so that what the start needed can be given back.
        tokio::time::sleep(Duration::from_secs(1)).await;
        memory = resident(nimbus.pid())?;
        nimbus.stop().await?;
    }
    let p50 = percentile(&mut times, 50);
    report.add(
        "start to ready, empty data directory, p50",
        ms(p50),
        String::new(),
        "≤ 800 ms",
        p50 <= Duration::from_millis(800),
    );
    report.add(
        "resident memory, idle, nats-server included",
        format!("{} MiB", memory / 1024),
        String::new(),
        "≤ 90 MiB",
        memory / 1024 <= 90,
    );
    Ok(())
}

/// KiB that a process and its children hold.
fn resident(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(other) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(status) = std::fs::read_to_string(format!("/proc/{other}/status")) else {
            continue;
        };
        let field = |key: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .and_then(|rest| rest.split_whitespace().next())
                .and_then(|number| number.parse::<u64>().ok())
        };
        if other == pid || field("PPid:") == Some(u64::from(pid)) {
            sum += field("VmRSS:").unwrap_or(0);
        }
    }
    Ok(sum)
}
