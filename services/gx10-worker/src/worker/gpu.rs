//! What `nvidia-smi` tells about the GPUs.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nimbus_gpu_wire::{DeviceUse, Gpu};
use tokio::process::Command;
use tokio::sync::watch;
use tracing::{debug, info};

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(10);
/// How often where it is not there: a driver may be installed later.
const EVERY_WITHOUT: Duration = Duration::from_secs(60);
/// A driver in trouble lets it hang.
const LIMIT: Duration = Duration::from_secs(8);

const QUERY: &str =
    "--query-gpu=name,memory.total,driver_version,utilization.gpu,memory.used,temperature.gpu,power.draw";

/// Keeps `gpus` up to date.
pub(crate) async fn watch(program: std::path::PathBuf, gpus: watch::Sender<Vec<Gpu>>) {
    let mut before = None;
    loop {
        let found = ask(&program).await;
        let there = found.is_some();
        let found = found.unwrap_or_default();
        if before != Some(found.len()) {
            match found.first() {
                Some(first) => info!(gpus = found.len(), "the box has {} × {}", found.len(), first.name),
                None => info!("the box shows no GPU through {}", program.display()),
            }
            before = Some(found.len());
        }
        if gpus.send(found).is_err() {
            return;
        }
        tokio::time::sleep(if there { EVERY } else { EVERY_WITHOUT }).await;
    }
}

async fn ask(program: &Path) -> Option<Vec<Gpu>> {
    let run = Command::new(program)
        .args([QUERY, "--format=csv,noheader,nounits"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(LIMIT, run).await {
        Ok(Ok(output)) if output.status.success() => output,
        other => {
            debug!("{} says nothing: {other:?}", program.display());
            return None;
        }
    };
    Some(
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(parse)
            .collect(),
    )
}

/// One line. A value that the GPU does not have is `[N/A]` or `[Not Supported]`; a GB10, whose memory is
/// the box' own, has no size of memory.
fn parse(line: &str) -> Option<Gpu> {
    let mut fields = line.split(',').map(str::trim);
    let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
    let mebibytes = |text: &str| text.parse::<u64>().ok().map(|n| n << 20);
    let number = |text: &str| text.parse::<f32>().ok().filter(|n| n.is_finite());
    let memory_bytes = mebibytes(fields.next()?).unwrap_or(0);
    let driver = fields.next()?.to_owned();
    let busy = number(fields.next()?);
    let memory_used = mebibytes(fields.next()?);
    let temperature_c = fields.next().and_then(number);
    let power_w = fields.next().and_then(number);
    let usage = busy.map(|busy_percent| DeviceUse {
        busy_percent,
        memory_used_bytes: memory_used.unwrap_or(0),
        temperature_c,
        power_w,
    });
    Some(Gpu {
        name,
        memory_bytes,
        driver,
        usage,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_nvidia_smi_are_read_with_what_is_missing() {
        let gpu = parse("NVIDIA A100-SXM4-40GB, 40960, 550.54.15, 37, 1024, 45, 120.52").unwrap();
        assert_eq!(gpu.memory_bytes, 40_960 << 20);
        let usage = gpu.usage.unwrap();
        assert_eq!((usage.busy_percent, usage.memory_used_bytes), (37.0, 1 << 30));
        assert_eq!((usage.temperature_c, usage.power_w), (Some(45.0), Some(120.52)));

        let shared = parse("NVIDIA GB10, [N/A], 580.82.09, 0, [N/A], 41, [N/A]").unwrap();
        assert_eq!((shared.memory_bytes, shared.name.as_str()), (0, "NVIDIA GB10"));
        assert_eq!(shared.usage.unwrap().power_w, None);
        assert!(parse("").is_none() && parse("No devices were found").is_none());
    }
}
