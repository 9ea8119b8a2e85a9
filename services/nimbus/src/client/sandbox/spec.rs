//! What a sandbox shall be, from flags.

use std::time::Duration;

use serde_json::{Map, Value, json};
use url::Url;

use crate::client::workloads::{pair, pairs};

/// What `run` and `create` take.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SpecArgs {
    /// The image, such as `python:3.12-slim`.
    pub(crate) image: String,

    /// What to run; the image's own command when it is left out. Comes after the image's entrypoint. Flags
    /// end with its first word; put `--` before a word that looks like one.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) argv: Vec<String>,

    /// What it is called in lists and at the front of its id.
    #[arg(long)]
    pub(crate) name: Option<String>,

    /// What it is for.
    #[arg(long, default_value = "worker", value_parser = ["worker", "desktop"])]
    pub(crate) profile: String,

    /// What isolates it.
    #[arg(long, default_value = "container", value_parser = ["container", "krun"])]
    pub(crate) backend: String,

    /// Variable of the environment; may be repeated. Without a value, that of this shell.
    #[arg(long = "env", short, value_name = "KEY[=VALUE]", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,

    /// Secret of the tenant as a variable; may be repeated.
    #[arg(long = "secret", value_name = "NAME=VARIABLE", value_parser = pair)]
    secrets: Vec<(String, String)>,

    /// Working directory.
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,

    /// `uid[:gid]` or a name that the image knows.
    #[arg(long, short)]
    user: Option<String>,

    /// Program to run instead of the image's entrypoint.
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,

    /// Port to publish; may be repeated.
    #[arg(long = "port", short, value_name = "[NAME=]PORT[/tcp|http|https]", value_parser = port)]
    ports: Vec<Value>,

    /// Something it may reach; may be repeated. By default it reaches nothing.
    #[arg(long = "allow", value_name = "URL", value_parser = rule)]
    allow: Vec<Value>,

    /// Volume of the tenant; may be repeated.
    #[arg(long = "volume", short, value_name = "NAME:PATH[:ro]", value_parser = volume)]
    volumes: Vec<Value>,

    /// Folder in memory; may be repeated.
    #[arg(long, value_name = "PATH[:SIZE]", value_parser = tmpfs)]
    tmpfs: Vec<Value>,

    /// Processors.
    #[arg(long, value_name = "N")]
    cpus: Option<f64>,

    /// Memory, such as 512MiB.
    #[arg(long, short, value_name = "SIZE", value_parser = bytes)]
    memory: Option<u64>,

    /// Writable disk, such as 5GiB.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    disk: Option<u64>,

    /// Most processes and threads.
    #[arg(long, value_name = "N")]
    pids: Option<u32>,

    /// Mount the image's files read-only.
    #[arg(long)]
    read_only: bool,

    /// Stop it after this time.
    #[arg(long, value_name = "TIME", value_parser = nimbus_config::seconds_or_text)]
    ttl: Option<Duration>,

    /// Stop it when nobody has used it for this long.
    #[arg(long, value_name = "TIME", value_parser = nimbus_config::seconds_or_text)]
    pub(crate) idle_timeout: Option<Duration>,

    /// How long a polite stop may take.
    #[arg(long, value_name = "TIME", value_parser = nimbus_config::seconds_or_text)]
    stop_timeout: Option<Duration>,

    /// When to start the command again.
    #[arg(long, value_name = "no|on-failure[:N]|always[:N]", value_parser = restart)]
    restart: Option<Value>,

    /// Label; may be repeated.
    #[arg(long = "label", short, value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
}

impl SpecArgs {
    /// The body of the request that makes it.
    pub(crate) fn body(&self, terminal: bool) -> Value {
        let mut process = Map::new();
        match (&self.entrypoint, self.argv.is_empty()) {
            (Some(program), _) => {
                process.insert("entrypoint".into(), json!([program]));
                process.insert("command".into(), json!(self.argv));
            }
            (None, false) => {
                process.insert("command".into(), json!(self.argv));
            }
            (None, true) => {}
        }
        if !self.env.is_empty() {
            let list: Vec<String> = self
                .env
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            process.insert("env".into(), json!(list));
        }
        if !self.secrets.is_empty() {
            let list: Vec<Value> = self
                .secrets
                .iter()
                .map(|(secret, variable)| json!({ "secret": secret, "variable": variable }))
                .collect();
            process.insert("secrets".into(), json!(list));
        }
        put(&mut process, "cwd", self.workdir.as_deref());
        put(&mut process, "user", self.user.as_deref());
        if terminal {
            process.insert("terminal".into(), json!(true));
        }

        let mut owner = Map::from_iter([("kind".to_owned(), json!("standalone"))]);
        put(&mut owner, "displayName", self.name.as_deref());
        let mut spec = Map::from_iter([
            ("owner".to_owned(), Value::Object(owner)),
            ("backend".to_owned(), json!(self.backend)),
            (
                "root".to_owned(),
                json!({ "kind": "oci_image", "source": { "kind": "reference", "reference": self.image } }),
            ),
        ]);
        let mut resources = Map::new();
        put(&mut resources, "vcpus", self.cpus.map(number));
        put(&mut resources, "memoryBytes", self.memory);
        put(&mut resources, "diskBytes", self.disk);
        put(&mut resources, "pids", self.pids);
        let mut lifecycle = Map::new();
        put(&mut lifecycle, "restartPolicy", self.restart.clone());
        put(&mut lifecycle, "stopTimeoutMs", self.stop_timeout.map(ms));
        for (name, object) in [
            ("process", process),
            ("resources", resources),
            ("lifecycle", lifecycle),
        ] {
            if !object.is_empty() {
                spec.insert(name.to_owned(), Value::Object(object));
            }
        }
        if !self.ports.is_empty() {
            spec.insert("ports".into(), json!(self.ports));
        }
        if !self.allow.is_empty() {
            spec.insert("network".into(), json!({ "egress": { "allow": self.allow } }));
        }
        let mounts: Vec<&Value> = self.volumes.iter().chain(&self.tmpfs).collect();
        if !mounts.is_empty() {
            spec.insert("mounts".into(), json!(mounts));
        }
        put(&mut spec, "ttlMs", self.ttl.map(ms));
        put(&mut spec, "idleTimeoutMs", self.idle_timeout.map(ms));
        if self.read_only {
            spec.insert("readOnlyRoot".into(), json!(true));
        }
        let mut body = json!({ "profile": self.profile, "spec": spec });
        if let (Some(body), false) = (body.as_object_mut(), self.labels.is_empty()) {
            body.insert("labels".into(), pairs(&self.labels));
        }
        body
    }
}

fn put(object: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), value.into());
    }
}

/// A whole number as one.
#[expect(clippy::cast_possible_truncation, reason = "the value is whole and small")]
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e6 {
        Value::from(value as i64)
    } else {
        Value::from(value)
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// `KEY=value`, or `KEY` for the value that it has here.
pub(crate) fn variable(text: &str) -> Result<(String, String), String> {
    if text.contains('=') {
        return pair(text).map_err(str::to_owned);
    }
    std::env::var(text)
        .map(|value| (text.to_owned(), value))
        .map_err(|_| format!("{text} is not set here"))
}

fn port(text: &str) -> Result<Value, String> {
    let (name, rest) = match text.split_once('=') {
        Some((name, rest)) => (Some(name), rest),
        None => (None, text),
    };
    let (port, protocol) = rest.split_once('/').unwrap_or((rest, "tcp"));
    let port: u16 = port
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or("expected a port from 1 to 65535, such as 8080/http")?;
    if !["tcp", "http", "https"].contains(&protocol) {
        return Err("the protocol is tcp, http or https".into());
    }
    let mut value = json!({ "guestPort": port, "protocol": protocol });
    if let (Some(object), Some(name)) = (value.as_object_mut(), name) {
        object.insert("name".into(), json!(name));
    }
    Ok(value)
}

/// `https://HOST[:PORT]` and the like, as a rule of what may be reached.
pub(crate) fn rule(text: &str) -> Result<Value, String> {
    let wrong = "expected https://HOST[:PORT], http://HOST[:PORT] or tcp://HOST:PORT";
    let url: Url = text.parse().map_err(|_| wrong)?;
    let port = match url.scheme() {
        "https" => url.port().unwrap_or(443),
        "http" => url.port().unwrap_or(80),
        "tcp" => url.port().ok_or(wrong)?,
        _ => return Err(wrong.into()),
    };
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(wrong)?;
    if !matches!(url.path(), "" | "/") || url.query().is_some() || !url.username().is_empty() {
        return Err(wrong.into());
    }
    Ok(json!({
        "name": format!("{}-{host}-{port}", url.scheme()), "protocol": url.scheme(), "host": host, "port": port,
    }))
}

fn volume(text: &str) -> Result<Value, String> {
    let wrong = "expected NAME:/PATH or NAME:/PATH:ro";
    let (name, rest) = text.split_once(':').ok_or(wrong)?;
    let (target, read_only) = match rest.strip_suffix(":ro") {
        Some(target) => (target, true),
        None => (rest, false),
    };
    // A folder of this computer is none of the tenant's volumes.
    if name.is_empty() || name.contains('/') || !target.starts_with('/') {
        return Err(wrong.into());
    }
    Ok(json!({ "kind": "volume", "name": name, "target": target, "readOnly": read_only }))
}

fn tmpfs(text: &str) -> Result<Value, String> {
    let (target, size) = match text.split_once(':') {
        Some((target, size)) => (target, Some(bytes(size)?)),
        None => (text, None),
    };
    if !target.starts_with('/') {
        return Err("expected /PATH or /PATH:SIZE".into());
    }
    let mut value = json!({ "kind": "tmpfs", "target": target });
    if let (Some(object), Some(size)) = (value.as_object_mut(), size) {
        object.insert("sizeBytes".into(), json!(size));
    }
    Ok(value)
}

fn restart(text: &str) -> Result<Value, String> {
    let (kind, most) = match text.split_once(':') {
        Some((kind, most)) => {
            let most: u32 = most.parse().map_err(|_| "expected a number after the colon")?;
            (kind, Some(most))
        }
        None => (text, None),
    };
    match (kind, most) {
        ("no" | "never", None) => Ok(json!({ "kind": "never" })),
        ("on-failure", most) => Ok(json!({ "kind": "onFailure", "maxRestarts": most.unwrap_or(10) })),
        ("always", None) => Ok(json!({ "kind": "always" })),
        ("always", Some(most)) => Ok(json!({ "kind": "always", "maxRestarts": most })),
        _ => Err("expected no, on-failure[:N] or always[:N]".into()),
    }
}

/// A size: a number of bytes, or one with K, M, G, T and an optional `iB` or `B`, all powers of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "expected a size such as 512MiB or 2g".to_owned();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit
        .to_ascii_lowercase()
        .trim_end_matches('b')
        .trim_end_matches('i')
    {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    // Tenths are enough, and exact.
    let tenths: u64 = match part {
        "" => 0,
        part if part.len() == 1 => part.parse().map_err(|_| wrong())?,
        _ => return Err(wrong()),
    };
    let unit = 1_u64 << shift;
    whole
        .checked_mul(unit)
        .and_then(|bytes| bytes.checked_add(tenths * unit / 10))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        spec: SpecArgs,
    }

    fn body(words: &[&str]) -> Value {
        Line::try_parse_from(std::iter::once("test").chain(words.iter().copied()))
            .unwrap()
            .spec
            .body(false)
    }

    #[test]
    fn the_shortest_line_says_only_what_was_said() {
        assert_eq!(
            body(&["busybox"]),
            json!({ "profile": "worker", "spec": {
                "owner": { "kind": "standalone" }, "backend": "container",
                "root": { "kind": "oci_image", "source": { "kind": "reference", "reference": "busybox" } },
            } })
        );
    }

    #[test]
    fn what_follows_the_image_is_its_command() {
        let spec = body(&["--env", "A=b", "busybox", "sh", "-c", "echo --env", "--", "-x"]);
        assert_eq!(
            spec["spec"]["process"],
            json!({ "command": ["sh", "-c", "echo --env", "--", "-x"], "env": ["A=b"] })
        );
        let spec = body(&["busybox", "--", "ls", "-l"]);
        assert_eq!(spec["spec"]["process"]["command"], json!(["ls", "-l"]));
        let spec = body(&["--entrypoint", "/bin/ls", "busybox", "--", "-l"]);
        assert_eq!(
            spec["spec"]["process"],
            json!({ "entrypoint": ["/bin/ls"], "command": ["-l"] })
        );
        let spec = body(&["busybox", "--name", "n", "sh", "--name", "m"]);
        assert_eq!(spec["spec"]["owner"]["displayName"], "n");
        assert_eq!(spec["spec"]["process"]["command"], json!(["sh", "--name", "m"]));
    }

    #[test]
    fn everything_finds_its_place() {
        let spec = body(&[
            "--name",
            "n",
            "--profile",
            "desktop",
            "--ttl",
            "1h",
            "--idle-timeout",
            "10m",
            "--secret",
            "s=V",
            "--port",
            "web=8080/http",
            "--cpus",
            "0.5",
            "--memory",
            "512MiB",
            "--allow",
            "https://pypi.org",
            "--allow",
            "tcp://db:5432",
            "--label",
            "k=v",
            "--volume",
            "data:/data:ro",
            "--tmpfs",
            "/t:64m",
            "--read-only",
            "--restart",
            "on-failure:3",
            "--stop-timeout",
            "2s",
            "-u",
            "1000",
            "-w",
            "/w",
            "i",
        ]);
        assert_eq!(
            spec,
            json!({ "profile": "desktop", "labels": { "k": "v" }, "spec": {
                "owner": { "kind": "standalone", "displayName": "n" }, "backend": "container",
                "root": { "kind": "oci_image", "source": { "kind": "reference", "reference": "i" } },
                "process": { "secrets": [{ "secret": "s", "variable": "V" }], "cwd": "/w", "user": "1000" },
                "resources": { "vcpus": 0.5, "memoryBytes": 536_870_912 },
                "lifecycle": { "restartPolicy": { "kind": "onFailure", "maxRestarts": 3 }, "stopTimeoutMs": 2000 },
                "ports": [{ "name": "web", "guestPort": 8080, "protocol": "http" }],
                "network": { "egress": { "allow": [
                    { "name": "https-pypi.org-443", "protocol": "https", "host": "pypi.org", "port": 443 },
                    { "name": "tcp-db-5432", "protocol": "tcp", "host": "db", "port": 5432 },
                ] } },
                "mounts": [
                    { "kind": "volume", "name": "data", "target": "/data", "readOnly": true },
                    { "kind": "tmpfs", "target": "/t", "sizeBytes": 67_108_864 },
                ],
                "ttlMs": 3_600_000, "idleTimeoutMs": 600_000, "readOnlyRoot": true,
            } })
        );
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("1", 1),
            ("512MiB", 512 << 20),
            ("512m", 512 << 20),
            ("1.5G", 3 << 29),
            ("2TB", 2 << 40),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for wrong in ["", "m", "-1", "0", "1x", "1.55g", "99999999999t", "1..5g"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn wrong_values_are_refused() {
        for wrong in ["0", "70000", "80/udp", "x"] {
            assert!(port(wrong).is_err(), "{wrong}");
        }
        for wrong in [
            "pypi.org",
            "tcp://db",
            "ftp://x",
            "https://x/path",
            "https://a@x",
            "https://",
        ] {
            assert!(rule(wrong).is_err(), "{wrong}");
        }
        for wrong in ["/host:/data", ":/data", "data", "data:data"] {
            assert!(volume(wrong).is_err(), "{wrong}");
        }
        assert!(restart("sometimes").is_err() && restart("no:1").is_err() && tmpfs("t").is_err());
        assert!(variable("NIMBUS_SURELY_NOT_SET").is_err());
    }
}
