//! Health checks, and what waits for them.

use super::directive::{HEALTHY, Section};
use super::writer::{From, Writer};
use super::{ExportError, Plan};
use crate::measure::shown;
use crate::model::{Condition, Service, Test};

/// Writes the check of a service.
pub(super) fn write(service: &Service, writer: &mut Writer<'_>) -> Result<(), ExportError> {
    let Some(health) = &service.health else {
        return Ok(());
    };
    let from = From {
        at: service.at("healthcheck"),
        key: format!("services.{}.healthcheck", service.name),
    };
    if health.disable {
        return writer.put(Section::Container, "HealthCmd", "none", &from);
    }
    if let Some(test) = &health.test {
        writer.put(Section::Container, "HealthCmd", &command(test), &from)?;
    }
    // To Compose zero is what it is when nothing is said; Podman refuses it.
    for (key, time) in [
        ("HealthInterval", health.interval),
        ("HealthTimeout", health.timeout),
        ("HealthStartPeriod", health.start_period),
    ] {
        if let Some(time) = time.filter(|time| !time.is_zero()) {
            writer.put(Section::Container, key, &shown(time), &from)?;
        }
    }
    if let Some(retries) = health.retries.filter(|retries| *retries > 0) {
        writer.put(Section::Container, "HealthRetries", &retries.to_string(), &from)?;
    }
    Ok(())
}

/// A line for the shell stays one; a program with arguments is a list in JSON, which Podman runs without a
/// shell. So is a line that a unit could not hold.
fn command(test: &Test) -> String {
    match test {
        Test::Shell(line) if is_lossy(line.trim()) => {
            list(&["/bin/sh".to_owned(), "-c".to_owned(), line.clone()])
        }
        Test::Shell(line) => line.trim().to_owned(),
        // A list of one word would be a line for the shell to Podman, and many images have none.
        Test::Command(words) => match words.as_slice() {
            [word] if !word.contains(char::is_whitespace) => format!("CMD {word}"),
            _ => list(words),
        },
    }
}

/// Whether a line would not come out of a unit as it went in: Podman takes quotes from both ends (until 5.4 even
/// from one).
fn is_lossy(line: &str) -> bool {
    line.chars().any(char::is_control) || line.ends_with('\\') || line.starts_with('"') || line.ends_with('"')
}

/// Words as a list in JSON.
pub(super) fn list(words: &[String]) -> String {
    serde_json::Value::from(words.to_vec()).to_string()
}

/// What a service is to those that wait for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Awaited {
    /// Somebody waits for its health, and it has a check.
    pub(super) healthy: bool,
    /// Somebody waits for its end.
    pub(super) completed: bool,
}

/// Finds out who waits for a service, and for what.
pub(super) fn awaited(plan: &Plan<'_>, service: &Service) -> Awaited {
    let mut awaited = Awaited::default();
    let has_check = service
        .health
        .as_ref()
        .is_some_and(|health| !health.disable && health.test.is_some());
    for other in plan.project.services.values() {
        match other.depends_on.get(&service.name).map(|wanted| wanted.condition) {
            Some(Condition::Healthy) => awaited.healthy |= has_check,
            Some(Condition::Completed) => awaited.completed = true,
            Some(Condition::Started) | None => {}
        }
    }
    awaited
}

/// Writes what a service waits for.
pub(super) fn dependencies(
    plan: &Plan<'_>,
    service: &Service,
    writer: &mut Writer<'_>,
) -> Result<(), ExportError> {
    for (name, wanted) in &service.depends_on {
        let from = From {
            at: service.at(&format!("depends_on.{name}")),
            key: format!("services.{}.depends_on.{name}", service.name),
        };
        let Some(other) = plan.project.services.get(name) else {
            continue;
        };
        let mut needs = "Wants";
        match wanted.condition {
            Condition::Started => {}
            Condition::Completed => needs = "Requires",
            Condition::Healthy if !awaited(plan, other).healthy => writer.warn(
                &from,
                format!("{name} has no healthcheck in the file, only its start is waited for"),
                format!("give {name} a `healthcheck` with a `test`"),
            ),
            Condition::Healthy if plan.options.podman.is_some_and(|target| !target.has(HEALTHY)) => writer
                .warn(
                    &from,
                    format!("only the start of {name} is waited for"),
                    format!("use Podman {HEALTHY} or later, which tells when a container is healthy"),
                ),
            Condition::Healthy => needs = "Requires",
        }
        if !plan.services.iter().any(|exported| exported.name == *name) {
            writer.warn(
                &from,
                format!("{name} is not among the services that are exported"),
                format!(
                    "export it too, or start what stands for it before {}",
                    service.name
                ),
            );
            needs = "Wants";
        }
        if !wanted.required {
            needs = "Wants";
        }
        for unit in plan.units(other) {
            let unit = format!("{unit}.service");
            writer.put(Section::Unit, needs, &unit, &from)?;
            writer.put(Section::Unit, "After", &unit, &from)?;
        }
    }
    Ok(())
}
