//! What a job may look like.

use nimbus_gpu_wire::{Command, Dataset, EnvVar};
use nimbus_model::{Hostname, ImageRef};
use nimbus_proto::gpu::SubmitRequest;

use crate::error::GpuError;

/// Seven days.
const LONGEST_S: u64 = 7 * 24 * 3600;
/// What engines accept as the least.
const LEAST_MEMORY: u64 = 6 << 20;
/// Variables, and bytes of names and values.
const ENV: (usize, usize) = (256, 128 << 10);
/// Bytes of a command: what a kernel takes as one argument.
const COMMAND: usize = 128 << 10;
const DATASETS: usize = 16;
const PRIORITIES: std::ops::RangeInclusive<i32> = -100..=100;

/// Whether a name is one DNS label, as the parts of a subject are.
pub(crate) fn is_label(name: &str) -> bool {
    name.parse::<Hostname>().is_ok()
}

/// The request with everything in its checked form.
pub(super) fn validate(mut request: SubmitRequest, admin: bool) -> Result<SubmitRequest, GpuError> {
    let image: ImageRef = request
        .image
        .trim()
        .parse()
        .map_err(|error: nimbus_model::ImageRefError| GpuError::invalid("image", error.to_string()))?;
    request.image = image.to_string();
    command(&request.command)?;
    env(&request.env)?;
    datasets(&request.datasets)?;
    priority(request.priority, admin)?;
    if let Some(pool) = request.pool.as_deref()
        && !is_label(pool)
    {
        return Err(GpuError::invalid("pool", "a pool is named by a-z, 0-9 and '-'"));
    }
    if let Some(time) = request.time_s
        && !(1..=LONGEST_S).contains(&time)
    {
        return Err(GpuError::invalid(
            "time_limit_seconds",
            format!("1 to {LONGEST_S}, not {time}"),
        ));
    }
    if let Some(memory) = request.memory_bytes
        && (memory < LEAST_MEMORY || i64::try_from(memory).is_err())
    {
        return Err(GpuError::invalid(
            "memory_bytes",
            format!("at least {LEAST_MEMORY}, not {memory}"),
        ));
    }
    Ok(request)
}

pub(super) fn priority(priority: i32, admin: bool) -> Result<(), GpuError> {
    if !PRIORITIES.contains(&priority) {
        return Err(GpuError::invalid(
            "priority",
            format!("-100 to 100, not {priority}"),
        ));
    }
    if priority != 0 && !admin {
        return Err(GpuError::AdminOnly {
            what: "give priorities",
        });
    }
    Ok(())
}

fn command(command: &Command) -> Result<(), GpuError> {
    let parts: Vec<&str> = match command {
        Command::Image => return Ok(()),
        Command::Shell(line) => vec![line],
        Command::Argv(argv) => argv.iter().map(String::as_str).collect(),
    };
    if parts.iter().map(|part| part.len()).sum::<usize>() > COMMAND {
        return Err(GpuError::invalid("command", format!("at most {COMMAND} bytes")));
    }
    if parts.iter().any(|part| part.contains('\0')) {
        return Err(GpuError::invalid("command", "no part may have a zero byte"));
    }
    if parts.is_empty() || parts.first().is_some_and(|first| first.trim().is_empty()) {
        return Err(GpuError::invalid(
            "command",
            "it is empty; leave it out for the image's own",
        ));
    }
    Ok(())
}

fn env(env: &[EnvVar]) -> Result<(), GpuError> {
    let (most, bytes) = ENV;
    if env.len() > most {
        return Err(GpuError::invalid("env", format!("at most {most} variables")));
    }
    if env
        .iter()
        .map(|one| one.name.len() + one.value.len())
        .sum::<usize>()
        > bytes
    {
        return Err(GpuError::invalid("env", format!("at most {bytes} bytes in all")));
    }
    let mut seen = std::collections::HashSet::new();
    for EnvVar { name, value } in env {
        let well_formed = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && name.chars().next().is_some_and(|c| !c.is_ascii_digit());
        if !well_formed {
            return Err(GpuError::invalid(
                "env",
                format!("{name:?} is not a variable's name: A-Z, a-z, 0-9 and '_', not a digit first"),
            ));
        }
        if value.contains('\0') {
            return Err(GpuError::invalid("env", format!("{name} has a zero byte")));
        }
        if !seen.insert(name) {
            return Err(GpuError::invalid("env", format!("{name} is there twice")));
        }
    }
    Ok(())
}

fn datasets(datasets: &[Dataset]) -> Result<(), GpuError> {
    if datasets.len() > DATASETS {
        return Err(GpuError::invalid("datasets", format!("at most {DATASETS}")));
    }
    let mut seen = std::collections::HashSet::new();
    for Dataset { name, .. } in datasets {
        let well_formed = (1..=63).contains(&name.len())
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
            && name.chars().next().is_some_and(|c| c != '-' && c != '_');
        if !well_formed {
            return Err(GpuError::invalid(
                "datasets",
                format!("{name:?} is not a data set's name: a-z, 0-9, '-' and '_', a letter or digit first"),
            ));
        }
        if !seen.insert(name) {
            return Err(GpuError::invalid("datasets", format!("{name} is there twice")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> SubmitRequest {
        SubmitRequest {
            image: "busybox".into(),
            command: Command::Shell("true".into()),
            env: vec![],
            pool: None,
            machine: None,
            datasets: vec![],
            time_s: None,
            memory_bytes: None,
            priority: 0,
            rerun: false,
        }
    }

    fn var(name: &str) -> EnvVar {
        EnvVar {
            name: name.into(),
            value: "1".into(),
        }
    }

    fn set(name: &str) -> Dataset {
        Dataset {
            name: name.into(),
            writable: false,
        }
    }

    #[test]
    fn what_is_wrong_is_refused_by_the_name_of_its_field() {
        assert_eq!(
            validate(request(), false).unwrap().image,
            "docker.io/library/busybox:latest"
        );
        let with = |change: fn(&mut SubmitRequest)| {
            let mut request = request();
            change(&mut request);
            match validate(request, false) {
                Ok(_) => "fine",
                Err(GpuError::Invalid { field, .. }) => field,
                Err(GpuError::AdminOnly { .. }) => "admin",
                Err(other) => panic!("{other}"),
            }
        };
        for (wanted, change) in [
            ("image", (|r| r.image = String::new()) as fn(&mut SubmitRequest)),
            ("image", |r| r.image = "a b".into()),
            ("command", |r| r.command = Command::Shell("  ".into())),
            ("command", |r| r.command = Command::Argv(vec![])),
            ("command", |r| r.command = Command::Argv(vec!["a\0".into()])),
            ("command", |r| {
                r.command = Command::Shell("x".repeat(COMMAND + 1));
            }),
            ("fine", |r| {
                r.command = Command::Argv(vec!["a".into(), String::new()])
            }),
            ("env", |r| r.env = vec![var("1A")]),
            ("env", |r| r.env = vec![var("A-B")]),
            ("env", |r| r.env = vec![var("")]),
            ("env", |r| r.env = vec![var("A"), var("A")]),
            ("env", |r| {
                r.env = (0..257).map(|n| var(&format!("V{n}"))).collect();
            }),
            ("fine", |r| r.env = vec![var("_a"), var("A")]),
            ("datasets", |r| r.datasets = vec![set("-a")]),
            ("datasets", |r| r.datasets = vec![set("A")]),
            ("datasets", |r| r.datasets = vec![set("a"), set("a")]),
            ("fine", |r| r.datasets = vec![set("a_b-0")]),
            ("pool", |r| r.pool = Some("a.b".into())),
            ("time_limit_seconds", |r| r.time_s = Some(0)),
            ("time_limit_seconds", |r| r.time_s = Some(LONGEST_S + 1)),
            ("memory_bytes", |r| r.memory_bytes = Some(1)),
            ("priority", |r| r.priority = 101),
            ("admin", |r| r.priority = 1),
        ] {
            assert_eq!(with(change), wanted);
        }
    }
}
