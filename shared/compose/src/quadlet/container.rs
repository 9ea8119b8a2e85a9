//! A service as a `.container` unit.

use super::directive::Section::{Container, Install, Service as Manager, Unit};
use super::health::{self, Awaited};
use super::writer::{From, Writer, header};
use super::{Artifact, Export, ExportError, Mode, Plan, image, lost, place};
use crate::model::{Restart, Service};
use crate::notice::Notice;

/// Pulling an image counts as starting; the manager's own 90 s are too short for that.
const START_LIMIT: &str = "900";
/// What the manager waits for beyond the container's own grace.
const STOP_MARGIN: u64 = 10;

/// Writes the unit `name`, which is the `replica`th of its service if there are several.
pub(super) fn write(
    plan: &Plan<'_>,
    service: &Service,
    name: &str,
    replica: Option<usize>,
    out: &mut Export,
) -> Result<(), ExportError> {
    let file = format!("{name}.container");
    // What there is to say is the same for all of them.
    let mut said = Vec::new();
    let mut writer = Writer::new(plan.options.podman, &mut said);
    let unit = One {
        plan,
        service,
        name,
        replica,
        in_pod: plan.options.mode == Mode::Pod,
        awaited: health::awaited(plan, service),
    };
    unit.head(&mut writer)?;
    unit.program(&mut writer)?;
    unit.world(&mut writer)?;
    place::mounts(plan, service, &mut writer)?;
    place::grants(plan, service, &mut writer)?;
    if !unit.in_pod {
        place::attachments(plan, service, &mut writer)?;
        place::ports(service, &mut writer)?;
    }
    unit.limits(&mut writer)?;
    unit.log(&mut writer)?;
    health::write(service, &mut writer)?;
    unit.life(&mut writer)?;
    lost::tell(service, &file, plan.units(service).len(), &mut writer);
    let text = writer.seal(&header(plan, "container", &service.name)?)?;
    if replica.is_none_or(|replica| replica == 1) {
        out.notices.append(&mut said);
    }
    out.artifacts.push(Artifact { name: file, text });
    Ok(())
}

struct One<'a> {
    plan: &'a Plan<'a>,
    service: &'a Service,
    name: &'a str,
    replica: Option<usize>,
    in_pod: bool,
    awaited: Awaited,
}

impl One<'_> {
    fn from(&self, path: &str) -> From {
        origin(self.service, path)
    }

    fn head(&self, writer: &mut Writer<'_>) -> Result<(), ExportError> {
        let own = self.from("image");
        let replica = self.replica.map(|replica| format!(" {replica}"));
        let description = format!(
            "{}{} of {}",
            self.service.name,
            replica.unwrap_or_default(),
            self.plan.project.name
        );
        writer.put(Unit, "Description", &description, &own)?;
        writer.put(Unit, "Wants", "network-online.target", &own)?;
        writer.put(Unit, "After", "network-online.target", &own)?;
        health::dependencies(self.plan, self.service, writer)?;
        if let Restart::OnFailure(Some(count)) = self.service.restart {
            let from = self.from("restart");
            writer.put(Unit, "StartLimitBurst", &count.to_string(), &from)?;
            writer.notice(Notice::info(
                &from.at,
                &from.key,
                format!("{count} starts within ten seconds are the limit of the service manager"),
                "set StartLimitIntervalSec= in a drop-in for another span",
            ));
        }
        Ok(())
    }

    fn program(&self, writer: &mut Writer<'_>) -> Result<(), ExportError> {
        let service = self.service;
        writer.put(Container, "Image", &image(service), &self.from("image"))?;
        if let Some(build) = &service.build {
            let from = self.from("build");
            let file = build.dockerfile.as_ref().map(|file| format!("-f {file} "));
            let stage = build.target.as_ref().map(|stage| format!("--target {stage} "));
            let given = if service.has("build.args") {
                "--build-arg NAME=VALUE… "
            } else {
                ""
            };
            let context = crate::path::relative(&self.plan.project.root, build.context.as_str().into())
                .map_or_else(|| build.context.clone(), |inside| format!("./{inside}"));
            writer.warn(
                &from,
                "an image is not built by its unit",
                format!(
                    "build it first: `podman build {}{}{given}-t {} {context}`",
                    file.unwrap_or_default(),
                    stage.unwrap_or_default(),
                    image(service)
                ),
            );
        }
        let mut container = service.container_name.as_deref().unwrap_or(self.name);
        if self.in_pod && container == self.plan.own() {
            writer.warn(
                &self.from("container_name"),
                format!("{container} is the name of the pod, and both would need it"),
                format!("it is called {} here; choose another name to keep it", self.name),
            );
            container = self.name;
        }
        writer.put(
            Container,
            "ContainerName",
            container,
            &self.from("container_name"),
        )?;
        if let Some(policy) = service.pull_policy.as_deref() {
            let from = self.from("pull_policy");
            match policy {
                "always" | "never" | "missing" => writer.put(Container, "Pull", policy, &from)?,
                "if_not_present" => writer.put(Container, "Pull", "missing", &from)?,
                "build" => writer.put(Container, "Pull", "never", &from)?,
                "daily" | "weekly" => writer.put(Container, "Pull", "newer", &from)?,
                _ => writer.warn(
                    &from,
                    format!("`{policy}` has no counterpart"),
                    "use always, missing or never",
                ),
            }
        }
        if let Some(words) = &service.entrypoint {
            let from = self.from("entrypoint");
            let value = match words.as_slice() {
                [word] if !word.starts_with('[') && !word.contains(char::is_whitespace) => word.clone(),
                words => health::list(words),
            };
            writer.put(Container, "Entrypoint", &value, &from)?;
        }
        if let Some(words) = &service.command {
            let from = self.from("command");
            if words.iter().any(String::is_empty) {
                writer.warn(
                    &from,
                    "Podman drops the empty arguments of it",
                    "run it through a shell: [\"sh\", \"-c\", …]",
                );
            }
            let words: Vec<&str> = words
                .iter()
                .map(String::as_str)
                .filter(|word| !word.is_empty())
                .collect();
            if !words.is_empty() {
                writer.put_words(Container, "Exec", &words, &from)?;
            }
        }
        if let Some(directory) = &service.working_dir {
            writer.put(Container, "WorkingDir", directory, &self.from("working_dir"))?;
        }
        if let Some(user) = &service.user {
            let from = self.from("user");
            let (user, group) = user
                .split_once(':')
                .map_or((user.as_str(), None), |(user, group)| (user, Some(group)));
            writer.put(Container, "User", user, &from)?;
            if let Some(group) = group {
                writer.put(Container, "Group", group, &from)?;
            }
        }
        for group in &service.group_add {
            writer.put(Container, "GroupAdd", group, &self.from("group_add"))?;
        }
        Ok(())
    }

    /// Environment, labels, and what it sees around it.
    fn world(&self, writer: &mut Writer<'_>) -> Result<(), ExportError> {
        let service = self.service;
        for (key, value) in &service.environment {
            let path = format!("environment.{key}");
            let from = self.from(&path);
            check_variable(key, &from)?;
            if !value.is_empty() && looks_secret(key) {
                writer.warn(
                    &from,
                    "a secret, as it seems, stands in the unit for everybody to read",
                    "hand it over as one of `secrets`; many images read KEY_FILE",
                );
            }
            writer.put(Container, "Environment", &format!("{key}={value}"), &from)?;
        }
        for (directive, path, texts) in [
            ("Label", "labels", &service.labels),
            ("Annotation", "annotations", &service.annotations),
        ] {
            for (key, value) in texts {
                let from = self.from(&format!("{path}.{key}"));
                writer.put(Container, directive, &format!("{key}={value}"), &from)?;
            }
        }
        if self.in_pod {
            for path in ["hostname", "dns_opt", "dns_search"] {
                if service.has(path) {
                    let what = "containers of a pod have one for all, it is left out";
                    writer.warn(&self.from(path), what, "export with --mode containers");
                }
            }
        } else {
            if let Some(name) = &service.hostname {
                writer.put(Container, "HostName", name, &self.from("hostname"))?;
            }
            for (directive, path, values) in [
                ("DNS", "dns", &service.dns),
                ("DNSOption", "dns_opt", &service.dns_opt),
                ("DNSSearch", "dns_search", &service.dns_search),
            ] {
                for value in values {
                    writer.put(Container, directive, value, &self.from(path))?;
                }
            }
            for (name, address) in &service.extra_hosts {
                let from = self.from("extra_hosts");
                writer.put(Container, "AddHost", &format!("{name}:{address}"), &from)?;
            }
        }
        for (key, value) in &service.sysctls {
            let from = self.from(&format!("sysctls.{key}"));
            if self.in_pod && key.starts_with("net.") {
                let what = "containers of a pod share the network, it is left out";
                writer.warn(&from, what, "export with --mode containers");
            } else {
                writer.put(Container, "Sysctl", &format!("{key}={value}"), &from)?;
            }
        }
        Ok(())
    }

    fn limits(&self, writer: &mut Writer<'_>) -> Result<(), ExportError> {
        let service = self.service;
        if service.init {
            writer.put(Container, "RunInit", "true", &self.from("init"))?;
        }
        if service.read_only {
            writer.put(Container, "ReadOnly", "true", &self.from("read_only"))?;
        }
        for option in &service.security_opt {
            let from = self.from("security_opt");
            match option.replace('=', ":").as_str() {
                "no-new-privileges" | "no-new-privileges:true" => {
                    writer.put(Container, "NoNewPrivileges", "true", &from)?;
                }
                "no-new-privileges:false" => {}
                _ => writer.warn(
                    &from,
                    format!("`{option}` changes what isolates the container and is never exported"),
                    format!(
                        "write what is needed into {}.container.d/10-local.conf",
                        self.name
                    ),
                ),
            }
        }
        if !service.cap_drop.is_empty() {
            let dropped: Vec<String> = service
                .cap_drop
                .iter()
                .map(|cap| cap.to_ascii_lowercase())
                .collect();
            let words: Vec<&str> = dropped.iter().map(String::as_str).collect();
            writer.put_words(Container, "DropCapability", &words, &self.from("cap_drop"))?;
        }
        for (name, (soft, hard)) in &service.ulimits {
            let from = self.from(&format!("ulimits.{name}"));
            writer.put(Container, "Ulimit", &format!("{name}={soft}:{hard}"), &from)?;
        }
        if let Some(limit) = service.pids_limit {
            writer.put(
                Container,
                "PidsLimit",
                &limit.to_string(),
                &self.from("pids_limit"),
            )?;
        }
        if let Some(size) = service.shm_size
            && !self.in_pod
        {
            writer.put(Container, "ShmSize", &size.to_string(), &self.from("shm_size"))?;
        }
        if let Some(bytes) = service.memory {
            let from = self.either("deploy.resources.limits.memory", "mem_limit");
            // The container is in the control group of its unit, so the manager's limit is as good.
            if writer.knows(Container, "Memory") {
                writer.put(Container, "Memory", &bytes.to_string(), &from)?;
            } else {
                writer.put(Manager, "MemoryMax", &bytes.to_string(), &from)?;
            }
        }
        if let Some(cpus) = service.cpus {
            let from = self.either("deploy.resources.limits.cpus", "cpus");
            let percent = (cpus * 100.0).round();
            if (1.0..=1_000_000.0).contains(&percent) {
                writer.put(Manager, "CPUQuota", &format!("{percent}%"), &from)?;
            } else {
                writer.warn(
                    &from,
                    "is no share of a processor, it is left out",
                    "write a number such as 0.5",
                );
            }
        }
        Ok(())
    }

    /// The key that is there, of two for one thing.
    fn either(&self, path: &str, old: &str) -> From {
        self.from(if self.service.has(path) { path } else { old })
    }

    fn log(&self, writer: &mut Writer<'_>) -> Result<(), ExportError> {
        let Some(logging) = &self.service.logging else {
            return Ok(());
        };
        let from = self.from("logging");
        let has_size = logging.options.contains_key("max-size");
        let driver = match logging.driver.as_deref() {
            None if has_size => "k8s-file",
            None => return Ok(()),
            // Podman's own file format; `json-file` is another name for it.
            Some("json-file" | "k8s-file" | "local") => "k8s-file",
            Some("journald") => "journald",
            Some("none") => "none",
            Some(other) => {
                writer.warn(
                    &self.from("logging.driver"),
                    format!("Podman has no log driver {other}, the log goes to the journal"),
                    "send it on from the journal",
                );
                return Ok(());
            }
        };
        writer.put(Container, "LogDriver", driver, &from)?;
        for (key, value) in &logging.options {
            let from = self.from(&format!("logging.options.{key}"));
            match key.as_str() {
                "max-size" if driver == "k8s-file" => {
                    let size =
                        crate::measure::bytes(value).map_or_else(|| value.clone(), |size| size.to_string());
                    writer.put(Container, "LogOpt", &format!("max-size={size}"), &from)?;
                }
                "tag" if driver == "journald" => {
                    writer.put(Container, "LogOpt", &format!("tag={value}"), &from)?;
                }
                // One file is kept and begun anew; a number of files says how much was wanted at most.
                "max-file" | "compress" if driver == "k8s-file" => writer.notice(Notice::info(
                    &from.at,
                    &from.key,
                    "Podman keeps one file",
                    "raise max-size if more is to be kept",
                )),
                _ => writer.warn(
                    &from,
                    format!("Podman's log driver {driver} has no such option"),
                    "leave it out",
                ),
            }
        }
        Ok(())
    }

    /// How it starts, stops and starts again.
    fn life(&self, writer: &mut Writer<'_>) -> Result<(), ExportError> {
        let service = self.service;
        if self.in_pod {
            let from = self.from("image");
            writer.put(Container, "Pod", &format!("{}.pod", self.plan.own()), &from)?;
            // True by default where the directive is known.
            if writer.knows(Container, "StartWithPod") {
                writer.put(Container, "StartWithPod", "true", &from)?;
            }
        }
        if self.awaited.healthy && writer.knows(Container, "Notify") {
            writer.put(Container, "Notify", "healthy", &self.from("healthcheck"))?;
        }
        if let Some(signal) = &service.stop_signal {
            writer.put(Container, "StopSignal", signal, &self.from("stop_signal"))?;
        }
        let restart = self.from("restart");
        let policy = match (service.restart, self.awaited.completed) {
            (Restart::No, _) => "no",
            (Restart::OnFailure(_), _) => "on-failure",
            // What others wait to end must not begin anew.
            (Restart::Always | Restart::UnlessStopped, true) => "on-failure",
            (Restart::Always | Restart::UnlessStopped, false) => "always",
        };
        if self.awaited.completed {
            writer.put(Manager, "Type", "oneshot", &restart)?;
            writer.put(Manager, "RemainAfterExit", "yes", &restart)?;
        }
        writer.put(Manager, "Restart", policy, &restart)?;
        writer.put(Manager, "TimeoutStartSec", START_LIMIT, &restart)?;
        if let Some(grace) = service.stop_grace_period {
            let from = self.from("stop_grace_period");
            let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
            writer.put(Container, "StopTimeout", &seconds.to_string(), &from)?;
            let limit = seconds.saturating_add(STOP_MARGIN);
            writer.put(Manager, "TimeoutStopSec", &limit.to_string(), &from)?;
        }
        writer.put(Install, "WantedBy", "default.target", &restart)
    }
}

/// Where a key of a service stands, and its whole name.
pub(super) fn origin(service: &Service, path: &str) -> From {
    From {
        at: service.at(path),
        key: format!("services.{}.{path}", service.name),
    }
}

pub(super) fn check_variable(name: &str, from: &From) -> Result<(), ExportError> {
    let mut letters = name.chars();
    let starts = letters
        .next()
        .is_some_and(|first| first == '_' || first.is_ascii_alphabetic());
    // Dots and dashes are no names for a shell, but for much of what is written in Java.
    if starts && letters.all(|letter| "_.-".contains(letter) || letter.is_ascii_alphanumeric()) {
        return Ok(());
    }
    Err(ExportError::Variable {
        at: from.at.clone(),
        key: from.key.clone(),
        name: name.to_owned(),
    })
}

/// Whether the name of a variable says that its value is not for everybody. The name of a file is.
pub(super) fn looks_secret(key: &str) -> bool {
    let key = key.to_ascii_uppercase();
    !key.ends_with("_FILE")
        && ["PASSWORD", "SECRET", "TOKEN", "KEY"]
            .iter()
            .any(|word| key.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_hide_something() {
        for key in ["DB_PASSWORD", "api_token", "SECRET", "AWS_ACCESS_KEY_ID"] {
            assert!(looks_secret(key), "{key}");
        }
        for key in ["DB_PASSWORD_FILE", "USER", "TZ"] {
            assert!(!looks_secret(key), "{key}");
        }
    }
}
